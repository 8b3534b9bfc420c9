"""Meshes of intervals, triangles or tetrahedra: made here, read, flipped or refined."""

from fpcontrol.mesh.files import read, read_facet_tags
from fpcontrol.mesh.flips import delaunay
from fpcontrol.mesh.refinement import refine
from fpcontrol.mesh.regular import box, interval, rectangle

__all__ = ["box", "delaunay", "interval", "read", "read_facet_tags", "rectangle", "refine"]
