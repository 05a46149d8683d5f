"""The law of the data as numbers: torch distributions read as parameters, Fisher coordinates and divergences.

A batch of laws is a `torch.distributions.Distribution` whose first batch axis runs over latents; all its other axes
are independent pieces of one datum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from identkit.numeric.product import ProductLaw


def parameters(law: td.Distribution) -> Float[Tensor, "n p"]:
    """Give numbers that are equal for two laws of one family exactly when the laws are.

    They are the parameters that the distribution was given, so that a decoder's output can be followed to them;
    categorical laws are in minimal form, differences to the last class (theory/T5).

    Args:
        law: n laws; the remaining batch and event axes are one datum.

    Raises:
        TypeError: a family that is not known to be injective in its parameters, such as a mixture.

    >>> parameters(td.Categorical(logits=torch.tensor([[1.0, 2.0, 4.0]])))
    tensor([[-3., -2.]])
    """
    return _read(law, _PARAMETERS)


def fisher_coordinates(law: td.Distribution) -> Float[Tensor, "n p"]:
    """Give functions of the law whose Jacobian J has ``JᵀJ`` equal to the Fisher information.

    They are isometric only to first order, about the law they are taken at (what scales them is detached), and are
    meant to be differentiated. Families without a rule of their own give `parameters`: the same ranks and null
    directions, in another metric.

    Raises:
        TypeError: as `parameters`.
    """
    return _read(law, {**_PARAMETERS, **_FISHER})


def has_fisher(law: td.Distribution) -> bool:
    """Whether `fisher_coordinates` are in the Fisher metric, hence its singular values in nats."""
    if isinstance(law, ProductLaw):
        return all(has_fisher(piece) for piece in law.pieces)
    return type(bare(law)) in _FISHER


def divergence(one: td.Distribution, two: td.Distribution) -> Float[Tensor, " n"]:
    """Compute ``KL(one ‖ two) + KL(two ‖ one)`` of each pair of laws, in nats.

    Raises:
        NotImplementedError: torch knows no closed form for the family.
    """
    both = td.kl_divergence(one, two) + td.kl_divergence(two, one)
    return both.reshape(len(both), -1).sum(1)


def known(family: type[td.Distribution]) -> bool:
    """Whether `parameters` knows numbers that identify a law of this family."""
    return family in _PARAMETERS


def supported() -> str:
    """The families that `parameters` knows, for messages."""
    return ", ".join(sorted(kind.__name__ for kind in _PARAMETERS))


_Reader = Callable[[Any], list[Tensor]]


def bare(law: td.Distribution) -> td.Distribution:
    """Without the wrappers that only say which axes belong together."""
    while isinstance(law, td.Independent):
        law = law.base_dist
    return law


def _read(law: td.Distribution, table: dict[type, _Reader]) -> Float[Tensor, "n p"]:
    if isinstance(law, ProductLaw):
        return torch.cat([_read(piece, table) for piece in law.pieces], dim=1)
    law = bare(law)
    if type(law) not in table:
        raise TypeError(
            f"likelihood should return one of {supported()}, whose parameters are known to identify the law, "
            f"got {type(law).__name__}; or give log p(x | z) as a function of (x, z), with x="
        )
    pieces = table[type(law)](law)
    return torch.cat([piece.reshape(law.batch_shape[0], -1) for piece in pieces], dim=1)


def _odds(law: Any) -> list[Tensor]:
    """What was given: a property would compute logits from probabilities and hide that they are a linear map.

    Most families keep it; where only the attributes tell, checks of the arguments may have computed the other one.
    """
    given = getattr(law, "_param", None)
    if given is not None:
        return [given]
    return [law.probs if "probs" in vars(law) else law.logits]


def _states(law: Any) -> list[Tensor]:
    given = _odds(law)[0]
    return [given[..., :-1] - given[..., -1:]]


def _counts(law: Any) -> list[Tensor]:
    """The number of trials, and the odds where there are trials: without, every law is the same."""
    given = _odds(law)[0]
    total = torch.as_tensor(law.total_count).expand(law.batch_shape).to(given.dtype)
    positive = total > 0
    if not isinstance(total, FakeTensor) and not bool(
        positive.all()
    ):  # a fake tensor, for recording, has no values
        raise ValueError(
            "likelihood should have a positive total_count: without trials every law is the same"
        )
    return [total, given * positive]


def _covariance(law: Any) -> list[Tensor]:
    lower = torch.tril_indices(*law.covariance_matrix.shape[-2:], device=law.loc.device)
    return [law.loc, law.covariance_matrix[..., lower[0], lower[1]]]


def _named(*names: str) -> _Reader:
    return lambda law: [getattr(law, name) for name in names]


_PARAMETERS: dict[type, _Reader] = {
    td.Normal: _named("loc", "scale"),
    td.LogNormal: _named("loc", "scale"),
    td.Laplace: _named("loc", "scale"),
    td.Cauchy: _named("loc", "scale"),
    td.Gumbel: _named("loc", "scale"),
    td.StudentT: _named("df", "loc", "scale"),
    td.HalfNormal: _named("scale"),
    td.Weibull: _named("scale", "concentration"),
    td.Gamma: _named("concentration", "rate"),
    td.Chi2: _named("concentration"),
    td.Beta: _named("concentration1", "concentration0"),
    td.Dirichlet: _named("concentration"),
    td.Exponential: _named("rate"),
    td.Poisson: _named("rate"),
    td.Geometric: _odds,
    td.Bernoulli: _odds,
    td.ContinuousBernoulli: _odds,
    td.Binomial: _counts,
    td.NegativeBinomial: _counts,
    td.Categorical: _states,
    td.OneHotCategorical: lambda law: _states(law._categorical),
    td.MultivariateNormal: _covariance,
    td.LowRankMultivariateNormal: _covariance,
}


def _location_scale(of_location: float, of_scale: float) -> _Reader:
    """Fisher information ``(a/s)²`` about the location and ``(b/s)²`` about the scale s, and nothing between them."""
    return lambda law: [of_location * law.loc / law.scale.detach(), of_scale * law.scale.log()]


def _bernoulli(law: Any) -> list[Tensor]:
    """Information p(1 − p) about the logit."""
    logits = law.logits
    return [torch.sqrt(torch.sigmoid(logits) * torch.sigmoid(-logits)).detach() * logits]


def _categorical(law: Any) -> list[Tensor]:
    """The square roots of the probabilities, doubled: the simplex is an octant of a sphere of radius 2."""
    return [2 * torch.exp(0.5 * law.logits)]


def _gaussian(law: Any) -> list[Tensor]:
    """Means in units of the noise; for covariances ``½ tr (Σ⁻¹ dΣ)²``."""
    root = law.scale_tril.detach()
    mean = torch.linalg.solve_triangular(root, law.loc.unsqueeze(-1), upper=False)
    half = torch.linalg.solve_triangular(root, law.covariance_matrix, upper=False)
    return [mean, torch.linalg.solve_triangular(root, half.mT, upper=False) / math.sqrt(2)]


_FISHER: dict[type, _Reader] = {
    td.Normal: _location_scale(1, math.sqrt(2)),
    td.LogNormal: _location_scale(1, math.sqrt(2)),
    td.Laplace: _location_scale(1, 1),
    td.Cauchy: _location_scale(math.sqrt(0.5), math.sqrt(0.5)),
    td.Bernoulli: _bernoulli,
    td.Binomial: lambda law: [law.total_count**0.5 * _bernoulli(law)[0]],
    td.Categorical: _categorical,
    td.OneHotCategorical: lambda law: _categorical(law._categorical),
    td.Poisson: lambda law: [law.rate / law.rate.detach().clamp(min=torch.finfo(law.rate.dtype).tiny).sqrt()],
    td.Exponential: lambda law: [law.rate.log()],
    td.HalfNormal: lambda law: [math.sqrt(2) * law.scale.log()],
    td.MultivariateNormal: _gaussian,
    td.LowRankMultivariateNormal: _gaussian,
}
