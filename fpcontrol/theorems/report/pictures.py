"""Panels as pictures, to stand in a page without any file beside it."""

import base64
import html
import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import LogFormatterSciNotation, NullLocator

from fpcontrol.theorems.framework.checks import Panel
from fpcontrol.theorems.report.markup import plain

# Okabe and Ito: distinct for all kinds of color vision, and on white (their yellow is left out).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"
STYLE: Any = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 11.0,
    "axes.titlesize": 11.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "fpcontrol",  # the same picture gives the same file
}
INCHES = (4.7, 3.4)
SHADES = 10  # steps from 0 to 1 of what shades a plane
MANY = 6  # lines, from which the legend stands beside the axes


def picture(panel: Panel) -> str:
    """A panel as an ``<img>`` element that holds its SVG."""
    with matplotlib.rc_context(STYLE):
        file = io.BytesIO()
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        _drawn(panel).savefig(file, format="svg", metadata=none)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{html.escape(plain(panel.title))}" src="data:image/svg+xml;base64,{data}">'


def _drawn(panel: Panel) -> Figure:
    many = len(panel.lines) >= MANY
    figure = Figure(figsize=(INCHES[0] + 1.5 * many, INCHES[1]), layout="constrained")
    ax = figure.subplots()
    if panel.shade:
        levels = [i / SHADES for i in range(SHADES + 1)]
        x, y, z = panel.shade.x, panel.shade.y, panel.shade.z
        # Pale, for lines and markers to stand out.
        filled = ax.contourf(x, y, z, levels, cmap="Greys", alpha=0.5)
        figure.colorbar(filled, ax=ax, label=_text(panel.shade.label))
    marked = 0
    # Lines whose labels agree up to a comma belong together: measured, and in closed form.
    names = list(dict.fromkeys(line.label.split(",")[0] for line in panel.lines))
    for line in panel.lines:
        color = COLORS[names.index(line.label.split(",")[0]) % len(COLORS)]
        style = line.style.replace("o", MARKERS[marked % len(MARKERS)])
        marked += style != line.style or "o" in style
        ax.plot(line.x, line.y, style, color=color, label=_text(line.label))
    ax.set_xscale(panel.xscale)
    _set_ticks(ax, panel)
    ax.set_yscale(panel.yscale)
    ax.set_title(_text(panel.title))
    ax.set_xlabel(_text(panel.xlabel))
    ax.set_ylabel(_text(panel.ylabel))
    if many:
        figure.legend(loc="outside right upper")
    elif any(line.label for line in panel.lines):
        ax.legend()
    return figure


def _set_ticks(ax: Any, panel: Panel) -> None:
    """On a logarithmic axis of few whole numbers, such as frequencies, label these."""
    if panel.xscale != "log":
        return
    places = sorted({float(x) for line in panel.lines if "o" in line.style for x in line.x})
    if 0 < len(places) <= 9 and all(x == int(x) for x in places) and places[-1] < 1e5:
        ax.set_xticks(places, [f"{x:g}" for x in places])
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.xaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(0.7, 0.3)))


def _text(text: str) -> str:
    """Text that matplotlib can set; formulas beyond its LaTeX in plain letters."""
    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return plain(text)
    return text
