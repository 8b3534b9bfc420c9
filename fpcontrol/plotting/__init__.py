"""Pictures and films of densities and of results, by matplotlib on rank 0, without pyplot.

Importing this package, or drawing with it, neither loads pyplot nor chooses a backend: that is left
to the program, as are matplotlib's settings (style sheets, ``rcParams``), which pictures follow.

Every function is collective: its data is gathered from all ranks. Rank 0 gets the Figure, the other
ranks ``None``. In a notebook the Figure shows itself; given a path it is written there too, in the
format of the suffix and whole or not at all. Axes to draw into can be handed over (``ax=``, or
``axes=`` where there are several panels); those of rank 0 count. Surfaces in space are drawn by
pyvista instead, loaded when they are asked for.
"""

from fpcontrol.plotting.densities import density
from fpcontrol.plotting.isosurfaces import isosurfaces
from fpcontrol.plotting.moving import animation
from fpcontrol.plotting.over_time import observables
from fpcontrol.plotting.tracked import convergence, error_over_time, tracking

__all__ = [
    "animation",
    "convergence",
    "density",
    "error_over_time",
    "isosurfaces",
    "observables",
    "tracking",
]
