"""T5, simulation: the information of random bi-Lipschitz decoders lies between its floor and its ceiling.

``I(z; x) = E[log p(x | z) − log p(x)]`` over draws from the model, z ~ N(0, I_K), x ~ N(f(z), σ²I). ``p(x)`` is an
integral over z by the trapezoid rule (K ≤ 2), so that the only error is that of the average; "within its error" means
four standard errors. The maps are identkit's decoders with random weights and the constants m and L they certify, and
scaled isometries, for which floor, ceiling and truth are one number. A simulation confirms; the proof is in
`theory.t5_information`.

The calculator (`identkit.lidvae.information.predicted_kl`). For x = mz + σε per direction, the posterior is N(mx/s,
σ²/s), s = m² + σ², ``KL = ½[σ²/s + m²x²/s² − 1 − log(σ²/s)]``. Its mean over data with E x² = v is
    ``½[σ²/s + m²v/s² − 1 + log(1 + m²/σ²)]``,
at v = s the floor for K = 1. v is the second moment about f(0): data of mean μ add m²μ²/(2s²), so centre them (or the
decoder) first.

Source: conjugate normal model; theory/T5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import sympy
import torch

from identkit.lidvae.information import (
    information_ceiling,
    information_floor,
    lower_lipschitz_for,
    predicted_kl,
)
from identkit.lidvae.orthogonal import Orthogonal
from theory.frame import Checked, draws, tried
from theory.t5_brenier import random_decoder

Decoder = Callable[[torch.Tensor], torch.Tensor]

ERRORS = 4.0
"""Standard errors that an average may be off by: 6e-5 of probability each time, and the seeds are fixed."""


def mutual_information(
    f: Decoder, latents: int, sigma: float, count: int, generator: torch.Generator
) -> tuple[float, float]:
    """Average log p(x | z) − log p(x) over draws; return it with its standard error.

    >>> value, error = mutual_information(lambda z: 2 * z, 1, 1.0, 500, torch.Generator().manual_seed(0))
    >>> abs(value - 0.5 * math.log(5)) < 4 * error
    True
    """
    reach, size = (9.0, 1801) if latents == 1 else (6.0, 101)
    axis = torch.linspace(-reach, reach, size, dtype=torch.float64)
    nodes = torch.cartesian_prod(*[axis] * latents).reshape(-1, latents)
    log_prior = -nodes.square().sum(1) / 2
    log_prior = log_prior - log_prior.logsumexp(0)
    z = torch.randn(count, latents, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        means, images = f(z), f(nodes)
    noise = torch.randn(means.shape, generator=generator, dtype=torch.float64)
    gains = []
    for mean, eps in zip(means.split(200), noise.split(200), strict=True):
        squares = torch.cdist(mean + sigma * eps, images).square()
        log_evidence = (log_prior - squares / (2 * sigma**2)).logsumexp(1)
        gains.append(-eps.square().sum(1) / 2 - log_evidence)
    gain = torch.cat(gains)
    return float(gain.mean()), float(gain.std()) / math.sqrt(count)


def decoders_stay_between(share: float = 1.0, claim: float = 1.0) -> Checked:
    """Random decoders and isometries against floor and ceiling; `claim` multiplies the floor."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for number, rng in enumerate(draws(24, share, "T5 simulation")):
            k, sigma = rng.randint(1, 2), rng.uniform(0.6, 1.6)
            outputs = k + rng.randint(0, 2)
            generator = torch.Generator().manual_seed(rng.randrange(2**31))
            isometry = number % 3 == 0
            if isometry:
                scale = rng.uniform(0.5, 2)
                f = Orthogonal(1, k, outputs, scale=scale, generator=generator).double()
            else:
                f = random_decoder(rng, k, outputs)
            lower, upper = f.lower_lipschitz(), f.upper_lipschitz()
            assert lower is not None
            found, error = mutual_information(f, k, sigma, 2000, generator)
            floor, ceiling = claim * information_floor(lower, sigma, k), information_ceiling(upper, sigma, k)
            met = floor <= found + ERRORS * error and found - ERRORS * error <= ceiling
            met = met and (not isometry or abs(floor - ceiling) < 1e-3)
            yield met, f"K = {k}, D = {outputs}, σ = {sigma}: {floor} ≤ {found} ± {error} ≤ {ceiling}"

    return tried("T5", "random decoders: floor ≤ I(z; x) ≤ ceiling", "simulated", outcomes())


def library_computes_the_floor(share: float = 1.0, claim: int = 2) -> Checked:
    """identkit's floor, ceiling and their inverse against 40 digits, rounded outward; `claim`: the 2 in K/2."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(200, share, "T5 library"):
            m, sigma, k = 10 ** rng.uniform(-6, 3), 10 ** rng.uniform(-2, 1), rng.randint(1, 64)
            exact = (
                sympy.Float(k, 40) / claim * sympy.log(1 + (sympy.Float(m, 40) / sympy.Float(sigma, 40)) ** 2)
            )
            low, high = information_floor(m, sigma, k), information_ceiling(m, sigma, k)
            met = bool(low <= exact <= high) and high - low <= 1e-13 * high
            met = met and abs(lower_lipschitz_for(low, sigma, k) / m - 1) < 1e-9
            yield met, f"m = {m}, σ = {sigma}, K = {k}: {low}, {exact}, {high}"

    return tried("T5", "identkit's floor and ceiling enclose (K/2) log(1 + m²/σ²)", "numeric", outcomes())


def calculator(share: float = 1.0, claim: int = 1) -> Checked:
    """The posterior, its divergence and the average with symbols; identkit's value; `claim` multiplies E x²."""
    m, sigma, v = sympy.symbols("m sigma v", positive=True)
    x, z = sympy.symbols("x z", real=True)
    s = m**2 + sigma**2
    mean, variance = m * x / s, sigma**2 / s
    joint = -(z**2) / 2 - (x - m * z) ** 2 / (2 * sigma**2)
    square = -((z - mean) ** 2) / (2 * variance)
    kl = (variance + mean**2 - 1 - sympy.log(variance)) / 2
    averaged = kl.subs(x, sympy.sqrt(claim * v))
    formula = (sigma**2 / s + m**2 * v / s**2 - 1 + sympy.log(1 + m**2 / sigma**2)) / 2

    def outcomes() -> Iterator[tuple[bool, str]]:
        yield sympy.simplify(sympy.diff(joint - square, z)) == 0, "the posterior"
        yield sympy.simplify(sympy.expand_log(averaged - formula, force=True)) == 0, "the average"
        floor = sympy.log(1 + m**2 / sigma**2) / 2
        yield sympy.simplify(formula.subs(v, s) - floor) == 0, "v = m² + σ²: the floor"
        for rng in draws(50, share, "T5 calculator"):
            numbers = {m: rng.uniform(0, 3), sigma: rng.uniform(0.2, 2), v: rng.uniform(0, 9)}
            found = predicted_kl(numbers[m], numbers[sigma], numbers[v])
            yield abs(found - float(formula.subs(numbers))) < 1e-12, f"{numbers}"

    return tried("T5", "the KL calculator, its floor, and identkit's", "symbolic", outcomes())


def calculator_on_data(share: float = 1.0, claim: float = 1.0) -> Checked:
    """The mean KL over draws of variance v, not the model's own; and what a mean μ adds; `claim` multiplies that."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(20, share, "T5 data"):
            m, sigma, v, mu = (rng.uniform(0.3, 2) for _ in range(4))
            s = m**2 + sigma**2
            # Gauss–Hermite with 40 nodes is exact for the square that the divergence is.
            nodes, weights = np.polynomial.hermite_e.hermegauss(40)
            x = mu + math.sqrt(v) * nodes
            kl = (sigma**2 / s + (m * x / s) ** 2 - 1 - math.log(sigma**2 / s)) / 2
            average = float(kl @ weights) / math.sqrt(2 * math.pi)
            wanted = predicted_kl(m, sigma, v) + claim * m**2 * mu**2 / (2 * s**2)
            yield abs(average - wanted) < 1e-10, f"m = {m}, σ = {sigma}, v = {v}, μ = {mu}"

    return tried("T5", "data off centre add m²μ²/(2s²)", "numeric", outcomes())


CHECKS = (decoders_stay_between, library_computes_the_floor, calculator, calculator_on_data)
