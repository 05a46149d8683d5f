"""A diagnosis on one page: how much the likelihood varies, what the truth knows and what q says, latent by latent."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from identkit.diagnosis import Diagnosis, Fault, Finding
from identkit.diagnosis.judged import Measure
from identkit.plot.style import SERIES, BrokenAxis, canvas, plural, styled

_MEASURES = (
    ("flatness", "likelihood: half variance under the prior", "#888888", "D"),
    ("truth", "true posterior: KL to the prior", SERIES[0], "o"),
    ("inference", "q: KL to the prior", SERIES[1], "s"),
)
_COLOURS = {
    Fault.MODEL: SERIES[0],
    Fault.INFERENCE: SERIES[1],
    Fault.HEALTHY: SERIES[2],
    Fault.UNDECIDED: "#666666",
}
_ROW, _MARGIN, _TALLEST = 0.34, 1.35, 9.5  # inches
_ZERO = 1e-9  # nats, drawn as none
_SPREAD = 0.22  # of a row, between its three marks


@styled
def diagnosis(found: Diagnosis) -> Figure:
    """Draw for each latent, and for all together, three numbers with their intervals, the threshold and the verdict.

    Dots left of the threshold are at the prior: blue there and orange there, the model's fault; orange alone, the
    encoder's. Zeros lie in the shaded strip. The right panel shows the usual statistic of active units beside it.

    Args:
        found: what `identkit.diagnose` returned.

    Returns:
        A figure of two panels, the latents from top to bottom.
    """
    findings = (found.overall, *found.latents)
    height = min(_TALLEST, _MARGIN + _ROW * len(findings))
    figure, axes = canvas(1, 2, height, sharey=True, width_ratios=(2.6, 1.0))
    left, right = axes[0]
    places = np.arange(len(findings), dtype=float)
    _measures(left, findings, places, found.threshold, small=_MARGIN + _ROW * len(findings) > _TALLEST)
    _spreads(right, findings, places, found.active)
    left.set_yticks(places, ["all together", *(finding.name for finding in found.latents)])
    left.set_ylim(len(findings) - 0.5, -0.5)
    left.axhline(0.5, color="black", lw=0.6)
    right.axhline(0.5, color="black", lw=0.6)
    data = plural(found.used, "datum", "data")
    left.set_xlabel(f"nats, mean over {data}, with {found.level:.0%} intervals")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2)
    left.set_title("how far from the prior")
    doubts = f"; annealing has not converged on {len(found.reasons)}" if found.reasons else ""
    figure.suptitle(
        f"{found.model}: {found.overall.fault} overall; true posterior by {found.method}{doubts}", fontsize=9
    )
    return figure


def _measures(
    ax: Axes, findings: tuple[Finding, ...], places: np.ndarray, threshold: float, small: bool
) -> None:
    table = {name: [getattr(finding, name) for finding in findings] for name, *_ in _MEASURES}
    numbers = [value for column in table.values() for m in column for value in (m.value, m.low, m.high)]
    values = np.array([*numbers, threshold, threshold / 3])
    shown = values[np.isfinite(values)]
    scale = BrokenAxis(shown, shown <= _ZERO)
    low_end, high_end = scale.zero if scale.broken else scale.floor, scale.ceiling

    def position(value: float) -> float:
        return (
            low_end if value <= _ZERO else high_end if not math.isfinite(value) else max(value, scale.floor)
        )

    for row, finding in enumerate(findings):
        if row % 2:
            ax.axhspan(row - 0.5, row + 0.5, color="#F6F6F6", lw=0, zorder=0)
        ax.annotate(
            str(finding.fault),
            (1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=5.5 if small else 7,
            color=_COLOURS[finding.fault],
            annotation_clip=False,
        )
    for index, (name, label, colour, marker) in enumerate(_MEASURES):
        heights = places + (index - 1) * _SPREAD
        columns: list[Measure] = table[name]
        middle = [position(m.value) if math.isfinite(m.value) else math.nan for m in columns]
        ax.hlines(
            heights,
            [position(m.low) for m in columns],
            [position(m.high) for m in columns],
            color=colour,
            lw=1.4,
        )
        ax.plot(middle, heights, marker, color=colour, ms=2.5 if small else 4, label=label)
    ax.axvline(threshold, color="black", ls=(0, (4, 2)), lw=0.8, label=f"threshold, {threshold:g} nats")
    scale.apply(ax, "x")
    if small:
        ax.tick_params(axis="y", labelsize=5)


def _spreads(ax: Axes, findings: tuple[Finding, ...], places: np.ndarray, active: float) -> None:
    latents = findings[1:]
    spreads = {
        "spread": ([finding.spread for finding in latents], SERIES[1], "s"),
        "true_spread": ([finding.true_spread for finding in latents], SERIES[0], "o"),
    }
    values = np.array([value for column, *_ in spreads.values() for value in column] + [active])
    values = values[np.isfinite(values)]
    # The threshold is what matters: what lies far below it stands at the end of the axis.
    scale = BrokenAxis(values, values <= _ZERO, np.array([active / 2, max(active, values.max())]))
    for column, colour, marker in spreads.values():
        drawn = [scale.zero if value <= _ZERO else max(value, scale.floor) for value in column]
        ax.plot(drawn, places[1:] + (_SPREAD if marker == "s" else 0), marker, color=colour, ms=3)
    ax.axvline(active, color="black", ls=(0, (4, 2)), lw=0.8)
    scale.apply(ax, "x")
    ax.set_xlabel("variance of the mean")
    ax.set_title("active units")
    ax.tick_params(axis="y", length=0)
