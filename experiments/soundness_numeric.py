"""Whether planted folds, dead directions and symmetries of random decoders are found, and none where there is none.

Run by `make soundness`; writes ``experiments/results/soundness_numeric.json``. Of the planted defects at least 95 % are to
be found for the latents that they concern, by a verdict or a confirmed collision; on injective decoders, some with
singular values down to 1e-6, no collision may be confirmed. No verdict may call a defect GLOBAL, or anything less where
there is none; UNKNOWN is counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from pathlib import Path

import torch

import identkit as ik
from experiments.planted_decoders import SEED, Case, injective, placed, planted
from identkit.numeric.collision import Collisions, collisions
from identkit.numeric.probed import probed
from identkit.verdict import Level

DECODERS = 200
FOUND = 0.95
RESULT = Path(__file__).parent / "results" / "soundness_numeric.json"


def searched(case: Case) -> Collisions:
    """The collisions of a case, in its precision."""
    return collisions(probed(placed(case), case.prior, case.likelihood))


def contradictions(case: Case, verdict: ik.Verdict) -> list[str]:
    """What a verdict says against what was planted.

    A planted defect leaves some latent that it moves below GLOBAL; all latents of an injective decoder are GLOBAL.
    """
    wrong = []
    if case.moved and all(verdict.latents[name] is Level.GLOBAL for name in case.moved):
        wrong.append(f"{', '.join(sorted(case.moved))} called GLOBAL")
    if not case.moved:
        low = (Level.CONSTANT, Level.PARTIAL, Level.LOCAL)
        wrong += [
            f"{name} called {level}"
            for name, level in verdict.latents.items()
            if level in low and not (level is Level.LOCAL and name in verdict.at_least)
        ]
    if verdict.certificate is not None and not verdict.certificate.verify():
        wrong.append("the certificate does not verify")
    return wrong


def checked(case: Case) -> ik.Verdict:
    """The verdict on a case."""
    return ik.check(placed(case), prior=case.prior, likelihood=case.likelihood)


def confirmed(c: Collisions) -> bool:
    """Whether any collision was confirmed."""
    return bool(c.isolated.any() or c.flat.any() or c.symmetries)


def found(case: Case, verdict: ik.Verdict) -> str:
    """How a planted defect was found: decided by the verdict, confirmed by a search, near, or missed altogether.

    Decided: the latents that it moves are less than GLOBAL, by more than a lower bound.
    """
    low = (Level.CONSTANT, Level.PARTIAL, Level.LOCAL)
    if all(verdict.latents[name] in low and name not in verdict.at_least for name in case.moved):
        return "decided"
    c = searched(case)
    for name, pairs in (
        ("confirmed", [p for p in c.pairs if p.confirmed]),
        ("near", [p for p in c.pairs if not p.confirmed]),
    ):
        seen = {latent for pair in pairs for latent in pair.latents}
        seen |= {latent for s in c.symmetries for latent in s.about} if name == "confirmed" else set()
        if seen >= case.moved:
            return name
    return "missed"


def main(argv: list[str]) -> int:
    """Search planted and injective decoders, report what was missed or false, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoders", type=int, default=DECODERS)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # small matrices: threads would wait for each other
    started = time.time()
    outcomes: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {}
    missed: list[str] = []
    false: list[str] = []
    against: list[str] = []

    def judged(case: Case, index: int, how: str, verdict: ik.Verdict) -> None:
        counts = by_kind.setdefault(case.kind.split(",")[0], Counter())
        counts.update([how, f"verdict {verdict.level}"])
        against.extend(
            f"{case.kind} {index} ({case.precision}): {line}" for line in contradictions(case, verdict)
        )

    for index in range(options.decoders):
        case = planted(index, options.seed)
        verdict = checked(case)
        how = found(case, verdict)
        outcomes[f"{case.precision}: {how}"] += 1
        if how in ("near", "missed"):
            missed.append(f"{case.kind} {index} ({case.precision}): {how}")
        judged(case, index, how, verdict)
        case = injective(index, options.seed)
        c = searched(case)
        if confirmed(c):
            false.append(f"{case.kind} {index} ({case.precision}): {c.pairs[:1]} {c.symmetries[:1]}")
        judged(
            case, index, "false" if confirmed(c) else "near" if bool(c.near.any()) else "none", checked(case)
        )
        if (index + 1) % 20 == 0:
            print(
                f"{index + 1}/{options.decoders} of each, {len(missed)} missed, {len(false)} false, {len(against)} against",
                file=sys.stderr,
            )
    decided = sum(n for name, n in outcomes.items() if name.endswith("decided"))
    sure = decided + sum(n for name, n in outcomes.items() if name.endswith("confirmed"))
    result = {
        "command": f"python -m experiments.soundness_numeric --decoders {options.decoders} --seed {options.seed}",
        "planted": options.decoders,
        "found": sure / options.decoders,
        "decided": decided / options.decoders,
        "injective": options.decoders,
        "false_collisions": len(false),
        "contradicting_verdicts": len(against),
        "planted_by_precision": outcomes,
        "by_kind": by_kind,
        "missed": missed,
        "false": false,
        "contradictions": against,
        "seconds": round(time.time() - started, 1),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(
        json.dumps(
            {
                name: result[name]
                for name in ("found", "decided", "false_collisions", "contradicting_verdicts", "seconds")
            }
        )
    )
    return 0 if sure >= FOUND * options.decoders and not false and not against else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
