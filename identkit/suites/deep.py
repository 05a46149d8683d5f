"""`identkit verify --suite deep`: the theorem on a grid of trained networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import torch
from matplotlib.figure import Figure

from identkit import plot
from identkit.deep import PRESETS, Preset, Strip, Trained, strip, trained
from identkit.deep.grid import Group, groups
from identkit.deep.trained import THRESHOLD, Explanation
from identkit.diagnosis import Fault
from identkit.suites.found import Progress, SuiteResult, theorem_figures


def run_deep(progress: Callable[[Progress], None], seed: int, preset: str | None) -> SuiteResult:
    """Train the grid, judge every model, draw."""
    size = _preset(preset)
    found: list[Trained] = []
    planned = list(groups(size, seed))
    total = sum(len(group.settings) for group in planned) * size.seeds + 2
    for group in planned:
        for model in trained(group, size, seed):
            found.append(model)
            progress(Progress(len(found), total, f"{group.kind} on {group.data.name}", model.check))
    strips = strip(size.rows)
    progress(Progress(total - 1, total, "a latent's death", None))
    checks = tuple(model.check for model in found)
    figures = {**theorem_figures(checks), **_figures(found, strips)}
    progress(Progress(total, total, "figures", None))
    return SuiteResult(
        checks=checks,
        figures=figures,
        summary=tuple(_summary(found, planned, size)),
        tables={
            "trained": [
                {
                    "model": model.kind,
                    "data": model.data,
                    "setting": model.check.setting,
                    **asdict(said),
                    "fault": str(said.fault),
                    "explanation": said.explanation.text,
                }
                for model in found
                for said in model.latents
            ]
        },
    )


def _preset(name: str | None) -> Preset:
    chosen = name or ("gpu" if torch.cuda.is_available() else "cpu")
    if chosen not in PRESETS:
        raise ValueError(f"preset should be one of {', '.join(PRESETS)}, got {chosen!r}")
    return PRESETS[chosen]


def _figures(found: Sequence[Trained], strips: Sequence[Strip]) -> dict[str, tuple[Figure, str]]:
    return {
        "collapse": (
            plot.collapse_table(found),
            f"Every latent of every trained network, at {THRESHOLD:g} nats: does the posterior repeat the prior where the "
            "likelihood is flat? On the left by the encoder, which may be at fault; on the right by the true posterior.",
        ),
        "film": (
            plot.film(strips),
            "A latent's death: the true posterior of one datum along training, at noise above the data's scale, for an "
            "ordinary decoder and for one that cannot forget; below them flatness, true KL and the encoder's KL.",
        ),
    }


def _summary(found: Sequence[Trained], planned: Sequence[Group], size: Preset) -> Iterator[str]:
    kinds = {group.kind for group in planned}
    sets = {group.data.name for group in planned}
    yield (
        f"{len(found)} trained networks ({len(kinds)} kinds of decoder and encoder, {len(sets)} data sets, {size.seeds} "
        f"seeds, {size.steps} steps), {size.judged} data each."
    )
    for kind in sorted(kinds):
        of_kind = [model for model in found if model.kind == kind]
        levels = Counter(str(model.check.verdict.level) for model in of_kind)
        faults = Counter(str(said.fault) for model in of_kind for said in model.latents)
        yield f"{kind}: {_counted(levels)}; latents {_counted(faults)}."
    latents = [said for model in found for said in model.latents]
    off = [said for said in latents if said.collapsed != said.flat]
    unexplained = sum(said.explanation is Explanation.NONE for said in off)
    blamed = sum(said.fault is Fault.INFERENCE for said in off)
    yield (
        f"At {THRESHOLD:g} nats the encoder calls {sum(s.collapsed for s in latents)} of {len(latents)} latents collapsed, "
        f"the likelihood is flat in {sum(s.flat for s in latents)}; they differ in {len(off)}, {blamed} of them the "
        f"encoder's fault, {unexplained} unexplained."
    )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
