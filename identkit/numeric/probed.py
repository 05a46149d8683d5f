"""What is probed: a prior over latents, and either the law of the data given them or its log density on given data.

A decoder with a likelihood has a *law* ``p(· | z)``, and a verdict on it holds for every datum. A function
``log p(x | z)`` is known on the given data only, so its verdict is about these data (theory/T2).
"""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor, nn

from identkit.numeric.double import promoted
from identkit.numeric.laws import divergence, fisher_coordinates, parameters
from identkit.numeric.prior import Prior, prior_of

_TRIED = 16  # draws on which a decoder has to be a function of each latent alone
_EACH = 2  # one in so many of these is also decoded alone
_SCANNED = 512  # draws at which a decoder has to give a law
_RANDOM = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True, repr=False)
class Probed:
    """A model as the probes see it: everything is a function of flat latents ``z (n, k)``."""

    name: str
    prior: Prior
    decode: Callable[[Tensor], td.Distribution] | None
    """z (n, k) → n laws of one datum, or n·histories of them; None where only a log density is known."""
    density: Callable[[Tensor, Tensor], Tensor] | None
    """(x (n, …), z (n, k)) → log p(x | z), (n,), row by row; None without data."""
    x: Tensor | None
    """The given data, (m, …)."""
    decoder: Any = None
    """The decoder itself (for modules a float64 copy), for what reads its weights."""
    likelihood: Any = None
    """What makes a law of the decoder's output."""
    histories: int = 1
    """Laws to a latent: for a model of sequences one for each history in x, independent pieces of one law."""

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the model computes: float64 wherever its code allows."""
        return self.prior.dtype

    @property
    def eps(self) -> float:
        """The rounding of one operation."""
        return torch.finfo(self.dtype).eps

    def law(self, z: Float[Tensor, "n k"]) -> td.Distribution:
        """``p(· | z)``: n laws, each latent's histories beside each other."""
        if self.decode is None:
            raise ValueError(f"{self.name} has no law, only a log density on given data")
        return self.decode(z)

    def parameters(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n p"]:
        """Numbers that are equal exactly where two laws are (`laws.parameters`)."""
        return parameters(self.law(z)).reshape(len(z), -1)

    def fisher_coordinates(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n p"]:
        """Functions of the law whose Jacobian in z is a root of the Fisher information pulled back to z."""
        return fisher_coordinates(self.law(z)).reshape(len(z), -1)

    def divergence(self, one: Float[Tensor, "n k"], two: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """The symmetrised KL between ``p(· | one)`` and ``p(· | two)``, nats."""
        return divergence(self.law(one), self.law(two)).reshape(len(one), -1).sum(1)

    def log_likelihood(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n m"]:
        """``log p(x | z)`` of every datum at every latent, nats.

        A decoder runs once for each latent, and all data are scored under the law that it gives; memory grows with
        n·m times the size of a datum.
        """
        if self.x is None:
            raise ValueError(f"x should be given: {self.name} was declared without data")
        n, m = len(z), len(self.x)
        if self.decode is not None and self.histories == 1:
            scored = self.decode(z).log_prob(self.x.to(self.dtype).unsqueeze(1))
            return scored.reshape(m, n, -1).sum(2).mT
        assert self.density is not None
        x = self.x.unsqueeze(0).expand(n, *self.x.shape).reshape(n * m, *self.x.shape[1:])
        return self.density(x, z.repeat_interleave(m, dim=0)).reshape(n, m)


def probed(model: Any, prior: Any = None, likelihood: Any = None, x: Any = None) -> Probed:
    """Take a decoder with its likelihood, a log density, or a generative model, and hold it to what a check needs.

    Args:
        model: a decoder ``z (n, …) → anything`` that `likelihood` turns into n laws, one for each latent; one that
            takes ``(z, x)`` is a model of sequences, ``p(x_t | z, x_<t)``, and is judged on the histories in x. Or
            without `likelihood` a function ``(x, z) → log p(x | z)`` (or ``z → log p(x | z)``) row by row; or
            a model with `prior` and either `decoder` and `likelihood`, or ``log_likelihood(x, z)``.
        prior: a torch distribution of one latent; where its batch axes are not empty they are independent latents.
        likelihood: ``decoder output → torch.distributions.Distribution``.
        x: the data, first axis over rows.

    Raises:
        TypeError: not a model, not a prior; a family of laws whose parameters are not known to identify it.
        ValueError: NaN or infinite output; rows that influence each other or change from call to call (dropout, batch
            normalisation); shapes that do not fit; a prior on a surface, such as a simplex.
    """
    own = model if prior is None else None
    model, prior, likelihood = _parts(model, prior, likelihood)
    if isinstance(model, nn.Module):
        _refuse_training(model)
    name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "model")
    name, latent_names = getattr(own, "name", name), getattr(own, "latent_names", None)
    if likelihood is None:
        return _of_density(model, prior, x, name, latent_names)
    return _of_decoder(model, prior, likelihood, x, name, latent_names)


def _parts(model: Any, prior: Any, likelihood: Any) -> tuple[Any, Any, Any]:
    """A decoder or density with its prior and likelihood, whether given apart or held by a model."""
    if prior is None:
        prior = getattr(model, "prior", None)
        if likelihood is None and hasattr(model, "decoder") and callable(getattr(model, "likelihood", None)):
            if isinstance(model, nn.Module):
                _refuse_training(model)
            model, likelihood = model.decoder, model.likelihood
        elif likelihood is None and callable(getattr(model, "log_likelihood", None)):
            model = model.log_likelihood
    if not callable(model):
        raise TypeError(
            f"model should be a Model, its text, a decoder, a log density or a model with a prior, got {model!r:.60}"
        )
    if not isinstance(prior, td.Distribution):
        got = "none" if prior is None else prior.__name__ if isinstance(prior, type) else type(prior).__name__
        raise TypeError(
            f"prior should be a torch distribution of one datum's latents, such as Normal(torch.zeros(2), 1), got {got}"
        )
    if likelihood is not None and not callable(likelihood):
        raise TypeError(
            f"likelihood should turn the decoder's output into a distribution, got {likelihood!r:.60}"
        )
    return model, prior, likelihood


def _of_decoder(decoder: Any, prior: Any, likelihood: Any, x: Any, name: str, latent_names: Any) -> Probed:
    data = None if x is None else _data(x)
    sequence = _takes(decoder) == 2
    if sequence and data is None:
        raise ValueError(
            "x should be given: the decoder takes (z, x), and a law of sequences needs histories"
        )

    def built(dtype: torch.dtype, wide: bool) -> Probed:
        place, head = _in(decoder, dtype, wide), _in(likelihood, dtype, wide)
        axes = prior_of(prior, dtype, _device(decoder), latent_names)
        rows = None if data is None else data.to(axes.device, dtype if data.is_floating_point() else None)

        def step(z: Tensor, history: Tensor | None) -> td.Distribution:
            shaped = axes.placed(z)
            law = head(place(shaped) if history is None else place(shaped, history))
            if not isinstance(law, td.Distribution):
                raise TypeError(f"likelihood should return a torch distribution, got {type(law).__name__}")
            if not law.batch_shape or law.batch_shape[0] != len(z):
                raise ValueError(
                    f"decoder and likelihood should give one law for each latent: {len(z)} latents gave a "
                    f"distribution with batch shape {tuple(law.batch_shape)} and event shape {tuple(law.event_shape)}"
                )
            return law

        def decode(z: Tensor) -> td.Distribution:
            if not sequence:
                return step(z, None)
            assert rows is not None
            return step(z.repeat_interleave(len(rows), dim=0), rows.repeat(len(z), *[1] * (rows.ndim - 1)))

        def density(x: Tensor, z: Tensor) -> Tensor:
            values = step(z, x if sequence else None).log_prob(x.to(dtype))
            return values.reshape(len(z), -1).sum(1)

        known = None if rows is None else density
        histories = len(rows) if sequence and rows is not None else 1
        return Probed(name, axes, decode, known, rows, place, head, histories)

    return _held(built)


def _of_density(log_prob: Any, prior: Any, x: Any, name: str, latent_names: Any) -> Probed:
    arguments = _takes(log_prob)
    if x is None and arguments == 2:
        raise ValueError("x should be given: log p(x | z) says something about data only")
    data = torch.zeros(1, 0) if x is None else _data(x)

    def built(dtype: torch.dtype, wide: bool) -> Probed:
        axes = prior_of(prior, dtype, _device(log_prob), latent_names)
        rows = data.to(axes.device, dtype if data.is_floating_point() else None)
        place = _in(log_prob, dtype, wide)

        def density(x: Tensor, z: Tensor) -> Tensor:
            shaped = axes.placed(z)
            values = place(x, shaped) if arguments == 2 else place(shaped)
            if not isinstance(values, Tensor) or values.shape != (len(z),):
                shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise ValueError(
                    f"log p(x | z) should return one number for each of its {len(z)} rows, got {shape} (a decoder needs "
                    "likelihood=)"
                )
            return values

        return Probed(name, axes, None, density, rows, place)

    return _held(built)


def _held(built: Callable[[torch.dtype, bool], Probed]) -> Probed:
    """In float64 where the model's code takes it, if need be by promoting what it holds, else in float32."""
    for dtype, wide in ((torch.float64, False), (torch.float64, True), (torch.float32, False)):
        try:
            model = built(dtype, wide)
            _tried(model)
            return model
        except RuntimeError as refused:
            reason = refused
            if not re.search("dtype|Double|type", str(refused)):
                break
    raise ValueError(f"the decoder or likelihood fails at draws from the prior: {reason}") from reason


def _tried(model: Probed) -> None:
    z = model.prior.sample(_TRIED, seed=1)
    given = model.log_likelihood if model.decode is None else model.parameters
    with torch.no_grad():
        _refuse_lawless(model, given)
        values, again = given(z), given(z)
        alone = torch.cat([given(row) for row in z[::_EACH].split(1)])
        if model.x is not None and model.decode is not None:
            _scored(model, z[:1])
    if model.prior.states is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # at values of tensors that have derivatives
            # Code that leaves torch, or writes over what its derivative needs, fails here and not in the middle of a search.
            row = z[:1].requires_grad_()
            tried = given(row)
            if tried.requires_grad:
                torch.autograd.grad(tried.sum(), row, allow_unused=True)
    if values.dtype != model.dtype:
        raise RuntimeError(
            f"the law has dtype {values.dtype}, not {model.dtype}"
        )  # `_held` tries another one
    if not torch.equal(values, again):
        raise ValueError(
            "the decoder should be a function of z, but two calls with the same z differ: switch off dropout and "
            "other noise (module.eval())"
        )
    scale = values[::_EACH].abs().amax() + 1
    if not bool((values[::_EACH] - alone).abs().amax() <= 1e3 * model.eps * scale):
        raise ValueError(
            "the decoder should treat each row of z alone, but other rows change a row's law: batch normalisation in "
            "training mode (module.eval())? a branch on all rows at once?"
        )


def _refuse_lawless(model: Probed, given: Callable[[Tensor], Tensor]) -> None:
    """Refuse NaN, infinities and parameters of no law, with a latent at which they come up."""
    scanned = model.prior.sample(_TRIED if model.decode is None else _SCANNED, seed=1)
    for part in scanned.split(64):
        if _complaint(given, part) is None:
            continue
        for row in part.split(1):
            complaint = _complaint(given, row)
            if complaint is not None:
                at = ", ".join(f"{value:.4g}" for value in row.flatten()[:4].tolist())
                more = ", …" if row.numel() > 4 else ""
                raise ValueError(
                    f"the likelihood should be finite at draws from the prior, but at z = ({at}{more}) {complaint}"
                )


def _complaint(given: Callable[[Tensor], Tensor], z: Tensor) -> str | None:
    try:
        values = given(z)
    except ValueError as refused:
        # torch's own words go on with the whole tensor
        words = str(refused).split(", but found invalid values")[0]
        if "to satisfy the constraint" not in words:
            raise
        return f"torch says: {words}"
    bad = values[~torch.isfinite(values)]
    return f"it has the value {bad[0].item()}" if len(bad) else None


def _scored(model: Probed, z: Tensor) -> None:
    assert model.decode is not None and model.x is not None
    law = model.decode(z)
    wanted = tuple(law.batch_shape[1:] + law.event_shape)
    if tuple(model.x.shape[1:]) != wanted:
        raise ValueError(
            f"x should have one row of shape {wanted} for each datum, got shape {tuple(model.x.shape)}"
        )
    try:
        values = model.log_likelihood(z)
    except ValueError as refused:
        words = str(refused).split(", but found invalid values")[0]
        raise ValueError(f"x should lie in the support of the law; torch says: {words}") from refused
    if not bool(torch.isfinite(values).all()):
        bad = values[~torch.isfinite(values)][0].item()
        raise ValueError(f"log p(x | z) should be finite at draws from the prior, got {bad}")


def _refuse_training(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if part.training and isinstance(part, _RANDOM):
            raise ValueError(
                f"the decoder should be in evaluation mode: its {type(part).__name__} {name!r} makes the likelihood no "
                "function of z; call .eval() first"
            )


def _takes(function: Any) -> int:
    """How many arguments without a default a decoder or density takes, 1 or 2."""
    called = function.forward if isinstance(function, nn.Module) else function
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in signature.parameters.values() if p.kind in kinds and p.default is p.empty]
    if len(needed) > 2:
        names = ", ".join(p.name for p in needed)
        raise TypeError(f"the model should take z, or z and x; it needs {names}")
    return max(1, len(needed))


def _in(part: Any, dtype: torch.dtype, wide: bool) -> Any:
    """The same function in another precision: a module's copy, anything else as it is; promoted if need be."""
    if isinstance(part, nn.Module) and {parameter.dtype for parameter in part.parameters()} - {dtype}:
        part = copy.deepcopy(part).to(dtype)
    return promoted(part) if wide else part


def _device(part: Any) -> torch.device | None:
    """Where a module lies; None if it holds no parameter."""
    if not isinstance(part, nn.Module):
        return None
    return next((parameter.device for parameter in part.parameters()), None)


def _data(x: Any) -> Tensor:
    """The rows of the data as a tensor of finite numbers."""
    data = x.detach() if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    if data.ndim == 0 or len(data) == 0:
        raise ValueError(f"x should have at least one row, got shape {tuple(data.shape)}")
    if not bool(torch.isfinite(data).all()):
        row = int(torch.nonzero(~torch.isfinite(data))[0, 0])
        raise ValueError(f"x should be finite, got {data[row].flatten()[:3].tolist()} … in row {row}")
    return data
