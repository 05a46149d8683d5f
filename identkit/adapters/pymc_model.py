"""PyMC models: every random variable's parameters as a function of the free ones, run by torch; else the compiled logp.

PyMC draws its graph in PyTensor, which can run it on torch tensors. Where every observed variable is of a family whose
parameters identify its law, that makes the model a decoder: probes can differentiate it and bounds can follow it.
Where not (a mixture, a censored law), its log density and gradient on the model's own data are compiled by PyTensor.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributions as td
from torch import Tensor

from identkit.adapters.compiled_density import CompiledDensity
from identkit.adapters.joint import Decoded, Scored, joint_prior, laid_out
from identkit.adapters.recipe import Recipe
from identkit.numeric.laws import known
from identkit.numeric.product import ProductLaw

_AGREES = 1e-6  # relative: how closely torch's log densities have to repeat PyMC's

_Arguments = Callable[..., dict[str, Tensor]]
_FAMILIES: dict[str, tuple[type[td.Distribution], _Arguments]] = {
    "bernoulli": (td.Bernoulli, lambda p: {"probs": p}),
    "beta": (td.Beta, lambda a, b: {"concentration1": a, "concentration0": b}),
    "binomial": (td.Binomial, lambda n, p: {"total_count": n, "probs": p}),
    "categorical": (td.Categorical, lambda p: {"probs": p}),
    "cauchy": (td.Cauchy, lambda m, s: {"loc": m, "scale": s}),
    "dirichlet": (td.Dirichlet, lambda a: {"concentration": a}),
    "exponential": (td.Exponential, lambda s: {"rate": 1 / s}),
    "gamma": (td.Gamma, lambda a, s: {"concentration": a, "rate": 1 / s}),
    "gumbel": (td.Gumbel, lambda m, s: {"loc": m, "scale": s}),
    "halfcauchy": (td.HalfCauchy, lambda s: {"scale": s}),
    "halfnormal": (td.HalfNormal, lambda m, s: {"scale": s}),
    "laplace": (td.Laplace, lambda m, s: {"loc": m, "scale": s}),
    "lognormal": (td.LogNormal, lambda m, s: {"loc": m, "scale": s}),
    "multivariate_normal": (td.MultivariateNormal, lambda m, c: {"loc": m, "covariance_matrix": c}),
    "negative_binomial": (td.NegativeBinomial, lambda n, p: {"total_count": n, "probs": 1 - p}),
    "normal": (td.Normal, lambda m, s: {"loc": m, "scale": s}),
    "poisson": (td.Poisson, lambda rate: {"rate": rate}),
    "t": (td.StudentT, lambda nu, m, s: {"df": nu, "loc": m, "scale": s}),
    "uniform": (td.Uniform, lambda low, high: {"low": low, "high": high}),
}
"""PyTensor's name of a family: torch's, and its arguments. What does not repeat PyMC's density is never used."""


def from_pymc(model: Any) -> Decoded | Scored:
    """Turn a PyMC model into what `check` takes: ``check(from_pymc(model))``.

    Its latents are its free random variables on their own scale, without PyMC's transformations. The verdict is about
    the law of all that is observed, whatever the data; where an observed variable is of a family that torch does not
    have, or depends on other data, it is about the data in the model.

    Args:
        model: a `pymc.Model` with observed variables.

    Raises:
        ImportError: PyMC is not installed.
        TypeError: it is no PyMC model.
        ValueError: no latents, or nothing observed; potentials, which are no law; a free variable of a family that
            torch does not have, or that depends on data; finite latents beside continuous ones; too many latents.
    """
    pymc = _imported("pymc")
    if not isinstance(model, pymc.Model):
        raise TypeError(f"model should be a pymc.Model, got {type(model).__name__}")
    _refuse(model)
    free = [_variable(model, rv, rv) for rv in model.free_RVs]
    observed = [_variable(model, rv, model.rvs_to_values[rv]) for rv in model.observed_RVs]
    for variable in free:
        if variable.family is None:
            raise ValueError(
                f"free variable {variable.name} should be of a family that torch has, {', '.join(sorted(_FAMILIES))}, "
                f"and depend on no data, got {variable.kind}"
            )
    by_law = all(variable.family is not None and known(variable.family) for variable in observed)
    made = _Laws(model, (*free, *observed) if by_law else tuple(free))
    latents = laid_out(
        [(v.name, v.shape, made.recipes[v.name]) for v in free], "give the model fewer rows of data"
    )
    outset = torch.cat([torch.as_tensor(v.value, dtype=torch.float64).reshape(-1) for v in free])
    described: dict[str, Any] = {
        "name": model.name or "PyMC model",
        "prior": joint_prior(latents, made.numbers, outset),
        "latent_names": tuple(name for site in latents for name in site.names),
    }
    if not by_law:
        return Scored(**described, log_likelihood=CompiledDensity(model))
    names = [variable.name for variable in observed]
    return Decoded(
        **described,
        decoder=lambda z: made.decoded(z, names),
        likelihood=lambda made_of: made.law(made_of, names),
    )


@dataclass(frozen=True, eq=False, repr=False)
class _Variable:
    """A random variable of the model, with the family that torch has for it, if any."""

    name: str
    random: Any
    kind: str
    value: np.ndarray
    """A draw, or what was observed."""
    family: type[td.Distribution] | None
    arguments: _Arguments
    core: tuple[int, ...]
    """How many axes of their own its parameters have."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its value."""
        return self.value.shape

    @property
    def batch(self) -> tuple[int, ...]:
        """The axes over which it is independent draws."""
        return self.shape[: len(self.shape) - self.random.owner.op.ndim_supp]

    @property
    def parameters(self) -> list[Any]:
        """PyTensor's own."""
        op = self.random.owner.op
        return list(op.dist_params(self.random.owner))


def _variable(model: Any, random: Any, value: Any) -> _Variable:
    """Read a random variable; without a family where torch has none, or where data are among its parameters."""
    pymc, ancestors = _imported("pymc"), _imported("pytensor.graph.traversal").ancestors
    if random is value:
        found = np.asarray(pymc.draw(random, random_seed=0))
    else:
        found = np.asarray(value.eval())
    op = random.owner.op
    kind = getattr(op, "name", None) or type(op).__name__
    family, arguments = _FAMILIES.get(kind, (None, lambda *given: {}))
    core = tuple(getattr(op, "ndims_params", None) or ())
    made = _Variable(random.name, random, kind, found, family, arguments, core)
    if family is not None:
        data = {rv for rv in model.observed_RVs if rv is not random}
        if data & set(ancestors(made.parameters)):
            return _Variable(random.name, random, f"{kind} given data", found, None, arguments, core)
    return made


class _Laws:
    """The laws of some variables as a function of all free ones, in torch.

    Raises:
        ValueError: an operation that PyTensor cannot run on torch, or a law that does not repeat PyMC's log density.
    """

    def __init__(self, model: Any, variables: tuple[_Variable, ...]) -> None:
        """Build the graph over batches of free variables and hold its laws against PyMC at one draw."""
        tensor, vectorized = _imported("pytensor.tensor"), _imported("pytensor.graph.replace").vectorize_graph
        funcified = _imported("pytensor.link.pytorch.dispatch").pytorch_funcify
        graph = _imported("pytensor.graph.fg").FunctionGraph
        self.free = tuple(v for v in variables if v.random in model.free_RVs)
        self.variables = variables
        given = [tensor.tensor(dtype=v.random.type.dtype, shape=(None, *v.shape)) for v in self.free]
        own = [parameter for v in variables for parameter in v.parameters]
        wanted = vectorized(own, dict(zip([v.random for v in self.free], given, strict=True)))
        self._batched = [many.ndim > one.ndim for many, one in zip(wanted, own, strict=True)]
        steps = graph(given, wanted, clone=True)
        _imported("pytensor.compile.mode").get_mode("PYTORCH").optimizer.rewrite(steps)
        try:
            self._run = funcified(steps)
        except NotImplementedError as missing:
            raise ValueError(
                f"model should use operations that PyTensor runs on torch: {missing}"
            ) from missing
        found = {v.name: v.arguments(*made) for v, made in self._made(self._outset())}
        self.recipes = {
            v.name: Recipe(
                _family(v), tuple((part, tuple(value.shape[1:])) for part, value in found[v.name].items())
            )
            for v in variables
        }
        self._compare(model)

    def numbers(self, z: Tensor) -> Mapping[str, Tensor]:
        """Latents (n, k) → for every variable the numbers of its law, (n, p)."""
        split = z.split([v.value.size for v in self.free], 1)
        values = [
            part.reshape((len(z), *v.shape)).to(_torch_type(v))
            for part, v in zip(split, self.free, strict=True)
        ]
        return {
            v.name: torch.cat(
                [value.reshape(len(z), -1).double() for value in v.arguments(*made).values()], 1
            )
            for v, made in self._made(values)
        }

    def decoded(self, z: Tensor, names: Sequence[str]) -> Tensor:
        """Latents (n, …) → the numbers of the laws of these variables, (n, p)."""
        found = self.numbers(z.reshape(len(z), -1))
        return torch.cat([found[name] for name in names], 1)

    def law(self, numbers: Tensor, names: Sequence[str]) -> td.Distribution:
        """Numbers (n, p) → n laws of these variables."""
        recipes = [self.recipes[name] for name in names]
        pieces = numbers.split([recipe.size for recipe in recipes], 1)
        laws = [recipe.law(piece) for recipe, piece in zip(recipes, pieces, strict=True)]
        return laws[0] if len(laws) == 1 else ProductLaw(laws)

    def _outset(self) -> list[Tensor]:
        return [torch.as_tensor(v.value).to(_torch_type(v)).unsqueeze(0) for v in self.free]

    def _made(self, values: list[Tensor]) -> Iterator[tuple[_Variable, list[Tensor]]]:
        """Each variable with its parameters, all in full shape: (n, batch, own axes)."""
        n = len(values[0])
        found = iter(zip(self._run(*values), self._batched, strict=True))
        for variable in self.variables:
            made = []
            for axes in variable.core:
                value, batched = next(found)
                value = torch.as_tensor(value).to(
                    torch.float64
                )  # PyTensor keeps constants as small as they fit
                value = value if batched else value.unsqueeze(0)
                own = value.shape[value.ndim - axes :]
                inner = value.shape[1 : value.ndim - axes]
                once = (1,) * (len(variable.batch) - len(inner))
                value = value.reshape((value.shape[0], *once, *inner, *own))
                made.append(value.expand((n, *variable.batch, *own)))
            yield variable, made

    def _compare(self, model: Any) -> None:
        """Hold torch's log densities at the outset against PyMC's."""
        pymc, pytensor = _imported("pymc"), _imported("pytensor")
        theirs = pytensor.function(
            [],
            [
                pytensor.clone_replace(
                    pymc.logp(v.random, v.value).sum(),
                    {f.random: f.value for f in self.free},
                    rebuild_strict=False,
                )
                for v in self.variables
            ],
            mode="FAST_COMPILE",
            on_unused_input="ignore",
        )()
        z = torch.cat([value.reshape(1, -1).double() for value in self._outset()], 1)
        made = self.numbers(z)
        for variable, wanted in zip(self.variables, theirs, strict=True):
            value = torch.as_tensor(variable.value).double().unsqueeze(0)
            found = float(self.recipes[variable.name].law(made[variable.name]).log_prob(value).sum())
            if not abs(found - float(wanted)) <= _AGREES * (1 + abs(float(wanted))):
                raise ValueError(
                    f"{variable.name} ({variable.kind}) should have the density that torch gives it, but PyMC says "
                    f"{float(wanted):.6g} where torch says {found:.6g}"
                )


def _refuse(model: Any) -> None:
    if not model.observed_RVs:
        raise ValueError("model should observe something, but none of its variables has observed=")
    if not model.free_RVs:
        raise ValueError("model should have a latent that is not observed, got none: nothing is asked about")
    if model.potentials:
        names = ", ".join(str(potential.name) for potential in model.potentials)
        raise ValueError(
            f"model should be made of random variables, but has the potentials {names}: whether they belong to the prior "
            "or to the likelihood is not said"
        )


def _family(variable: _Variable) -> type[td.Distribution]:
    assert variable.family is not None
    return variable.family


def _torch_type(variable: _Variable) -> torch.dtype:
    return torch.float64 if variable.value.dtype.kind == "f" else torch.int64


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        raise ImportError("from_pymc needs PyMC: pip install 'identkit[pymc]'") from missing
