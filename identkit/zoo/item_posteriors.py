"""Item response models with exact posteriors, on both sides of the line.

Builders import when called, so that reading the table needs no torch.
"""

from __future__ import annotations

from typing import Any

from identkit.zoo.case import Case


def _items(discriminations: Any, where: Any, guessing: float = 0.0, several: bool = False) -> Any:
    from identkit.classical.item_response import ItemResponse

    if several:
        return ItemResponse(discriminations, guessing=guessing, intercepts=where)
    return ItemResponse(discriminations, where, guessing)


CASES = (
    Case(
        name="items-rasch",
        model=lambda: _items(1.0, [-1.0, 0.0, 1.5]),
        source="Rasch 1960; by hand: p(x_1 = 1 | θ) = σ(θ + 1) rises in θ, so it names θ",
        levels={"theta": "GLOBAL"},
        level="GLOBAL",
        note="One ability behind all items: what makes answers depend on each other is what they tell.",
    ),
    Case(
        name="items-without-discrimination",
        model=lambda: _items(0.0, [-1.0, 0.0, 1.5]),
        source="by hand: σ(0·(θ − b)) = 1/2 whatever θ is",
        levels={"theta": "CONSTANT"},
        level="CONSTANT",
        note="Items of discrimination 0 are coins: the posterior is N(0, 1), exactly.",
    ),
    Case(
        name="items-guessing",
        model=lambda: _items([1.0, 2.0], [0.0, 0.5], 0.25),
        source="Birnbaum 1968; by hand: c + (1 − c) σ(θ) rises in θ for c < 1",
        levels={"theta": "GLOBAL"},
        level="GLOBAL",
        note="Guessing weakens what a right answer says, but it hides nothing.",
    ),
    Case(
        name="items-blind-ability",
        model=lambda: _items([[1.0, 0.0], [2.0, 0.0]], [0.0, 0.5], several=True),
        source="by hand: the second column of the slopes is 0, so θ_2 drops out of every logit",
        levels={"theta[1]": "GLOBAL", "theta[2]": "CONSTANT"},
        level="PARTIAL",
        note="An ability that no item asks for keeps its prior.",
    ),
)
