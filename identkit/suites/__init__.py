"""What `identkit verify --suite …` runs: the models, checker beside exact posterior, and its figures."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from identkit import __version__, plot
from identkit.classical.linear_gaussian import PPCA, sample_eigenvalues
from identkit.dispatch import check
from identkit.model.compiled import compiled
from identkit.tables import read_csv, read_r_dump
from identkit.theorem import Row, TheoremCheck, verify
from identkit.verdict import Level
from identkit.zoo import CASES, FAMILIES
from identkit.zoo.classical import LOADINGS

ROWS = 200
"""Data rows of a model whose posterior is cheap."""
SWEEP_ROWS = 50
"""Data rows at each noise of the PPCA sweep."""
PLANE_ROWS = 25
"""Data rows of a model with two continuous latents, whose posterior takes quadrature in the plane."""
FAMILY_ROWS = 5
"""Data rows of each classical family's examples."""
POOLED_ROWS = 10_000
"""Data of the mixture weight, as in the paper."""
_SIGMAS = (0.05, 0.08, 0.2, 0.5, 1.0, 1.5, 2.0, 5.0)
_NEAR = 1.02  # the sweep also stops just before and after each eigenvalue's root
_CURVE = 40  # points of the sweep's curves

_WEIGHTS = {  # name in the paper's files: our name, components, the share of the first
    "single_gaussian": ("mixture-weight-single", (-1.0, -1.0)),
    "overlap_gaussian": ("mixture-weight-overlap", (-0.5, 0.5)),
    "nonoverlap_gaussian": ("mixture-weight-separated", (-10.0, 10.0)),
}
_SHARE = 0.85  # of the first component in the paper's two mixtures
_NOISE = 0.1  # sd of the noise in the paper's PPCA data


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What a suite found: the checks, and what there is to see and to say about them."""

    checks: tuple[TheoremCheck, ...]
    figures: Mapping[str, tuple[Figure, str]]
    """Name → the figure and its caption."""
    summary: tuple[str, ...]
    """Sentences: where the data come from, and the numbers that stand out."""
    tables: Mapping[str, Any] = field(default_factory=dict)
    """What else goes into results.json."""


@dataclass(frozen=True)
class Progress:
    """One step done: `check` is None where a figure was drawn."""

    done: int
    total: int
    name: str
    check: TheoremCheck | None


@dataclass(frozen=True, eq=False)
class Question:
    """A model with numbers and the data on which the theorem is to be confirmed."""

    title: str
    model: Any
    x: Any
    setting: str
    at: Mapping[str, Any] = field(default_factory=dict)

    def answer(self) -> TheoremCheck:
        """The theorem on these data."""
        return verify(self.model, self.x, at=self.at or None, setting=self.setting)


def run(
    suite: str,
    *,
    progress: Callable[[Progress], None] | None = None,
    seed: int = 0,
    preset: str | None = None,
) -> SuiteResult:
    """Confirm the theorem on every model of a suite.

    Args:
        suite: "classical" (the models of Wang, Blei & Cunningham 2021 and their traps), "deep" (trained networks) or
            "all".
        progress: called after every step.
        seed: of all data that are drawn here.
        preset: how large the grid of networks is, "cpu" or "gpu"; None for what the machine has.

    Raises:
        ValueError: an unknown suite or preset.
    """
    refuse_unknown(suite)
    return SUITES[suite](progress or (lambda step: None), seed, preset)


def refuse_unknown(suite: str) -> None:
    """Raise ValueError for a suite that there is not, naming those that there are."""
    if suite not in SUITES:
        raise ValueError(f"suite should be one of {', '.join(SUITES)}, got {suite!r}")


# The classical suite


@dataclass(frozen=True, eq=False)
class ClassicalData:
    """The data of the paper's demonstrations, or draws of the same designs."""

    origin: str
    weights: Mapping[str, Tensor]
    """y (n,) by the paper's name"""
    draws: Mapping[str, Mapping[str, Tensor]]
    """published draws of α by the paper's name, then by method"""
    factors: Mapping[str, tuple[Tensor, Tensor]]
    """"oned", "twod" → x (n, 5), loadings (5, k)"""


def classical_data(seed: int = 0) -> ClassicalData:
    """The paper's data from ``$IDENTKIT_DATA/classical``, or where there are none the same designs drawn."""
    named = os.environ.get("IDENTKIT_DATA")
    folder = Path(named, "classical") if named else None
    if folder is not None and folder.is_dir():
        return _published(folder)
    where = "IDENTKIT_DATA is not set" if folder is None else f"there is no folder {folder}"
    return _drawn(
        seed, f"The data are drawn here with seed {seed}, after the designs of the paper ({where})."
    )


def _published(folder: Path) -> ClassicalData:
    def matrix(dump: Mapping[str, Any], name: str) -> Tensor:
        return torch.tensor(dump[name], dtype=torch.float64)

    def draws(name: str, method: str) -> Tensor:
        table = read_csv(folder / f"{name}_theta_sample_{method}.csv", ["", "x"])
        return torch.tensor([row[1] for row in table.rows], dtype=torch.float64)

    dumps = {name: read_r_dump(folder / f"{name}_ppca.data.R") for name in ("oned", "twod")}
    return ClassicalData(
        origin=f"The data are those of the paper, read from {folder}.",
        weights={name: matrix(read_r_dump(folder / f"{name}.data.R"), "y") for name in _WEIGHTS},
        draws={name: {"hmc": draws(name, "hmc"), "advi": draws(name, "vbmf")} for name in _WEIGHTS},
        factors={name: (matrix(dump, "x"), matrix(dump, "w")) for name, dump in dumps.items()},
    )


def _drawn(seed: int, origin: str) -> ClassicalData:
    generator = torch.Generator().manual_seed(seed)
    real = {"dtype": torch.float64, "generator": generator}
    weights = {}
    for name, (_, means) in _WEIGHTS.items():
        first = torch.rand(POOLED_ROWS, **real) < _SHARE
        weights[name] = torch.where(first, *means) + torch.randn(POOLED_ROWS, **real)
    factors = {}
    for name, k in (("oned", 1), ("twod", 2)):
        loadings = torch.tensor(LOADINGS, dtype=torch.float64)[:, :k]
        z, noise = torch.randn(500, k, **real), torch.randn(500, len(LOADINGS), **real)
        factors[name] = (z @ loadings.T + _NOISE * noise, loadings)
    return ClassicalData(origin=origin, weights=weights, draws={}, factors=factors)


def _classical(progress: Callable[[Progress], None], seed: int, preset: str | None = None) -> SuiteResult:
    data = classical_data(seed)
    questions = list(_classical_questions(data, torch.Generator().manual_seed(seed)))
    drawings = _drawings(data)
    total = len(questions) + len(drawings)
    checks: list[TheoremCheck] = []
    for done, question in enumerate(questions, 1):
        checks.append(question.answer())
        progress(Progress(done, total, question.title, checks[-1]))
    figures: dict[str, tuple[Figure, str]] = {}
    for done, (name, draw) in enumerate(drawings.items(), len(questions) + 1):
        figures[name] = draw(checks)
        progress(Progress(done, total, f"figure {name}", None))
    return SuiteResult(checks=tuple(checks), figures=figures, summary=tuple(_summary(data, checks)))


def _deep(progress: Callable[[Progress], None], seed: int, preset: str | None = None) -> SuiteResult:
    from identkit.suites.deep import run_deep

    return run_deep(progress, seed, preset)


def _all(progress: Callable[[Progress], None], seed: int, preset: str | None = None) -> SuiteResult:
    """Classical models and trained networks in one picture."""
    first = _classical(lambda step: progress(replace(step, name=f"classical: {step.name}")), seed)
    second = _deep(lambda step: progress(replace(step, name=f"trained: {step.name}")), seed, preset)
    checks = (*first.checks, *second.checks)
    return SuiteResult(
        checks=checks,
        figures={**first.figures, **second.figures, **theorem_figures(checks)},
        summary=(*first.summary, *second.summary),
        tables=second.tables,
    )


SUITES: dict[str, Callable[[Callable[[Progress], None], int, str | None], SuiteResult]] = {
    "classical": _classical,
    "deep": _deep,
    "all": _all,
}


def _classical_questions(data: ClassicalData, generator: torch.Generator) -> Iterator[Question]:
    yield from _weight_questions(data)
    yield from _mixture_questions(generator)
    yield from _factor_questions(data, generator)
    yield from _text_questions(generator)
    yield from _family_questions(generator)


def _weight_questions(data: ClassicalData) -> Iterator[Question]:
    for name, (case, _) in _WEIGHTS.items():
        y = data.weights[name]
        yield Question(
            case, CASES[case].build(), y, f"{case.removeprefix('mixture-weight-')}, {len(y)} data pooled"
        )


def _mixture_questions(generator: torch.Generator) -> Iterator[Question]:
    for case in ("gmm-equal", "gmm-nearly-equal", "gmm-distinct", "gmm-two-of-three-equal"):
        model = CASES[case].build()
        x, _ = model.sample(ROWS, generator)
        yield Question(case, model, x, case.removeprefix("gmm-").replace("-", " "))
    crossed = CASES["gmm-crossed"].build()
    x, _ = crossed.sample(ROWS, generator)
    yield Question("gmm-crossed", crossed, x, "crossed covariances")
    yield Question("gmm-crossed-datum", crossed, [[1.0, 1.0]], "crossed covariances, the datum (1, 1)")


def _factor_questions(data: ClassicalData, generator: torch.Generator) -> Iterator[Question]:
    for name, (x, loadings) in data.factors.items():
        for sigma in _sigmas(x):
            setting = f"{name}, σ = {sigma:.4g}"
            yield Question(f"PPCA {setting}", PPCA.fit(x, 2, sigma), x[:SWEEP_ROWS], setting)
        if loadings.shape[1] == 2:
            yield Question(f"PPCA {name}", PPCA(loadings, 1.0), x[:ROWS], f"{name}, true loadings, σ = 1")
    for case in ("ppca-duplicate-columns", "ppca-zero-column"):
        model = CASES[case].build()
        x, _ = model.sample(SWEEP_ROWS, generator)
        yield Question(case, model, x, case.removeprefix("ppca-").replace("-", " "))


def _sigmas(x: Tensor) -> list[float]:
    roots = [root for root in sample_eigenvalues(x)[:2].sqrt().tolist() if _SIGMAS[0] < root < _SIGMAS[-1]]
    return sorted(
        {*_SIGMAS, *(round(root / _NEAR, 4) for root in roots), *(round(root * _NEAR, 4) for root in roots)}
    )


def _text_questions(generator: torch.Generator) -> Iterator[Question]:
    """Models of the zoo whose posterior takes quadrature or a sum over states."""
    crossing = math.sqrt(4 / 3 * math.log(4))
    yield _text("linear", generator, ROWS, at={"w": 0})
    for w in ("1/1000", "1/10", 1, 10):
        yield _text("linear", generator, ROWS, at={"w": w})
    yield _text("logistic", generator, 0, first=[[0.0], [1.0]])
    yield _text("logistic", generator, 0, first=[[0.0], [1.0]], at={"w": 0, "b": -1})
    yield _text("square", generator, SWEEP_ROWS, first=[[0.0], [1.0], [3.0]])
    yield _text("mixture-unequal-variances", generator, SWEEP_ROWS, first=[[crossing], [-crossing]])
    yield _text("mixture-mirror-datum", generator, SWEEP_ROWS, first=[[0.0]])
    yield _text("identical-embeddings", generator, SWEEP_ROWS)
    yield _text("xor", generator, 0, first=[[0.0], [1.0]])
    yield _text("xor-normal", generator, ROWS, first=[[0.0]])
    yield _text("hidden-markov", generator, 0, first=[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    yield _text(
        "hidden-markov-equal-emissions", generator, 0, first=[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    )
    yield _text("binomial", generator, 0, first=[[float(count)] for count in range(6)])
    yield _text("poisson", generator, SWEEP_ROWS)
    yield _text("constant-decoder", generator, SWEEP_ROWS)
    for case in ("hierarchy", "correlated-prior", "square-and-line"):
        yield _text(case, generator, PLANE_ROWS)
    # No theorem bounds the KL of a mixed model with unbounded ℓ: a few data make the point.
    yield _text("label-and-level", generator, 5)


def _text(
    name: str,
    generator: torch.Generator,
    rows: int,
    first: Sequence[Sequence[float]] = (),
    at: Mapping[str, Any] | None = None,
) -> Question:
    case = CASES[name]
    model = case.build()
    numbers = case.numbers if at is None else dict(at)
    x = torch.tensor([list(row) for row in first], dtype=torch.float64).reshape(
        -1, len(model.observation_names)
    )
    if rows > len(x):
        x = torch.cat([x, compiled(model, numbers).sample(rows - len(x), generator)[0]])
    values = ", ".join(f"{key} = {_written(value)}" for key, value in numbers.items())
    return Question(name, model, x, values or f"{len(x)} data", numbers)


def _family_questions(generator: torch.Generator) -> Iterator[Question]:
    """Every classical family where the likelihood sees its latents and where it does not, on data of its own."""
    for name in FAMILIES:
        case = CASES[name]
        model = case.build()
        if case.data is not None:
            yield Question(name, model, dict(case.data), f"{name}, given data")
        else:
            yield Question(
                name, model, model.sample(FAMILY_ROWS, generator)[0], f"{name}, {FAMILY_ROWS} data"
            )


def _written(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


# Figures and words


def _drawings(data: ClassicalData) -> dict[str, Callable[[Sequence[TheoremCheck]], tuple[Figure, str]]]:
    drawings: dict[str, Callable[[Sequence[TheoremCheck]], tuple[Figure, str]]] = {
        "theorem": _theorem_figure,
        "agreement": _agreement_figure,
        "mixture_weight": lambda checks: _weight_figure(data),
    }
    for name in data.factors:
        drawings[f"ppca_{name}"] = lambda checks, name=name: _sweep_figure(name, data.factors[name][0])
    return drawings


def theorem_figures(checks: Sequence[TheoremCheck]) -> dict[str, tuple[Figure, str]]:
    """The two figures that any list of checks has."""
    return {"theorem": _theorem_figure(checks), "agreement": _agreement_figure(checks)}


def _theorem_figure(checks: Sequence[TheoremCheck]) -> tuple[Figure, str]:
    caption = (
        "The theorem, a point a datum. Left: KL(posterior ‖ prior) against flatness ½ Var(ℓ) under the "
        "prior, with the band in which theory/T4 certifies each KL to lie; collapsed data sit at the "
        "origin. Right: their ratio against the oscillation ω of ℓ, between its two curves."
    )
    return _figure(plot.theorem(checks)[0]), caption


def _agreement_figure(checks: Sequence[TheoremCheck]) -> tuple[Figure, str]:
    caption = (
        "Verdict against posterior: how many data of each level have the prior back, and how many do not."
    )
    return _figure(plot.agreement(checks)), caption


def _figure(axes: Any) -> Figure:
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("axes should belong to a figure")
    return figure


def _weight_figure(data: ClassicalData) -> tuple[Figure, str]:
    panels = []
    for name, (case, _) in _WEIGHTS.items():
        title, model = case.removeprefix("mixture-weight-"), CASES[case].build()
        draws = data.draws.get(name, {})
        hmc, advi = draws.get("hmc"), draws.get("advi")
        panels.append(plot.WeightPanel(name=title, model=model, x=data.weights[name], hmc=hmc, advi=advi))
    published = " Beside it, the paper's published draws by HMC and ADVI, which sampled the components too."
    caption = (
        "Exact posterior of the mixing weight α over its prior Beta(5, 5), components known. Where the two "
        f"components are one law the posterior is the prior.{published if data.draws else ''}"
    )
    return plot.mixture_weight(panels), caption


def _sweep_figure(name: str, x: Tensor) -> tuple[Figure, str]:
    grid = torch.logspace(
        math.log10(_SIGMAS[0]), math.log10(_SIGMAS[-1]), _CURVE, dtype=torch.float64
    ).tolist()
    sigmas = sorted({*grid[1:-1], *_sigmas(x)})
    models = [PPCA.fit(x, 2, sigma) for sigma in sigmas]
    verdicts = [check(model) for model in models]
    sweep = plot.Sweep(
        sigmas=torch.tensor(sigmas, dtype=torch.float64),
        posterior_sd=torch.stack([model.posterior_moments(x)[1][0] for model in models]),
        kl_conditional=torch.stack([model.kl_conditional(x).mean(0) for model in models]),
        mutual_information=torch.tensor(
            [model.mutual_information().value for model in models], dtype=torch.float64
        ),
        loading_norms=torch.stack([model.loadings.square().sum(0).sqrt() for model in models]),
        levels=[[verdict.latents[latent].value for latent in ("z[1]", "z[2]")] for verdict in verdicts],
        eigenvalues=sample_eigenvalues(x)[:2],
        title=f"PPCA with two latents on {'one' if name == 'oned' else 'two'}-dimensional truth",
    )
    caption = (
        f"Two latents fitted to {name} by maximum likelihood at a fixed noise σ. Where σ² passes an "
        "eigenvalue of the sample covariance, the loadings of that direction become exactly 0: the verdict "
        "turns CONSTANT and the conditional KL 0 at the same σ."
    )
    return plot.ppca_sweep(sweep), caption


def _summary(data: ClassicalData, checks: Sequence[TheoremCheck]) -> Iterator[str]:
    yield data.origin
    for found in checks:
        if found.model == "mixture weight":
            mean, sd = found.collapse.posterior_mean.item(), found.collapse.posterior_sd.item()
            yield (
                f"Mixture weight, {found.setting}: {found.verdict.level}; posterior mean {mean:.4f}, "
                f"sd {sd:.4f} (prior .5000, .1508), KL {found.collapse.mean_kl:.4g} nats."
            )
    x, loadings = data.factors["twod"]
    model = PPCA(loadings, 1.0)
    first, second = model.posterior_moments(x)[1][0].tolist()
    yield (
        f"PPCA, twod, true loadings, σ = 1: posterior sd {first:.3f} and {second:.3f}, "
        f"I(z; x) = {model.mutual_information().value:.3f} nats, "
        f"log p(x | W, σ) = {model.log_evidence(x).sum().item():.2f}."
    )
    for name, (x, _) in data.factors.items():
        roots = " and ".join(f"{root:.4g}" for root in sample_eigenvalues(x)[:2].sqrt().tolist())
        yield f"PPCA, {name}: maximum likelihood with σ fixed drops a latent where σ passes {roots}."


# The results object


def results(
    checks: Sequence[TheoremCheck],
    *,
    seconds: float,
    seed: int,
    command: str,
    tables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The object of ``results.json``, strict JSON: what is not finite is null.

    Args:
        checks: what was found.
        seconds: the time it took.
        seed: of the data drawn.
        command: what was typed.
        tables: what else a suite has to say.
    """
    rows = [row for found in checks for row in found.rows]
    undecided = sum(_undecided(row, found) for found in checks for row in found.rows)
    return {
        "rows": [_strict(row.to_dict()) for row in rows],
        "agree": sum(row.agrees is True for row in rows),
        "disagree": sum(row.agrees is False for row in rows),
        "below_precision": sum(row.agrees is None for row in rows) - undecided,
        "undecided": undecided,
        "seconds": round(seconds, 3),
        "versions": versions(),
        "seed": seed,
        "command": command,
        **_strict(dict(tables or {})),
    }


def _undecided(row: Row, found: TheoremCheck) -> bool:
    """Whether the checker left it open: this row, or a datum of which it is the mean."""
    if row.agrees is not None:
        return False
    unknown = Level.UNKNOWN.value
    mine = (other for other in found.rows if other.latent == row.latent and other.datum is not None)
    return row.level == unknown or (row.datum is None and any(other.level == unknown for other in mine))


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("torch", "numpy", "scipy", "sympy", "python-flint", "matplotlib")
    return {
        "identkit": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
