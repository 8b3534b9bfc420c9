"""Space: what a drift and a diffusivity make of a mesh, as arrays and matrices."""
