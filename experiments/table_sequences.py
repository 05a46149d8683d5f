"""Sequences: what each remedy against collapse keeps of the latent beside a strong decoder, and what it pays for it.

    python -m experiments.table_sequences --preset cpu
    python -m experiments.table_sequences --preset cpu --text FILE

Without a text, sequences of 20 symbols of 20 from a Markov language that a latent of two dimensions tilts all along
(`identkit.lidvae.datasets.markov_sequences`). A text is cut into sequences of 20 words; its 2,000 most frequent are kept.
SequenceVAE, β, the lagging encoder and SA share one model, whose LSTM may do without the latent, and differ in what is
minimised; LIDSVAE has the same encoder, and a decoder that sees the latent at every step. The search is the same for every
method: two decoder rates.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import identkit as ik
from experiments.record import Record
from experiments.tables import Budget, Method, first, report
from identkit.lidvae.datasets import Dataset, from_text, markov_sequences
from identkit.lidvae.objectives import BetaVAE, Lagging, SemiAmortised

LENGTH, WORDS = 20, 2_000
BETA = 0.5
CLIMB_RATE = 0.05  # of SA; times its clip of 5, a row's mean moves by at most .25 a step

_CPU = Budget(
    rows=5_000,
    epochs=10,
    seeds=2,
    batch_size=64,
    learning_rate=4e-3,
    latents=2,
    hidden=32,
    climb=5,
    lead=10,
    samples=50,
)
BUDGETS = {
    "cpu": _CPU,
    "short": replace(_CPU, rows=4_000, epochs=6, batch_size=128, learning_rate=8e-3, lead=5, samples=20),
    "gpu": replace(
        _CPU,
        rows=100_000,
        epochs=40,
        seeds=3,
        learning_rate=2e-3,
        hidden=128,
        climb=10,
        lead=20,
        samples=500,
    ),
    "smoke": replace(_CPU, rows=160, epochs=1, hidden=8, climb=2, lead=5, samples=5),
}


def data_of(text: Path | None, rows: int) -> Dataset:
    """The synthetic language, or the user's own file."""
    if text is None:
        return first(markov_sequences(rows), rows)
    found = from_text(text, length=LENGTH, vocabulary_size=WORDS)
    return first(found, min(rows, found.n))


def methods(data: Dataset, budget: Budget) -> list[Method]:
    """The rows of the table; the encoder and the LSTMs of all have the same size."""
    assert data.categories is not None
    length, symbols = data.train.shape[1], data.categories
    sizes: dict[str, Any] = {
        "categories": symbols,
        "embedding": budget.hidden // 2,
        "hidden": budget.hidden,
        "encoder_hidden": budget.hidden,
    }

    def plain() -> ik.SequenceVAE:
        return ik.SequenceVAE(length, budget.latents, **sizes)

    return [
        Method(name="SequenceVAE", model=plain),
        Method(name="β", model=plain, objective=BetaVAE(beta=BETA)),
        Method(name="lagging", model=plain, objective=Lagging(most=budget.lead)),
        Method(name="SA", model=plain, objective=SemiAmortised(steps=budget.climb, rate=CLIMB_RATE)),
        Method(name="LIDSVAE", model=lambda: ik.LIDSVAE(length, budget.latents, **sizes)),
    ]


def main() -> None:
    options = {"text": {"type": Path, "default": None, "help": "UTF-8; instead of the synthetic language"}}
    record = Record("table_sequences", __doc__, tuple(BUDGETS), options)
    text: Path | None = record.arguments.text
    budget = BUDGETS[record.preset]
    data = data_of(text, budget.rows)
    stem = "table_sequences" if text is None else f"table_sequences_{text.stem}"
    report(record, stem, methods(data, budget), data, budget, keep="LIDSVAE" if text is None else None)


if __name__ == "__main__":
    main()
