"""Densities, drifts and flows known in closed form."""
