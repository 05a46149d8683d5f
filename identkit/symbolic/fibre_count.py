"""How many complex solutions has ``κ(u) = κ(u₀)`` at a generic u₀? Counted by a Gröbner basis over a prime field.

Singular does it, as a subprocess: `pip install identkit[algebra]`, or any `Singular` on the path. Without it nothing is
lost but the count. A count is information and no proof: a random point of a large prime field may be an unlucky one, and
complex solutions need not lie in the domains (theory/T6).
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import sympy
from sympy import Expr, Symbol

from identkit.symbolic.problem import Problem

_PRIME = 2147483629
"""The largest prime below Singular's bound on characteristics but for one."""
_MOST_TERMS = 20_000


def singular() -> str | None:
    """Where Singular is: on the path, or in the package passagemath-singular; None if nowhere."""
    found = shutil.which("Singular")
    if found is not None:
        return found
    spec = find_spec("sage_wheels")
    for folder in [] if spec is None else spec.submodule_search_locations or []:
        candidate = Path(folder) / "bin" / "Singular"
        if candidate.is_file():
            return str(candidate)
    return None


def fibre_count(problem: Problem, seconds: float = 5.0) -> int | None:
    """Count the points of the generic complex fibre, each once where κ's poles have been taken out.

    Args:
        problem: unknowns and κ, which should be rational functions of them and of what is known.
        seconds: time after which Singular is stopped.

    Returns:
        The count; None without Singular, where κ is not rational, where there are constraints, when time is up, and for
        fibres of positive dimension.

    >>> u, v = sympy.symbols("u v", real=True)
    >>> fibre_count(Problem((u, v), {}, (u * v, u + v))) in (2, None)
    True
    """
    program = singular()
    ideal = None if program is None or problem.constraints else _ideal(problem, random.Random(3))
    if program is None or ideal is None:
        return None
    names = [f"u{i}" for i in range(len(problem.unknowns))] + ["t"]
    text = (
        f"ring r = {_PRIME}, ({','.join(names)}), dp;\nideal i = {', '.join(ideal)};\n"
        'ideal g = slimgb(i);\nprint("=" + string(dim(g)) + ":" + string(vdim(g)));\nquit;\n'
    )
    try:
        done = subprocess.run(
            [program, "-q", "--no-rc", "--no-shell"],
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except (subprocess.TimeoutExpired, OSError):
        return None
    answer = [line for line in done.stdout.splitlines() if line.startswith("=")]
    if len(answer) != 1:
        return None
    dimension, count = (int(number) for number in answer[0][1:].split(":"))
    return count if dimension == 0 and count > 0 else None


def _ideal(problem: Problem, chance: random.Random) -> list[str] | None:
    """Generators in Singular's notation: numerators of κ(u) − κ(u₀), and ``t·(all denominators) − 1``."""
    used = {s for e in problem.summary for s in e.free_symbols}
    if not set(problem.unknowns) <= used or not used <= {*problem.unknowns, *problem.known}:
        return None
    point = {s: chance.randrange(2, _PRIME) for s in (*problem.unknowns, *problem.known) if s in used}
    equations: list[str] = []
    denominators: dict[str, None] = {}
    for expression in problem.summary:
        parts = [_Polynomial.of(part, problem, point) for part in sympy.fraction(sympy.together(expression))]
        if any(part is None for part in parts):
            return None
        top, bottom = (part for part in parts if part is not None)
        height, depth = top.at(point), bottom.at(point)
        if depth == 0:
            return None
        level = height * pow(depth, -1, _PRIME) % _PRIME
        equations.append(f"{top} - {level}*({bottom})")
        denominators[f"({bottom})"] = None
    return [*equations, f"t*{'*'.join(denominators)} - 1"]


@dataclass(frozen=True)
class _Polynomial:
    """Exponents of the unknowns and coefficients in the field, what is known being at its point."""

    unknowns: tuple[Symbol, ...]
    terms: Mapping[tuple[int, ...], int]

    @classmethod
    def of(cls, part: Expr, problem: Problem, point: Mapping[Symbol, int]) -> _Polynomial | None:
        known = tuple(s for s in problem.known if s in point)
        try:
            terms = sympy.Poly(part, *problem.unknowns, *known, domain=sympy.QQ).terms()
        except (sympy.PolynomialError, sympy.CoercionFailed):
            return None
        if len(terms) > _MOST_TERMS:
            return None
        count = len(problem.unknowns)
        found: dict[tuple[int, ...], int] = {}
        for powers, weight in terms:
            value = int(weight.p) * pow(int(weight.q), -1, _PRIME)
            for symbol, power in zip(known, powers[count:], strict=True):
                value = value * pow(point[symbol], power, _PRIME) % _PRIME
            found[powers[:count]] = (found.get(powers[:count], 0) + value) % _PRIME
        return cls(problem.unknowns, found)

    def at(self, point: Mapping[Symbol, int]) -> int:
        total = 0
        for powers, weight in self.terms.items():
            product = weight
            for symbol, power in zip(self.unknowns, powers, strict=True):
                product = product * pow(point[symbol], power, _PRIME) % _PRIME
            total = (total + product) % _PRIME
        return total

    def __str__(self) -> str:
        products = [
            "*".join([str(weight), *[f"u{i}^{n}" for i, n in enumerate(powers) if n]])
            for powers, weight in self.terms.items()
        ]
        return " + ".join(products) or "0"
