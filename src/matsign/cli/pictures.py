"""The pictures of the tour, each drawn for a light and for a dark page, as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from matsign._typing import NDArray as Array
from matsign.cli.flows import Flow, Lift

_LEFT, _RIGHT = "#3b82c4", "#e07b39"
_LINES = ("#3b82c4", "#e07b39", "#2f9e77", "#b8559a", "#8a7a2c")
_MARKS = ("o", "s", "^", "D", "v")
# In inches: on a phone, 350 pixels wide, the letters of 10 points are still 9 pixels high.
_WIDTH = 5.2


class Picture(NamedTuple):
    """One picture for light and for dark pages, with its title and caption."""

    title: str
    caption: str
    light: str
    dark: str


def picture(title: str, caption: str, draw: Callable[[], Figure]) -> Picture:
    """Render a drawing for light and for dark pages."""
    return Picture(title, caption, *(_render(draw, ink) for ink in ("#222222", "#dddddd")))


def _render(draw: Callable[[], Figure], ink: str) -> str:
    keys = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = dict.fromkeys(keys, ink) | {
        "font.size": 10.0,
        "axes.titlesize": 10.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#88888840",
        "axes.facecolor": "none",
        "legend.frameon": False,
        "svg.hashsalt": "matsign",
    }
    with rc_context(style), io.StringIO() as text:
        draw().savefig(text, format="svg", transparent=True, metadata={"Date": None})
        return text.getvalue()


def eigenvalues(steps: list[Array]) -> Figure:
    """The eigenvalues after each of a few steps, on axes that are linear near the origin."""
    figure = Figure(figsize=(_WIDTH, 9.4), layout="constrained")
    moving = sum(bool(np.abs(values - np.sign(values.real)).max() > 0.05) for values in steps)
    shown = _sample_indices(min(moving + 1, len(steps)), 8)
    extent = 1.3 * max(float(np.abs(steps[k]).max()) for k in shown)
    panels = figure.subplots(4, 2, sharex=True, sharey=True).flat
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for axes, k in zip(panels, shown, strict=False):
        _plane(axes, extent)
        values = steps[k]
        colours = np.where(values.real > 0, _RIGHT, _LEFT)
        axes.scatter(values.real, values.imag, s=14, c=colours, alpha=0.8, linewidths=0)
        axes.set_title("start" if k == 0 else f"step {k}")
    figure.supxlabel("real part", fontsize=10)
    figure.supylabel("imaginary part", fontsize=10)
    return figure


def _plane(axes: Axes, extent: float) -> None:
    for scale, limits in ((axes.set_xscale, axes.set_xlim), (axes.set_yscale, axes.set_ylim)):
        scale("asinh", linear_width=0.5)
        limits(-extent, extent)
    power = 10.0 ** int(np.log10(extent))
    # On long axes the labels of ±1 would overlap that of 0.
    ticks = [-power, 0.0, power] if power > 1e3 else sorted({-power, -1.0, 0.0, 1.0, power})
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks])
        axis.set_ticks([], minor=True)
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.plot([-1, 1], [0, 0], linestyle="none", marker="o", markersize=9, fillstyle="none", color="#888888")


def _sample_indices(count: int, most: int) -> list[int]:
    """At most that many of range(count), first and last among them."""
    return sorted({round(k) for k in np.linspace(0, count - 1, min(count, most))})


def singular_values(lift: Lift) -> Figure:
    """Every singular value as a line through the steps."""
    figure = Figure(figsize=(_WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    values = np.maximum(lift.values, 1e-20)
    signal = lift.values[-1] > 0.5
    for kept, colour in ((~signal, _LEFT), (signal, _RIGHT)):
        axes.plot(values[:, kept], color=colour, linewidth=0.9, alpha=0.7)
    axes.set_yscale("log")
    axes.set_ylim(1e-20, 10)
    axes.set_xlim(0, len(values) - 1)
    axes.axvline(lift.lifted, color="#888888", linestyle="--", linewidth=1)
    top: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "va": "bottom"}
    axes.text(lift.lifted / 2, 1.01, "lifting", ha="center", **top)
    axes.text((lift.lifted + len(values) - 1) / 2, 1.01, "purification", ha="center", **top)
    _label(axes, "singular value")
    axes.plot([], [], color=_RIGHT, label=f"{signal.sum()} that end at 1")
    if not signal.all():
        axes.plot([], [], color=_LEFT, label=f"{(~signal).sum()} zero to rounding, that end at 0")
    figure.legend(loc="outside lower left")
    return figure


def residuals(flows: list[Flow]) -> Figure:
    """The residual of every structure against its steps."""
    figure = Figure(figsize=(_WIDTH, 4.8), layout="constrained")
    axes = figure.subplots()
    for flow, colour, mark in zip(flows, _LINES, _MARKS, strict=True):
        values = np.maximum(flow.residuals(), 1e-18)
        axes.plot(values, color=colour, marker=mark, markersize=4, linewidth=1.4, label=flow.name)
    axes.set_yscale("log")
    axes.axhline(np.finfo(float).eps, color="#888888", linestyle="--", linewidth=1)
    axes.annotate("rounding", (0.01, np.finfo(float).eps), xycoords=axes.get_yaxis_transform(), va="bottom")
    _label(axes, "‖X² − I‖ / ‖X‖²")
    figure.legend(loc="outside lower left")
    return figure


def _label(axes: Axes, quantity: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
