"""What a decoder's outputs mean: the law of the data given them, one exponential family each, in minimal form (theory/T5).

Outputs are natural parameters (up to the fixed noise), so that different outputs are different laws: an injective decoder
stays injective through its likelihood.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributions as td
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from identkit.lidvae.datasets.support import LIKELIHOODS
from identkit.lidvae.members import per_member
from identkit.model.compiled.data import whole

_QUIET = 0.25  # of the columns' spread, where a learned σ starts: from 1 pinwheel's latents collapse before it falls
_SMOOTHED = 0.5  # pseudo-counts at the start, so that a pixel that is always black has a finite logit


class Likelihood(nn.Module, abc.ABC):
    """``p(x | f)``, columns independent given the decoder's outputs f, for E members."""

    name: str
    """As a `Dataset` names it."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    @property
    def outputs(self) -> int:
        """How many numbers a decoder has to give."""
        return self.columns

    @abc.abstractmethod
    def forward(self, f: Float[Tensor, "*e n p"]) -> td.Distribution:
        """The law of the data: batch shape (E, n, D), or (n, D) for f (n, P) where E = 1."""

    @abc.abstractmethod
    def log_prob(self, x: Shaped[Tensor, "*e n d"], f: Float[Tensor, "*s n p"]) -> Float[Tensor, "*s n"]:
        """``log p(x | f)`` in nats, summed over columns; f may have further axes before those of the members."""

    @abc.abstractmethod
    def draw(self, f: Float[Tensor, "*e n p"], generator: torch.Generator | None) -> Shaped[Tensor, "*e n d"]:
        """Rows from ``p(x | f)``."""

    @abc.abstractmethod
    def centre(self, x: Shaped[Tensor, "n d"]) -> Float[Tensor, " p"]:
        """The outputs whose law repeats the columns' own: where a decoder should start."""

    @abc.abstractmethod
    def information(self, f: Float[Tensor, "*e n p"]) -> Float[Tensor, "*e n p"]:
        """Fisher's information of a row on each output, ``E[(∂ log p(x | f)/∂f)²]``.

        Outputs are natural parameters (a Gaussian's are means): it is the variance of the statistic that goes with the
        output, and the slope of that statistic's mean.
        """

    def swing(self, x: Shaped[Tensor, "n d"]) -> float:
        """How far outputs go where means go by a standard deviation of the columns: ``√(mean Var x)/(mean I)``.

        To first order, at the columns' own law, whose variance is the least that counts. For zeros and ones it is 1/√I:
        the change of a log odds that a single row just shows.
        """
        least = self.information(self.centre(x).unsqueeze(0)).mean()
        variance = self._statistics(x).var(0, correction=0).mean()
        return float(variance.maximum(least).sqrt() / least)

    def _statistics(self, x: Shaped[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """What outputs are multiplied by in ``log p(x | f)``."""
        return x

    def start_(self, x: Shaped[Tensor, "n d"]) -> None:
        """Begin what is learned, if anything is, from the training rows."""

    def mean(self, f: Float[Tensor, "*e n p"]) -> Float[Tensor, "*e n d"]:
        """``E[x | f]``."""
        return self.forward(f).mean


class Gaussian(Likelihood):
    """``x ~ N(f, σ²I)``.

    Args:
        members: E.
        columns: D.
        sigma: σ > 0, one for all members or one for each, fixed; or "learned", one σ a member.
    """

    name = "gaussian"

    def __init__(
        self, members: int, columns: int, sigma: float | Sequence[float] | Tensor | str = 1.0
    ) -> None:
        super().__init__(columns)
        self.learned = isinstance(sigma, str)
        if isinstance(sigma, str):
            if sigma != "learned":
                raise ValueError(f"sigma should be positive, or 'learned', got {sigma!r}")
            self.log_sigma = nn.Parameter(torch.zeros(members))
        else:
            self.register_buffer("log_sigma", per_member(sigma, members, "sigma").log())

    @property
    def sigma(self) -> Float[Tensor, " e"]:
        """σ of each member."""
        return self.log_sigma.exp()

    def forward(self, f: Float[Tensor, "*e n p"]) -> td.Normal:
        """Means f, and σ of the member."""
        return td.Normal(f, self._like(f).exp().expand_as(f), validate_args=False)

    def log_prob(self, x: Shaped[Tensor, "*e n d"], f: Float[Tensor, "*s n p"]) -> Float[Tensor, "*s n"]:
        """``−½‖x − f‖²/σ² − D log(σ√(2π))``."""
        log_sigma = self._like(f)
        squares = ((x - f) * torch.exp(-log_sigma)).square().sum(-1)
        return -0.5 * squares - self.columns * (log_sigma.squeeze(-1) + 0.5 * math.log(2 * math.pi))

    def draw(self, f: Float[Tensor, "*e n p"], generator: torch.Generator | None) -> Shaped[Tensor, "*e n d"]:
        """``f + σε``."""
        noise = torch.randn(f.shape, generator=generator, dtype=f.dtype, device=f.device)
        return f + self._like(f).exp() * noise

    def centre(self, x: Shaped[Tensor, "n d"]) -> Float[Tensor, " p"]:
        """The columns' means."""
        return x.mean(0)

    def information(self, f: Float[Tensor, "*e n p"]) -> Float[Tensor, "*e n p"]:
        """``1/σ²`` of the quietest member."""
        return torch.exp(-2 * self.log_sigma.detach().amin()).expand_as(f)

    def swing(self, x: Shaped[Tensor, "n d"]) -> float:
        """The standard deviation itself: outputs are means."""
        return float(x.std(0).square().mean().sqrt())

    @torch.no_grad()
    def start_(self, x: Shaped[Tensor, "n d"]) -> None:
        """A learned σ starts small beside the data, in whatever units they are, so that latents pay from the start."""
        if self.learned:
            self.log_sigma.fill_(math.log(_QUIET) + float(x.std(0).square().mean().log()) / 2)

    def _like(self, f: Tensor) -> Tensor:
        """``log σ`` broadcast against f; members are the axis before the rows."""
        return self.log_sigma[:, None, None] if f.ndim > 2 else self.log_sigma.reshape(1, 1)


class Bernoulli(Likelihood):
    """``x_d ~ Bernoulli(1/(1 + e^{−f_d}))``; grey values in [0, 1] count as probabilities."""

    name = "bernoulli"

    def forward(self, f: Float[Tensor, "*e n p"]) -> td.Bernoulli:
        """Logits f."""
        return td.Bernoulli(logits=f, validate_args=False)

    def log_prob(self, x: Shaped[Tensor, "*e n d"], f: Float[Tensor, "*s n p"]) -> Float[Tensor, "*s n"]:
        """``Σ x f − log(1 + eᶠ)``."""
        return (x * f - functional.softplus(f)).sum(-1)

    def draw(self, f: Float[Tensor, "*e n p"], generator: torch.Generator | None) -> Shaped[Tensor, "*e n d"]:
        """Zeros and ones."""
        return torch.bernoulli(torch.sigmoid(f), generator=generator)

    def centre(self, x: Shaped[Tensor, "n d"]) -> Float[Tensor, " p"]:
        """The columns' log odds, smoothed by half a count each way."""
        share = (x.sum(0) + _SMOOTHED) / (len(x) + 2 * _SMOOTHED)
        return torch.logit(share)

    def information(self, f: Float[Tensor, "*e n p"]) -> Float[Tensor, "*e n p"]:
        """``p(1 − p)``."""
        return torch.sigmoid(f) * torch.sigmoid(-f)


class Poisson(Likelihood):
    """``x_d ~ Poisson(e^{f_d})``."""

    name = "poisson"

    def forward(self, f: Float[Tensor, "*e n p"]) -> td.Poisson:
        """Log rates f."""
        return td.Poisson(f.exp(), validate_args=False)

    def log_prob(self, x: Shaped[Tensor, "*e n d"], f: Float[Tensor, "*s n p"]) -> Float[Tensor, "*s n"]:
        """``Σ x f − eᶠ − log x!``."""
        return (x * f - f.exp() - torch.lgamma(x + 1)).sum(-1)

    def draw(self, f: Float[Tensor, "*e n p"], generator: torch.Generator | None) -> Shaped[Tensor, "*e n d"]:
        """Counts."""
        return torch.poisson(f.exp(), generator=generator)

    def centre(self, x: Shaped[Tensor, "n d"]) -> Float[Tensor, " p"]:
        """The columns' log means, smoothed by half a count."""
        return ((x.sum(0) + _SMOOTHED) / len(x)).log()

    def information(self, f: Float[Tensor, "*e n p"]) -> Float[Tensor, "*e n p"]:
        """The rate, ``eᶠ``."""
        return f.exp()


class Categorical(Likelihood):
    """``x_d ∈ {0, …, C − 1}`` with C − 1 free logits a column, the last one fixed at 0.

    A softmax over C free logits forgets their common shift, so an injective map onto all of them would lose a dimension
    (theory/T5).

    Args:
        columns: D.
        categories: C.
    """

    name = "categorical"

    def __init__(self, columns: int, categories: int) -> None:
        super().__init__(columns)
        self.categories = whole(categories, "categories", 2)

    @property
    def outputs(self) -> int:
        """``D (C − 1)``."""
        return self.columns * (self.categories - 1)

    def logits(self, f: Float[Tensor, "*e n p"]) -> Float[Tensor, "*e n d c"]:
        """All C logits of every column."""
        return functional.pad(f.unflatten(-1, (self.columns, self.categories - 1)), (0, 1))

    def forward(self, f: Float[Tensor, "*e n p"]) -> td.Categorical:
        """Logits f, and 0 for the last category."""
        return td.Categorical(logits=self.logits(f), validate_args=False)

    def log_prob(self, x: Shaped[Tensor, "*e n d"], f: Float[Tensor, "*s n p"]) -> Float[Tensor, "*s n"]:
        """``Σ_d f_{d, x_d} − log Σ_c e^{f_{d,c}}``."""
        logits = self.logits(f)
        index = x.long().expand(logits.shape[:-1]).unsqueeze(-1)
        return (logits.gather(-1, index).squeeze(-1) - logits.logsumexp(-1)).sum(-1)

    def draw(self, f: Float[Tensor, "*e n p"], generator: torch.Generator | None) -> Shaped[Tensor, "*e n d"]:
        """States 0, …, C − 1."""
        chances = self.logits(f).softmax(-1)
        drawn = torch.multinomial(chances.flatten(end_dim=-2), 1, generator=generator)
        return drawn.reshape(chances.shape[:-1])

    def centre(self, x: Shaped[Tensor, "n d"]) -> Float[Tensor, " p"]:
        """The columns' log frequencies against the last category, smoothed by half a count."""
        counts = functional.one_hot(x.long(), self.categories).sum(0) + _SMOOTHED
        return (counts.log()[:, :-1] - counts.log()[:, -1:]).flatten().to(torch.get_default_dtype())

    def information(self, f: Float[Tensor, "*e n p"]) -> Float[Tensor, "*e n p"]:
        """``p(1 − p)`` of every category but the last."""
        chances = self.logits(f).softmax(-1)[..., :-1].flatten(-2)
        return chances * (1 - chances)

    def _statistics(self, x: Shaped[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        states = functional.one_hot(x.long(), self.categories)[..., :-1]
        return states.flatten(1).to(torch.get_default_dtype())

    def mean(self, f: Float[Tensor, "*e n p"]) -> Float[Tensor, "*e n d"]:
        """The likeliest category: categories have no mean."""
        return self.logits(f).argmax(-1).to(f.dtype)


def likelihood_of(
    name: str,
    members: int,
    columns: int,
    *,
    sigma: float | Sequence[float] | Tensor | str | None = None,
    categories: int | None = None,
) -> Likelihood:
    """Make the likelihood of that name.

    Args:
        name: gaussian, bernoulli, poisson or categorical.
        members: E.
        columns: D.
        sigma: of a Gaussian, 1 by default, or "learned".
        categories: C of a categorical.

    Raises:
        ValueError: another name, or an argument that does not go with it.

    >>> likelihood_of("categorical", 1, 2, categories=3).outputs
    4
    """
    if name not in LIKELIHOODS:
        raise ValueError(f"likelihood should be one of {', '.join(LIKELIHOODS)}, got {name!r}")
    for argument, value, owner in (("sigma", sigma, "gaussian"), ("categories", categories, "categorical")):
        if value is not None and name != owner:
            raise ValueError(f"{argument} goes with a {owner} likelihood, got it with {name}")
    if name == "categorical":
        if categories is None:
            raise ValueError("categories should be the number of values that x can take, got None")
        return Categorical(columns, categories)
    if name == "gaussian":
        return Gaussian(members, columns, 1.0 if sigma is None else sigma)
    plain: dict[str, Any] = {"bernoulli": Bernoulli, "poisson": Poisson}
    return plain[name](columns)
