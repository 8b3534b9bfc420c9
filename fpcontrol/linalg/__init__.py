"""Linear solvers and the buffers that they work in."""
