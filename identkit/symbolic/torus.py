"""The scalings under which every entry of κ is homogeneous: they grade every ansatz, and split it into small ones."""

from __future__ import annotations

import random
from math import lcm

from sympy import Symbol

from identkit.symbolic.linear import nullspace, rationals
from identkit.symbolic.modular import Evaluator

_PAIRS = 3


class Torus:
    """Integer weights w of the variables with ``Σ wᵢ uᵢ ∂ᵢκₖ = cₖ κₖ``, and the weights c of κ's entries.

    Attributes:
        size: the number of independent scalings.
        of_variables: each variable's weights, one a scaling.
        of_entries: the weights of κ's entries.

    >>> from sympy import symbols
    >>> u, v = symbols("u v")
    >>> Torus(Evaluator([u * v], [u, v]), 1).of_entries
    [(1, 1)]
    """

    def __init__(self, evaluator: Evaluator, entries: int) -> None:
        chance = random.Random(17)
        variables = evaluator.unknowns
        logs = [self._logarithmic(evaluator, chance, entries) for _ in range(_PAIRS + 1)]
        # A weight is a vector whose product with the logarithmic derivatives is the same at every point.
        rows = [
            [a - b for a, b in zip(one, other, strict=True)]
            for here in logs[1:]
            for one, other in zip(here, logs[0], strict=True)
            if one and other
        ]
        vectors = []
        for vector in nullspace([row for row in rows if any(row)], len(variables), evaluator.prime):
            exact = rationals(vector, evaluator.prime, largest=64)
            if exact is not None:
                scale = lcm(*[int(entry.q) for entry in exact])
                vectors.append([int(entry * scale) for entry in exact])
        p = evaluator.prime
        degrees = []
        for row in logs[0]:
            found = [sum(w * e for w, e in zip(v, row, strict=True)) % p if row else 0 for v in vectors]
            degrees.append([rationals([entry], p, largest=256) for entry in found])
        good = [k for k in range(len(vectors)) if all(entry[k] is not None for entry in degrees)]
        self.size = len(good)
        self.of_variables: dict[Symbol, tuple[int, ...]] = {
            u: tuple(vectors[k][i] for k in good) for i, u in enumerate(variables)
        }
        self.of_entries = [tuple(int((entry[k] or [0])[0]) for k in good) for entry in degrees]

    @staticmethod
    def _logarithmic(evaluator: Evaluator, chance: random.Random, entries: int) -> list[list[int]]:
        point = evaluator.draw(chance)
        values, jacobian = evaluator.at(point)
        p = evaluator.prime
        rows = []
        for value, row in zip(values[:entries], jacobian[:entries], strict=True):
            inverse = pow(value, -1, p) if value % p else 0
            scaled = [
                point[u].value * e % p * inverse % p if e else 0
                for u, e in zip(evaluator.unknowns, row, strict=True)
            ]
            rows.append(scaled if inverse else [])
        return rows
