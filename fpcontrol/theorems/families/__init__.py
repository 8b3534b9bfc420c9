"""What experiments are made of: densities and drifts in closed form, and runs of them."""
