"""A strong decoder of sequences forgets what they were drawn with; one that sees the latent at every step recovers it.

    python -m experiments.sequences

Sequences of 20 symbols of 20, from a Markov language that a latent of two dimensions tilts all along
(`identkit.lidvae.datasets.markov_sequences`): the truth is known, so its information, its log-likelihood and how well its
posterior mean recovers the latent stand beside those of the models. Both models have the same encoder, LSTMs of the same
size and the same budget, once with the ELBO and once with its KL term annealed, which is the usual remedy. Recovery is up
to an affine map, by canonical correlations: of posterior means, and of one draw from each posterior, which a collapsed one
cannot pass.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

import identkit as ik
from experiments.record import Record, shown, spread
from identkit.lidvae.datasets import Dataset, MarkovLanguage, markov_sequences
from identkit.lidvae.members import member
from identkit.lidvae.metrics import measure
from identkit.lidvae.objectives import ELBO, KLAnnealing, Objective
from identkit.lidvae.run import Run
from identkit.plot.style import SERIES, WIDTH, styled

ROWS = 10_000
STEPS = 900
SEEDS = 4
SMALL: dict[str, Any] = {"embedding": 16, "hidden": 32, "encoder_hidden": 32}
TRAINING: dict[str, Any] = {"batch_size": 64, "learning_rate": 4e-3, "decoder_rate": 3.0}
SAMPLES = 100  # of the importance-weighted bound
OBJECTIVES: dict[str, Objective] = {"ELBO": ELBO(), "annealed": KLAnnealing(first=0.1, share=0.3)}
REACH, KNOTS = 4.5, 41  # of the grid on which the truth is integrated, each way
AT_ONCE = 25  # rows


class Truth(NamedTuple):
    """What the language itself says about the test rows, by quadrature."""

    log_likelihood: float
    information: float
    mean: Float[Tensor, "n k"]


def truth(data: Dataset) -> Truth:
    """Evidence, information and posterior means under the language that the data were drawn from."""
    language = MarkovLanguage.random(20, 2, seed=0)
    axis = torch.linspace(-REACH, REACH, KNOTS, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_mass = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + 2 * math.log(2 * REACH / (KNOTS - 1))
    evidence, kl, mean = [], [], []
    for rows in data.test.split(AT_ONCE):
        spoken = language.log_likelihood(rows, z.expand(len(rows), *z.shape))
        joint = spoken + log_mass
        total = joint.logsumexp(1, keepdim=True)
        posterior = (joint - total).exp()
        evidence.append(total[:, 0])
        kl.append((posterior * (spoken - total)).sum(1))
        mean.append(posterior @ z)
    return Truth(float(torch.cat(evidence).mean()), float(torch.cat(kl).mean()), torch.cat(mean))


def recovery(found: Float[Tensor, "n k"], latents: Float[Tensor, "n k"]) -> float:
    """The mean canonical correlation: 1 where one is an affine map of the other."""
    one, two = (torch.linalg.qr(each.double() - each.double().mean(0)).Q for each in (found, latents))
    return float(torch.linalg.svdvals(one.T @ two).mean())


def judged(run: Run, data: Dataset) -> dict[str, Any]:
    """What every seed says of the test rows."""
    assert data.latents is not None
    latents = data.latents.test
    metrics = measure(run.model, data.test, objective=run.objective, samples=SAMPLES)
    with torch.no_grad():
        q = run.model.infer(run.model.rows(data.test))
    draws = q.draw(1, torch.Generator().manual_seed(0))[0]
    return {
        "level": str(ik.check(run.best).level),
        "active_units": [len(m.active_units) for m in metrics],
        "kl": [m.total_kl for m in metrics],
        "information": [m.information for m in metrics],
        "information_error": max(m.information_error for m in metrics),
        "log_likelihood": [m.log_likelihood for m in metrics],
        "elbo": [m.elbo for m in metrics],
        "recovery_by_means": [recovery(each, latents) for each in q.mean],
        "recovery_by_draws": [recovery(each, latents) for each in draws],
        "lower": metrics[0].lower,
        "parameters": sum(parameter.numel() for parameter in member(run.model, 0).parameters()),
        "seconds_of_training": round(run.seconds, 1),
    }


def main() -> None:
    record = Record("sequences", __doc__)
    data = markov_sequences(500 if record.smoke else ROWS)
    assert data.latents is not None
    true = truth(data)
    latents = data.latents.test
    print(
        f"the truth    I(z; x) {true.information:.3f}, log p(x) {true.log_likelihood:.3f}, recovery "
        f"{recovery(true.mean, latents):.3f} by its posterior means"
    )
    length, symbols = data.train.shape[1], len(data.vocabulary or ())
    models: dict[str, Any] = {
        "SequenceVAE": ik.SequenceVAE(length, 2, categories=symbols, **SMALL),
        "LIDSVAE": ik.LIDSVAE(length, 2, categories=symbols, **SMALL),
    }
    found: dict[str, dict[str, Any]] = {name: {} for name in models}
    means: dict[str, Tensor] = {}
    steps = 20 if record.smoke else STEPS
    for way, objective in OBJECTIVES.items():
        for name, model in models.items():
            run = ik.fit(model, data, steps=steps, seeds=SEEDS, objective=objective, **TRAINING)
            found[name][way] = one = judged(run, data)
            if way == "ELBO":
                with torch.no_grad():
                    means[name] = run.model.infer(run.model.rows(data.test)).mean[run.best_number]
            print(
                f"{way:8s} {name:11s} {one['level']:7s} active {one['active_units']} of 2; KL {shown(one['kl'])}, I(z; x) "
                f"{shown(one['information'])}, log p(x) {shown(one['log_likelihood'])}, recovery "
                f"{shown(one['recovery_by_means'])} by means, {shown(one['recovery_by_draws'])} by draws"
            )
    price = {
        way: spread(found["SequenceVAE"][way]["log_likelihood"])["mean"]
        - spread(found["LIDSVAE"][way]["log_likelihood"])["mean"]
        for way in OBJECTIVES
    }
    for way, cost in price.items():
        print(f"{way}: the guarantee costs {cost:.3f} nats a sequence, {cost / length:.4f} a symbol")
    known = {
        "information": true.information,
        "log_likelihood": true.log_likelihood,
        "recovery_by_means": recovery(true.mean, latents),
    }
    record.write(
        {
            "rows": data.n,
            "steps": steps,
            "seeds": SEEDS,
            "training": TRAINING,
            "samples": SAMPLES,
            "truth": known,
            "models": found,
            "price": price,
        },
        main=_figure(latents, means, found),
    )


def _aligned(mean: Float[Tensor, "n k"], latents: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """The rotation or reflection of the means that is closest to the latents: what N(0, I) leaves open."""
    left, _, right = torch.linalg.svd(mean.T @ latents)
    return mean @ left @ right


@styled
def _figure(latents: Tensor, means: dict[str, Tensor], found: dict[str, Any]) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.7), layout="constrained")
    true, *panels = axes
    quadrant = (latents[:, 0] > 0).long() + 2 * (latents[:, 1] > 0).long()
    titles = {
        name: f"{name}: I = {spread(found[name]['ELBO']['information'])['mean']:.2f} nats" for name in means
    }
    for panel, title, at in (
        (true, "Drawn with", latents),
        *(
            (panel, titles[name], _aligned(means[name], latents))
            for panel, name in zip(panels, means, strict=True)
        ),
    ):
        for number in range(4):
            some = quadrant == number
            panel.scatter(at[some, 0], at[some, 1], s=3, color=SERIES[number], linewidths=0, clip_on=False)
        panel.set(title=title, xlim=(-3.7, 3.7), ylim=(-3.7, 3.7), aspect="equal")
    true.set(xlabel="z₁", ylabel="z₂")
    for panel in panels:
        panel.set(xlabel="E q(z₁ | x), turned", ylabel="E q(z₂ | x), turned")
    return figure


if __name__ == "__main__":
    main()
