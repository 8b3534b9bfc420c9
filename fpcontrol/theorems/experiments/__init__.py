"""Experiments that statements share or that need a module of their own."""
