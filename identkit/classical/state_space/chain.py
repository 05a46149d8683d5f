"""How a state-space model's parameters and data become a chain to be smoothed, in blocks of sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.linalg import qr
from torch import Tensor

from identkit.classical.arrays import unfilled
from identkit.classical.placed import Placed
from identkit.classical.state_space import kalman, kalman_steady
from identkit.classical.state_space.data import Seen, conditioning, factor, sequences, whiten
from identkit.classical.state_space.kalman import Border, Smoothed
from identkit.classical.state_space.kalman_scan import Array, follow, np_of

_EPS = 2.0**-52
_ROW_NUMBERS = 2**21  # numbers of one array that are worked on at once
_PIECE_NUMBERS = 2**22  # numbers of all arrays of a piece of time,
_SHORTEST = 640  # which has so many steps at least
_STRONG = 1e3  # prior variance of an observation, in units of its noise


class Block(NamedTuple):
    """Some sequences, cut into pieces of time that follow each other."""

    rows: slice
    apart: int | None
    """How many they are, where they have matrices of their own though in some piece they might share them."""
    cuts: list[range]
    """The steps of each piece."""
    pieces: list[tuple[range, Callable[[], Seen]]]
    """The same, a little longer where there is a halo, and what is seen there, made when it is asked for."""


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

    def _alike(self, observed: Tensor) -> bool:
        """Whether one matrix serves most steps: nothing is missing, and no matrix depends on time."""
        tables = (self.transition, self.observation, self.process_covariance, self.noise_covariance)
        return all(table.ndim == 2 for table in tables) and bool(self._raw(observed).all())

    def _raw(self, tensor: Tensor) -> Array:
        # Torch wakes its threads for ten thousand steps, which can cost more than all the rest.
        return tensor.numpy() if tensor.device.type == "cpu" else tensor

    def _tensor(self, array: Array) -> Tensor:
        if isinstance(array, Tensor):
            return array
        return torch.from_numpy(array if array.flags.writeable else array.copy())

    def _taken(self, x: Any) -> tuple[Chain, Tensor, Tensor]:
        """The model where x lies, its values and what is observed; arithmetic is in float64 whatever x is."""
        device = self.initial_mean.device
        values, observed = sequences(x, self.length, self._p, device, filled=False)
        if self._time not in (None, values.shape[1]):
            raise ValueError(
                f"x should have {self._time} times, for which the matrices are given, got {values.shape[1]}"
            )
        return self._like(values.new_empty(0, dtype=torch.float64)), values, observed

    def _steps(self, length: int) -> tuple[Array, Array, Array]:
        """F and G as `_forward` gives them, and the prior's mean path (T, k)."""
        return *self._forward(range(length)), self._prior_mean(range(length))

    def _forward(self, times: range) -> tuple[Array, Array]:
        """F with F_1 = 0 and G with G_1 of the initial state, (T, k, k), of some times."""
        xp, (noise, first) = np_of(self._raw(self.initial_mean)), self._roots
        forward = xp.zeros_like(self._raw(first[0])) + _at(self._raw(self.transition), times, 2)
        root = xp.zeros_like(forward) + _at(self._raw(noise[0]), times, 2)
        if times.start == 0:
            forward[0], root[0] = 0.0, self._raw(first[0])
        return forward, root

    def _prior_mean(self, times: range, before: Array | None = None) -> Array:
        """E[z_t] of some times, from that of the time before them."""
        offset, start = self._raw(self.transition_offset), self._raw(self.initial_mean)
        means = np_of(start).zeros_like(start) + _at(offset, times, 1)
        forward = self._raw(self.transition)
        if times.start == 0:
            means[0] = start
        elif before is not None:
            means[0] += (forward if forward.ndim == 2 else forward[times.start]) @ before
        if not bool((abs(means) > 0).any()):
            return means
        if forward.ndim == 2:
            return follow(forward, means[None])[0]
        for i, t in enumerate(times[1:], start=1):
            means[i] += forward[t] @ means[i - 1]
        return means

    def _seen(
        self, values: Tensor, observed: Tensor, times: range | None = None, before: Array | None = None
    ) -> Seen:
        """What is seen at some times, from the prior's mean at the time before them; at all, where none are named."""
        times = range(values.shape[1]) if times is None else times
        steps = slice(times.start, times.stop)
        x, known = self._raw(values[:, steps].double()), self._raw(observed[:, steps])
        tables = ((self.observation, 2), (self.noise_covariance, 2), (self.observation_offset, 1))
        observation, noise, offset = (
            table[steps] if table.ndim > axes else table
            for table, axes in ((self._raw(table), axes) for table, axes in tables)
        )
        return whiten(observation, noise, offset, x, known, self._prior_mean(times, before))

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

    def _journey(
        self, pieces: Sequence[tuple[range, Callable[[], Seen]]], apart: int | None, halo: int
    ) -> Iterator[tuple[Seen, Smoothed]]:
        """Smooth pieces of time one after the other, from the first, though what they need comes from the last.

        Backward, a piece leaves behind what it says of the state before it, and is done again when its turn has come.

        Args:
            pieces: times that follow each other, and what is seen there, made when it is asked for.
            apart: how many sequences have matrices of their own though in some piece they might share them.
            halo: how many steps of the next piece each has at its end, to look at.
        """
        try:
            turn, inner = self._aligned or (None, self)
            turn, strong = turn if turn is None else self._raw(turn), turn is not None or self._strong

            def looked(seen: Seen) -> tuple[Array, Array]:
                design = seen.design
                if turn is not None:
                    design = design @ turn.T
                    # What rounding leaves where [L 0] has its zeros would be squared, and drown what little is seen.
                    least = 8 * turn.shape[0] * _EPS * (design**2).sum(-1)[..., None] ** 0.5
                    design = np_of(design).where(abs(design) > least, design, 0.0)
                if apart is not None:
                    design = timed(design, seen.residuals.shape[1], apart)
                return design, seen.residuals

            afters: list[Border | None] = [None]
            for times, make in reversed(pieces[1:]):
                # From behind the halo of the piece before to behind its own: what is said of that piece's last step.
                design, residuals = looked(make())
                own = range(times.start + halo, times.stop)
                design = design[:, halo:] if design.ndim == 4 else design
                after = afters[-1]
                afters.append(
                    inner._said(design, residuals[:, halo:], strong, own, after) if len(own) else after
                )
            before: Border | None = None
            for (times, make), after in zip(pieces, reversed(afters), strict=True):
                seen = make()
                smoothed = inner._smooth(*looked(seen), strong, times, before, after)
                step = len(times) - 1 - halo
                before = Border(smoothed.covariance[:, smoothed.row(step)], smoothed.mean[:, step])
                yield seen, smoothed if turn is None else kalman.turned_back(smoothed, turn)
        except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
            least = self.noise_covariance.diagonal(dim1=-2, dim2=-1).min().item()
            raise ValueError(
                "noise_covariance should not be below about 1e-15 of what the states contribute in one direction "
                f"while another is hardly seen, got a variance of {least:.3g}: float64 cannot hold both"
            ) from error

    def _smooth(
        self,
        design: Array,
        residuals: Array,
        strong: bool,
        times: range,
        before: Border | None,
        after: Border | None,
    ) -> Smoothed:
        (noise, regular), (first, starts) = self._roots
        strong = strong and regular and starts
        if self._constant(design):
            forward, noise, first = (self._raw(table) for table in (self.transition, noise, first))
            return kalman_steady.smooth_constant(
                forward, noise, first, design.T @ design, residuals @ design, strong, before, after
            )
        return kalman.smooth(*self._pulling(design, residuals, times), strong, before, after)

    def _said(
        self, design: Array, residuals: Array, strong: bool, times: range, after: Border | None
    ) -> Border:
        """What these times and later ones say of the state before them."""
        (noise, regular), (_, starts) = self._roots
        strong = strong and regular and starts
        if self._constant(design):
            forward, noise = self._raw(self.transition), self._raw(noise)
            return kalman_steady.said_constant(
                forward, noise, design.T @ design, residuals @ design, strong, after
            )
        return kalman.said(*self._pulling(design, residuals, times), strong, after)

    def _constant(self, design: Array) -> bool:
        return design.ndim == 2 and self.transition.ndim == 2 and self.process_covariance.ndim == 2

    def _pulling(self, design: Array, residuals: Array, times: range) -> tuple[Array, Array, Array, Array]:
        """F, G, A and a of some times."""
        design = timed(design, len(times))
        turned = design.swapaxes(-1, -2)
        return *self._forward(times), turned @ design, (turned @ residuals[..., None])[..., 0]

    def _blocks(
        self, values: Tensor, observed: Tensor, tables: bool, halo: int = 0, matrices: int = 20
    ) -> Iterator[Block]:
        """Cut sequences into blocks, and these into pieces of time, for what needs some matrices a step at once.

        Args:
            values, observed: the sequences.
            tables: whether a matrix for each step is needed, even where all steps share one.
            halo: how many steps of the next piece each has at its end, where there are any.
            matrices: how many for each step.
        """
        k, length = len(self.initial_mean), values.shape[1]
        apart = not self._shared(observed)
        for rows in self._rows(values, observed):
            x, known = values[rows], observed[rows]
            n = max(len(x), 1)
            numbers = 10 * n * (k + self._p)
            if tables or self._time is not None or not bool(self._raw(known).all()):
                numbers += matrices * (n if apart else 1) * k * k
            size = max(_SHORTEST, _PIECE_NUMBERS // numbers)
            cuts = [range(start, min(start + size, length)) for start in range(0, length, size)]
            befores = [None, *(means[-1] + 0.0 for means in self._prior_means(cuts[:-1]))]
            pieces = [
                self._piece(x, known, range(times.start, min(times.stop + halo, length)), before)
                for times, before in zip(cuts, befores, strict=True)
            ]
            yield Block(rows, len(x) if apart and len(cuts) > 1 else None, cuts, pieces)

    def _piece(
        self, x: Tensor, known: Tensor, times: range, before: Array | None
    ) -> tuple[range, Callable[[], Seen]]:
        return times, lambda: self._seen(x, known, times, before)

    def _prior_means(self, cuts: Sequence[range]) -> Iterator[Array]:
        """E[z_t] of times that follow each other, from the first on."""
        means = None
        for times in cuts:
            means = self._prior_mean(times, None if means is None else means[-1])
            yield means

    def _rows(self, values: Tensor, observed: Tensor, numbers: int | None = None) -> Iterator[slice]:
        """So few sequences that an array of so many numbers for each, or of those of its states, may be held."""
        n, length = values.shape[:2]
        k = len(self.initial_mean)
        numbers = numbers or length * (k + self._p) * (1 if self._shared(observed) else k)
        count = max(1, _ROW_NUMBERS // numbers)
        for first in range(0, max(n, 1), count):
            yield slice(first, first + count)

    def _pieces(
        self, values: Tensor, observed: Tensor, tables: bool, halo: int = 0, matrices: int = 20
    ) -> Iterator[tuple[slice, Iterator[tuple[range, Seen, Smoothed]]]]:
        """What is seen and known of the steps of each piece of `_blocks`, a little beyond them with a halo."""
        for block in self._blocks(values, observed, tables, halo, matrices):
            journey = self._journey(block.pieces, block.apart, halo)
            yield (
                block.rows,
                (
                    (times, seen, smoothed)
                    for times, (seen, smoothed) in zip(block.cuts, journey, strict=True)
                ),
            )

    def _posteriors(
        self, values: Tensor, observed: Tensor, matrices: int
    ) -> Iterator[tuple[tuple[slice, slice], Array, Smoothed]]:
        """Piece by piece, the sequences and times it stands for, E[z_t | x] there, and the rest of the posterior."""
        for rows, pieces in self._pieces(values, observed, tables=False, matrices=matrices):
            before = None
            for times, _, smoothed in pieces:
                prior = self._prior_mean(times, before)
                before = prior[-1]
                yield (rows, slice(times.start, times.stop)), smoothed.mean + prior, smoothed

    def _summed(self, x: Any, measure: Callable[[Seen, Smoothed], Array]) -> Tensor:
        """What is a sum over time, (n,)."""
        here, values, observed = self._taken(x)
        answer = torch.zeros(len(values), dtype=torch.float64, device=values.device)
        for rows, pieces in here._pieces(values, observed, tables=False):
            for _, seen, smoothed in pieces:
                answer[rows] += here._tensor(measure(seen, smoothed))
        return answer.to(values.dtype)

    def _table(
        self, x: Any, begun: Callable[[int], Callable[[range, Seen, Smoothed], Array]], halo: int = 0
    ) -> Tensor:
        """What each state has, (n, T·k); `begun` with a number of pieces gives what measures one after the other."""
        here, values, observed = self._taken(x)
        n, length = values.shape[:2]
        k = len(self.initial_mean)
        answer = unfilled(values, n, length, k)
        for rows, pieces in here._pieces(values, observed, True, halo):
            measure: Callable[[range, Seen, Smoothed], Array] | None = None
            for times, seen, smoothed in pieces:
                measure = measure or begun(length - len(times))
                found = here._tensor(measure(times, seen, smoothed))
                answer[rows, times.start : times.stop] = found[:, : len(times)].to(values.dtype)
        return answer.reshape(n, length * k)


def _at(table: Array, times: range, axes: int) -> Array:
    """The entries of some times, (T, …), of a table of one or of all times."""
    if table.ndim > axes:
        return table[times.start : times.stop]
    return np_of(table).broadcast_to(table, (len(times), *table.shape))


def varying(values: dict[str, Tensor]) -> list[str]:
    """The names of the parameters that are given for each time."""
    fixed = {"initial_mean": 1, "initial_covariance": 2, "transition_offset": 1, "observation_offset": 1}
    return [name for name, value in values.items() if value.ndim > fixed.get(name, 2)]


def timed(table: Array, length: int, count: int | None = None) -> Array:
    """(a, b) or (T, a, b) or (g, T, a, b) as (g, T, a, b), g = count where one is given."""
    table = table[(None,) * (4 - table.ndim)]
    size = (len(table) if count is None else count, length, *table.shape[2:])
    return np_of(table).broadcast_to(table, size)
