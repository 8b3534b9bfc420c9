"""Runs of the solvers that several experiments take."""
