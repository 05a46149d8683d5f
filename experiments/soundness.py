"""Thousands of random models whose answer is planted: no verdict may contradict what was planted.

Run by `make soundness`; writes ``experiments/results/soundness.json``. A planted symmetry must never be called LOCAL or
GLOBAL for what it moves, a planted inverse never PARTIAL or CONSTANT, a planted second solution never GLOBAL. UNKNOWN
is allowed and counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sympy
from sympy import Expr, Rational, Symbol

import identkit as ik
from identkit.model.model import Model
from identkit.verdict import Level

MODELS = 2000
SEED = 20261122
RESULT = Path(__file__).parent / "results" / "soundness.json"


@dataclass
class Planted:
    """A model, the question, and for each unknown the levels that would contradict what was planted."""

    kind: str
    model: Model
    about: str
    forbidden: dict[str, set[Level]]
    at: dict[str, object] = field(default_factory=dict)
    data: dict[str, object] | None = None


SEEN = {Level.LOCAL, Level.GLOBAL}
UNSEEN = {Level.CONSTANT, Level.PARTIAL}


def small(chance: random.Random) -> Rational:
    """A random fraction that is not 0."""
    return Rational(chance.choice([-3, -2, -1, 1, 2, 3]), chance.choice([1, 1, 2, 3]))


def observed(model: Model, summary: list[Expr], chance: random.Random) -> None:
    """Observe each expression through a normal mean, a log-scale or a logit, in random order."""
    chance.shuffle(summary)
    for place, expression in enumerate(summary, 1):
        face = chance.choice(["mean", "mean", "mean", "scale", "logit"])
        if face == "mean":
            family = ik.Normal(expression, 1)
        elif face == "scale":
            family = ik.Normal(0, sympy.exp(expression))
        else:
            from identkit.model.functions import sigmoid

            family = ik.Bernoulli(sigmoid(expression))
        model.observe(f"x{place}", family)


def mixed(expressions: list[Expr], chance: random.Random) -> list[Expr]:
    """An invertible triangular change of a list of expressions: what they determine stays the same."""
    result = []
    for place, expression in enumerate(expressions):
        extra = sum(
            (
                small(chance) * chance.choice(expressions[:place])
                for _ in range(chance.randint(0, 2))
                if place
            ),
            sympy.S.Zero,
        )
        twisted = chance.choice([lambda e: e, lambda e: e, lambda e: e**3, lambda e: 2 * e])(expression)
        result.append(twisted + extra)
    return result


def declared(kind: str, names: list[str], about: str, model: Model) -> list[Symbol]:
    """The unknowns: latents with a normal prior in the latent question, real parameters in the other."""
    if about == "latents":
        return [model.latent(name, ik.Normal(0, 1)) for name in names]
    return [model.parameter(name) for name in names]


def symmetry(chance: random.Random) -> Planted:
    """κ is a function of invariants of a translation, a scaling, a rotation or a shear of some unknowns."""
    about = chance.choice(["latents", "parameters"])
    model = Model("planted symmetry")
    names = chance.sample("abcdefgh", chance.randint(3, 5))
    u = declared("symmetry", names, about, model)
    p, q, *rest = u
    invariants, moved = chance.choice(
        [
            ([p + small(chance) * q], [p, q]),
            ([p * q], [p, q]),
            ([p**2 + q**2], [p, q]),
            ([p, *[q * 0]], [q]),
            ([p**2 * q], [p, q]),
            ([(p + 2 * q) ** 3 + (p + 2 * q)], [p, q]),
        ]
    )
    summary = mixed([e for e in invariants if e != 0] + rest, chance)
    observed(model, summary, chance)
    return Planted("symmetry", model, about, {s.name: SEEN for s in moved})


def inverse(chance: random.Random) -> Planted:
    """κ is a triangular one-to-one map of the unknowns, mixed by an invertible one."""
    about = chance.choice(["latents", "parameters"])
    model = Model("planted inverse")
    names = chance.sample("abcdefgh", chance.randint(1, 4))
    u = declared("inverse", names, about, model)
    rows = []
    for place, unknown in enumerate(u):
        bend = chance.choice(
            [
                lambda e: e,
                lambda e: e**3,
                lambda e: e + e**3,
                lambda e: sympy.exp(e),
                lambda e: small(chance) * e,
            ]
        )
        earlier = sum((small(chance) * v**2 for v in u[:place] if chance.random() < 0.5), sympy.S.Zero)
        rows.append(bend(unknown) + earlier)
    observed(model, rows, chance)
    return Planted("inverse", model, about, {s.name: UNSEEN | {Level.LOCAL} for s in u})


def fold(chance: random.Random) -> Planted:
    """Some unknown enters by its square, its cosine, or a product of two signs only."""
    about = chance.choice(["latents", "parameters"])
    model = Model("planted fold")
    names = chance.sample("abcdefgh", chance.randint(2, 4))
    p, q, *rest = declared("fold", names, about, model)
    summary, moved = chance.choice(
        [
            ([p**2, q], [p]),
            ([sympy.cos(p), q], [p]),
            ([p * q, p**2], [p, q]),
            ([p**2 + q, q], [p]),
            ([p**4 - p**2, q + 1], [p]),
        ]
    )
    observed(model, mixed([*summary, *rest], chance), chance)
    return Planted(
        "fold", model, about, {s.name: {Level.GLOBAL, Level.CONSTANT, Level.PARTIAL} for s in moved}
    )


def null_vector(chance: random.Random) -> Planted:
    """A random rational linear map with a planted kernel."""
    model = Model("planted kernel")
    size, height = chance.randint(2, 5), chance.randint(1, 5)
    z = model.latent("z", ik.Normal(0, 1), shape=size)
    kernel = [chance.choice([0, 0, 1, -1, 2, Rational(1, 3)]) for _ in range(size)]
    if not any(kernel):
        kernel[0] = sympy.S.One
    pivot = next(i for i, k in enumerate(kernel) if k)
    for place in range(1, height + 1):
        row = [small(chance) for _ in range(size)]
        row[pivot] = (
            -sum(r * k for i, (r, k) in enumerate(zip(row, kernel, strict=True)) if i != pivot)
            / kernel[pivot]
        )
        model.observe(f"x{place}", ik.Normal(sum(r * entry for r, entry in zip(row, z, strict=True)), 1))
    return Planted("kernel", model, "latents", {f"z[{i}]": SEEN for i, k in enumerate(kernel, 1) if k})


def states(chance: random.Random) -> Planted:
    """A finite latent, two of whose states have one law; or none."""
    size = chance.randint(2, 4)
    means = chance.sample(range(-9, 9), size)
    merged = chance.random() < 0.5
    if merged:
        means[1] = means[0]
    model = Model("planted states")
    k = model.latent("k", ik.Categorical(*[Rational(1, size)] * size))
    shift = model.parameter("s")
    model.observe("x", ik.Normal(ik.select(k, *[m + shift for m in means]), 1))
    return Planted("states", model, "latents", {"k": SEEN if merged else UNSEEN})


def tie(chance: random.Random) -> Planted:
    """A datum at which two different normals agree exactly, and one nearby at which they do not."""
    one, other = sorted(chance.sample(range(1, 7), 2))
    v, w = sympy.Integer(one), sympy.Integer(other)
    place = sympy.sqrt(v * w / (w - v) * sympy.log(w / v))
    exact = chance.random() < 0.5
    model = Model("planted tie")
    k = model.latent("k", ik.Bernoulli(Rational(1, 2)))
    model.observe("x", ik.Normal(0, ik.select(k + 1, sympy.sqrt(v), sympy.sqrt(w))))
    datum = place if exact else Rational(str(round(float(place), chance.randint(2, 12))))
    return Planted(
        "tie", model, "latents", {"k": {Level.INFORMED} if exact else {Level.CONSTANT}}, data={"x": datum}
    )


def mixture(chance: random.Random) -> Planted:
    """Two components of one family: labels switch, so nothing that the labels move is GLOBAL, nor PARTIAL."""
    model = Model("planted labels")
    p = model.parameter("p", domain=sympy.Interval.open(0, 1))
    a, b = model.parameter("a"), model.parameter("b")
    s = model.parameter("s", positive=True)
    kind = chance.choice(["normal", "poisson"])
    family: Callable[[Expr], object] = (
        (lambda m: ik.Normal(m, s)) if kind == "normal" else (lambda m: ik.Poisson(sympy.exp(m)))
    )
    if kind == "poisson":
        del model.parameters[s]
    model.observe("y", ik.Mixture([p, 1 - p], family(a), family(b)))  # type: ignore[arg-type]
    return Planted("labels", model, "parameters", {n: UNSEEN | {Level.GLOBAL} for n in "pab"})


PLANTS = (symmetry, symmetry, inverse, inverse, fold, null_vector, states, tie, mixture)


def plants(count: int, seed: int = SEED) -> Iterator[Planted]:
    """`count` random models with their planted answers."""
    chance = random.Random(seed)
    for index in range(count):
        yield PLANTS[index % len(PLANTS)](chance)


def contradictions(planted: Planted) -> tuple[list[str], dict[str, Level]]:
    """The unknowns whose verdict contradicts what was planted, and all levels."""
    verdict = ik.check(planted.model, about=planted.about, at=planted.at or None, data=planted.data)
    levels = {**verdict.latents, **verdict.parameters}
    wrong = []
    for name, forbidden in planted.forbidden.items():
        level = levels[name]
        floor = name in verdict.at_least and level is Level.LOCAL
        if level in forbidden and not (floor and Level.GLOBAL not in forbidden):
            wrong.append(f"{name} is called {level}")
    if verdict.certificate is not None and not verdict.certificate.verify():
        wrong.append("the certificate does not verify")
    return wrong, levels


def main(argv: list[str]) -> int:
    """Check many planted models, report contradictions, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=MODELS)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(argv)
    tally: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    started = time.time()
    for index, planted in enumerate(plants(options.models, options.seed), 1):
        found, levels = contradictions(planted)
        counts = tally.setdefault(planted.kind, Counter())
        counts["models"] += 1
        counts["unknown"] += sum(levels[name] is Level.UNKNOWN for name in planted.forbidden)
        counts["unknowns asked about"] += len(planted.forbidden)
        if found:
            wrong.append(f"model {index} ({planted.kind}): {'; '.join(found)}\n{planted.model}")
        if index % 50 == 0:
            left = (time.time() - started) / index * (options.models - index)
            print(
                f"{index}/{options.models} models, {len(wrong)} contradictions, {left:.0f} s left",
                file=sys.stderr,
            )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps(
            {
                "command": f"python -m experiments.soundness --models {options.models} --seed {options.seed}",
                "models": options.models,
                "contradictions": wrong,
                "by_kind": tally,
                "seconds": round(time.time() - started, 1),
                "date": time.strftime("%Y-%m-%d"),
                "python": platform.python_version(),
            },
            indent=1,
        )
        + "\n"
    )
    print("\n\n".join(wrong) if wrong else f"{options.models} models, no contradiction")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
