"""The theorem in one picture: how far posteriors moved against how much likelihoods vary (T4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from identkit.plot.style import LEVEL_COLOURS, LEVEL_MARKERS, WRONG, BrokenAxis, canvas, empty, plural, styled
from identkit.posterior.bounds import variance_factors
from identkit.theorem import Row, TheoremCheck

_LEVELS = ("CONSTANT", "PARTIAL", "INFORMED", "UNKNOWN")
_RARITY = {"INFORMED": 0, "CONSTANT": 1, "PARTIAL": 2, "UNKNOWN": 3}  # the rarer is drawn over the others
_FARTHEST = 700.0  # e^ω leaves float64 soon after
_CROWD = 300


@styled
def theorem(
    checks: Sequence[TheoremCheck], ax: Sequence[Axes] | np.ndarray | None = None
) -> tuple[Axes, Axes]:
    """Draw every joint posterior's KL to the prior against the flatness of its likelihood.

    Left: ``KL(posterior ‖ prior)`` against ``½Var_P(ℓ)``, one point a datum, with its certified band as a bar
    and the diagonal, which it approaches as ω → 0. Zeros lie in a strip of their own: a KL up to its stated
    error, a ½Var_P(ℓ) up to the same error; a collapsed posterior lies at (0, 0). Right: for 0 < ω ≤ 700,
    ``KL/(½V)`` against ω, between ``2(1 − (1 + ω)e^−ω)/ω²`` and ``2(1 + (ω − 1)e^ω)/ω²``. Contradictions are
    circled.

    Source: theory/T1 and T4.

    Args:
        checks: results of `verify`.
        ax: two axes to draw on; a new figure if None.

    Returns:
        The two axes, whose figure is ``axes[0].figure``.

    Raises:
        ValueError: `ax` is not a pair.

    >>> from identkit.theorem import verify
    >>> text = "z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)"
    >>> left, right = theorem([verify(text, [[0.3], [2.0]], at={"w": w}) for w in (0, 1)])
    >>> left.get_title(loc="left")
    '4 of 4 data agree with the theorem'
    """
    if ax is None:
        axes = canvas(1, 2, 3.5, width_ratios=(1.35, 1))[1][0]
    elif len(ax) == 2:
        axes = ax
    else:
        raise ValueError(f"ax should be two axes, got {len(ax)}")
    rows = _joint(checks)
    left, right = axes
    _plane(left, rows)
    _ratios(right, rows)
    return left, right


def _joint(checks: Sequence[TheoremCheck]) -> list[Row]:
    return [row for check in checks for row in check.rows if row.latent is None and row.datum is not None]


def _plane(ax: Axes, rows: Sequence[Row]) -> None:
    ax.set_title(_tally(rows), loc="left")
    ax.set_xlabel("flatness of the likelihood, ½ Var$_P$(ℓ)  [nats²]")
    ax.set_ylabel("KL(posterior ‖ prior)  [nats]")
    if not rows:
        return empty(ax, "no data")
    flat, kl = _column(rows, "flatness"), _column(rows, "kl")
    error = _column(rows, "kl_error")
    collapsed, ignored = kl <= error, flat <= error
    # One span for both axes: the diagonal goes from corner to corner, and the legend has the room above it.
    span = np.concatenate([flat[~ignored], kl[~collapsed]])
    x, y = BrokenAxis(flat, ignored, span), BrokenAxis(kl, collapsed, span)
    x.apply(ax, "x")
    y.apply(ax, "y")

    ends = [x.floor, x.ceiling]
    dashed = {"color": "black", "lw": 0.8, "ls": (0, (4, 2))}
    ax.plot(ends, ends, **dashed, zorder=3, label="KL = ½ Var$_P$(ℓ)", gid="guide")
    _bands(ax, rows, ~ignored, x, y)
    _points(ax, rows, x.positions, y.positions)
    lost = np.array([row.below_precision for row in rows], dtype=bool)
    origin = collapsed & ignored & ~lost
    if origin.any():
        near = int((collapsed & ignored & lost).sum())
        ax.annotate(
            f"{plural(int(origin.sum()), 'datum', 'data')} at (0, 0):\nposterior = prior"
            + (f"\n({near:,} more below precision)" if near else ""),
            (x.zero, y.zero),
            xytext=(x.break_at + 0.3, y.break_at + 0.08),
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#555555", "lw": 0.7, "shrinkB": 5},
            fontsize=7,
            bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
            zorder=7,
            gid="collapsed",
        )
    corner = {"loc": "upper left", "bbox_to_anchor": (x.break_at, 1.0), "borderaxespad": 0.3}
    ax.legend(handles=_legend(ax, rows), handlelength=1.6, **corner)


def _bands(ax: Axes, rows: Sequence[Row], shown: np.ndarray, x: BrokenAxis, y: BrokenAxis) -> None:
    """A bar from end to end of each band; an end at 0 or ∞ runs off the logarithmic part."""
    bands = np.array([row.band or (np.nan, np.nan) for row in rows])
    places, low, high = x.positions[shown], bands[shown, 0], bands[shown, 1]
    low, high = np.clip(low, y.floor, y.ceiling), np.clip(high, y.floor, y.ceiling)
    segments = np.stack([np.stack([places, low], 1), np.stack([places, high], 1)], 1)
    segments = segments[np.isfinite(segments).all((1, 2))]
    few = len(segments) <= _CROWD
    bars = LineCollection(list(segments), colors="#888888", linewidths=1.0 if few else 0.5, zorder=1)
    bars.set(alpha=0.7 if few else 0.22, rasterized=not few, gid="bands")
    ax.add_collection(bars, autolim=False)


def _points(ax: Axes, rows: Sequence[Row], x: np.ndarray, y: np.ndarray) -> None:
    few = len(rows) <= _CROWD
    levels = np.array([row.level for row in rows])
    for level in _LEVELS:
        here = levels == level
        if not here.any():
            continue  # an empty line would claim room at the corner of the figure
        ax.plot(
            x[here],
            y[here],
            ls="",
            marker=LEVEL_MARKERS[level],
            ms=4.5 if few else 2.6,
            mfc=LEVEL_COLOURS[level],
            mec="none",
            alpha=0.9 if few else 0.45,
            rasterized=not few,
            zorder=4 + 0.1 * _RARITY[level],
            clip_on=False,
            gid=f"points {level}",
        )
    wrong = np.array([row.agrees is False for row in rows], dtype=bool)
    if wrong.any():
        ring = {"marker": "o", "ms": 9, "mfc": "none", "mec": WRONG, "mew": 1.4}
        ax.plot(x[wrong], y[wrong], ls="", **ring, zorder=6, clip_on=False, gid="wrong")


def _legend(ax: Axes, rows: Sequence[Row]) -> list[Line2D]:
    present = {row.level for row in rows}

    def mark(label: str, marker: str, **style: Any) -> Line2D:
        return Line2D([], [], ls="", marker=marker, label=label, **style)

    marks = [
        mark(level, LEVEL_MARKERS[level], mfc=LEVEL_COLOURS[level], mec="none", ms=4.5)
        for level in _LEVELS
        if level in present
    ]
    bar = mark("certified band", "|", mec="#888888", ms=8, mew=1.2)
    guide = [line for line in ax.get_lines() if line.get_gid() == "guide"]
    wrong = mark("contradicts the theorem", "o", mfc="none", mec=WRONG, ms=7, mew=1.4)
    return [*marks, bar, *guide, *([wrong] if any(row.agrees is False for row in rows) else [])]


def _ratios(ax: Axes, rows: Sequence[Row]) -> None:
    ax.set_title("for ω ≤ 700, between two curves", loc="left")
    ax.set_xlabel("oscillation of the likelihood, ω  [nats]")
    ax.set_ylabel("KL / (½ Var$_P$(ℓ))  [1/nats]")
    within = [r for r in rows if r.omega is not None and 0 < r.omega <= _FARTHEST and r.flatness]
    within = [row for row in within if (row.flatness or 0) > row.kl_error]
    if not within:
        return empty(ax, "no datum with 0 < ω ≤ 700")
    omega = _column(within, "omega")
    ratio = _column(within, "kl") / _column(within, "flatness")
    collapsed = _column(within, "kl") <= _column(within, "kl_error")
    x = BrokenAxis(omega, np.zeros_like(collapsed))
    grid = np.geomspace(x.floor, min(x.ceiling, _FARTHEST), 400)
    low, high = (2 * factor.numpy() for factor in variance_factors(torch.from_numpy(grid)))
    # The upper curve soon grows like e^ω: only as much of it is shown as leaves the data room.
    least = min(1.0, *ratio[~collapsed])
    y = BrokenAxis(ratio, collapsed, np.array([max(low.min(), least / 10), 10 * max(1.0, *ratio)]))
    x.apply(ax, "x")
    y.apply(ax, "y")
    ax.fill_between(grid, low.clip(y.floor), high, color="#E8E8E8", lw=0, zorder=1)
    for curve, gid in ((low, "lower curve"), (high, "upper curve")):
        ax.plot(grid, np.where(curve < y.floor, np.nan, curve), color="black", lw=1.0, zorder=3, gid=gid)
    _points(ax, within, x.positions, y.positions)
    left_out = len(rows) - len(within)
    ax.text(
        0.03,
        y.break_at + 0.03,
        f"{plural(len(within), 'datum', 'data')} here\n{left_out:,} not: ω or ½V is 0, or ω > 700",
        transform=ax.transAxes,
        fontsize=7,
    )


def _tally(rows: Sequence[Row]) -> str:
    """``812 of 815 data agree with the theorem, 0 contradict it, …``."""
    agree = sum(row.agrees is True for row in rows)
    wrong = sum(row.agrees is False for row in rows)
    lost = sum(row.below_precision for row in rows)
    open_ = len(rows) - agree - wrong - lost
    counts = {"contradict it": wrong, "below precision": lost, "undecided": open_}
    rest = ", ".join(f"{count:,} {words}" for words, count in counts.items() if count)
    headline = f"{agree:,} of {plural(len(rows), 'datum', 'data')} agree with the theorem"
    return f"{headline},\n{rest}" if rest else headline


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([getattr(row, name) for row in rows], dtype=float)


_CHECKER = ("CONSTANT", "not CONSTANT", "UNKNOWN")
_MEASURED = ("KL = 0\nwithin its error", "KL > 0", "below\nprecision")
_TINTS = {(0, 0): LEVEL_COLOURS["CONSTANT"], (1, 1): LEVEL_COLOURS["INFORMED"]}


@styled
def agreement(checks: Sequence[TheoremCheck], ax: Axes | None = None) -> Axes:
    """Draw the table of what the checker says of a datum against what the posterior does there.

    Counts the rows of single data, joint ones and those of each latent, whose KL is the conditional one
    (theory/T3). A cell that holds contradictions says how many and is framed: beside the two cells that the
    theorem excludes, a KL may lie outside its certified band.

    Source: theory/T1.

    Args:
        checks: results of `verify`.
        ax: axes to draw on; a new figure if None.

    >>> from identkit.theorem import verify
    >>> ax = agreement([verify("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", [[2.0]], at={"w": 0})])
    >>> ax.texts[0].get_text()
    '2'
    """
    table: Axes = canvas(1, 1, 2.3)[1][0, 0] if ax is None else ax
    counts, wrong = np.zeros((3, 3), dtype=int), np.zeros((3, 3), dtype=int)
    for row in (row for check in checks for row in check.rows if row.datum is not None):
        cell = _cell(row)
        counts[cell] += 1
        wrong[cell] += row.agrees is False
    shade = np.ones((3, 3, 3))
    for cell in np.ndindex(3, 3):
        tint = to_rgb(WRONG if wrong[cell] else _TINTS.get(cell, "#999999"))
        shade[cell] -= (0.5 if counts[cell] else 0.0) * (1 - np.array(tint))
    table.imshow(shade, aspect="auto")
    for i, j in np.ndindex(3, 3):
        words = f"{counts[i, j]:,}"
        if wrong[i, j]:
            words += f"\n{plural(int(wrong[i, j]), 'contradiction')}"
            table.add_patch(
                Rectangle((j - 0.48, i - 0.47), 0.96, 0.94, fill=False, ec=WRONG, lw=2, gid="wrong")
            )
        table.text(j, i, words, ha="center", va="center", weight="bold" if counts[i, j] else "normal")
    table.set_xticks(range(3), _MEASURED)
    table.set_yticks(range(3), _CHECKER)
    table.xaxis.tick_top()
    table.xaxis.set_label_position("top")
    table.set_xlabel("the exact posterior, joint and of each latent")
    table.set_ylabel("the checker, on this datum")
    table.tick_params(length=0)
    table.spines[:].set_visible(False)
    return table


def _cell(row: Row) -> tuple[int, int]:
    checker = {"CONSTANT": 0, "UNKNOWN": 2}.get(row.level, 1)
    kl = row.kl if row.latent is None else row.kl_conditional
    measured = 2 if row.below_precision else 0 if kl is not None and kl <= row.kl_error else 1
    return checker, measured
