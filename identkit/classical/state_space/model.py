"""The linear-Gaussian state space: the exact law of the whole state path given the data, and what the data said of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import MultivariateNormal

from identkit.classical.arrays import real, unfilled
from identkit.classical.em import Convergence
from identkit.classical.linear_gaussian import FactorAnalysis
from identkit.classical.state_space import information, kalman
from identkit.classical.state_space.chain import Chain, timed, varying
from identkit.classical.state_space.data import Seen, conditioning, covariance, matrix
from identkit.classical.state_space.declared import declare
from identkit.classical.state_space.flatness import path_flatness
from identkit.classical.state_space.information import Roundings
from identkit.classical.state_space.kalman import Border, Smoothed
from identkit.classical.state_space.kalman_scan import Array, diagonal
from identkit.classical.state_space.modes import Unobservable, unobservable
from identkit.classical.state_space.noises import of_noises
from identkit.classical.state_space.path import GaussianPath, as_paths, joined
from identkit.model.compiled.data import number_of_draws
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness

_DENSE_PRIOR = 2000


@dataclass(frozen=True, eq=False, init=False, repr=False)
class StateSpace(Chain):
    """A linear-Gaussian state space, whose latents are the states z_1, …, z_T of each sequence.

    ``z_1 ~ N(m, P)``, ``z_t = F z_{t−1} + b + N(0, Q)``, ``x_t = H z_t + d + N(0, R)``. The posterior of the path is a
    Gaussian chain again; with w_t the standardised process noise, ``z_t = F z_{t−1} + b + G w_t`` and ``GGᵀ = Q``,

        KL(path) = ½ Σ_t [tr h(E_t) + tr(K_t S_{t−1} K_tᵀ) + |E[w_t | x]|²],   h(E) = log(I + E) − E(I + E)⁻¹,

    a sum of non-negative terms of which each is exactly 0 where the data say nothing (`kalman.py`).
    An element of x that is NaN is missing.

    Source: Kalman 1960; Rauch, Tung & Striebel 1965; Fraser & Potter 1969; `theory/T1`, `theory/T3`, `theory/T4`.

    Args:
        transition: F, (k, k), or (T, k, k), of which entry t leads into z_t; the first leads nowhere.
        observation: H, (p, k), or (T, p, k).
        process_covariance: Q, (k, k), or (T, k, k) as F; positive semidefinite, for a state may be a shifted or
            deterministic one. Only the density of a path and `kl_conditional` need a positive definite Q and P.
        noise_covariance: R, (p, p), or (T, p, p); positive definite, for without noise ℓ would be a point mass.
        initial_mean: m, (k,).
        initial_covariance: P, (k, k), positive semidefinite.
        transition_offset: b, (k,), or (T, k).
        observation_offset: d, (p,), or (T, p).
        length: T, if every sequence has the same: then a sequence may be given as a row of T·p numbers, ordered
            x[1,1], …, x[1,p], x[2,1], …, and prior, names, `sample` and `mutual_information` exist. Without it, a
            table (T, p) is one sequence.

    Raises:
        ValueError, TypeError: a wrong shape, NaN in a parameter, a covariance that is asymmetric or not positive
            (semi)definite, times that differ in number.

    >>> model = StateSpace([[1.0]], [[1.0]], [[0.0]], [[1.0]], [0.0], [[1.0]], length=2)
    >>> posterior = model.posterior([[3.0, 3.0]])
    >>> posterior.mean[0, :, 0].round(decimals=6), posterior.variance[0, :, 0]
    (tensor([2., 2.], dtype=torch.float64), tensor([0.3333, 0.3333], dtype=torch.float64))
    >>> model.kl_to_prior([[3.0, 3.0], [float("nan"), float("nan")]])
    tensor([2.2160, 0.0000], dtype=torch.float64)
    """

    takes_missing: ClassVar[bool] = True

    transition: Float[Tensor, "*t k k"]
    observation: Float[Tensor, "*t p k"]
    process_covariance: Float[Tensor, "*t k k"]
    noise_covariance: Float[Tensor, "*t p p"]
    initial_mean: Float[Tensor, " k"]
    initial_covariance: Float[Tensor, "k k"]
    transition_offset: Float[Tensor, "*t k"]
    observation_offset: Float[Tensor, "*t p"]
    length: int | None
    convergence: Convergence | None

    def __init__(
        self,
        transition: Any,
        observation: Any,
        process_covariance: Any,
        noise_covariance: Any,
        initial_mean: Any,
        initial_covariance: Any,
        transition_offset: Any = None,
        observation_offset: Any = None,
        *,
        length: int | None = None,
    ) -> None:
        initial_mean = real(initial_mean, "initial_mean")
        if initial_mean.ndim != 1 or len(initial_mean) == 0:
            raise ValueError(f"initial_mean should have shape (any,), got {tuple(initial_mean.shape)}")
        k, device = len(initial_mean), initial_mean.device
        observation = matrix(observation, "observation", None, k)
        p = observation.shape[-2]
        start = covariance(initial_covariance, "initial_covariance", k, singular=True)
        if start.ndim != 2:
            raise ValueError(f"initial_covariance should have shape ({k}, {k}), got {tuple(start.shape)}")
        values = {
            "transition": matrix(transition, "transition", k, k),
            "observation": observation,
            "process_covariance": covariance(process_covariance, "process_covariance", k, singular=True),
            "noise_covariance": covariance(noise_covariance, "noise_covariance", p, singular=False),
            "initial_mean": initial_mean,
            "initial_covariance": start,
            "transition_offset": matrix(
                torch.zeros(k) if transition_offset is None else transition_offset, "transition_offset", k
            ),
            "observation_offset": matrix(
                torch.zeros(p) if observation_offset is None else observation_offset, "observation_offset", p
            ),
        }
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
            raise ValueError(f"length should be a whole number from 1 on, or None, got {length!r}")
        times = {name: len(values[name]) for name in varying(values)}
        if len({*times.values(), *([length] if length else [])}) > 1:
            stated = f"length={length} and " if length else ""
            raise ValueError(
                f"matrices that vary in time should all have one for each time, got {stated}{times}"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value.to(device))
        object.__setattr__(self, "length", length)
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(
        cls,
        x: Any,
        state_dim: int | None = None,
        *,
        start: StateSpace | None = None,
        restarts: int = 4,
        tolerance: float = 1e-6,
        iterations: int = 1000,
        seed: int = 0,
        length: int | None = None,
    ) -> StateSpace:
        """Fit a time-invariant model by EM, and to the top by L-BFGS; P = Q where there are no more sequences than states.

        See `identkit.classical.state_space.fit` for what is estimated and how, and why P cannot be.

        Args:
            x: sequences as `posterior` takes them; NaN is missing.
            state_dim: k, where no start is given.
            start: a model to climb from, instead of random ones.
            restarts: how many random starts.
            tolerance: converged where less is left to gain, in nats.
            iterations: at most, from each start.
            seed: of the random starts.
            length: T, where x is given in rows.

        Raises:
            ValueError, TypeError: as the constructor, and where x has no observation.

        >>> import warnings
        >>> x = StateSpace([[0.9]], [[1.0]], [[0.2]], [[0.5]], [0.0], [[1.0]], length=100).sample(5)[0]
        >>> fitted = StateSpace.fit(x, 1, restarts=1, tolerance=0.01, length=100)
        >>> fitted.convergence.converged
        True
        """
        from identkit.classical.state_space.fit import fit

        return fit(x, state_dim, start, restarts, tolerance, iterations, seed, length)

    def of_length(self, length: int | None) -> StateSpace:
        """Give the same model for sequences of another declared length."""
        tensors = {name: value for name, value in self._tensors().items()}
        other = StateSpace(**tensors, length=length)
        object.__setattr__(other, "convergence", self.convergence)
        return other

    @property
    def prior(self) -> MultivariateNormal:
        """The law of a whole path, the row z[1,1], …, z[1,k], z[2,1], …, as one dense normal law.

        Raises:
            ValueError: no length is declared; T·k exceeds 2,000 (`path_prior` has no such limit); or the path has no
                density, for a process or initial covariance is singular.
        """
        length, k = self._declared, len(self.initial_mean)
        if length * k > _DENSE_PRIOR:
            raise ValueError(
                f"prior should be asked of at most {_DENSE_PRIOR} states as one dense law, got {length * k}; "
                "path_prior(length) is the same law at any length"
            )
        self._refuse_singular(length, "prior")
        forward, root, mean = self._steps(length)
        # z = m + L w with L block lower triangular: its rows follow the states' own recursion.
        lower = torch.zeros(length, k, length * k, dtype=torch.float64, device=self.initial_mean.device)
        forward, root = self._tensor(forward), self._tensor(root)
        for t in range(length):
            if t:
                lower[t] = forward[t] @ lower[t - 1]
            lower[t, :, t * k : (t + 1) * k] = root[t]
        return MultivariateNormal(
            self._tensor(mean).reshape(-1), scale_tril=lower.reshape(length * k, length * k)
        )

    def path_prior(self, length: int | None = None) -> GaussianPath:
        """Give the prior law of one path of any length, as `posterior` gives it where everything is missing."""
        steps = self._length(length)
        x = torch.full((1, steps, self._p), math.nan, dtype=torch.float64, device=self.initial_mean.device)
        return self.of_length(None).posterior(x)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """``z[1,1] … z[1,k], z[2,1] … z[T,k]``: state i at time t is z[t,i]."""
        k = range(1, len(self.initial_mean) + 1)
        return tuple(f"z[{t + 1},{i}]" for t in range(self._declared) for i in k)

    @property
    def pooled(self) -> bool:
        """Each sequence has a path of its own."""
        return False

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log p(x | z)`` of whole sequences in nats.

        Args:
            x: sequences.
            z: paths, (…, n, T, k) or (…, n, T·k).
        """
        here, values, observed = self._taken(x)
        shape = torch.Size([*values.shape[:2], len(self.initial_mean)])
        path = as_paths(real(z, "z").to(values.device), shape, "z")
        seen = here._seen(values, observed)
        apart = path - here._tensor(here._prior_mean(range(values.shape[1])))
        residuals, design = here._tensor(seen.residuals), here._tensor(seen.design)
        expected = apart @ design.mT if seen.constant else (design @ apart[..., None])[..., 0]
        constant = here._tensor(information.log_constant(seen))
        return (-(residuals - expected).square().sum((-1, -2)) / 2 - constant).to(values.dtype)

    def posterior(self, x: Any) -> GaussianPath:
        """Give the law of the state paths: means, covariances, lag-one covariances, `log_prob`, `sample`, `marginal`.

        Args:
            x: sequences (n, T, p), one (T, p), or rows (n, T·p) of a declared length; NaN is missing.
        """
        here, values, observed = self._taken(x)
        n, length = values.shape[:2]
        k = len(here.initial_mean)
        shared = here._shared(observed)
        mean = unfilled(values, n, length, k)
        tables = [
            unfilled(values, 1 if shared else n, length, k, k)
            for _ in range(0 if here._alike(observed) else 3)
        ]
        rows: list[tuple[Array, ...]] = []  # of matrices, where one serves many steps
        repeats: list[Array | None] = []
        # Few matrices beside those that are handed out: ten thousand steps in eight dimensions are one piece.
        for (block, now), found, smoothed in here._posteriors(values, observed, matrices=4):
            here._raw(mean)[block, now] = found
            if shared and block.start > 0:
                continue
            chosen = (smoothed.closed, smoothed.root, smoothed.covariance)
            for table, matrices in zip(tables, chosen, strict=False):
                here._raw(table)[block, now] = smoothed.full(matrices)
            if not tables:
                rows.append(chosen)
                repeats.append(smoothed.repeats)
        if rows:
            columns = ([here._tensor(table) for table in column] for column in zip(*rows, strict=True))
            tables = [torch.cat(column, 1).to(values.dtype) for column in columns]
        return GaussianPath(mean, *tables, repeats=joined([len(row[0][0]) for row in rows], repeats))

    def filtered(self, x: Any) -> tuple[Float[Tensor, "n t k"], Float[Tensor, "n t k k"]]:
        """Give means and covariances of each state given the data up to its time, by Kalman's own recursion.

        Args:
            x: sequences.
        """
        here, values, observed = self._taken(x)
        n, length = values.shape[:2]
        k = len(here.initial_mean)
        mean = unfilled(values, n, length, k)
        spread = unfilled(values, 1 if here._shared(observed) else n, length, k, k)
        for block in here._blocks(values, observed, tables=True, matrices=4):
            state = prior = None
            for times, make in block.pieces:
                seen, now = make(), slice(times.start, times.stop)
                prior = here._prior_mean(times, None if prior is None else prior[-1])
                design = timed(seen.design, len(times), block.apart)
                found = kalman.filter_forward(*here._forward(times), design, seen.residuals, state)
                state = Border(found[1][:, -1] + 0.0, found[0][:, -1] + 0.0)
                mean[block.rows, now] = here._tensor(found[0] + prior)
                if len(spread) > 1 or block.rows.start == 0:
                    spread[block.rows, now] = here._tensor(found[1])
        return mean, spread.expand(n, *spread.shape[1:])

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x)`` in nats.

        ``−½[Σ_t log det(I + E_t) + |r − Wμ|² + Σ_t |E[w_t | x]|²] − Σ log sd − (N/2) log 2π`` over the N numbers
        observed, whose noise is divided out in r and W.
        """
        return self._summed(x, information.log_evidence)

    def kl_to_prior(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate the KL of the whole path, in nats: exactly 0 where H is, or where everything is missing."""
        return self._summed(x, lambda _, smoothed: information.joint_kl(smoothed))

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate ``KL(p(z[t,i] | x) ‖ p(z[t,i])) = ½[h(c) + shift²/P_ii]``, ``c = (P − S)_ii/S_ii``, shape (n, T·k).

        Where the data say little, ``∆ = P − S`` is no difference of P and S, but follows ``∆_t = F∆Fᵀ + ΓSΦᵀ + ΦSΓᵀ + ΓSΓᵀ +
        G E(I + E)⁻¹Gᵀ`` with Γ = GK, every term of which is of the order of the data's information. A state that
        is certain a priori has 0.
        """
        here = self._taken(x)[0]

        def begun(left: int) -> Callable[[range, Seen, Smoothed], Array]:
            marginals = information.Marginals(left == 0)
            return lambda times, _, smoothed: marginals(here._forward(times)[0], smoothed)

        return self._table(x, begun)

    def kl_conditional(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate ``E_Q KL(q(z[t,i] | rest, x) ‖ p(z[t,i] | rest))`` in nats, shape (n, T·k): 0 iff ℓ ignores z[t,i].

        With Λ the prior's precision, ``a = A_jj/Λ_jj`` and γ = ∇ℓ at the posterior mean it is ``½[h(a) + γ_j²/Λ_jj +
        v_j/Λ_jj]``, ``v_j = (A S A)_jj − A_jj²/(Λ_jj + A_jj) = (Λ S Λ)_jj − Λ_jj²/(Λ_jj + A_jj)``; the first form
        where a ≤ 1, the second, from the noises w, where the data outweigh the prior.

        Raises:
            ValueError: Q or P is singular: given the rest, a state is then determined, by the prior alone.
        """
        here, values, _ = self._taken(x)
        here._refuse_singular(values.shape[1], "kl_conditional")

        def measure(times: range, seen: Seen, smoothed: Smoothed) -> Array:
            steps = seen.residuals.shape[1]  # one more than times, where there is one
            forward = here._forward(range(times.start, times.start + steps))[0]
            return information.conditional_kl(forward, timed(seen.design, steps), seen, smoothed)

        return self._table(x, lambda _: measure, halo=1)

    def kl_error(self, x: Any) -> Float[Tensor, " n"]:
        """Bound the absolute error of the three informations, in nats; positive.

        Each step is backward stable: exact for matrices that differ by a few roundings of their entries, in units of
        their own diagonal. (i) In the order of positive semidefinite matrices that is a relative change δ of the
        information Y = BΣBᵀ (Σ the prior's covariance, B the whitened H): ε times dimension, length and the growth
        g²/diag E, ``g = |G|ᵀ√diag B_t``, that cancellation within a step can cause. It moves each KL by at most 3δ
        times the joint one, which bounds the others. (ii) Where one direction is seen far better than another,
        ``|∆E_ij| ≤ ε g_i g_j`` is not small beside what is seen of the other: that moves tr h(E_t) by
        ``ε g·diag[(I + E)⁻¹E(I + E)⁻¹]g`` and the rest of the KL by the fraction ``ε g·diag[(I + E)⁻¹]g`` over the
        least eigenvalue of I + E scaled to a unit diagonal. (iii) Residuals r are right to η = ε(|x| + |Hm| + |d|)/sd,
        which moves E[w | x] = Σ^½Bᵀ(I + Y)⁻¹r by at most η·min(½, √‖Y‖). (iv) A state that is known far better than
        the noises it is made of has its variance in units of their terms. (v) The factor of R is that of a matrix
        within (p + 1)ε of its diagonal (Higham 2002, Theorem 10.3): a relative change of R, and so of Y, by
        p(p + 1)ε over the least eigenvalue of its correlations. First order in ε; the reading of decimals is covered
        too.
        """
        here, values, observed = self._taken(x)
        n, length, p = values.shape
        answer = torch.empty(n, dtype=torch.float64, device=values.device)
        noise = conditioning(self.noise_covariance)
        for rows, pieces in here._pieces(values, observed, tables=False):
            found = reduce(Roundings.plus, (Roundings.of(seen, smoothed) for _, seen, smoothed in pieces))
            answer[rows] = here._tensor(found.bound(length, len(self.initial_mean), p, noise))
        return answer

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(z_1…z_T; x) = ½[log det Cov(x) − Σ log det R] = ½ Σ_t log det(I + E_t)`` in nats.

        Of one sequence of the declared length with nothing missing.

        Raises:
            ValueError: no length is declared.
        """
        length = self._declared
        values = torch.zeros(1, 1, self._p, dtype=torch.float64, device=self.initial_mean.device)
        values = values.expand(1, length, self._p)
        value, error, noise = 0.0, 0.0, conditioning(self.noise_covariance)
        for _, _, smoothed in next(self._pieces(values, values == 0, tables=False))[1]:
            value += float(information.log_volume(smoothed)[0]) / 2
            error += float(information.information_error(smoothed, length, self._p, noise)[0]) / 2
        return Estimate(value=value, error=error, method="closed form")

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ℓ under the prior; see `path_flatness` for the forms and their cost."""
        here, values, observed = self._taken(x)
        return path_flatness(here, values, observed)

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Give the posterior mean and standard deviation of each state, (n, T·k)."""
        here, values, observed = self._taken(x)
        shape = (*values.shape[:2], len(here.initial_mean))
        mean, sd = unfilled(values, *shape), unfilled(values, *shape)
        for place, found, smoothed in here._posteriors(values, observed, matrices=12):
            mean[place] = here._tensor(found)
            variance = here._tensor(diagonal(smoothed.covariance))
            sd[place] = here._tensor(smoothed.full(variance.clamp(min=0.0).sqrt()))
        return _flat(mean), _flat(sd)

    def unobservable(self, length: int | None = None) -> Unobservable:
        """Give the directions of the state that no observation ever sees, the null space of [H; HF; HF²; …].

        The posterior equals the prior along them given the rest, always; as marginals only if they are a priori
        independent of the rest, which `Unobservable.collapsed` states (theory/T3).

        Source: Kalman 1963 (observability); `theory/T2`, `theory/T3`.

        Args:
            length: the number of times, where the model is time-invariant and has none.
        """
        steps = self._length(
            length if length or self._time else self.length or 2 * len(self.initial_mean) + 2
        )
        forward, root, _ = self._steps(steps)
        seen = timed(self._raw(self.observation), steps)
        forward, root, seen = (self._tensor(table) for table in (forward, root, seen))
        return unobservable(forward, root, seen, self._time is None)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Draw n sequences of the declared length and their paths, in rows ``(x, z)`` of (n, T·p) and (n, T·k)."""
        n = number_of_draws(n, generator)
        length, like = self._declared, self.initial_mean
        z = self.path_prior(length).sample((n,), generator)[:, 0]
        noise = torch.randn(n, length, self._p, dtype=like.dtype, device=like.device, generator=generator)
        half = torch.linalg.cholesky(self.noise_covariance)
        x = (self.observation @ z[..., None] + half @ noise[..., None])[..., 0] + self.observation_offset
        return x.reshape(n, length * self._p), z.reshape(n, length * z.shape[-1])

    def symbolic(self) -> Model:
        """Give the model of the declared length in SymPy, ``z[t] ~ MvNormal(F z[t−1] + b, Q)``, in exact rationals.

        Diagonal covariances become independent `Normal`s. For short lengths: it declares T·k latents.

        Raises:
            ValueError: no length is declared, or Q or P is singular: the notation's latents have densities.
        """
        length = self._declared
        self._refuse_singular(length, "symbolic()")
        return declare(**self._tensors(), length=length)

    def of_noises(self) -> FactorAnalysis:
        """Give the model of the declared length whose latents are the standardised noises w of the states.

        The path is a function of them, so evidence, joint KL and mutual information are the same; and they have a
        density where Q or P is singular, which `verify` and `check` need. R has to be diagonal; coordinates of w that
        move no state are left out.

        >>> model = StateSpace([[1.0, 1.0], [0.0, 1.0]], [[1.0, 0.0]], [[0, 0], [0, 1.0]], [[1.0]],
        ...                    [0.0, 0.0], [[0, 0], [0, 1.0]], length=3)
        >>> x = [[0.1, 1.0, 2.5]]
        >>> model.kl_to_prior(x), model.of_noises().kl_to_prior(x)
        (tensor([0.9928], dtype=torch.float64), tensor([0.9928], dtype=torch.float64))
        """
        return of_noises(self)


def _flat(states: Array) -> Array:
    """(n, T, k) as (n, T·k)."""
    n, length, k = states.shape
    return states.reshape(n, length * k)
