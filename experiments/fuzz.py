"""Thousands of broken and odd texts: an answer or one clear message each, in time and within memory.

Run by `make fuzz`; writes ``experiments/results/fuzz.json``. Half of the texts are random strings of the notation's own
words, half are models of the zoo with a few tokens changed. A text passes if `parse` and the search of `identkit check`
end with a verdict or with a ValueError or TypeError; a traceback, a hang or too much memory is a failure.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from identkit.zoo import CASES

TEXTS = 10_000
SEED = 20261122
TIME_LIMIT = 2.0
GRACE = 2.0
"""Seconds beyond the time limit that an answer may take."""
PARSING = 10.0
"""Seconds after which parsing counts as a hang."""
MEMORY = 2 * 2**30
RESULT = Path(__file__).parent / "results" / "fuzz.json"

_TOKEN = re.compile(r"\s+|[A-Za-z_]\w*|\d+\.?\d*|\.\.|[^\w\s]")
_WORDS = (
    *(
        "z",
        "x",
        "w",
        "k",
        "z[1]",
        "z[2]",
        "w[i]",
        "x[t-1]",
        "theta",
        "pi",
        "E",
        "lambda",
        "0",
        "1",
        "2",
        "1/2",
        "-1",
    ),
    *(
        "1e400",
        "1e-400",
        "0.1",
        "10^9",
        "99999999999999999999",
        "~",
        "=",
        "+",
        "-",
        "*",
        "/",
        "^",
        "**",
        "@",
        "..",
        ":",
    ),
    *(
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        "\n",
        "\n  ",
        "#",
        "observe",
        "parameter",
        "known",
        "constraint",
        "summary",
        "for",
    ),
    *(
        "in",
        "to",
        ">",
        "<",
        "if",
        "import os",
        "__class__",
        "\t",
        "\\",
        '"',
        "é",
        "∞",
        "\u0000",
        "exp",
        "log",
        "sqrt",
    ),
    *(
        "sigmoid",
        "select",
        "relu",
        "abs",
        "max",
        "sum",
        "dot",
        "transpose",
        "diag",
        "eye",
        "Normal",
        "Beta",
        "Mixture",
    ),
    *(
        "Categorical",
        "MvNormal",
        "Poisson",
        "Binomial",
        "Dirichlet",
        "Uniform",
        "Gamma",
        "StudentT",
        "Multinomial",
    ),
)
_PATTERNS = (
    "{w} ~ Normal({e}, {e}); observe x ~ Normal({e}, {e})",
    "parameter a; {w} ~ Gamma(2, {e}); observe x ~ Poisson({e})",
    "k ~ Categorical({e}, {e}); observe x ~ Normal(select(k, {e}, {e}), {e})",
    "z[3] ~ Normal(0, 1); for i in 1..{n}:\n  observe y[i] ~ Bernoulli(sigmoid({e}))",
    "summary {e}; summary {e}",
    "observe x ~ Mixture([{e}, {e}], Normal({e}, 1), Normal({e}, 1))",
)


@dataclass(frozen=True)
class Outcome:
    """What became of one text."""

    number: int
    text: str
    ending: str
    seconds: float
    trace: str = ""


def texts(count: int, seed: int) -> Iterator[str]:
    """Random texts and mutated models, in turns."""
    chance = random.Random(seed)
    models = [case.model for case in CASES.values() if isinstance(case.model, str)]
    for index in range(count):
        if index % 2:
            yield mutated(chance.choice(models), chance)
        elif index % 4:
            pattern = chance.choice(_PATTERNS)
            yield re.sub(r"\{(\w)\}", lambda found: _filled(found[1], chance), pattern)
        else:
            yield " ".join(chance.choice(_WORDS) for _ in range(chance.randint(1, 40)))


def _filled(kind: str, chance: random.Random) -> str:
    if kind == "n":
        return chance.choice(["1", "3", "40", "100000", "10^9", "0", "-1"])
    if kind == "w":
        return chance.choice(["z", "w", "z[2]", "z[2,2]", "pi"])
    return expression(chance, chance.randint(0, 5))


def expression(chance: random.Random, depth: int) -> str:
    """A random expression, mostly well formed."""
    if depth == 0:
        return chance.choice(["z", "x", "a", "w", "k", "z[1]", "1", "0", "-2", "1/3", "1e30", "y[i]", "i"])
    one, other = expression(chance, depth - 1), expression(chance, chance.randint(0, depth - 1))
    call = chance.choice(["exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "abs", "relu"])
    return chance.choice(
        [
            f"{one} + {other}",
            f"{one}*{other}",
            f"({one})/({other})",
            f"({one})^2",
            f"({one})^{other}",
            f"{call}({one})",
        ]
    )


def mutated(text: str, chance: random.Random) -> str:
    """A model with one to three tokens dropped, doubled, exchanged or replaced; half of the changes are of numbers only."""
    tokens = _TOKEN.findall(text)
    for _ in range(chance.randint(1, 3)):
        place, other = chance.randrange(len(tokens)), chance.randrange(len(tokens))
        numbers = [i for i, token in enumerate(tokens) if token.isdigit()]
        if numbers and chance.random() < 0.5:
            tokens[chance.choice(numbers)] = chance.choice(["0", "1", "2", "3", "5", "1/2", "(-1)", "10^6"])
            continue
        action = chance.randrange(6)
        if action == 0 and len(tokens) > 1:
            del tokens[place]
        elif action == 1:
            tokens.insert(place, tokens[other])
        elif action == 2:
            tokens[place], tokens[other] = tokens[other], tokens[place]
        elif action == 3:
            tokens[place] = chance.choice(_WORDS)
        elif action == 4:
            tokens[place] = chance.choice(["0", "1", "-1", "7", "1/2", "100", "z", "x", "w"])
        else:
            tokens[place] = tokens[other]
    return "".join(tokens)


def tried(job: tuple[int, str]) -> Outcome:
    """Parse one text and search for a verdict, as `identkit check` does."""
    from identkit.cli.proving import prove
    from identkit.model.language import parse

    number, text = job
    started = read = time.monotonic()
    trace = ""
    try:
        model = parse(text)
        read = time.monotonic()
        answer = prove(model, at=None, data=None, about=None, pooled=False, seconds=TIME_LIMIT)
        ending = answer.verdict.level.value
        str(answer.verdict)
        json.dumps(answer.json, allow_nan=False)
    except (ValueError, TypeError) as refusal:
        ending = "refused"
        if not str(refusal).strip():
            ending, trace = "traceback", "an empty message"
    except BaseException:
        ending, trace = "traceback", traceback.format_exc()
    seconds = time.monotonic() - started
    if ending != "traceback" and (
        seconds - (read - started) > TIME_LIMIT + GRACE or read - started > PARSING
    ):
        ending, trace = "too slow", f"{read - started:.1f} s to read, {seconds:.1f} s in all"
    return Outcome(number, text, ending, seconds, trace)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 * MEMORY, 2 * MEMORY))


def main(argv: list[str]) -> int:
    """Try many texts, report failures, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)
    tally: Counter[str] = Counter()
    failures: list[Outcome] = []
    slowest = 0.0
    started = time.monotonic()
    with ProcessPoolExecutor(options.workers, initializer=_limit) as pool:
        jobs = enumerate(texts(options.texts, options.seed))
        for done, outcome in enumerate(pool.map(tried, jobs, chunksize=10), 1):
            tally[outcome.ending] += 1
            slowest = max(slowest, outcome.seconds)
            if outcome.trace:
                failures.append(outcome)
                print(
                    f"--- text {outcome.number}: {outcome.ending}\n{outcome.text}\n{outcome.trace}",
                    file=sys.stderr,
                )
            if done % 500 == 0:
                left = (time.monotonic() - started) / done * (options.texts - done)
                print(
                    f"{done}/{options.texts} texts, {len(failures)} failures, {left:.0f} s left",
                    file=sys.stderr,
                )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    if peak > MEMORY:
        print(f"a process used {peak / 2**30:.2f} GiB", file=sys.stderr)
    result = {
        "command": f"python -m experiments.fuzz --texts {options.texts} --seed {options.seed}",
        "texts": options.texts,
        "endings": dict(sorted(tally.items())),
        "failures": [{"text": f.text, "ending": f.ending, "trace": f.trace} for f in failures],
        "time_limit": TIME_LIMIT,
        "slowest": round(slowest, 2),
        "peak_memory_mib": round(peak / 2**20),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{options.texts} texts, {len(failures)} failures: {dict(tally)}; slowest {slowest:.1f} s")
    return 1 if failures or peak > MEMORY else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
