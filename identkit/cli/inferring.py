"""`identkit posterior`: the exact posterior of a text model or of a classical family, fitted or as it stands."""

from __future__ import annotations

import csv
import inspect
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from identkit.model.model import Model
from identkit.posterior.information import Collapse, collapse

if TYPE_CHECKING:
    from torch import Tensor


FAMILIES = {
    "gaussian-mixture": "gaussian_mixture.GaussianMixture",
    "family-mixture": "mixtures.FamilyMixture",
    "latent-class": "mixtures.LatentClass",
    "ppca": "linear_gaussian.PPCA",
    "factor-analysis": "linear_gaussian.FactorAnalysis",
    "bayesian-linear-regression": "linear_gaussian.BayesianLinearRegression",
    "hidden-markov": "hidden_markov.HiddenMarkov",
    "state-space": "state_space.StateSpace",
    "item-response": "item_response.ItemResponse",
    "beta-binomial": "conjugate.BetaBinomial",
    "dirichlet-multinomial": "conjugate.DirichletMultinomial",
    "gamma-poisson": "conjugate.GammaPoisson",
    "gamma-exponential": "conjugate.GammaExponential",
    "normal-normal": "conjugate.NormalNormal",
    "normal-inverse-gamma": "conjugate.NormalInverseGamma",
    "hierarchical-normal": "hierarchical_normal.HierarchicalNormal",
}
"""Classical families by the name that the command line takes, and where they live."""

_BESIDE = {"bayesian-linear-regression": ("design", 2), "hierarchical-normal": ("scales", 1)}
"""Families of which a datum is a column of the table, and the argument of `fit` that other columns give, with its axes."""


@dataclass(frozen=True)
class Inferred:
    """A model's name and what its data told about its latents."""

    model: str
    found: Collapse
    information: Any = None
    """The mutual information of latents and data, an `Estimate`; None where the family states none."""
    fit: str = ""
    """How the fit went, in a sentence."""
    states: Tensor | None = None
    """Chances of every state of every latent, (n, k, K), where the latents of a family are states."""
    estimates: Mapping[str, Any] = field(default_factory=dict)
    """What a fit found: parameters by name, as nested lists of numbers."""
    fitted: str = ""
    """The same in a line, large tables by their shapes."""
    source: Any = None
    """The model itself,"""
    at: Mapping[str, Any] | None = None
    """and its parameters, if it is a text."""

    @cached_property
    def prior(self) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation of each latent under the prior, where they are known."""
        return _prior_moments(self.source, self.at)

    @property
    def latents(self) -> list[dict[str, Any]]:
        """For each latent its average over the data."""
        c = self.found
        return [
            {
                "name": name,
                "mean_kl": float(c.kl_per_latent[:, j].mean()),
                "mean_kl_conditional": float(c.kl_conditional[:, j].mean()),
                "largest_kl": float(c.kl_per_latent[:, j].max()),
            }
            for j, name in enumerate(c.names)
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One flat row a datum, under names that a table takes."""
        c = self.found
        rows = []
        for i in range(len(c.kl)):
            row: dict[str, Any] = {
                "datum": i + 1,
                "kl": float(c.kl[i]),
                "kl_error": float(c.kl_error[i]),
                "log_evidence": float(c.log_evidence[i]),
            }
            for j, name in enumerate(c.names):
                row[f"mean({name})"] = float(c.posterior_mean[i, j])
                row[f"sd({name})"] = float(c.posterior_sd[i, j])
                row[f"kl({name})"] = float(c.kl_per_latent[i, j])
                row[f"kl_conditional({name})"] = float(c.kl_conditional[i, j])
                if self.states is not None:
                    row |= {f"p({name}={state})": p for state, p in enumerate(self.states[i, j].tolist())}
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """The object that `--json` prints; all informations in nats."""
        about = self.information
        told = {
            "model": self.model,
            "n": len(self.found.kl),
            "mean_kl": self.found.mean_kl,
            "log_evidence": float(self.found.log_evidence.sum()),
            "mutual_information": None
            if about is None
            else {"value": about.value, "error": about.error, "method": about.method},
            "fit": self.fit or None,
            "estimates": dict(self.estimates),
            "latents": self.latents,
            "rows": self.rows,
        }
        return _finite(told)

    def to_csv(self) -> str:
        """The rows as a CSV table."""
        rows = self.rows
        file = io.StringIO()
        table = csv.DictWriter(file, list(rows[0]) if rows else ["datum"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return file.getvalue()


def inferred(model: Any, x: Any, at: Mapping[str, Any] | None, pooled: bool, mask: Any) -> Inferred:
    """The exact posterior of every datum.

    A family of sequences takes the rows as the steps of one sequence. What a fit found is told where the model says of
    itself how its fit went.

    Raises:
        ValueError, TypeError: as `identkit.collapse`.
    """
    how = getattr(model, "convergence", None)
    told = {} if how is None else _estimates(model)
    written = "" if how is None else repr(model)
    if hasattr(model, "of_length") and model.length is None:
        model, x = model.of_length(len(x)), x.reshape(1, -1)
    found = collapse(model, x, at=at or None, pooled=pooled, mask=mask)
    stated = getattr(model, "mutual_information", None)
    return Inferred(
        getattr(model, "name", type(model).__name__),
        found,
        None if stated is None else stated(),
        "" if how is None else str(how),
        None if isinstance(model, Model) or pooled else _states(model, x, len(found.names)),
        told,
        written,
        model,
        at,
    )


def _estimates(model: Any) -> dict[str, Any]:
    """The parameters of a frozen model as numbers and nested lists; of an emission, as the model's own."""
    found: dict[str, Any] = {}
    for entry in fields(model):
        value = getattr(model, entry.name)
        if hasattr(value, "tolist"):
            found[entry.name] = value.tolist()
        elif is_dataclass(value) and entry.name != "convergence":
            found[entry.name] = _estimates(value)
        elif isinstance(value, (bool, int, float, str)) and not entry.name.startswith("_"):
            found[entry.name] = value
    return found


def _states(model: Any, x: Any, latents: int) -> Tensor | None:
    """Chances (n, latents, K) where a posterior is one of states: of a mixture, or along a hidden chain."""
    from torch.distributions import Categorical

    law = model.posterior(x)
    probs = getattr(law, "probs", None)
    if isinstance(law, Categorical) and law.probs.ndim == 2:
        probs = law.probs[:, None, :]
    return probs if probs is not None and probs.ndim == 3 and probs.shape[1] == latents else None


def _prior_moments(model: Any, at: Mapping[str, Any] | None) -> tuple[Tensor, Tensor] | None:
    if isinstance(model, Model):
        nothing = torch.ones(1, len(model.observation_symbols), dtype=torch.float64)
        try:
            found = collapse(model, nothing, at=at or None, mask=torch.zeros_like(nothing, dtype=torch.bool))
        except ValueError:  # the data may locate a posterior whose prior is out of reach
            return None
        return found.posterior_mean[0], found.posterior_sd[0]
    law = model.prior
    if hasattr(law, "probs") and law.probs.ndim == 1 and not law.event_shape:  # states count by their number
        states = law.enumerate_support().to(law.probs.dtype)
        mean = (law.probs * states).sum()
        return mean[None], (law.probs * (states - mean).square()).sum().sqrt()[None]
    try:
        mean, sd = law.mean.reshape(-1), law.stddev.reshape(-1)
    except (AttributeError, NotImplementedError):
        return None
    return (mean, sd) if len(mean) == len(model.latent_names) else None


def fitted(
    family: str, names: Sequence[str], table: Tensor, settings: Mapping[str, Any]
) -> tuple[Any, Tensor]:
    """A classical family fitted to a table, and the data as the family takes them.

    Args:
        family: its name, as in `FAMILIES`.
        names: of the table's columns.
        table: the numbers, (rows, columns).
        settings: arguments of the family's `fit`, such as ``components``: whole numbers, numbers, words or columns.

    Raises:
        ValueError: a setting that the family's fit does not take, or lacks; and as the fit does.
    """
    model = _family(family)
    known = inspect.signature(model.fit).parameters
    beside, axes = _BESIDE.get(family, (None, 0))
    wanted = [name for name in known if name != "x" and _kinds(known[name])]
    for name in settings:
        if name not in wanted:
            raise ValueError(f"--fit of {family} takes {', '.join(wanted) or 'no settings'}, got {name!r}")
    missing = [n for n in wanted if known[n].default is inspect.Parameter.empty and n not in settings]
    if missing:
        example = ",".join(f"{n}={_example(known[n], n == beside)}" for n in missing)
        raise ValueError(f"--fit of {family} should say {', '.join(missing)}, as in --fit {example}")
    chosen = {
        name: _of_kind(name, value, _kinds(known[name])) for name, value in settings.items() if name != beside
    }
    x = table
    if beside is not None:
        x, given = _parted(beside, names, table, settings[beside])
        chosen[beside] = given[:, 0] if axes == 1 else given
        if given.shape[1] > 1 and axes == 1:
            raise ValueError(f"{beside} in --fit should be one column, got {settings[beside]!r}")
    return model.fit(x[:, 0] if family == "hidden-markov" and x.shape[1] == 1 else x, **chosen), x


def _parted(argument: str, names: Sequence[str], table: Tensor, columns: Any) -> tuple[Tensor, Tensor]:
    """The columns that an argument does not name, as rows, and those it names, as they stand."""
    wanted = [str(name) for name in (columns if isinstance(columns, list) else [columns])]
    if not wanted or any(name not in names for name in wanted) or len(set(wanted)) == len(names):
        raise ValueError(
            f"{argument} in --fit should name some of the table's columns ({', '.join(names)}) and leave one for "
            f"the measurements, got {', '.join(wanted)}"
        )
    rest = [place for place, name in enumerate(names) if name not in wanted]
    return table[:, rest].T, table[:, [names.index(name) for name in wanted]]


def takes_missing(family: str) -> bool:
    """Whether a classical family of `FAMILIES` takes data with missing values."""
    return getattr(_family(family), "takes_missing", False)


def _family(name: str) -> Any:
    module, own = FAMILIES[name].split(".")
    return getattr(import_module(f"identkit.classical.{module}"), own)


_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word"}


def _kinds(parameter: inspect.Parameter) -> tuple[str, ...]:
    """Which kinds of value, of those that one can type, an argument of a fit takes."""
    named = {part.strip() for part in str(parameter.annotation).split("|")}
    return tuple(kind for kind in _WORDS if kind in named or (kind == "float" and "Any" in named))


def _example(parameter: inspect.Parameter, beside: bool) -> str:
    return "COLUMN" if beside else "WORD" if _kinds(parameter) == ("str",) else "2"


def _of_kind(name: str, value: Any, kinds: tuple[str, ...]) -> Any:
    if "bool" in kinds and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    fits = {"int": isinstance(value, int), "float": number, "str": isinstance(value, str)}
    if not any(fits.get(kind) for kind in kinds):
        expected = " or ".join(_WORDS[kind] for kind in kinds)
        raise ValueError(f"{name} in --fit should be {expected}, got {value!r}")
    return value


def _finite(value: Any) -> Any:
    """The same without the numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
