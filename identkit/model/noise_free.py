"""The noise-free observation ``y = expression``: a law, but no density."""

from __future__ import annotations

from typing import NoReturn

from sympy import Expr, S

from identkit.model.families import Family


class Exactly(Family):
    """The point mass at `value`: what `observe y = expression` means.

    Its law is its value, so every question about laws has an answer. A density it has not: each question on
    given data, and the exact posterior, refuse it by name.

    >>> Exactly(3).law
    (3,)
    """

    names = ("value",)
    domains = (S.Reals,)
    support = S.Reals

    def log_density(self, *x: Expr) -> NoReturn:
        """Refuses: a point mass has no density with respect to any measure that serves all its values.

        Raises:
            ValueError: always.
        """
        observed = ", ".join(map(str, x))
        raise ValueError(
            f"{observed} is observed without noise, so it has no density to evaluate; "
            "ask about the law (no data), or add noise, as in Normal(value, sd)"
        )

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments
