"""A diagnosis in sentences that a student understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from identkit.diagnosis.judged import Diagnosis, Finding


def explained(diagnosis: Diagnosis) -> str:
    """The verdicts with their reasons, overall first, then latent by latent."""
    data = (
        f"{diagnosis.used} of {diagnosis.n} data" if diagnosis.used < diagnosis.n else f"{diagnosis.n} data"
    )
    lines = [
        f"{diagnosis.model}, on {data}; true posteriors by {diagnosis.method}; means over the data in nats, with "
        f"{diagnosis.level:.0%} intervals; at most {diagnosis.threshold:g} nats counts as collapsed.",
        f"Overall {diagnosis.overall.fault}: {_sentence(diagnosis.overall, diagnosis.threshold)}",
        f"  q misses the true posterior by KL(q | p(z|x)) = log p(x) - ELBO = {diagnosis.missed} nats.",
    ]
    for finding in diagnosis.latents:
        lines.append(f"{finding.name} {finding.fault}: {_sentence(finding, diagnosis.threshold)}")
        lines += [f"  {note}" for note in _notes(finding, diagnosis)]
    names = ", ".join(diagnosis.active_units) or "none"
    lines.append(f"Active units (variance of q's mean over the data above {diagnosis.active:g}): {names}.")
    if diagnosis.reasons:
        count, first = len(diagnosis.reasons), diagnosis.reasons[0]
        lines.append(f"Annealing has not converged on {count} of {diagnosis.used} data ({first}).")
    return "\n".join(lines)


def _sentence(finding: Finding, threshold: float) -> str:
    what = "the latents" if finding.name == "all" else finding.name
    numbers = f"truth {finding.truth}, q {finding.inference}, likelihood's half variance {finding.flatness}."
    return {
        "model-collapsed": f"the data say next to nothing about {what}: even the true posterior is the prior, and no "
        f"better encoder can change that; it is the model that should change: {numbers}",
        "inference-collapsed": f"the true posterior of {what} is informed, but q {_ignorance(finding, threshold)}: "
        f"the model is usable, the encoder or its training is not: {numbers}",
        "healthy": f"the data inform the true posterior of {what}, and q says so: {numbers}",
        "undecided": f"the numbers are too uncertain to tell whether {what} pass {threshold:g} nats: {numbers}"
        if finding.name == "all"
        else f"the numbers are too uncertain to tell whether {what} passes {threshold:g} nats: {numbers}",
    }[finding.fault.value]


def _ignorance(finding: Finding, threshold: float) -> str:
    if finding.inference.high <= threshold:
        return "returns the prior"
    return f"is the same whatever the datum (it tells at most {finding.told:.2g} nats about which it saw)"


def _notes(finding: Finding, diagnosis: Diagnosis) -> list[str]:
    notes = []
    name, active = finding.name, finding.spread > diagnosis.active
    if finding.fault.value == "model-collapsed" and finding.inference.low > diagnosis.threshold:
        notes.append(f"q nevertheless claims {finding.inference} nats about {name}: it invents them.")
    if finding.fault.value == "healthy" and not active:
        notes.append(
            f"Its mean under q hardly moves (variance {finding.spread:.2g}), so active units call {name} dead; but a "
            "posterior can be informed about a latent whose mean stays put, as about its size and not its sign."
        )
    if finding.fault.value == "healthy" and finding.inference.high < finding.truth.low / 2:
        notes.append(f"q says less than half of what the data say about {name}.")
    return notes
