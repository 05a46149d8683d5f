"""How a state-space model's parameters and data become a chain to be smoothed, in blocks of sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.linalg import qr
from torch import Tensor

from identkit.classical.placed import Placed
from identkit.classical.state_space import kalman
from identkit.classical.state_space.data import Seen, conditioning, factor, sequences, whiten
from identkit.classical.state_space.kalman import Smoothed
from identkit.classical.state_space.kalman_scan import Array, follow, np_of

_EPS = 2.0**-52
_ROW_NUMBERS = 2**21  # numbers of one array that are worked on at once
_STRONG = 1e3  # prior variance of an observation, in units of its noise


class Chain(Placed):
    """The inner half of `StateSpace`: it owns no parameter, and answers no question.

    Arithmetic is in float64 whatever the data are; arrays are those of `kalman_scan`.
    """

    transition: Tensor
    observation: Tensor
    process_covariance: Tensor
    noise_covariance: Tensor
    initial_mean: Tensor
    initial_covariance: Tensor
    transition_offset: Tensor
    observation_offset: Tensor
    length: int | None

    @property
    def _p(self) -> int:
        return self.observation.shape[-2]

    @property
    def _time(self) -> int | None:
        """The number of times that matrices which vary are given for."""
        names = varying(self._tensors())
        return len(getattr(self, names[0])) if names else None

    @property
    def _declared(self) -> int:
        return self._length(None)

    def _length(self, length: int | None) -> int:
        found = length or self.length or self._time
        if found is None:
            raise ValueError("length should be declared for this: StateSpace(…, length=T), got None")
        if self._time not in (None, found):
            raise ValueError(f"length should be {self._time}, for which the matrices are given, got {found}")
        return found

    def _refuse_singular(self, length: int, asker: str) -> None:
        roots = {"initial_covariance": self._roots[1], "process_covariance": self._roots[0]}
        for name, (_, regular) in list(roots.items())[: 1 if length == 1 else 2]:
            if not regular:
                raise ValueError(
                    f"{name} should be positive definite for {asker}, got a singular one: "
                    "a path has no density, and a state may be determined by others. "
                    "of_noises() has the noises as its latents, with the same KL: verify and check that"
                )

    @cached_property
    def _roots(self) -> tuple[tuple[Tensor, bool], tuple[Tensor, bool]]:
        return factor(self.process_covariance), factor(self.initial_covariance)

    def _shared(self, observed: Tensor) -> bool:
        """Whether all sequences miss the same, and so share every matrix."""
        table = self._raw(observed)
        return len(table) < 2 or bool((table == table[:1]).all())

    def _raw(self, tensor: Tensor) -> Array:
        return tensor.numpy() if tensor.device.type == "cpu" else tensor

    def _tensor(self, array: Array) -> Tensor:
        if isinstance(array, Tensor):
            return array
        return torch.from_numpy(array if array.flags.writeable else array.copy())

    def _taken(self, x: Any) -> tuple[Chain, Tensor, Tensor]:
        """The model where x lies, its values and what is observed; arithmetic is in float64 whatever x is."""
        device = self.initial_mean.device
        values, observed = sequences(x, self.length, self._p, device)
        if self._time not in (None, values.shape[1]):
            raise ValueError(
                f"x should have {self._time} times, for which the matrices are given, got {values.shape[1]}"
            )
        return self._like(values.double()), values, observed

    def _steps(self, length: int) -> tuple[Array, Array, Array]:
        """F and G as `_forward` gives them, and the prior's mean path (T, k)."""
        return *self._forward(length), self._prior_mean(length)

    def _forward(self, length: int) -> tuple[Array, Array]:
        """F with F_1 = 0 and G with G_1 of the initial state, (T, k, k)."""
        xp, (noise, first) = np_of(self._raw(self.initial_mean)), self._roots
        forward = xp.zeros_like(self._raw(first[0])) + timed(self._raw(self.transition), length)[0]
        root = xp.zeros_like(forward) + timed(self._raw(noise[0]), length)[0]
        forward[0], root[0] = 0.0, self._raw(first[0])
        return forward, root

    def _prior_mean(self, length: int) -> Array:
        offset, start = self._raw(self.transition_offset), self._raw(self.initial_mean)
        means = np_of(start).zeros_like(start) + timed(offset[..., None], length)[0, :, :, 0]
        means[0] = start
        if not bool((abs(means) > 0).any()):
            return means
        forward = self._raw(self.transition)
        if forward.ndim == 2:
            return follow(forward, means[None])[0]
        for t in range(1, length):
            means[t] += forward[t] @ means[t - 1]
        return means

    def _seen(self, values: Tensor, observed: Tensor) -> Seen:
        tables = (self.observation, self.noise_covariance, self.observation_offset, values.double(), observed)
        observation, noise, offset, x, known = (self._raw(table) for table in tables)
        return whiten(observation, noise, offset, x, known, self._prior_mean(values.shape[1]))

    @cached_property
    def _strong(self) -> bool:
        """Whether some observation outweighs the prior by far."""
        factor = torch.linalg.cholesky(self.noise_covariance)
        loadings = torch.linalg.solve_triangular(factor, self.observation, upper=False)
        spread = self.process_covariance.reshape(-1, *self.initial_covariance.shape).amax(0).abs()
        spread = (spread + self.initial_covariance).diagonal()
        return bool(((loadings.square() * spread).sum((-1, -2)) > _STRONG).any())

    @cached_property
    def _aligned(self) -> tuple[Tensor, Chain] | None:
        """An orthogonal T and the model of Tz, in which H = [L 0]: where data outweigh the prior by far, but not in
        all directions, the matrices of Tz are graded along its axes, and no digit of the rest is lost.

        None where there is nothing to win, or H depends on time.
        """
        if self.observation.ndim == 3 or self.noise_covariance.ndim == 3 or not self._strong:
            return None
        factor = torch.linalg.cholesky(self.noise_covariance)
        loadings = torch.linalg.solve_triangular(factor, self.observation, upper=False)
        turn = self._tensor(qr(loadings.T.cpu().numpy(), pivoting=True)[0].T.copy()).to(loadings.device)
        turned = object.__new__(type(self))  # the constructor would check again, and refuse what rounding did
        for name, value in self._tensors().items():
            if name.endswith("_covariance") and name != "noise_covariance":
                value = turn @ value @ turn.T
                value = (value + value.mT) / 2
            elif name == "transition":
                value = turn @ value @ turn.T
            object.__setattr__(turned, name, value)
        pairs = ((self.process_covariance, turned.process_covariance),)
        pairs += ((self.initial_covariance, turned.initial_covariance),)
        # States of very different units are graded along their own axes already; turning would undo that.
        harmless = all(conditioning(new) > 1e-3 * conditioning(old) for old, new in pairs)
        return (turn, turned) if harmless else None

    def _smoothed(self, seen: Seen) -> Smoothed:
        try:
            if self._aligned is None:
                return self._smooth(seen.design, seen.residuals, self._strong)
            turn, turned = self._aligned
            turn = self._raw(turn)
            design = seen.design @ turn.T
            # What rounding leaves where [L 0] has its zeros would be squared, and drown what little is seen there.
            least = 8 * turn.shape[0] * _EPS * (design**2).sum(-1)[..., None] ** 0.5
            design = np_of(design).where(abs(design) > least, design, 0.0)
            return kalman.turned_back(turned._smooth(design, seen.residuals, True), turn)
        except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
            least = self.noise_covariance.diagonal(dim1=-2, dim2=-1).min().item()
            raise ValueError(
                "noise_covariance should not be below about 1e-15 of what the states contribute in one direction "
                f"while another is hardly seen, got a variance of {least:.3g}: float64 cannot hold both"
            ) from error

    def _smooth(self, design: Array, residuals: Array, strong: bool) -> Smoothed:
        (noise, regular), (first, starts) = self._roots
        strong = strong and regular and starts
        if design.ndim == 2 and self.transition.ndim == 2 and noise.ndim == 2:
            forward, noise, first = (self._raw(table) for table in (self.transition, noise, first))
            return kalman.smooth_constant(
                forward, noise, first, design.T @ design, residuals @ design, strong
            )
        length = residuals.shape[1]
        forward, root = self._forward(length)
        design = timed(design, length)
        turned = design.swapaxes(-1, -2)
        return kalman.smooth(forward, root, turned @ design, (turned @ residuals[..., None])[..., 0], strong)

    def _blocks(self, values: Tensor, observed: Tensor) -> Iterator[tuple[slice, Seen, Smoothed]]:
        n, length = values.shape[:2]
        k = len(self.initial_mean)
        each = length * (k + self._p) * (1 if self._shared(observed) else k)
        count = max(1, _ROW_NUMBERS // each)
        for first in range(0, max(n, 1), count):
            rows = slice(first, first + count)
            seen = self._seen(values[rows], observed[rows])
            yield rows, seen, self._smoothed(seen)

    def _each(self, x: Any, measure: Callable[[Seen, Smoothed], Array], single: bool = True) -> Tensor:
        here, values, observed = self._taken(x)
        parts = []
        for rows, seen, smoothed in here._blocks(values, observed):
            part = here._tensor(measure(seen, smoothed))
            parts.append(part.expand(len(values[rows]), *part.shape[1:]))
        return torch.cat(parts).to(values.dtype if single else torch.float64)


def varying(values: dict[str, Tensor]) -> list[str]:
    """The names of the parameters that are given for each time."""
    fixed = {"initial_mean": 1, "initial_covariance": 2, "transition_offset": 1, "observation_offset": 1}
    return [name for name, value in values.items() if value.ndim > fixed.get(name, 2)]


def timed(table: Array, length: int) -> Array:
    """(a, b) or (T, a, b) or (g, T, a, b) as (g, T, a, b)."""
    table = table[(None,) * (4 - table.ndim)]
    return np_of(table).broadcast_to(table, (len(table), length, *table.shape[2:]))
