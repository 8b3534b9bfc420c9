"""Experiments that a statement lists beside those of its own module."""
