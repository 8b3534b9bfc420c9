"""A page of what was found, with formulas and pictures."""
