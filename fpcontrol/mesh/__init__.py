"""Meshes of intervals, triangles or tetrahedra: made here, read, flipped or refined."""

from fpcontrol.discretization.tags import NamedTags
from fpcontrol.mesh.files import read, read_cell_tags, read_facet_tags
from fpcontrol.mesh.flips import delaunay
from fpcontrol.mesh.refinement import refine
from fpcontrol.mesh.regular import box, interval, rectangle

__all__ = [
    "NamedTags",
    "box",
    "delaunay",
    "interval",
    "read",
    "read_cell_tags",
    "read_facet_tags",
    "rectangle",
    "refine",
]
