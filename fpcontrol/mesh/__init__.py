"""Meshes of intervals, triangles or tetrahedra: made here, read from XDMF files, or flipped."""

from fpcontrol.mesh.files import read, read_facet_tags
from fpcontrol.mesh.flips import delaunay
from fpcontrol.mesh.regular import box, interval, rectangle

__all__ = ["box", "delaunay", "interval", "read", "read_facet_tags", "rectangle"]
