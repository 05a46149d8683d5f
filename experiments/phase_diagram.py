"""Phase diagrams of collapse on pinwheel: the true posterior's KL over noise and width, and over noise and the constant m.

    OMP_NUM_THREADS=1 python -m experiments.phase_diagram

Plain VAE: where σ² is at least the largest eigenvalue λ₁ of the data's covariance, the best linear decoder is
constant (Lucas et al. 2019). A flexible one changes less than one might think. For a decoder ``μ + ε g(z)``, E g = 0,
the gain in log-likelihood starts with ``½ ε² tr[Cov g (C/σ⁴ − I/σ²)]``, C the data's covariance: σ² < λ₁ makes
forgetting a saddle for every decoder that can be linear to first order, whatever its width. And above the data's
sub-Gaussian proxy ``s² = max_t 2 log E e^{t·(x − μ)}/‖t‖² ≥ λ₁`` no decoder of any width beats the constant:
``E p_σ(x − θ)/p_σ(x − μ) ≤ 1`` for all θ is then Lindsay's (1983) condition for the best law of f(z) to be a point.
Where s² = λ₁, as the grid of t shows it here within a thousandth, the best decoder's boundary is the same for all
widths, and sharp.

LIDVAE: its slope cannot fall below m. A linear decoder at the best slope allowed, ``max(m, √(λ − σ²)₊)``, has the KL that
the calculator gives (`identkit.lidvae.information.predicted_kl`): its contours are drawn over the measured
ones, with the arc ``m² + σ² = λ`` outside of which m binds.

Where theory and measurement part: a LIDVAE of small m comes down to its floor slowly from above, and four times the
steps bring all nine such members closer, from 11 times the calculator's KL to 2.7 where it is worst. Narrow networks
collapse below the boundary, those of one unit from σ = 0.59 to 0.65 on, and there patience changes nothing
(`longer_crossings_of_narrowest`): the local argument is about functions, and says that a better decoder is near, not
that a product of three layers gets there by gradient. Of the widest KL falls to 0.01 nats at σ = 0.72 to 0.74 instead
of 0.742.
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.optimize import brentq
from torch import Tensor

import identkit as ik
from experiments.record import Record
from identkit.lidvae.datasets import pinwheel
from identkit.lidvae.information import information_floor, predicted_kl
from identkit.lidvae.models import LIDVAE, VAE
from identkit.lidvae.truth import true_posteriors
from identkit.plot.style import PRIOR, SERIES, WIDTH, styled

SIGMAS = (0.3, 0.4, 0.5, 0.58, 0.64, 0.68, 0.71, 0.74, 0.77, 0.82, 0.9, 1.05)
WIDTHS = (0, 1, 2, 4, 8, 16, 32)  # of the decoder's two hidden layers; 0: a linear decoder
NOISES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95, 1.1)
LOWER = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.05)
SEEDS = 2
STEPS = {"VAE": 1500, "LIDVAE": 1200}
NARROW = 1  # units, of the networks that are trained again for longer
SINKING = [(sigma, m) for m in LOWER[:3] for sigma in NOISES if sigma > 0.75]
PATIENCE = 4
ROWS = 10_000
JUDGED = 128
THRESHOLD = 0.01  # nats
LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0)


def main() -> None:
    record = Record("phase_diagram", __doc__)
    data = pinwheel(1000 if record.smoke else ROWS)
    train = data.train.double()
    centred = train - train.mean(0)
    values, axes = torch.linalg.eigh(torch.cov(train.T, correction=0))
    rows = data.train[:JUDGED]
    spread = ((rows.double() - train.mean(0)) @ axes).square().mean(0)  # of the judged rows, along the axes
    proxy = sub_gaussian_proxy(centred)
    plain = []
    for width in WIDTHS[:: 3 if record.smoke else 1]:
        plain += trained(*plain_models(width), data, rows, 20 if record.smoke else STEPS["VAE"], SEEDS)
    pairs = [(sigma, m) for m in LOWER for sigma in NOISES]
    if record.smoke:
        pairs = pairs[::9]
    bound = trained(*dialled(pairs), data, rows, 20 if record.smoke else STEPS["LIDVAE"], 1)
    longer = {
        "vae": trained(
            *plain_models(NARROW), data, rows, 20 if record.smoke else PATIENCE * STEPS["VAE"], SEEDS
        ),
        "lidvae": trained(
            *dialled(SINKING), data, rows, 20 if record.smoke else PATIENCE * STEPS["LIDVAE"], 1
        ),
    }
    for point in (*plain, *bound, *longer["vae"], *longer["lidvae"]):
        point["predicted"] = predicted(point.get("m", 0.0), point["sigma"], values, spread)
    found = summary(plain, bound, values, proxy) | patience(bound, longer)
    for name, value in found.items():
        print(f"{name}: {value}")
    for point in bound:
        print(
            f"m {point['m']:5.2f} σ {point['sigma']:.2f} KL {point['kl']:.4f} calculator {point['predicted']:.4f}"
        )
    figures: dict[str, Any] = {} if record.smoke else {"main": _figure(plain, bound, values, spread, found)}
    record.write(
        {
            "eigenvalues": values.flip(0).tolist(),
            "judged_rows": len(rows),
            "seeds": SEEDS,
            "steps": STEPS,
            "summary": found,
            "vae": plain,
            "lidvae": bound,
            "longer": longer,
        },
        **figures,
    )


def plain_models(width: int) -> tuple[VAE, list[dict[str, Any]]]:
    """All noises at one width."""
    hidden = () if width == 0 else (width, width)
    model = VAE(2, 2, sigma=SIGMAS, members=len(SIGMAS), hidden=hidden, encoder_hidden=(32, 32))
    return model, [{"width": width, "sigma": sigma} for sigma in SIGMAS]


def dialled(pairs: list[tuple[float, float]]) -> tuple[LIDVAE, list[dict[str, Any]]]:
    """All pairs of σ and m."""
    model = LIDVAE(
        2,
        2,
        sigma=[sigma for sigma, _ in pairs],
        min_information=[information_floor(m, sigma, 2) for sigma, m in pairs],
        hidden=(32, 32),
        encoder_hidden=(32, 32),
        members=len(pairs),
    )
    return model, [{"m": m, "sigma": sigma} for sigma, m in pairs]


def trained(
    model: VAE | LIDVAE, settings: list[dict[str, Any]], data: Any, rows: Tensor, steps: int, seeds: int
) -> list[dict[str, Any]]:
    """All settings at once, then the true posterior of every member by lattice sums."""
    run = ik.fit(model, data, steps=steps, seeds=seeds, learning_rate=5e-3, batch_size=256, device="cpu")
    with torch.no_grad():
        encoder = run.model.infer(run.model.rows(rows)).kl().sum(-1).mean(1)
    points = []
    for number, one in enumerate(run.members):
        truth = true_posteriors(one, rows, tolerance=1e-3)
        points.append(
            {
                **settings[number % len(settings)],
                "seed": number // len(settings) + 1,
                "kl": float(truth.kl.mean()),
                "kl_error": float(truth.kl_error.max()),
                "half_variance": float(truth.half_variance.mean()),
                "encoder_kl": float(encoder[number]),
                "log_likelihood": float(truth.log_evidence.mean()),
                "stopped": run.stopped[number],
            }
        )
    return points


def predicted(m: float, sigma: float, values: Tensor, spread: Tensor) -> float:
    """KL of the best linear decoder whose slopes are at least m, on rows with that spread along its axes."""
    return sum(
        predicted_kl(math.sqrt(max(m**2, eigenvalue - sigma**2, 0.0)), sigma, variance)
        for eigenvalue, variance in zip(values.tolist(), spread.tolist(), strict=True)
    )


def sub_gaussian_proxy(centred: Tensor) -> dict[str, float]:
    """``max_t 2 log E e^{t·x}/‖t‖²`` over a grid of t, and the length of t where it is attained."""
    angles = torch.linspace(0, 2 * math.pi, 91, dtype=torch.float64)[:-1]
    unit = torch.stack([angles.cos(), angles.sin()], 1)
    projected = centred @ unit.T
    lengths = torch.logspace(-1.5, 1.5, 200, dtype=torch.float64)
    best = torch.stack(
        [
            (2 * ((length * projected).logsumexp(0) - math.log(len(centred))) / length**2).max()
            for length in lengths
        ]
    )
    return {"proxy": float(best.max()), "at_length": float(lengths[best.argmax()])}


def summary(
    plain: list[dict[str, Any]], bound: list[dict[str, Any]], values: Tensor, proxy: dict[str, float]
) -> dict[str, Any]:
    """The numbers that the picture claims."""
    edge = math.sqrt(float(values.max()))
    crossings = {}
    for width in sorted({p["width"] for p in plain}):
        of = [
            crossing([p for p in plain if p["width"] == width and p["seed"] == seed])
            for seed in sorted({p["seed"] for p in plain})
        ]
        crossings[str(width)] = of
    known = [c for of in crossings.values() for c in of if c is not None]
    above = [p for p in plain if p["sigma"] > math.sqrt(proxy["proxy"])]
    below = [p for p in plain if p["sigma"] < 0.93 * edge]
    linear = [p for p in below if p["width"] == 0]
    binding = [p for p in bound if p["m"] ** 2 + p["sigma"] ** 2 > float(values.max())]
    ratios = [p["kl"] / p["predicted"] for p in binding]
    free = [p["kl"] / p["predicted"] for p in bound if p["m"] ** 2 + p["sigma"] ** 2 < float(values.min())]
    return {
        "threshold_sigma": edge,
        "sub_gaussian_proxy": proxy["proxy"],
        "proxy_over_largest_eigenvalue": proxy["proxy"] / float(values.max()),
        "proxy_at_length": proxy["at_length"],
        "crossings_of_0.01_nats_by_width": crossings,
        "crossings": [min(known), max(known)] if known else None,
        "above_threshold": len(above),
        "above_largest_kl": max((p["kl"] for p in above), default=None),
        "below_0.93_threshold": len(below),
        "below_collapsed": sum(p["kl"] < THRESHOLD for p in below),
        "linear_largest_relative_gap": max(abs(p["kl"] / p["predicted"] - 1) for p in linear),
        "widest_kl_over_linear_at_least_noise": statistics.mean(
            p["kl"] / p["predicted"]
            for p in plain
            if p["width"] == max(q["width"] for q in plain) and p["sigma"] == SIGMAS[0]
        ),
        "m_binds": len(ratios),
        "m_binds_kl_over_calculator": [min(ratios), statistics.median(ratios), max(ratios)],
        "m_free": len(free),
        "m_free_kl_over_calculator": [min(free), statistics.median(free), max(free)] if free else None,
        "largest_kl_error": max(p["kl_error"] for p in (*plain, *bound)),
        "stopped": sum(p["stopped"] is not None for p in (*plain, *bound)),
    }


def patience(bound: list[dict[str, Any]], longer: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What four times the steps change."""
    before = {(p["m"], p["sigma"]): p["kl"] / p["predicted"] for p in bound}
    both = [
        (before[p["m"], p["sigma"]], p["kl"] / p["predicted"])
        for p in longer["lidvae"]
        if (p["m"], p["sigma"]) in before
    ]
    seeds = sorted({p["seed"] for p in longer["vae"]})
    ratios = {
        f"{m:g}": statistics.median(
            p["kl"] / p["predicted"] for p in bound if p["m"] == m and p["sigma"] > 0.75
        )
        for m in sorted({p["m"] for p in bound if p["sigma"] > 0.75})
    }
    return {
        "kl_over_calculator_by_m_where_sigma_is_above_0.75": ratios,
        "longer_crossings_of_narrowest": [
            crossing([p for p in longer["vae"] if p["seed"] == s]) for s in seeds
        ],
        "longer_sinking_kl_over_calculator_before_and_after": both,
    }


def crossing(points: list[dict[str, Any]]) -> float | None:
    """σ where KL falls through the threshold, between two settings on a straight line in log KL."""
    order = sorted(points, key=lambda p: p["sigma"])
    for a, b in itertools.pairwise(order):
        if a["kl"] >= THRESHOLD > b["kl"]:
            high, low = math.log(a["kl"]), math.log(max(b["kl"], 1e-12))
            return a["sigma"] + (high - math.log(THRESHOLD)) / (high - low) * (b["sigma"] - a["sigma"])
    return None


@styled
def _figure(
    plain: list[dict[str, Any]],
    bound: list[dict[str, Any]],
    values: Tensor,
    spread: Tensor,
    found: dict[str, Any],
) -> Figure:
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.6), layout="constrained")
    edge = found["threshold_sigma"]
    norm = LogNorm(1e-3, 4.0)
    table = np.array(
        [
            [statistics.mean(p["kl"] for p in plain if p["width"] == w and p["sigma"] == s) for s in SIGMAS]
            for w in WIDTHS
        ]
    )
    left = axes[0, 0]
    left.pcolormesh(_edges(SIGMAS), np.arange(len(WIDTHS) + 1) - 0.5, table.clip(1e-3), norm=norm, cmap="cividis",
                    rasterized=True)  # fmt: skip
    left.axvline(edge, color="white", lw=1.6)
    left.axvline(edge, color=SERIES[1], lw=1.0)
    left.set_yticks(range(len(WIDTHS)), ["linear", *map(str, WIDTHS[1:])])
    left.set(xlabel="σ (units of the data)", ylabel="units of each hidden layer", title="VAE; line: √λ₁")
    right = axes[0, 1]
    grid = np.array(
        [[next(p["kl"] for p in bound if p["m"] == m and p["sigma"] == s) for s in NOISES] for m in LOWER]
    )
    mesh = right.pcolormesh(_edges(NOISES), _log_edges(LOWER), grid.clip(1e-3), norm=norm, cmap="cividis",
                            rasterized=True)  # fmt: skip
    _contours(right, values, spread, edge)
    right.set(yscale="log", xlabel="σ (units of the data)", ylabel="m (units of the data per unit of z)")
    right.set(xlim=_edges(NOISES)[[0, -1]], ylim=_log_edges(LOWER)[[0, -1]])
    right.set_yticks([0.05, 0.1, 0.2, 0.5, 1.0], ["0.05", "0.1", "0.2", "0.5", "1"])
    right.set_title("LIDVAE; white: calculator (nats), dashed: m² + σ² = λ₁")
    figure.colorbar(
        mesh, ax=axes[0].tolist(), label="true posterior's KL (nats a row)", extend="both", pad=0.01
    )
    _lines(axes[1, 0], plain, edge)
    _against(axes[1, 1], bound, float(values.max()))
    return figure


def _contours(ax: Axes, values: Tensor, spread: Tensor, edge: float) -> None:
    x, y = np.linspace(0.25, 1.2, 120), np.geomspace(0.03, 1.3, 120)
    z = np.array([[predicted(float(m), float(s), values, spread) for s in x] for m in y])
    lines = ax.contour(x, y, z, levels=LEVELS, colors="white", linewidths=1.0)
    where = []
    for level in LEVELS:  # each label at one noise, on its own contour
        sigma = 0.5 if level == max(LEVELS) else 1.03
        m = brentq(lambda v, s=sigma, n=level: predicted(v, s, values, spread) - n, 0.01, 3.0)
        where.append((sigma, m))
    ax.clabel(lines, fmt="%g", fontsize=7, manual=where)
    angle = np.linspace(0.01, math.pi / 2 - 0.01, 200)
    ax.plot(edge * np.cos(angle), edge * np.sin(angle), color=SERIES[1], lw=1.4, ls="--")


def _lines(ax: Axes, plain: list[dict[str, Any]], edge: float) -> None:
    fine = [p for p in plain if p["width"] == 0 and p["seed"] == 1]
    ax.plot([p["sigma"] for p in fine], [max(p["predicted"], 1e-9) for p in fine], color=PRIOR,
            label="Σ ½ log(λᵢ/σ²)")  # fmt: skip
    for colour, marker, width in zip(SERIES, "osD^v", (0, 2, 8, 32), strict=False):
        some = [p for p in plain if p["width"] == width]
        ax.plot([p["sigma"] for p in some], [p["kl"] for p in some], marker, ms=3, mfc="none", color=colour,
                label="linear" if width == 0 else f"{width} units")  # fmt: skip
    ax.axvline(edge, color=SERIES[1], lw=0.8)
    ax.axhline(THRESHOLD, color=PRIOR, lw=0.6, ls=":")
    ax.set(
        yscale="log",
        ylim=(1e-7, 5),
        xlabel="σ (units of the data)",
        ylabel="true posterior's KL (nats a row)",
    )
    ax.set_title("VAE, both seeds; collapsed below the dots")
    ax.legend(loc="lower left")


def _against(ax: Axes, bound: list[dict[str, Any]], largest: float) -> None:
    for binds, marker, colour, label in (
        (True, "o", SERIES[0], "m binds: m² + σ² > λ₁"),
        (False, "x", SERIES[1], "the data ask for more"),
    ):
        some = [p for p in bound if (p["m"] ** 2 + p["sigma"] ** 2 > largest) == binds]
        ax.plot([p["predicted"] for p in some], [p["kl"] for p in some], marker, ms=3.5, mfc="none", color=colour,
                label=label)  # fmt: skip
    ends = [min(p["predicted"] for p in bound), max(p["predicted"] for p in bound)]
    ax.plot(ends, ends, color=PRIOR, lw=0.8)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="calculator, best linear decoder (nats)",
        ylabel="true posterior's KL (nats)",
    )
    ax.set_title("LIDVAE")
    ax.legend(loc="upper left")


def _edges(values: tuple[float, ...]) -> np.ndarray:
    middle = (np.array(values[1:]) + np.array(values[:-1])) / 2
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])


def _log_edges(values: tuple[float, ...]) -> np.ndarray:
    return np.exp(_edges(tuple(np.log(values))))


if __name__ == "__main__":
    main()
