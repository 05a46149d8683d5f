"""The law of one symbol of a vocabulary, however large: logits from features, without a loss and without holding them all.

Two laws are as far apart as their centred log probabilities, ``clr p = log p − mean_c log p_c`` (Aitchison 1982): zero
exactly where they agree, and no symbol is singled out.
"""

from __future__ import annotations

import abc
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from identkit.lidvae.members import normal, uniform
from identkit.lidvae.orthogonal import orthonormal
from identkit.numeric import intervals
from identkit.numeric.intervals import Interval, negative, point
from identkit.numeric.singular import rounded_down, rounded_up, singular_bounds

AT_ONCE = 1 << 22
"""Logits that are held at once where log-likelihoods are computed: 16 MiB in float32."""


class Vocabulary(nn.Module, abc.ABC):
    """``x ~ Categorical(softmax(W φ + b))`` over C symbols, from M features φ.

    Args:
        members: E.
        categories: C ≥ 2.
    """

    def __init__(self, members: int, categories: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(members, categories))

    @property
    def categories(self) -> int:
        """C."""
        return self.bias.shape[1]

    @abc.abstractmethod
    def matrix(self) -> Float[Tensor, "e c m"]:
        """W."""

    def forward(self, features: Float[Tensor, "e n m"]) -> Float[Tensor, "e n c"]:
        """All C logits of every row."""
        return torch.baddbmm(self.bias.unsqueeze(1), features, self.matrix().mT)

    def log_prob(
        self, x: Int[Tensor, "e n"], features: Float[Tensor, "e n m"], *, at_once: int | None = None
    ) -> Float[Tensor, "e n"]:
        """``log p(x | φ)`` in nats, exactly, with no more than about `at_once` (`AT_ONCE`) logits held at a time.

        Where all of them are more, rows are taken in turn, and their logits are computed again when the gradient is
        wanted: a third more products, and the memory of one turn instead of all.
        """
        matrix = self.matrix()
        rows = max(1, (AT_ONCE if at_once is None else at_once) // self.bias.numel())
        if x.shape[1] <= rows:
            return _said(x, features, matrix, self.bias)
        # The function draws nothing, so there is no state of chance to keep.
        found = [
            checkpoint(_said, *part, matrix, self.bias, use_reentrant=False, preserve_rng_state=False)
            for part in zip(x.split(rows, dim=1), features.split(rows, dim=1), strict=True)
        ]
        return torch.cat(found, dim=1)

    @torch.no_grad()
    def start_(self, x: Int[Tensor, "n t"], *, pseudo: float = 0.5) -> None:
        """Begin at the symbols' log frequencies, centred, smoothed by a pseudo-count."""
        log = (torch.bincount(x.flatten(), minlength=self.categories) + pseudo).log().to(self.bias)
        self.bias.copy_((log - log.mean()).expand_as(self.bias))


class FreeVocabulary(Vocabulary):
    """Any W: the usual output layer.

    Args:
        members: E.
        features: M.
        categories: C.
        generator: of the initial weights, uniform on ``±1/√M``.
    """

    def __init__(self, members: int, features: int, categories: int, *, generator: torch.Generator) -> None:
        super().__init__(members, categories)
        self.weight = nn.Parameter(
            uniform((members, categories, features), 1 / math.sqrt(features), generator)
        )

    def matrix(self) -> Float[Tensor, "e c m"]:
        """W."""
        return self.weight


class ContrastVocabulary(Vocabulary):
    """``W = √(C/M) Q`` with ``QᵀQ = I`` and ``Qᵀ1 = 0``: features are coordinates of the law, none is lost in it.

    A softmax forgets what its logits have in common; columns of W are contrasts, orthogonal to that. So
    ``‖clr p − clr p′‖ = √(C/M)·‖φ − φ′‖``, and an injective map onto M features stays injective in the law of a symbol
    without acting on the whole vocabulary. By the scale, features of order 1 give logits of order 1. Where M = C − 1,
    C − 1 orthonormal contrasts being all there are, Q is fixed (those of Helmert), else learned, at about 6 C M²
    products a step.

    The logits less that of the last symbol are C − 1 free ones with the last fixed at 0, and at least as far apart:
    ``Σ(ℓ_c − ℓ_C)² = ‖ℓ‖² + C ℓ_C²`` for centred ℓ.

    Source: Egozcue et al. 2003 (isometric log ratios); theory/T5 (minimal form).

    Args:
        members: E.
        features: M ≤ C − 1.
        categories: C.
        generator: of the initial Q.

    Raises:
        ValueError: more features than contrasts.

    >>> head = ContrastVocabulary(1, 8, 128, generator=torch.Generator().manual_seed(0))
    >>> round(head.lower_lipschitz(), 5), round(head.upper_lipschitz(), 5)
    (4.0, 4.0)
    """

    weight: Tensor

    def __init__(self, members: int, features: int, categories: int, *, generator: torch.Generator) -> None:
        super().__init__(members, categories)
        if features > categories - 1:
            raise ValueError(
                f"features should be at most categories − 1 = {categories - 1}, or different ones are one law, got "
                f"{features}"
            )
        if features == categories - 1:
            self.register_buffer("weight", helmert(categories).expand(members, -1, -1).clone())
        else:
            drawn = _centred(normal((members, categories, features), 1.0, generator))
            self.weight = nn.Parameter(math.sqrt(categories) * torch.linalg.qr(drawn).Q)

    def matrix(self) -> Float[Tensor, "e c m"]:
        """``√(C/M) Q``."""
        fixed = not isinstance(self.weight, nn.Parameter)
        q = self.weight if fixed else orthonormal(_centred(self.weight))
        return math.sqrt(q.shape[1] / q.shape[2]) * q

    def lower_lipschitz(self) -> float | None:
        """Below ``‖clr p − clr p′‖/‖φ − φ′‖`` of every member, for the W that floats give; None if it has lost its rank."""
        least = min(low for low, _ in self._bounds())
        return rounded_down(least, 2) if least > 0 else None

    def upper_lipschitz(self) -> float:
        """Above it."""
        return rounded_up(max(high for _, high in self._bounds()), 2)

    def _bounds(self) -> list[tuple[float, float]]:
        with torch.no_grad():
            matrices = self.matrix().cpu()
        return [singular_bounds(_contrasts(matrix)) for matrix in matrices]


def helmert(categories: int) -> Float[Tensor, "c m"]:
    """Helmert's C − 1 orthonormal contrasts of C symbols: each symbol against the mean of those before it."""
    k = torch.arange(1, categories, dtype=torch.float64)
    above = torch.ones(categories, categories - 1, dtype=torch.float64).triu()
    below = torch.zeros_like(above)
    below[1:].diagonal().copy_(-k)
    return ((above + below) / (k * (k + 1)).sqrt()).to(torch.get_default_dtype())


def _centred(matrix: Float[Tensor, "*e c m"]) -> Float[Tensor, "*e c m"]:
    """Less the mean of each column."""
    return matrix - matrix.mean(-2, keepdim=True)


def _contrasts(matrix: Float[Tensor, "c m"]) -> Interval:
    """``(I − 11ᵀ/C) W``, enclosed: what of W a softmax sees."""
    rows = point(matrix)
    total = intervals.total(Interval(rows.low.T, rows.high.T))
    size = float(len(matrix))
    # Division is correctly rounded, so a float further out encloses it.
    no = torch.zeros_like(total.low, dtype=torch.bool)
    mean = intervals.outward(total.low / size, total.high / size, no, no)
    return intervals.add(rows, negative(mean))


def _said(x: Tensor, features: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """``ℓ_x − log Σ e^ℓ``."""
    logits = torch.baddbmm(bias.unsqueeze(1), features, matrix.mT)
    return logits.gather(2, x.unsqueeze(2)).squeeze(2) - logits.logsumexp(2)
