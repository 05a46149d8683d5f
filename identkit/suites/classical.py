"""`identkit verify --suite classical`: the models of Wang, Blei & Cunningham (2021) and every classical family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from identkit import plot
from identkit.classical.linear_gaussian import PPCA, sample_eigenvalues
from identkit.dispatch import check
from identkit.model.compiled import compiled
from identkit.suites.found import Progress, SuiteResult, agreement_figure, theorem_figure
from identkit.suites.paper import WEIGHTS, ClassicalData, classical_data
from identkit.theorem import TheoremCheck, verify
from identkit.zoo import CASES, FAMILIES

ROWS = 200
"""Data rows of a model whose posterior is cheap."""
SWEEP_ROWS = 50
"""Data rows at each noise of the PPCA sweep."""
PLANE_ROWS = 25
"""Data rows of a model with two continuous latents, whose posterior takes quadrature in the plane."""
FAMILY_ROWS = 5
"""Data rows of each classical family's examples."""
_SIGMAS = (0.05, 0.08, 0.2, 0.5, 1.0, 1.5, 2.0, 5.0)
_NEAR = 1.02  # the sweep also stops just before and after each eigenvalue's root
_CURVE = 24  # points of the sweep's curves
# and, in √λ, norms near a threshold, where loadings fall like √(λ − σ²)
_BEND = (0.9, 0.8, 0.7, 0.55, 0.4, 0.25, 0.12, 0.04)


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


def run_classical(progress: Callable[[Progress], None], seed: int, preset: str | None = None) -> SuiteResult:
    """Answer every question, draw every figure."""
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


def _classical_questions(data: ClassicalData, generator: torch.Generator) -> Iterator[Question]:
    yield from _weight_questions(data)
    yield from _mixture_questions(generator)
    yield from _factor_questions(data, generator)
    yield from _text_questions(generator)
    yield from _family_questions(generator)


def _weight_questions(data: ClassicalData) -> Iterator[Question]:
    for name, (case, _) in WEIGHTS.items():
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


def _thresholds(x: Tensor) -> list[float]:
    """The noises within reach at which a fit drops a latent."""
    return [root for root in sample_eigenvalues(x)[:2].sqrt().tolist() if _SIGMAS[0] < root < _SIGMAS[-1]]


def _sigmas(x: Tensor) -> list[float]:
    roots = _thresholds(x)
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


def _drawings(data: ClassicalData) -> dict[str, Callable[[Sequence[TheoremCheck]], tuple[Figure, str]]]:
    drawings: dict[str, Callable[[Sequence[TheoremCheck]], tuple[Figure, str]]] = {
        "theorem": theorem_figure,
        "agreement": agreement_figure,
        "mixture_weight": lambda checks: _weight_figure(data),
    }
    for name in data.factors:
        drawings[f"ppca_{name}"] = lambda checks, name=name: _sweep_figure(name, data.factors[name][0])
    return drawings


def _weight_figure(data: ClassicalData) -> tuple[Figure, str]:
    panels = []
    for name, (case, _) in WEIGHTS.items():
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
    bends = [root * math.sqrt(1 - norm**2) for root in _thresholds(x) for norm in _BEND]
    sigmas = sorted({*grid[1:-1], *_sigmas(x), *bends})
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
