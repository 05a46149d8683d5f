"""Images and the pinwheel: what each remedy against collapse keeps in the latents, and what it pays in likelihood.

    IDENTKIT_DATA=… python -m experiments.table_images --data mnist --preset cpu

Data are the pinwheel (σ = 0.2) or images made black and white once (MNIST, Fashion-MNIST, Omniglot: those at hand, up to
the preset's rows). VAE, β-VAE, the lagging encoder and SA-VAE share one model and differ in what is minimised; LIDVAE has
the same encoder and Brenier maps for a decoder, and takes the lagging encoder as well. GMVAE and LIDMVAE have a mixture for
a prior; they are compared with one another. The search is the same for every method: two decoder rates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import identkit as ik
from experiments.record import Record
from experiments.tables import Budget, Method, first, report
from identkit.lidvae.datasets import Dataset, binarised, pinwheel
from identkit.lidvae.datasets.named import IMAGES
from identkit.lidvae.objectives import BetaVAE, Lagging, SemiAmortised

SIGMA = 0.2  # of the pinwheel, whose arms are .05 across and .3 along
BETA = 0.5
CLIMB_RATE = 0.05  # of SA-VAE; times its clip of 5, a row's mean moves by at most .25 a step
ARMS, CLUSTERS = 5, 10

_CPU = Budget(
    rows=10_000,
    epochs=10,
    seeds=2,
    batch_size=128,
    learning_rate=2e-3,
    latents=16,
    hidden=128,
    climb=5,
    lead=10,
    samples=50,
)
BUDGETS = {
    "cpu": _CPU,
    "short": replace(_CPU, rows=5_000, learning_rate=4e-3, hidden=64, lead=5, samples=20),
    "gpu": Budget(
        rows=70_000,
        epochs=100,
        seeds=3,
        batch_size=128,
        learning_rate=1e-3,
        latents=32,
        hidden=512,
        climb=10,
        lead=20,
        samples=500,
    ),
    "smoke": replace(
        _CPU, rows=320, epochs=1, batch_size=64, latents=3, hidden=16, climb=2, lead=5, samples=5
    ),
}


def planar(budget: Budget) -> Budget:
    """The pinwheel has two latents and needs less width, more steps and a higher rate."""
    return replace(
        budget, latents=2, hidden=min(64, budget.hidden), epochs=3 * budget.epochs, learning_rate=5e-3
    )


def data_of(name: str, rows: int) -> Dataset:
    """One draw of black and white for all rows: every method learns from and is judged on the same."""
    found = pinwheel(rows) if name == "pinwheel" else binarised(IMAGES[name](), 0, fresh=False)
    return first(found, min(rows, found.n))


def methods(data: Dataset, budget: Budget) -> list[Method]:
    """The rows of the table; the encoder of all has the same hidden layers."""
    columns, wide = data.train.shape[1], (budget.hidden, budget.hidden)
    flat = data.likelihood == "gaussian"
    shared: dict[str, Any] = {"likelihood": data.likelihood, "encoder_hidden": wide}
    if flat:
        shared["sigma"] = SIGMA
    # In the plane maps with borders along half-lines tear as the arms do; in 784 dimensions ridges are affordable.
    maps: dict[str, Any] = (
        {"map": "logsumexp", "hidden": (*wide, budget.hidden)} if flat else {"hidden": wide}
    )
    clusters = ARMS if flat else CLUSTERS

    def plain() -> ik.VAE:
        return ik.VAE(columns, budget.latents, hidden=wide, **shared)

    def identifiable() -> ik.LIDVAE:
        return ik.LIDVAE(columns, budget.latents, **maps, **shared)

    return [
        Method(name="VAE", model=plain),
        Method(name="β-VAE", model=plain, objective=BetaVAE(beta=BETA)),
        Method(name="lagging", model=plain, objective=Lagging(most=budget.lead)),
        Method(name="SA-VAE", model=plain, objective=SemiAmortised(steps=budget.climb, rate=CLIMB_RATE)),
        Method(name="LIDVAE", model=identifiable),
        Method(name="LIDVAE, lagging", model=identifiable, objective=Lagging(most=budget.lead)),
        Method(
            name="GMVAE", model=lambda: ik.GMVAE(columns, budget.latents, clusters, hidden=wide, **shared)
        ),
        Method(name="LIDMVAE", model=lambda: ik.LIDMVAE(columns, budget.latents, clusters, **maps, **shared)),
    ]


def main() -> None:
    names = ["pinwheel", *(name for name in IMAGES if name != "digits")]
    record = Record(
        "table_images", __doc__, tuple(BUDGETS), {"data": {"choices": names, "default": "pinwheel"}}
    )
    name = str(record.arguments.data)
    budget = BUDGETS[record.preset]
    if name == "pinwheel":
        budget = planar(budget)
    data = data_of(name, budget.rows)
    own: dict[str, Any] = {"keep": "LIDVAE", "sigma": SIGMA} if name == "pinwheel" else {}
    report(record, f"table_images_{name}", methods(data, budget), data, budget, **own)


if __name__ == "__main__":
    main()
