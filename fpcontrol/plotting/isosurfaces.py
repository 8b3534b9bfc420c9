"""A density in space: surfaces on which it is constant, by pyvista."""

import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from dolfinx import fem

from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.files import replacing
from fpcontrol.plotting.canvas import Sample, negative_part
from fpcontrol.plotting.picture import VERMILION, check_number, picture_path
from fpcontrol.plotting.scene import every, highest
from fpcontrol.typing import Array

if TYPE_CHECKING:
    import pyvista

FORMATS = "bmp", "jpeg", "jpg", "png", "tif", "tiff"  # that pyvista writes
DOTS = 10_000
WINDOW = 1200, 900  # pixels
MERGED = 1e-9  # of the domain's size: points nearer to each other are one
FAINT, STRONG = 0.2, 0.8  # opacity of the lowest level and of the highest
SHELL = [0.0, 0.6]  # opacity of the walls, from no density to the largest
AWAY = 0.85  # zoom, so that labels beside the domain are inside


def isosurfaces(
    rho: fem.Function,
    path: str | os.PathLike[str] | None = None,
    *,
    levels: int | Sequence[float] | Array = 4,
    particles: Array | None = None,
    highest_density: float | None = None,
    title: str = "",
    unit: str = "",
) -> "pyvista.Plotter | None":
    r"""Draw a 3-D density by surfaces on which it is constant, within its walls. Collective.

    A cell is drawn as ``degree**3`` tetrahedra between its nodes, on which the density is linear.
    Surfaces of higher levels hide more of what is behind them, and so do walls where the density
    there is higher. What is negative is enclosed by a surface of a colour of its own, and the
    picture says on what share of the domain that is and how low it goes. Needs pyvista:
    ``pip install 'fpcontrol[plotting-3d]'``.

    Args:
        rho: The density, such as ``trajectory[-1]``; continuous, of degree 1 to 3.
        path: Picture file to write, of the format of its suffix: png, jpg, bmp or tif.
        levels: Densities, above zero, whose surfaces are drawn; or how many, evenly between zero
            and the end of the scale. One that the density does not reach has no surface.
        particles: This rank's particles, ``(n, 3)``, such as ``swarm.points``, drawn as dots, but
            for those that have left, which are nan: 10 000, evenly chosen, if they are more.
        highest_density: End of the scale of colours, the largest density unless given: the same for
            pictures of several times.
        title: Above the picture.
        unit: Unit of length of the mesh, such as ``"km"``, for the labels.

    Returns:
        On rank 0 a plotter, which a notebook shows, and a window by its ``show()``; its camera may
        be moved and more be added first. ``None`` on the others.

    Raises:
        ImportError: On all ranks, if pyvista is not installed.
        ValueError: On all ranks, for an unknown format, for what is no continuous density in 3-D,
            or a bad level, scale or array of particles.
        OSError: On all ranks, if the file cannot be written.
    """
    if not isinstance(rho, fem.Function):
        raise ValueError(
            f"rho, a {type(rho).__name__}, is no density; give a dolfinx Function, such as "
            "trajectory[-1]."
        )
    space = rho.function_space
    comm, dim = comm_of(space.mesh), space.mesh.topology.dim
    if dim != 3:
        raise ValueError(f"rho is {dim}-D: isosurfaces are of 3-D; see fpc.plotting.density.")
    if space.element.basix_element.discontinuous or tuple(space.element.value_shape):
        raise ValueError(
            f"rho is of {space.ufl_element()}: a scalar of continuous Lagrange elements is needed."
        )
    if highest_density is not None:
        check_number("highest_density", highest_density, 0.0)
    target = picture_path(path, comm, FORMATS)
    g = Elements(space)
    top = float(highest(comm, rho.x.array[None, :])[0])
    scale = float(highest_density or (top if top > 0.0 else 1.0))
    chosen = _levels(levels, scale)
    dots = _dots(particles, comm)
    pieces = comm.gather(_subdivided(g, rho.x.array))
    minimum, threshold, share = negative_part(g, rho.x.array)
    plotter = None
    with collective_errors(comm):
        if pieces is not None:
            pv = _pyvista()
            solid = _solid(pv, pieces, g.degree)
            sample = Sample(solid["density"], minimum, threshold, share)
            scene = _Scene(pv, solid, chosen, scale, dots, sample, title, unit)
            plotter = scene.drawn(None)
    if target is not None:
        with replacing(target, comm) as beside:
            if plotter is not None:
                shot = scene.drawn(True)
                shot.screenshot(beside, return_img=False)
                shot.close()
    return plotter


class _Scene:
    """What is drawn, made once, and put into plotters. On rank 0."""

    def __init__(
        self,
        pv: Any,
        solid: Any,
        levels: Array,
        scale: float,
        dots: Array,
        sample: Sample,
        title: str,
        unit: str,
    ) -> None:
        self._pv, self._scale, self._dots = pv, scale, dots
        self._title, self._unit, self._note = title, unit, sample.note(" of the domain, ")
        self._shell = solid.extract_surface(algorithm="dataset_surface")
        self._edges = self._shell.extract_feature_edges(
            30.0, boundary_edges=False, non_manifold_edges=False, manifold_edges=False
        )
        self._surfaces = [solid.contour([c], scalars="density") for c in levels]
        below = [sample.threshold] if sample.is_negative else []
        self._hole = solid.contour(below, scalars="density") if below else None

    def drawn(self, off_screen: bool | None) -> Any:
        """A plotter of all."""
        plotter = self._pv.Plotter(off_screen=off_screen, window_size=WINDOW)
        label = f"density (1/{self._unit}\N{SUPERSCRIPT THREE})" if self._unit else "density"
        colors = {"scalars": "density", "cmap": "viridis", "clim": (0.0, self._scale)}
        plotter.add_mesh(
            self._shell,
            name="walls",
            opacity=SHELL,
            lighting=False,
            show_scalar_bar=False,
            **colors,
        )
        if self._edges.n_points:
            plotter.add_mesh(self._edges, name="edges", color="gray", line_width=1)
        for k, surface in enumerate(self._surfaces):
            if surface.n_points:
                plotter.add_mesh(
                    surface,
                    name=f"level {k}",
                    opacity=FAINT + (STRONG - FAINT) * (k + 1) / len(self._surfaces),
                    smooth_shading=True,
                    show_scalar_bar=False,
                    **colors,
                )
        if self._hole is not None and self._hole.n_points:
            plotter.add_mesh(
                self._hole, name="negative", color=VERMILION, opacity=0.5, smooth_shading=True
            )
        if len(self._dots):
            plotter.add_mesh(
                self._pv.PolyData(self._dots),
                name="particles",
                color="black",
                point_size=3.0,
                render_points_as_spheres=True,
            )
        plotter.add_scalar_bar(
            f"{label}\n",
            mapper=plotter.actors["walls"].mapper,
            vertical=True,
            fmt="%.3g",
            use_opacity=False,
        )
        suffix = f" ({self._unit})" if self._unit else ""
        plotter.show_bounds(
            xtitle=f"x{suffix}",
            ytitle=f"y{suffix}",
            ztitle=f"z{suffix}",
            location="outer",
            font_size=11,
            fmt="%.3g",
            use_3d_text=False,
            bold=False,
        )
        if self._title:
            plotter.add_text(self._title, position="upper_edge", font_size=12, name="title")
        if self._note:
            plotter.add_text(
                self._note, position="lower_edge", font_size=10, color=VERMILION, name="note"
            )
        plotter.camera_position = "iso"
        plotter.camera.zoom(AWAY)
        return plotter


def _pyvista() -> Any:
    try:
        import pyvista
    except ImportError as error:
        raise ImportError(
            "isosurfaces need pyvista: pip install 'fpcontrol[plotting-3d]'"
        ) from error
    return pyvista


def _levels(given: int | Sequence[float] | Array, top: float) -> Array:
    """Densities whose surfaces are drawn, from the lowest."""
    if isinstance(given, int | np.integer) and not isinstance(given, bool) and given > 0:
        return top * np.arange(1, int(given) + 1) / (int(given) + 1)
    values = np.asarray(given)
    if values.ndim == 1 and values.size and values.dtype.kind in "iuf":
        if np.isfinite(values).all() and (values > 0.0).all():
            return np.unique(values.astype(float))
    raise ValueError(
        f"levels = {given!r} must be densities, numbers above zero, or how many are wanted, 1 or "
        "more."
    )


def _dots(particles: Array | None, comm: Any) -> Array:
    """Particles that are drawn, on rank 0. Collective."""
    none = np.empty((0, 3))
    with collective_errors(comm):
        x = none if particles is None else np.asarray(particles, dtype=float)
        if x.ndim != 2 or x.shape[1] != 3:
            raise ValueError(
                f"particles is of shape {x.shape}; (n, 3) is needed, such as swarm.points."
            )
        x = x[np.isfinite(x).all(axis=1)]
    parts = comm.gather(x[every(comm, len(x), DOTS)])
    return none if parts is None else np.concatenate(parts)


def _subdivided(g: Elements, u: Array) -> tuple[Array, Array]:
    """Corners of the small tetrahedra of this rank's cells, ``(cells, q, 3)``, and values there."""
    lattice, _ = subdivided_tetrahedron(g.degree)
    table = g.space.element.basix_element.tabulate(0, lattice)[0, :, :, 0]
    x = g.mesh.geometry.x[g.mesh.geometry.dofmaps[0][: g.n_cells]]
    shares = np.column_stack([1.0 - lattice.sum(axis=1), lattice])
    return np.einsum("qi,cik->cqk", shares, x), (table @ u[g.dofs]).T


def _solid(pv: Any, pieces: list[tuple[Array, Array]], degree: int) -> Any:
    """The domain as a grid of linear tetrahedra, with the density at its points."""
    points, values = (np.concatenate(part) for part in zip(*pieces, strict=True))
    n, q = values.shape
    _, small = subdivided_tetrahedron(degree)
    cells = (q * np.arange(n)[:, None, None] + small).reshape(-1, 4)
    corners = points.reshape(-1, 3)[cells]
    turned = np.linalg.det(corners[:, 1:] - corners[:, :1]) < 0.0
    cells[turned, :2] = cells[turned, 1::-1]  # outward normals of the walls point outward
    grid = pv.UnstructuredGrid({pv.CellType.TETRA: cells}, points.reshape(-1, 3))
    grid["density"] = values.ravel()
    return grid.clean(tolerance=MERGED * grid.length)


def subdivided_tetrahedron(p: int) -> tuple[Array, Array]:
    """Lattice of the reference tetrahedron and its ``p**3`` small ones, by Freudenthal's paths.

    Faces are cut along lines parallel to their edges, whatever the order of the vertices, so that
    those of two neighbours meet.

    Returns:
        Points ``(q, 3)`` and numbers of the corners ``(p**3, 4)``.
    """
    # Points p >= a >= b >= c >= 0 of a tetrahedron in a cube.
    nodes: list[tuple[int, ...]] = [
        (a, b, c) for a in range(p + 1) for b in range(a + 1) for c in range(b + 1)
    ]
    number = {node: k for k, node in enumerate(nodes)}
    parts = []
    for node in nodes:
        for axes in itertools.permutations(range(3)):
            path = [np.array(node)]
            for axis in axes:
                path.append(path[-1] + np.eye(3, dtype=int)[axis])
            corners = [number.get(tuple(int(i) for i in corner)) for corner in path]
            if None not in corners:
                parts.append(corners)
    a, b, c = np.array(nodes).T / p
    return np.column_stack([a - b, b - c, c]), np.array(parts)
