"""Network drifts as controls: the tracking problem, its adjoint, its minimization."""
