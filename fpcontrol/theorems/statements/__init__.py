"""The statements: one module each, with what is claimed, derived and run."""
