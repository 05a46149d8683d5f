"""`identkit check` within its limits: the search in a child process, its last word when time runs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from identkit.dispatch import check, remedies
from identkit.model.model import Model
from identkit.symbolic.limited import OutOfTime, within
from identkit.symbolic.parameters import check_fibre
from identkit.verdict import Certificate, Level, Verdict

_FOR_REMEDIES = 4.0
"""Seconds that the search for remedies may take at most."""
_FOR_PROBES = 8 * 2**30
"""Bytes of address space, of which torch reserves far more than it uses."""


@dataclass(frozen=True)
class Answer:
    """A verdict, and what verifying its certificate said, in the child that proved it."""

    verdict: Verdict
    json: Mapping[str, Any]

    @property
    def verified(self) -> bool:
        """Whether the certificate was checked again and holds."""
        certificate = self.json["certificate"]
        return certificate is not None and certificate["verified"]


@dataclass(frozen=True)
class _Reported(Certificate):
    """What the child said of a certificate that holds the network itself, and so cannot leave the child."""

    told: tuple[str, str, bool]

    @property
    def kind(self) -> str:
        return self.told[0]

    @property
    def statement(self) -> str:
        return self.told[1]

    def verify(self) -> bool:
        return self.told[2]


def prove(
    model: Model,
    *,
    at: Mapping[Any, Any] | None,
    data: Mapping[Any, Any] | None,
    about: str | None,
    pooled: bool,
    seconds: float,
) -> Answer:
    """The verdict on a question, at the latest after `seconds`; what was proved by then is kept.

    Raises:
        ValueError, TypeError: as `check` does.
    """
    about = about or ("latents" if model.latents else "parameters")

    def task(tell: Callable[[Answer], None]) -> Answer:
        def partly(verdict: Verdict) -> None:
            tell(_answer(verdict))

        if about == "latents" or data is not None or pooled:
            verdict = check(model, at=at, data=data, about=about, pooled=pooled)
        else:
            verdict = check_fibre(_known(about, model), about, at, seconds, partly)
        answer = _answer(verdict)
        tell(answer)
        found = remedies(model, verdict, min(_FOR_REMEDIES, seconds / 4)) if data is None and not at else []
        shown = tuple(found)
        return Answer(replace(verdict, remedies=shown), {**answer.json, "remedies": [dict(r) for r in shown]})

    try:
        answer, finished = within(task, seconds)
    except OutOfTime as reason:
        return _answer(_nothing(model, about, at, data, str(reason), seconds))
    if finished:
        return answer
    late = f"the search was stopped after {seconds:g} s; more time may settle more (--time-limit)"
    return _with_assumption(answer, late)


def probe(model: Any, x: Any, seconds: float) -> Answer:
    """The verdict on a model without symbols, all of it or nothing within the limits.

    Raises:
        ValueError, TypeError: as `check` does.
    """

    def task(tell: Callable[[Answer], None]) -> Answer:
        import torch

        torch.set_num_threads(1)  # threads of the parent are not there after a fork
        answer = _answer(check(model, x=x))
        certificate = answer.verdict.certificate
        if certificate is None:
            return answer
        told = _Reported((certificate.kind, certificate.statement, answer.verified))
        return replace(answer, verdict=replace(answer.verdict, certificate=told))

    try:
        return within(task, seconds, _FOR_PROBES)[0]
    except OutOfTime as reason:
        raise ValueError(
            f"the check was stopped: {reason}; more time may settle it (--time-limit)"
        ) from reason


def _known(about: str, model: Model) -> Model:
    if about not in ("parameters", "joint"):
        raise ValueError(f"about should be 'latents', 'parameters' or 'joint', got {about!r}")
    return model


def _answer(verdict: Verdict) -> Answer:
    return Answer(verdict, verdict.to_dict())


def _with_assumption(answer: Answer, sentence: str) -> Answer:
    if not answer.verdict.at_least and Level.UNKNOWN not in {
        *answer.verdict.latents.values(),
        *answer.verdict.parameters.values(),
    }:
        return answer
    assumptions = (*answer.verdict.assumptions, sentence)
    return Answer(
        replace(answer.verdict, assumptions=assumptions), {**answer.json, "assumptions": list(assumptions)}
    )


def _nothing(
    model: Model,
    about: str,
    at: Mapping[Any, Any] | None,
    data: Mapping[Any, Any] | None,
    reason: str,
    seconds: float,
) -> Verdict:
    unknown = Level.UNKNOWN
    return Verdict(
        model=model.name,
        about=about,
        scope="data" if data is not None else "at" if at else "generic",
        level=unknown,
        latents=dict.fromkeys(model.latent_names, unknown) if about != "parameters" else {},
        parameters={s.name: unknown for s in model.parameters} if about != "latents" else {},
        assumptions=(reason,),
        seconds=seconds,
    )
