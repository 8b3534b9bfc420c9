"""Types that signatures share; closed forms in numpy need nothing else of the package."""

from collections.abc import Callable

import numpy as np

type Array = np.ndarray
type Field = Callable[[float, Array], Array]  # (t, x) to (N,), x of shape (N, d)
type VectorField = Callable[[float, Array], Array]  # (t, x) to (N, d)
