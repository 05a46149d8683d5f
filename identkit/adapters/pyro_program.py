"""Pyro programs: run under Pyro's own handlers, with the latents' values written in and the sites' laws read out.

A program is taken as it stands after training: `pyro.param` as the parameter store holds it, `pyro.sample` with ``obs=``
(or under `pyro.condition`) as data, every other `pyro.sample` as a latent. One run for one value of the latents gives
the numbers of every law (`recipe`); `torch.vmap` makes it many, so that a program need not be written for batches.

**Rows.** A vectorised plate that holds all latents and all data is a plate of rows: independent draws of one model,
and the question is about one of them. Latents of all other programs are asked about together.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor
from torch.utils._pytree import tree_map

from identkit.adapters.joint import Decoded, Scored, Site, joint_prior, laid_out
from identkit.adapters.recipe import Recipe, read
from identkit.numeric.double import double_precision
from identkit.numeric.laws import bare, known
from identkit.numeric.product import ProductLaw

_NUMBERS = 1 << 22  # that the data of one batch of runs may be
_TRIED = 8  # values of the latents at which fewer rows have to give the same laws
_ALIKE = 1e-9  # how far apart, relatively, rounding may bring the laws of two rows


def from_pyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Decoded | Scored:
    """Turn a Pyro program into what `check` takes: ``check(from_pyro(model, data))``.

    The latents are those of one row where all latents and data lie in one plate of rows, else all of them together.
    The verdict is about the law of the data, whatever they are. It is about these data alone where a datum's law
    depends on other data (a sequence), or its family is not one that its parameters are known to identify.

    Args:
        model: the program (not its guide), with its parameters as fitted.
        *args, **kwargs: what it is called with, data included; a few rows are enough where all are alike.

    Raises:
        ImportError: Pyro is not installed.
        TypeError: a latent whose family is none of torch's.
        ValueError: no latents, or nothing observed; sites that come and go, or decisions on a latent's value; masked,
            rescaled or subsampled sites; rows with different laws; a latent drawn given data; finite latents beside
            continuous ones; more latents than can be probed.
    """
    program = _traced(model, args, kwargs)
    by_law = not program.reads_data() and all(known(site.family) for site in program.sites if site.observed)
    runs = _by_row(program) if by_law else _Runs(program, _latents(program))
    described: dict[str, Any] = {
        "name": getattr(model, "__name__", type(model).__name__),
        "prior": joint_prior(runs.latents, runs.numbers, runs.outset),
        "latent_names": tuple(name for site in runs.latents for name in site.names),
    }
    if by_law:
        return Decoded(**described, decoder=runs.decoded, likelihood=runs.likelihood)
    return Scored(**described, log_likelihood=runs.log_likelihood)


def _by_row(program: _Program) -> _Runs:
    """The program for one row of its plates of rows; run on its arguments' first rows, where that gives the same laws."""
    whole = program.of_one_row()
    runs = _Runs(whole, _latents(whole))
    rows = {site.batch[axis] for site in whole.sites for axis in site.rows}
    if len(rows) != 1 or rows == {1}:
        return runs
    first = lambda leaf: leaf[:1] if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) in rows else leaf
    try:
        args, kwargs = tree_map(first, (program.args, dict(program.kwargs)))
        small = _traced(program.model, args, kwargs).of_one_row()
        fewer = _Runs(small, _latents(small))
        z = runs.outset + torch.linspace(0, 0.5, _TRIED, dtype=torch.float64).unsqueeze(1)
        z = z if all(site.dtype.is_floating_point for site in whole.sites) else runs.outset.unsqueeze(0)
        same = fewer.latents == runs.latents and _close(runs.numbers(z), fewer.numbers(z))
    except Exception:  # whatever a user's code raises on fewer rows than it was written for
        return runs
    return fewer if same else runs


def _close(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return all(torch.allclose(one[name], two[name], rtol=_ALIKE, atol=_ALIKE, equal_nan=True) for name in one)


def _latents(program: _Program) -> tuple[Site, ...]:
    return laid_out(
        [(site.name, site.shape, _recipe(program, site)) for site in program.sites if not site.observed],
        "pass fewer rows, or condition on the latents that rows share (pyro.condition)",
    )


@dataclass(frozen=True)
class _Drawn:
    """A `pyro.sample` of the program, as one run showed it."""

    name: str
    observed: bool
    family: type[td.Distribution]
    batch: tuple[int, ...]
    event: tuple[int, ...]
    dtype: torch.dtype
    plates: frozenset[tuple[str, int]]
    """Its vectorised plates, by name and axis, counted from the right of `batch`."""
    rows: tuple[int, ...] = ()
    """The axes of `batch`, from the left, of plates of rows; of these one row is asked about."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row's value: without the axes of rows and those that only hold a place."""
        return (*(self.batch[axis] for axis in self.kept), *self.event)

    @property
    def kept(self) -> tuple[int, ...]:
        """The axes of `batch` that are no rows and hold more than one."""
        return tuple(a for a, size in enumerate(self.batch) if a not in self.rows and size > 1)

    def everywhere(self, value: Tensor) -> Tensor:
        """A row's value for all rows, in the shape and type in which the program takes it."""
        once = [size if axis in self.kept else 1 for axis, size in enumerate(self.batch)]
        return value.reshape((*once, *self.event)).expand((*self.batch, *self.event)).to(self.dtype)

    def one_row(self, parameter: Tensor, event_axes: int, base_batch: tuple[int, ...]) -> Tensor:
        """A parameter's numbers for the first row; they lie along the axes of the law's batch, then their own."""
        own = tuple(parameter.shape[parameter.ndim - event_axes :]) if event_axes else ()
        whole = parameter.expand((*base_batch, *own))
        for axis in sorted(set(range(len(self.batch))) - set(self.kept), reverse=True):
            whole = whole.select(axis, 0)
        return whole


@dataclass(frozen=True, eq=False, repr=False)
class _Program:
    """A program with its arguments, its parameters' values and its sites."""

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    parameters: Mapping[str, Tensor]
    sites: tuple[_Drawn, ...]
    values: Mapping[str, Tensor]
    """What the sites had in one run."""

    def run(self, values: Mapping[str, Tensor], args: Any = None, kwargs: Any = None) -> Mapping[str, Any]:
        """Run with these values of sites; give every site's law and value."""
        pyro = _pyro()
        conditioned = pyro.poutine.condition(self.model, data=dict(values))
        held = pyro.poutine.substitute(conditioned, data=dict(self.parameters))
        trace = pyro.poutine.trace(held).get_trace(
            *(self.args if args is None else args), **(self.kwargs if kwargs is None else kwargs)
        )
        return trace.nodes

    def reads_data(self) -> bool:
        """Whether the law of a datum depends on other data, by changing all data and looking at their laws.

        Raises:
            ValueError: a latent's law does.
        """
        data = {site.name: self.values[site.name] for site in self.sites if site.observed}
        other = {name: _changed(value) for name, value in data.items()}
        storages = {value.untyped_storage().data_ptr() for value in data.values()}

        def changed(leaf: Any) -> Any:
            given = isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in storages
            return _changed(leaf) if given else leaf

        with _quiet(), torch.no_grad():
            before = self.run(self.values)
            after = self.run({**self.values, **other}, *tree_map(changed, (self.args, dict(self.kwargs))))
        reading = [
            site
            for site in self.sites
            if any(
                not torch.equal(one, two)
                for one, two in zip(
                    _parameters(site, before[site.name]["fn"]).values(),
                    _parameters(site, after[site.name]["fn"]).values(),
                    strict=True,
                )
            )
        ]
        for site in reading:
            if not site.observed:
                raise ValueError(
                    f"latents should be drawn before the data, but the law of {site.name} depends on them: the prior "
                    "of all latents together is not known"
                )
        return bool(reading)

    def of_one_row(self) -> _Program:
        """The same program, asked about one row of the plates that hold all latents and all data.

        Raises:
            ValueError: rows with the same latents have different laws.
        """
        common = frozenset.intersection(*(site.plates for site in self.sites))
        rowed = replace(
            self,
            sites=tuple(
                replace(site, rows=tuple(len(site.batch) + axis for _, axis in common)) for site in self.sites
            ),
        )
        alike = {
            site.name: site.everywhere(self._first_row(site)) for site in rowed.sites if not site.observed
        }
        with _quiet(), double_precision(), torch.no_grad():
            nodes = rowed.run(alike)
        for site in rowed.sites:
            law = bare(nodes[site.name]["fn"])
            for part, value in _parameters(site, law).items():
                axes = _event_axes(site.family, part)
                whole = value.expand((*law.batch_shape, *value.shape[value.ndim - axes :]))
                for axis in site.rows:
                    gap = (whole - whole.select(axis, 0).unsqueeze(axis)).abs().max()
                    if float(gap) > _ALIKE * (1 + float(whole.abs().max())):
                        plates = ", ".join(sorted(name for name, _ in common))
                        raise ValueError(
                            f"rows of plate {plates} should have one law for one value of their latents, but those of "
                            f"{site.name} differ (covariates?): pass the one row that is asked about"
                        )
        return rowed

    def _first_row(self, site: _Drawn) -> Tensor:
        value = self.values[site.name].expand((*site.batch, *site.event))
        for axis in sorted(set(range(len(site.batch))) - set(site.kept), reverse=True):
            value = value.select(axis, 0)
        return value


@dataclass(frozen=True, eq=False, repr=False)
class _Runs:
    """The program as functions of its latents in one vector, many at once."""

    program: _Program
    latents: tuple[Site, ...]

    @property
    def outset(self) -> Tensor:
        """The latents of the run by which the program was read."""
        drawn = {site.name: site for site in self.program.sites}
        values = [self.program._first_row(drawn[site.name]).reshape(-1) for site in self.latents]
        return torch.cat([value.to(torch.float64) for value in values])

    def numbers(self, z: Tensor) -> Mapping[str, Tensor]:
        """Latents (n, k) → for every site the numbers of its law, (n, p)."""

        def once(row: Tensor) -> dict[str, Tensor]:
            nodes = self.program.run(self._written(row))
            return {site.name: _numbers(site, nodes[site.name]["fn"]) for site in self.program.sites}

        return self._many(once, z)

    def decoded(self, z: Tensor) -> Tensor:
        """Latents (n, …) → the numbers of the laws of all data, (n, p)."""
        found = self.numbers(z.reshape(len(z), -1))
        return torch.cat([found[site.name] for site in self.program.sites if site.observed], 1)

    def likelihood(self, numbers: Tensor) -> td.Distribution:
        """Numbers (n, p) → n laws of all data."""
        recipes = [_recipe(self.program, site) for site in self.program.sites if site.observed]
        pieces = numbers.split([recipe.size for recipe in recipes], 1)
        laws = [recipe.law(piece) for recipe, piece in zip(recipes, pieces, strict=True)]
        return laws[0] if len(laws) == 1 else ProductLaw(laws)

    def log_likelihood(self, z: Tensor) -> Tensor:
        """Latents (n, …) → log p(data | z), (n,)."""

        def once(row: Tensor) -> Tensor:
            nodes = self.program.run(self._written(row))
            data = [nodes[site.name] for site in self.program.sites if site.observed]
            return torch.stack([node["fn"].log_prob(node["value"]).sum() for node in data]).sum()

        return self._many(once, z.reshape(len(z), -1))

    def _written(self, row: Tensor) -> dict[str, Tensor]:
        drawn = {site.name: site for site in self.program.sites}
        return {site.name: drawn[site.name].everywhere(site.of(row)) for site in self.latents}

    def _many(self, once: Callable[[Tensor], Any], z: Tensor) -> Any:
        data = sum(math.prod((*site.batch, *site.event)) for site in self.program.sites)
        try:
            with _quiet(), double_precision():
                return torch.vmap(once, chunk_size=max(1, _NUMBERS // data))(z.to(torch.float64))
        except RuntimeError as refused:
            if "vmap" not in str(refused):
                raise
            raise ValueError(
                "model should be one computation for all values of its latents, without decisions on them, .item() or "
                f"draws outside pyro.sample: {str(refused).splitlines()[0]}"
            ) from refused


def _traced(model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Program:
    """Run a program twice, from different seeds, and take down its sites and parameters."""
    runs = [_nodes(model, args, kwargs, seed) for seed in (0, 1)]
    if _skeleton(runs[0]) != _skeleton(runs[1]):
        raise ValueError(
            "model should draw the same sites in every run, but they change from run to run: a verdict on programs "
            "whose control flow is random is not known how to be given"
        )
    nodes = runs[0]
    for node in nodes.values():
        _refuse(node)
    samples = [node for node in nodes.values() if _is_site(node)]
    if not any(node["is_observed"] for node in samples):
        raise ValueError(
            "model should observe something, but none of its sites has obs=: call from_pyro(model, data)"
        )
    return _Program(
        model,
        args,
        kwargs,
        {name: node["value"].detach() for name, node in nodes.items() if node["type"] == "param"},
        tuple(_site(node) for node in samples),
        {node["name"]: node["value"].detach() for node in samples},
    )


def _nodes(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], seed: int
) -> Mapping[str, Any]:
    """One run; the parameter store and torch's state of chance are left as they were."""
    pyro = _pyro()
    store = pyro.get_param_store()
    with store.scope(store.get_state()), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return pyro.poutine.trace(model).get_trace(*args, **kwargs).nodes


def _skeleton(nodes: Mapping[str, Any]) -> list[Any]:
    return [
        (name, type(node["fn"]), tuple(node["fn"].shape()), node["is_observed"])
        for name, node in nodes.items()
        if _is_site(node)
    ]


def _is_site(node: Any) -> bool:
    """A random site: no plate's choice of rows, no recorded value."""
    if node["type"] != "sample" or node["infer"].get("_deterministic"):
        return False
    return isinstance(node["fn"], td.Distribution)


def _refuse(node: Any) -> None:
    """Refuse sites whose density is not that of their law."""
    subsample = getattr(node.get("fn"), "subsample_size", None)
    if subsample is not None and subsample < node["fn"].size:
        raise ValueError(
            f"plate {node['name']} should run over all of its rows, but draws {subsample} of {node['fn'].size} at random: "
            "leave subsample_size out"
        )
    if not _is_site(node):
        return
    if node["mask"] is not None or type(bare(node["fn"])).__name__ in ("MaskedDistribution", "Unit"):
        raise ValueError(
            f"{node['name']} should be a draw from a law, but it is masked or a bare factor: leave out what is missing"
        )
    if not isinstance(node["scale"], int | float) or node["scale"] != 1:
        raise ValueError(f"{node['name']} should not be rescaled, got scale {node['scale']}")


def _site(node: Any) -> _Drawn:
    law = node["fn"]
    try:
        family, _ = read(law)
    except TypeError as refused:
        if not node["is_observed"]:
            raise TypeError(
                f"latent {node['name']} should have a family that torch knows: {refused}"
            ) from refused
        family = td.Distribution
    return _Drawn(
        node["name"],
        node["is_observed"],
        family,
        tuple(law.batch_shape),
        tuple(law.event_shape),
        node["value"].dtype,
        frozenset((frame.name, frame.dim) for frame in node["cond_indep_stack"] if frame.vectorized),
    )


def _recipe(program: _Program, site: _Drawn) -> Recipe:
    """How one row's law of a site is made."""
    with _quiet(), double_precision(), torch.no_grad():
        law = program.run(program.values)[site.name]["fn"]
    base = tuple(bare(law).batch_shape)
    parts = tuple(
        (name, tuple(site.one_row(value, _event_axes(site.family, name), base).shape))
        for name, value in _parameters(site, law).items()
    )
    return Recipe(site.family, parts)


def _numbers(site: _Drawn, law: td.Distribution) -> Tensor:
    """One row's law as numbers, in the order of its recipe; none for a law that is only scored."""
    base = tuple(bare(law).batch_shape)
    parts = [
        site.one_row(value, _event_axes(site.family, name), base).reshape(-1).to(torch.float64)
        for name, value in _parameters(site, law).items()
    ]
    return torch.cat(parts) if parts else torch.zeros(0)


def _parameters(site: _Drawn, law: td.Distribution) -> dict[str, Tensor]:
    """What makes the law of a site; nothing where its family is not torch's, so that it is only scored."""
    return {} if site.family is td.Distribution else read(law)[1]


def _event_axes(family: type[td.Distribution], parameter: str) -> int:
    """How many axes one value of a parameter has."""
    constraint: Any = family.arg_constraints[parameter]  # pyright: ignore[reportIndexIssue]
    return constraint.event_dim


def _changed(value: Tensor) -> Tensor:
    """Other data of the same kind: shifted, or counted from the other end where they are whole numbers or flags."""
    if value.dtype == torch.bool:
        return ~value
    if value.numel() and bool((value == value.round()).all()):
        return (
            value.max() + value.min() - value if bool(value.min() != value.max()) else 1 - value.clamp(0, 1)
        )
    return value + 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither Pyro nor torch looks at the values of a distribution's arguments; both are left as they were."""
    pyro, distribution = _pyro(), td.Distribution
    before: Any = distribution._validate_args
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        distribution.set_default_validate_args(before)


def _pyro() -> Any:
    try:
        return importlib.import_module("pyro")
    except ImportError as missing:
        raise ImportError("from_pyro needs Pyro: pip install 'identkit[pyro]'") from missing
