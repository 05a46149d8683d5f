"""The linear VAE: what training finds is PPCA's maximum likelihood, and eigenvalues say which latents collapse.

    OMP_NUM_THREADS=1 python -m experiments.linear_vae

Lucas, Tucker, Grosse & Norouzi 2019, Don't blame the ELBO: with a decoder ``W z + b``, noise σ² and a Gaussian encoder
linear in x, the ELBO's global maximum is the likelihood's, ``W = U (Λ − σ²I)₊^½`` up to permutation and sign (Tipping &
Bishop 1999). There latent i tells ``½ log(λ_i/σ²)`` nats a row on the training rows where λ_i > σ², and nothing where not:
a collapse that the likelihood itself asks for. With σ learned, σ² is the mean of the eigenvalues that no latent takes.

Ten columns of known spectrum, randomly turned, and six latents; thirteen fixed σ and a learned one, all seeds at once. All
figures are over the training rows, which the theorem is about, and log-likelihoods and true posteriors are closed forms.

Every seed finds as many latents as the eigenvalues say. Theory and training part at the two least fixed σ alone: training is
not over there after so many steps. Loadings are not yet at right angles (`largest_cosine`), so that latents share
directions and each tells less, and the likelihood is short as well. Four times the steps (`longer`) bring the KLs at
σ = 0.35 from 0.13 to 0.001 nats of the closed form. A learned σ starts at 1 and comes down, and ends nearer to its
optimum at 0.3 than the fixed ones to theirs at 0.35 after as many steps.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

import identkit as ik
from experiments.record import Record
from identkit.lidvae.datasets import Dataset, from_rows
from identkit.lidvae.models import VAE
from identkit.lidvae.objectives import ELBO
from identkit.lidvae.run import Run
from identkit.plot.style import PRIOR, SERIES, WIDTH, styled

SPECTRUM = (4.0, 2.5, 1.6, 1.0, 0.6, 0.4, 0.12, 0.1, 0.08, 0.06)
LATENTS = 6
SIGMAS = (0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.1, 1.2, 1.4, 1.6, 1.9, 2.3)
SEEDS = 4
STEPS = 4000
ROWS = 5000
THRESHOLD = 0.01  # nats, below which a latent counts as collapsed


def main() -> None:
    record = Record("linear_vae", __doc__)
    data = turned(1000 if record.smoke else ROWS)
    seeds, steps = (2, 100) if record.smoke else (SEEDS, STEPS)
    train = data.train.double()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(train.T, correction=0)).flip(0)
    linear: dict[str, Any] = {"hidden": (), "encoder_hidden": ()}
    fixed = trained(
        VAE(len(SPECTRUM), LATENTS, sigma=SIGMAS, members=len(SIGMAS), **linear), data, steps, seeds
    )
    free = trained(VAE(len(SPECTRUM), LATENTS, sigma="learned", **linear), data, steps, seeds)
    points = judged(fixed, train, eigenvalues, [*SIGMAS] * seeds)
    learned = judged(free, train, eigenvalues, [None] * seeds)
    patient = trained(VAE(len(SPECTRUM), LATENTS, sigma=SIGMAS[0], **linear), data, 4 * steps, seeds)
    longer = judged(patient, train, eigenvalues, [SIGMAS[0]] * seeds)
    found = summary(points, learned) | {
        "largest_encoder_kl_off_longer": max(off(p, "encoder_kl") for p in longer)
    }
    tell(points, learned, found)
    record.write(
        {
            "rows": len(train),
            "eigenvalues": eigenvalues.tolist(),
            "seeds": seeds,
            "steps": steps,
            "threshold": THRESHOLD,
            "summary": found,
            "fixed": points,
            "learned": learned,
            "longer": longer,
        },
        main=_figure(points, learned, eigenvalues),
    )


def turned(rows: int) -> Dataset:
    """Normal rows whose covariance has the spectrum, in directions that no axis favours."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(len(SPECTRUM), len(SPECTRUM), generator=generator)).Q
    x = torch.randn(rows, len(SPECTRUM), generator=generator) * torch.tensor(SPECTRUM).sqrt()
    return from_rows(x @ basis.T, "gaussian", name="turned spectrum")


def trained(model: VAE, data: Dataset, steps: int, seeds: int) -> Run:
    """Four draws a row and a rate that falls to nothing: the optimum is asked for, not a cloud about it."""
    return ik.fit(
        model,
        data,
        steps=steps,
        seeds=seeds,
        objective=ELBO(samples=4),
        learning_rate=1e-2,
        batch_size=256,
        schedule="cosine",
        device="cpu",
    )


@torch.no_grad()
def judged(run: Run, x: Tensor, eigenvalues: Tensor, sigmas: list[float | None]) -> list[dict[str, Any]]:
    """Each member beside the closed form at its own σ, or at maximum likelihood's where σ was learned."""
    model = run.model.double()
    assert isinstance(model, VAE)
    q = model.infer(model.rows(x))
    encoder = q.kl().mean(1)
    eye = torch.eye(LATENTS, dtype=torch.float64)
    found = []
    for number, asked in enumerate(sigmas):
        theory = ik.PPCA.fit(x, LATENTS, sigma=asked)
        layer: Any = model.decoder.layers[-1]  # type: ignore[union-attr,index]
        w, b = layer.weight[number], layer.bias[number]
        sigma = float(model.likelihood.sigma[number])  # type: ignore[union-attr,operator]
        fitted = ik.PPCA(w, sigma, b)
        height, best = (float(each.log_evidence(x).mean()) for each in (fitted, theory))
        squares = (2 * q.log_scale[number]).exp().sum(0)
        shift = model.rows(x)[number] - b - q.mean[number] @ w.T
        rebuilt = shift.square().sum(1).mean() + (squares * w.square().sum(0)).sum() / len(x)
        columns = x.shape[1]
        said = -rebuilt / (2 * sigma**2) - columns * math.log(sigma * math.sqrt(2 * math.pi))
        elbo = float(said - encoder[number].sum())
        truth = torch.sort(fitted_kl(w, b, sigma, x, eye), descending=True).values
        predicted = 0.5 * (eigenvalues[:LATENTS] / theory.sigma**2).log().clamp(min=0.0)
        cross = w.T @ w
        size = cross.diagonal().sqrt()
        alike = (cross / (size[:, None] * size).clamp(min=1e-12)).abs()
        strong = size.square() > 0.05 * sigma**2
        pairs = alike[strong][:, strong].triu(1)
        found.append(
            {
                "sigma": sigma,
                "ml_sigma": theory.sigma,
                "predicted_kl": predicted.tolist(),
                "encoder_kl": torch.sort(encoder[number], descending=True).values.tolist(),
                "true_kl": truth.tolist(),
                "squared_lengths": torch.linalg.svdvals(w).square().tolist(),
                "predicted_lengths": (eigenvalues[:LATENTS] - theory.sigma**2).clamp(min=0.0).tolist(),
                "largest_cosine": float(pairs.max()) if pairs.numel() else 0.0,
                "alive": int((encoder[number] > THRESHOLD).sum()),
                "predicted_alive": int((predicted > THRESHOLD).sum()),
                "log_likelihood": height,
                "ml_log_likelihood": best,
                "elbo": elbo,
            }
        )
    return found


def fitted_kl(w: Tensor, b: Tensor, sigma: float, x: Tensor, eye: Tensor) -> Tensor:
    """``E KL(p(z_j | x) ‖ p(z_j))`` of each marginal of the trained model's true posterior."""
    inverse = torch.linalg.inv(eye + w.T @ w / sigma**2)
    mean = (x - b) @ w @ inverse / sigma**2
    variance = inverse.diagonal()
    return 0.5 * (variance + mean.square().mean(0) - 1 - variance.log())


def off(one: dict[str, Any], name: str) -> float:
    """The latent that is furthest from the closed form, nats."""
    return max(abs(a - b) for a, b in zip(one[name], one["predicted_kl"], strict=True))


def summary(points: list[dict[str, Any]], learned: list[dict[str, Any]]) -> dict[str, Any]:
    everything = [*points, *learned]

    return {
        "models": len(everything),
        "wrong_counts": sum(p["alive"] != p["predicted_alive"] for p in everything),
        "largest_encoder_kl_off": max(off(p, "encoder_kl") for p in everything),
        "median_encoder_kl_off": statistics.median(off(p, "encoder_kl") for p in everything),
        "largest_true_kl_off": max(off(p, "true_kl") for p in everything),
        "largest_likelihood_gap": max(p["ml_log_likelihood"] - p["log_likelihood"] for p in everything),
        "least_likelihood_gap": min(p["ml_log_likelihood"] - p["log_likelihood"] for p in everything),
        "largest_elbo_gap": max(p["ml_log_likelihood"] - p["elbo"] for p in everything),
        "largest_cosine": max(p["largest_cosine"] for p in everything),
        "largest_encoder_kl_off_learned": max(off(p, "encoder_kl") for p in learned),
        "largest_encoder_kl_off_by_sigma": {
            f"{sigma:g}": max(off(p, "encoder_kl") for p in points if abs(p["sigma"] - sigma) < 1e-6)
            for sigma in SIGMAS
        },
        "largest_cosine_by_sigma": {
            f"{sigma:g}": max(p["largest_cosine"] for p in points if abs(p["sigma"] - sigma) < 1e-6)
            for sigma in SIGMAS
        },
        "learned_sigma": [p["sigma"] for p in learned],
        "ml_sigma": learned[0]["ml_sigma"],
    }


def tell(points: list[dict[str, Any]], learned: list[dict[str, Any]], found: dict[str, Any]) -> None:
    print(
        f"{'σ':>7} {'alive':>5} {'PPCA':>4}  {'encoder KL':42s} {'½ log(λ/σ²)':42s} {'log p gap':>9} {'ELBO gap':>9}"
    )
    for p in [*points[: len(SIGMAS)], learned[0]]:
        said, theory = (" ".join(f"{v:6.3f}" for v in p[name]) for name in ("encoder_kl", "predicted_kl"))
        best = p["ml_log_likelihood"]
        print(
            f"{p['sigma']:7.4f} {p['alive']:5d} {p['predicted_alive']:4d}  {said:42s} {theory:42s} "
            f"{best - p['log_likelihood']:9.5f} {best - p['elbo']:9.5f}"
        )
    for name, value in found.items():
        print(f"{name}: {value}")


@styled
def _figure(points: list[dict[str, Any]], learned: list[dict[str, Any]], eigenvalues: Tensor) -> Figure:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 3.1), width_ratios=(1.6, 1), layout="constrained"
    )
    line = torch.linspace(0.28, 2.4, 400)
    for i in range(LATENTS):
        curve = 0.5 * (eigenvalues[i] / line.double().square()).log().clamp(min=0.0)
        left.plot(line, curve, color=SERIES[i], lw=1.0)
        left.plot(
            [p["sigma"] for p in points], [p["encoder_kl"][i] for p in points], "o", ms=2.8, color=SERIES[i]
        )
        left.plot(
            [p["sigma"] for p in learned],
            [p["encoder_kl"][i] for p in learned],
            "s",
            ms=5,
            mfc="none",
            mec=SERIES[i],
            mew=0.9,
        )
        left.plot(float(eigenvalues[i].sqrt()), 0.0, "|", ms=9, mew=1.2, color=SERIES[i], clip_on=False)
    left.plot([], [], color=PRIOR, lw=1.0, label="½ log(λᵢ/σ²), 0 beyond σ = √λᵢ (ticks)")
    left.plot([], [], "o", ms=2.8, color=PRIOR, label="trained, σ fixed")
    left.plot([], [], "s", ms=5, mfc="none", mec=PRIOR, label="trained, σ learned")
    left.set(
        xlabel="σ (units of the data)", ylabel="encoder's KL of a latent (nats a row)", ylim=(-0.06, None)
    )
    left.set_title("One colour a latent, largest KL first")
    left.legend(loc="upper right")
    for name, marker, colour, label in (
        ("elbo", "x", SERIES[1], "ELBO"),
        ("log_likelihood", "o", SERIES[0], "log-likelihood"),
    ):
        for some, face in ((points, colour), (learned, "none")):
            right.plot(
                [p["sigma"] for p in some],
                [p["ml_log_likelihood"] - p[name] for p in some],
                marker,
                ms=3 if some is points else 5,
                mfc=face,
                mec=colour,
                label=label if some is points else None,
                ls="",
            )
    right.set(yscale="log", xlabel="σ (units of the data)", ylabel="short of PPCA's maximum (nats a row)")
    right.set_title("What training leaves on the table")
    right.legend()
    return figure


if __name__ == "__main__":
    main()
