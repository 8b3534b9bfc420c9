"""Ranks: errors that all of them see, signals, whole files, progress."""
