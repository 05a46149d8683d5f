"""The hidden Markov model: a chain of states seen through its emissions, with the exact law of the whole path."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.arrays import shaped
from identkit.classical.compared import FAR, near_ratio
from identkit.classical.em import Convergence
from identkit.classical.hidden_markov.data import Sequences, sequences
from identkit.classical.hidden_markov.emissions import (
    CategoricalEmission,
    Emission,
    PoissonEmission,
)
from identkit.classical.hidden_markov.fit import first_guess, fitted
from identkit.classical.hidden_markov.gaussian import GaussianEmission
from identkit.classical.hidden_markov.information import (
    Messages,
    chain_flatness,
    conditional_kl,
    error_bound,
    flat_messages,
    is_flat,
    marginal_kl,
    path_kl,
)
from identkit.classical.hidden_markov.lanes import Steps, Swept, by_sequence
from identkit.classical.hidden_markov.path import PathPrior, StatePath, log_likelihood, path_of
from identkit.classical.hidden_markov.sweep import sweep
from identkit.classical.hidden_markov.tables import refuse_probabilities, select_exactly
from identkit.classical.shown import shown
from identkit.model import families
from identkit.model.compiled.data import number_of_draws
from identkit.model.family import exact_law
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness

Array = np.ndarray

_ENUMERATED = 4096
_AT_ONCE = 2**18
"""How many numbers the pairs of states of the sequences that are worked on may be."""


@dataclass(frozen=True, eq=False, init=False, repr=False)
class HiddenMarkov:
    """A chain of K hidden states, each step of which shows one emission; the latent is the whole path.

    ``z_1 ~ π, z_t | z_{t−1} ~ A[z_{t−1}], x_t | z_t ~ b_{z_t}``. The posterior of the path is a chain too, and
    ``KL = Σ_t Σ_k γ_t(k) log b_k(x_t) − log p(x)``, computed as a sum of the KLs of its transitions.

    **Data.** A model with a declared `length` T reads a table: one sequence a row, its T steps of d numbers side by
    side, (n, T·d); so `ik.verify` and `symbolic` know the latents ``z[1..T]``. A model without reads one sequence,
    (T, d) or (T,), or a list of sequences of any lengths, or (n, T, d) with `lengths`; `of_length` turns one into
    the other. A step of NaN is missing: there the chain alone speaks. Tables of unequal sequences are padded with zeros.

    Answers are float32 where the data are, else float64, on the device of the data; all arithmetic is float64, and the
    recursions run on the processor.

    Source: Rabiner 1989 (the recursions); Wang, Blei & Cunningham 2021; `theory/T1`, `theory/T3`, `theory/T4`.

    Args:
        initial: π, shape (K,), K ≥ 2, summing to one.
        transition: A, shape (K, K), rows summing to one.
        emission: a `CategoricalEmission`, `GaussianEmission` or `PoissonEmission` of K states.
        length: T, the number of steps in a row of data; None for any.

    Raises:
        ValueError, TypeError: a wrong shape, NaN, weights that are no probabilities, numbers of states that differ.

    >>> coins = CategoricalEmission([[0.5, 0.5], [0.1, 0.9]])
    >>> hmm = HiddenMarkov([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], coins)
    >>> hmm.posterior([1, 1, 0]).probs
    tensor([[[0.4139, 0.5861],
             [0.5374, 0.4626],
             [0.7827, 0.2173]]], dtype=torch.float64)
    >>> hmm.kl_to_prior([1, 1, 0])
    tensor([0.1911], dtype=torch.float64)
    """

    takes_missing: ClassVar[bool] = True

    initial: Float[Tensor, " k"]
    transition: Float[Tensor, "k k"]
    emission: Any
    length: int | None
    convergence: Convergence | None

    __repr__ = shown

    def __init__(self, initial: Any, transition: Any, emission: Emission, length: int | None = None) -> None:
        if not isinstance(emission, (CategoricalEmission, GaussianEmission, PoissonEmission)):
            raise TypeError(
                "emission should be a CategoricalEmission, GaussianEmission or PoissonEmission, "
                f"got {type(emission).__name__}"
            )
        initial = shaped(initial, "initial", None)
        k = len(initial)
        if k < 2:
            raise ValueError(f"initial should have at least two states, got {k}")
        transition = shaped(transition, "transition", k, k)
        refuse_probabilities(initial, "initial")
        refuse_probabilities(transition, "transition")
        if emission.states != k:
            raise ValueError(f"emission should have {k} states as initial has, got {emission.states}")
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
            raise ValueError(f"length should be a whole number from 1, or None, got {length!r}")
        object.__setattr__(self, "initial", initial.to(emission.device))
        object.__setattr__(self, "transition", transition.to(emission.device))
        object.__setattr__(self, "emission", emission)
        object.__setattr__(self, "length", length)
        object.__setattr__(self, "convergence", None)

    def of_length(self, length: int | None) -> HiddenMarkov:
        """Give the same model for rows of `length` steps, or for sequences of any length (None)."""
        other = HiddenMarkov(self.initial, self.transition, self.emission, length)
        object.__setattr__(other, "convergence", self.convergence)
        return other

    @classmethod
    def fit(
        cls,
        x: Any,
        start: HiddenMarkov | int,
        *,
        emission: str = "gaussian",
        lengths: Any = None,
        starts: int = 5,
        tolerance: float = 1e-6,
        iterations: int = 1000,
        generator: torch.Generator | None = None,
    ) -> HiddenMarkov:
        """Fit by expectation–maximisation (Baum & Welch), from `start` and from random starts.

        Near the top three iterations are extrapolated, which is kept where the likelihood does not fall.

        Source: Baum, Petrie, Soules & Weiss 1970; Rabiner 1989; Varadhan & Roland 2008 (the leaps).

        Args:
            x: data, as the class takes them; several sequences share the parameters.
            start: says the number of states, the kind of emission and the length; the first start. Or the number of
                states alone, with `emission`.
            emission: "gaussian" (diagonal covariances), "poisson" or "categorical", where `start` is a number.
            lengths: as `posterior` takes them.
            starts: how many in all; the others are drawn at random, from the data.
            tolerance: stop when an iteration gains less than this many nats.
            iterations: how many at most, from each start.
            generator: for the random starts; None for one with seed 0.

        Returns:
            The best fit, with `convergence`; it warns if that did not converge.

        Raises:
            ValueError: no data, or a start that is neither.

        >>> start = HiddenMarkov([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]], GaussianEmission([0.0, 1.0], [1.0, 1.0]))
        >>> hmm = HiddenMarkov.fit([0.1, 0.2, 5.0, 5.1, 4.9, 0.0, 0.1], start, starts=1)
        >>> hmm.convergence.converged
        True
        """
        generator = generator or torch.Generator().manual_seed(0)
        if not isinstance(start, HiddenMarkov):
            start = cls(*first_guess(x, start, emission, generator))
        data = sequences(x, start.emission, start.length, lengths)
        initial, transition, seen, convergence = fitted(
            data,
            (start.initial, start.transition, start.emission),
            starts,
            tolerance,
            iterations,
            generator,
        )
        best = cls(initial, transition, seen, start.length)
        object.__setattr__(best, "convergence", convergence)
        return best

    @classmethod
    def from_hmmlearn(cls, model: Any, length: int | None = None) -> HiddenMarkov:
        """Take over a fitted CategoricalHMM, GaussianHMM or PoissonHMM of hmmlearn.

        Raises:
            TypeError: another class.
            ValueError: it is not fitted.
        """
        kind = type(model).__name__
        wanted = {"CategoricalHMM": "emissionprob_", "GaussianHMM": "means_", "PoissonHMM": "lambdas_"}
        if kind not in wanted:
            raise TypeError(f"model should be a CategoricalHMM, GaussianHMM or PoissonHMM, got {kind}")
        if not hasattr(model, wanted[kind]) or not hasattr(model, "transmat_"):
            raise ValueError(f"model should be fitted: this {kind} has no {wanted[kind]} or no transmat_")
        if kind == "CategoricalHMM":
            emission: Emission = CategoricalEmission(model.emissionprob_)
        elif kind == "PoissonHMM":
            emission = PoissonEmission(model.lambdas_)
        else:
            covariances = np.asarray(model.covars_)  # hmmlearn gives full matrices, whatever the kind
            if model.covariance_type == "diag":
                covariances = covariances.diagonal(axis1=1, axis2=2).copy()
            elif model.covariance_type == "spherical":
                # Version 0.3 gives a matrix for every axis of every state here.
                covariances = covariances[:, 0, 0].reshape(len(model.means_), -1)[:, 0].copy()
            emission = GaussianEmission(model.means_, covariances)
        return cls(model.startprob_, model.transmat_, emission, length)

    @property
    def prior(self) -> PathPrior:
        """The law of the path before any data, of the declared length.

        Raises:
            ValueError: no length is declared.
        """
        return PathPrior(self._path(self._missing(1, self._declared("prior"))))

    @property
    def latent_names(self) -> tuple[str, ...]:
        """``z[1], …, z[T]``.

        Raises:
            ValueError: no length is declared.
        """
        return tuple(f"z[{t}]" for t in range(1, self._declared("latent_names") + 1))

    @property
    def pooled(self) -> bool:
        """Each sequence has a path of its own."""
        return False

    def log_likelihood(self, x: Any, z: Any, lengths: Any = None) -> Float[Tensor, "*samples n"]:
        """Evaluate ``Σ_t log b_{z_t}(x_t)`` in nats.

        Args:
            x: data.
            z: states 0 … K − 1, (n, T) or (samples, n, T).
            lengths: as `posterior` takes them.

        Raises:
            ValueError: z is no path, or a wrong shape.
        """
        data = sequences(x, self.emission, self.length, lengths)
        n, length = data.observed.shape
        z = path_of(z, (n, length, len(self.initial)), data.device)
        return log_likelihood(*by_sequence(self._steps(data)), z).to(data.dtype)

    def posterior(self, x: Any, lengths: Any = None) -> StatePath:
        """Give the law of the path given x: smoothed and pairwise marginals, most probable path, draws.

        Args:
            x: data, as the class takes them.
            lengths: for a padded (n, T, d), how many steps of each row are there.

        Raises:
            ValueError: a sequence that no path can show.
        """
        return self._path(sequences(x, self.emission, self.length, lengths))

    def log_evidence(self, x: Any, lengths: Any = None) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x)`` of each sequence, in nats."""
        return self.posterior(x, lengths).log_evidence

    def kl_to_prior(self, x: Any, lengths: Any = None) -> Float[Tensor, " n"]:
        """Evaluate the KL of the whole path's posterior to the prior chain, in nats.

        ``KL(q(z_1)‖π) + Σ_t E_Q KL(q(z_t | z_{t−1})‖A)``: exactly 0 where the states agree on the data.
        """
        data = sequences(x, self.emission, self.length, lengths)
        return self._by_sequences(data, path_kl).to(data.dtype)

    def kl_per_latent(self, x: Any, lengths: Any = None) -> Float[Tensor, "n t"]:
        """Evaluate ``KL(p(z_t | x) ‖ p(z_t))`` of each step, in nats."""
        data = sequences(x, self.emission, self.length, lengths)
        return self._by_sequences(data, marginal_kl).to(data.dtype)

    def kl_conditional(self, x: Any, lengths: Any = None) -> Float[Tensor, "n t"]:
        """Evaluate ``E_Q KL(p(z_t | rest, x) ‖ p(z_t | rest))`` of each step, in nats (theory/T3)."""
        data = sequences(x, self.emission, self.length, lengths)
        return self._by_sequences(data, conditional_kl).to(data.dtype)

    def kl_error(self, x: Any, lengths: Any = None) -> Float[Tensor, " n"]:
        """Bound the absolute error of the three KLs, in nats; positive. The argument is at `error_bound`."""
        data = sequences(x, self.emission, self.length, lengths)
        return self._by_sequences(data, lambda messages: error_bound(messages, path_kl(messages)))

    def flatness(self, x: Any, lengths: Any = None) -> Flatness:
        """Give the moments of ``ℓ = Σ_t log b_{z_t}(x_t)`` under the prior chain, by recursions of its own.

        Source: theory/T4; `identkit.classical.markov_information.chain_flatness`.
        """
        data = sequences(x, self.emission, self.length, lengths)
        ratio, error, _ = self._ratio(data, second=True)
        found = chain_flatness(*self._chain, ratio, error)
        return Flatness(
            variance=found.variance.to(data.device),
            variance_error=found.variance_error.to(data.device),
            oscillation=found.oscillation.to(data.device),
        )

    def posterior_moments(
        self, x: Any, lengths: Any = None
    ) -> tuple[Float[Tensor, "n t"], Float[Tensor, "n t"]]:
        """Give the posterior mean and standard deviation of each state's number, 0 … K − 1."""
        path = self.posterior(x, lengths)
        return path.mean, path.stddev

    def mutual_information(self, samples: int = 4096, generator: torch.Generator | None = None) -> Estimate:
        """Give the information of one sequence about its path, ``I(z; x) = E_x KL(p(z | x) ‖ p(z))``, in nats.

        The expectation is a sum where there are at most 4096 different sequences, else a mean over draws of x.

        Args:
            samples: draws of x.
            generator: for the draws; None for one with seed 0.

        Raises:
            ValueError: no length is declared.
        """
        length = self._declared("mutual_information")
        emission = self.emission
        if isinstance(emission, CategoricalEmission) and emission.table.shape[1] ** length <= _ENUMERATED:
            symbols = range(emission.first, emission.first + emission.table.shape[1])
            x = torch.tensor(list(itertools.product(symbols, repeat=length)), dtype=torch.float64)
            x = x.to(self.initial.device)
            data = sequences(x, emission, length)
            x = x[
                torch.from_numpy(sweep(*self._chain, self._steps(data)).log_evidence > -np.inf).to(x.device)
            ]
            weight = self.log_evidence(x).exp()
            value = (weight * self.kl_to_prior(x)).sum().item()
            error = (weight * self.kl_error(x)).sum().item() + 1e-13 * value
            return Estimate(value=value, error=error, method="closed form")
        if samples < 2:
            raise ValueError(f"samples should be at least 2, got {samples}")
        generator = generator or torch.Generator(self.initial.device).manual_seed(0)
        # Half of the paths begin in all states alike: draws alone would never show one of probability 1e-12.
        begin = torch.nonzero(self.initial > 0)[:, 0]
        share = self.initial[begin] / self.initial[begin].sum()
        counts = (samples / 2 * (share + 1 / len(begin))).ceil().clamp(min=2).long()
        x, _ = self._followed(begin.repeat_interleave(counts), length, generator)
        of_each = self.kl_to_prior(x).split(counts.tolist())
        mean, variance = (torch.stack([part(kl) for kl in of_each]) for part in (torch.mean, torch.var))
        error = (share.square() @ (variance / counts)).sqrt()
        return Estimate(value=(share @ mean).item(), error=error.item(), method="Monte Carlo")

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n td"], Float[Tensor, "n t"]]:
        """Draw n sequences of the declared length: rows of data and their paths, states 0 … K − 1.

        Raises:
            ValueError: no length is declared.
        """
        n = number_of_draws(n, generator)
        length = self._declared("sample")
        law = self.initial.expand(n, -1)
        first = torch.multinomial(law, 1, generator=generator)[:, 0] if n else law.new_empty(0).long()
        return self._followed(first, length, generator)

    def _followed(
        self, first: Tensor, length: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Draw the rest of paths that begin in these states, and their data."""
        n = len(first)
        z = torch.empty(n, length, dtype=torch.int64, device=self.initial.device)
        z[:, 0] = first
        for t in range(1, length if n else 0):
            z[:, t] = torch.multinomial(self.transition[z[:, t - 1]], 1, generator=generator)[:, 0]
        x = self.emission.draw(z.reshape(-1), generator) if n else z.new_empty(0, self.emission.columns)
        return x.to(torch.float64).reshape(n, length * self.emission.columns), z.to(torch.float64)

    def symbolic(self) -> Model:
        """Give the model in SymPy: ``z[t] ~ Categorical(select(z[t−1], …))``, emissions by `select`.

        The cost grows as K^T: `check` is for a handful of steps. Symbols of more than two kinds have to be counted
        from 1 (``CategoricalEmission(table, first=1)``).

        Raises:
            ValueError: no length is declared, or three symbols counted from 0.
        """
        length = self._declared("symbolic")
        model = Model("hidden Markov model")
        rows = [exact_law(row) for row in self.transition.tolist()]
        z: Any = None
        path = []
        for t in range(1, length + 1):
            if t == 1:
                law = exact_law(self.initial.tolist())
            else:
                law = [select_exactly(z, column) for column in zip(*rows, strict=True)]
            z = model.latent(f"z[{t}]", families.Categorical(*law))
            path.append(z)
        for t, z in enumerate(path, 1):
            self.emission.observe(model, t, z)
        return model

    def _declared(self, what: str) -> int:
        if self.length is None:
            raise ValueError(f"length should be declared for {what}, got None; of_length(T) declares it")
        return self.length

    @property
    def _chain(self) -> tuple[Any, Any]:
        # The numbers may miss one by a rounding, which a KL of 1e-25 would notice.
        initial, transition = self.initial.cpu().numpy(), self.transition.cpu().numpy()
        return initial / initial.sum(), transition / transition.sum(1, keepdims=True)

    def _missing(self, n: int, length: int) -> Sequences:
        shape = (n, length)
        return Sequences(
            x=np.ones((*shape, self.emission.columns)),
            observed=np.zeros(shape, dtype=bool),
            lengths=np.full(n, length),
            device=self.initial.device,
            dtype=torch.float64,
        )

    def _steps(self, data: Sequences) -> Steps:
        return Steps(data.x, data.observed, data.lengths, self.emission.stepwise)

    def _swept(self, data: Sequences, future: bool = False, before: int = 0) -> Swept:
        swept = sweep(*self._chain, self._steps(data), future=future)
        impossible = np.flatnonzero(~(swept.log_evidence > -np.inf))
        if len(impossible):
            raise ValueError(
                f"x should be possible, but no path can show sequence {before + impossible[0] + 1}"
            )
        swept.probs[data.beyond] = 0.0
        return swept

    def _path(self, data: Sequences) -> StatePath:
        swept = self._swept(data)
        initial, transition = (torch.from_numpy(part) for part in self._chain)
        return StatePath(
            initial=initial,
            transition=transition,
            data=data,
            steps=self._steps(data),
            probs=data.answer(swept.probs),
            log_evidence=data.answer(swept.log_evidence),
        )

    def _ratio(self, data: Sequences, second: bool = False) -> tuple[Any, Any, Any]:
        """λ (n, T, K), of each step but for a number, its errors and which states they hold for.

        The errors are (n, T), zero where nothing is observed, and hold for the states that are so many: a state that a
        datum makes impossible, whatever comes before and after, has no part in a KL.
        """
        n, length = data.observed.shape
        k = len(self.initial)
        ratio, error = np.zeros((n, length, k)), np.zeros((n, length, k))
        if data.observed.any():
            reference = int((self.initial + self.transition.sum(0)).argmax())
            x = torch.from_numpy(data.x[data.observed]).to(self.emission.device)
            if second:
                values, errors = self.emission.ratio(x, reference, True)
            else:
                values, errors = near_ratio(x, self.emission.ratio, reference)
            ratio[data.observed] = values.cpu().numpy()
            error[data.observed] = errors.cpu().numpy()
        counts = np.ones(ratio.shape, dtype=bool) if second else self._that_count(ratio, error)
        return ratio, np.where(counts, error, 0.0).max(2, initial=0.0), counts

    def _that_count(self, ratio: Array, error: Array) -> Array:
        """Which states have more than ``e^−FAR`` of the posterior, by the bounds on the errors.

        To go through the best state of step t instead changes a path's prior by no more than two of its factors.
        """
        least = float(min(self.initial.min(), self.transition.min()))
        if least <= 0 or not ratio.size:
            return np.ones(ratio.shape, dtype=bool)
        behind = (ratio - error).max(2, keepdims=True) - (ratio + error)
        return behind <= FAR - 2 * math.log(least)

    def _by_sequences(self, data: Sequences, evaluate: Callable[[Messages], Tensor]) -> Tensor:
        """Evaluate some sequences at a time: what is between data and answers is K² times as large as they are."""
        n, length = data.observed.shape
        size = max(1, _AT_ONCE // max(1, length * len(self.initial) ** 2))
        starts = range(0, max(n, 1), size)
        return torch.cat([evaluate(self._messages(data.some(slice(i, i + size)), i)) for i in starts])

    def _messages(self, data: Sequences, before: int = 0) -> Messages:
        swept = self._swept(data, True, before)
        ratio, error, counts = self._ratio(data)
        flat = is_flat(ratio)
        initial, transition = self._chain
        onward = ratio + swept.future
        if flat.any():
            onward[flat] = flat_messages(transition, ratio[flat])
        tables = (initial, transition, ratio, error, counts, swept.probs, onward, flat, data.lengths)
        return Messages(*[data.exact(table) for table in tables])
