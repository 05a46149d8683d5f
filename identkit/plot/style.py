"""One look for all figures: legible in a paper of 7 inches, and to the colour-blind (Okabe & Ito 2008)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

WIDTH = 7.0
"""Inches of a page's text."""
WRONG = "#D55E00"
"""Vermilion, for contradictions alone."""
PRIOR, POSTERIOR = "#444444", "#0072B2"
APPROXIMATIONS = {"HMC": "#D55E00", "ADVI": "#009E73"}
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LEVEL_COLOURS = {
    "CONSTANT": "#0072B2",
    "PARTIAL": "#E69F00",
    "LOCAL": "#56B4E9",
    "GLOBAL": "#009E73",
    "INFORMED": "#009E73",
    "UNKNOWN": "#999999",
}
LEVEL_MARKERS = {"CONSTANT": "s", "PARTIAL": "^", "INFORMED": "o", "UNKNOWN": "X"}
"""Of the levels that a single datum can have."""

_STRIP = 0.11  # of the logarithmic part
_MARGIN = 0.35  # decades, so that an axis holds two ticks even for a single point

_RC: dict[Any, Any] = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "patch.linewidth": 0.8,
    "figure.dpi": 100.0,
    "savefig.dpi": 200.0,
}

_P = ParamSpec("_P")
_R = TypeVar("_R")


def styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Draw in this style, and leave the caller's settings as they were."""

    @wraps(draw)
    def within(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return within


_NARROWEST = 1.75
"""Inches that an axes' numbers and title need."""


def canvas(rows: int, columns: int, height: float, **grid: Any) -> tuple[Figure, Any]:
    """A figure and its axes, (rows, columns), without overlaps: as wide as a page, or as many columns ask for."""
    figure = Figure(figsize=(max(WIDTH, _NARROWEST * columns), height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


class BrokenAxis:
    """A log axis with a strip for zeros, which have no logarithm, set apart below it and ticked "0".

    Args:
        values: what will be drawn.
        zeros: which of them count as zero and go to the strip.
        span: the positive numbers that the logarithmic part should hold; `values` where None.
    """

    def __init__(self, values: np.ndarray, zeros: np.ndarray, span: np.ndarray | None = None) -> None:
        shown = values[~zeros] if span is None else span
        shown = shown[np.isfinite(shown) & (shown > 0)]
        low, high = (math.log10(shown.min()), math.log10(shown.max())) if len(shown) else (-1.0, 1.0)
        margin = max(0.05 * (high - low), _MARGIN)
        self._low, self._high = low - margin, high + margin
        self.broken = bool(zeros.any())
        strip = _STRIP * (self._high - self._low) if self.broken else 0.0
        self._start = self._low - strip
        self.floor, self.ceiling = 10**self._low, 10**self._high
        self.zero = 10 ** (self._low - strip / 2)
        """Where zeros are drawn."""
        self._positions = np.where(zeros, self.zero, np.clip(values, self.floor, self.ceiling))

    @property
    def positions(self) -> np.ndarray:
        """Where each value is drawn."""
        return self._positions

    @property
    def break_at(self) -> float:
        """Which fraction of the axis the strip takes."""
        return (self._low - self._start) / (self._high - self._start)

    def apply(self, ax: Axes, which: str) -> None:
        """Scale, limits, ticks and the shaded strip of the x or the y axis."""
        axis = getattr(ax, f"{which}axis")
        getattr(ax, f"set_{which}scale")("log")
        getattr(ax, f"set_{which}lim")(10**self._start, self.ceiling)
        ticks = log_ticks(self.floor, self.ceiling)
        labels = [log_label(tick) for tick in ticks]
        if self.broken:
            ticks, labels = [self.zero, *ticks], ["0", *labels]
            shade = ax.axvspan if which == "x" else ax.axhspan
            shade(10**self._start, self.floor, color="#EFEFEF", lw=0, zorder=0)
            self._mark_break(ax, which)
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_ticklabels(labels)

    def _mark_break(self, ax: Axes, which: str) -> None:
        # Two short strokes across the spine, in the axis' own coordinate along it and points across.
        xy = (self.break_at, 0.0) if which == "x" else (0.0, self.break_at)
        stroke = {"marker": [(-1, -2), (1, 2)] if which == "x" else [(-2, -1), (2, 1)], "markersize": 7}
        for shift in (-0.007, 0.007):
            place = (xy[0] + shift, xy[1]) if which == "x" else (xy[0], xy[1] + shift)
            ax.plot(*place, **stroke, color="black", mew=0.8, ls="", transform=ax.transAxes, clip_on=False)


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a log axis: up to seven decades, or 1, 2 and 5 times decades where fewer than three fit.

    >>> log_ticks(0.04, 6)
    [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 7))
    if last - first >= 2:
        return [float(f"1e{k}") for k in range(first, last + 1) if k % step == 0]
    ticks = [float(f"{m}e{k}") for k in range(first - 1, last + 1) for m in (1, 2, 5)]
    return [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def log_label(tick: float) -> str:
    """``0.05``, ``200``, or a power of ten.

    >>> log_label(0.05), log_label(1e-8)
    ('0.05', '$10^{-8}$')
    """
    if 1e-2 <= tick <= 1e3:
        return f"{tick:g}"
    mantissa, exponent = f"{tick:.0e}".split("e")
    return f"$10^{{{int(exponent)}}}$" if mantissa == "1" else f"${mantissa}\\times10^{{{int(exponent)}}}$"


def number(value: float) -> str:
    """A number for a label: four digits, a real minus sign and a power of ten where that is shorter."""
    if value != 0 and math.isfinite(value) and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"${mantissa}\\times10^{{{int(exponent)}}}$"
    return f"{value:.4g}".replace("-", "−")


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 datum``, ``1,234 data``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def empty(ax: Axes, words: str) -> None:
    """Say in the middle of an axes why nothing is drawn."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color="#666666")
    ax.set_xticks([])
    ax.set_yticks([])


def at_most(count: int, limit: int, name: str) -> None:
    """Refuse more panels than a page holds.

    Raises:
        ValueError: with the count.
    """
    if count > limit:
        raise ValueError(f"{name} should have at most {limit} rows to draw, got {count}; draw some of them")
