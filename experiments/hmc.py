# pyright: reportMissingImports=false
"""A long run of another library's sampler beside our quadrature: means, spreads and E ℓ under the posterior.

    python -m experiments.hmc

NumPyro's NUTS (Hamiltonian Monte Carlo; Hoffman & Gelman 2014) draws from the posteriors of three models that are written
here once more, by hand, in JAX. It is no dependency of identkit's: `pip install numpyro` first. A test holds quadrature to
these figures within their Monte Carlo errors, which come from NumPyro's effective sample sizes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from experiments.provenance import provenance
from experiments.record import RESULTS
from identkit.lidvae.checkpoints import write_json

CHAINS, WARMUP, DRAWS = 4, 2_000, 50_000

DESIGN = ((1.0, 0.5), (0.2, -1.5), (-1.0, 0.3), (0.6, 2.0), (-0.4, -0.7), (1.5, -2.0))
LABELS = (1, 1, 0, 1, 0, 0)
MODELS: dict[str, tuple[str, list[float]]] = {
    "banana": ("z[2] ~ Normal(0, 1); observe x ~ Normal(z[1] + z[2]^2, 1/2)", [0.7]),
    "logistic": (
        "w[2] ~ Normal(0, 1); "
        + "; ".join(
            f"observe y[{i}] ~ Bernoulli(sigmoid({u}*w[1] + {v}*w[2]))" for i, (u, v) in enumerate(DESIGN, 1)
        ),
        [float(label) for label in LABELS],
    ),
    "counts": (
        "z[3] ~ Normal(0, 1); observe x ~ Poisson(exp(z[1] + z[2]*z[3]/2)); observe y ~ Poisson(exp(z[2]))",
        [4.0, 2.0],
    ),
}
"""Name → the model in text, and its datum."""


def log_likelihoods() -> dict[str, Callable[[Any], Any]]:
    """ℓ(z) of the same models and data, written again in JAX."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.stats import norm, poisson

    design, signs = jnp.array(DESIGN), 2 * jnp.array(LABELS) - 1

    def logistic(z: Any) -> Any:
        return jax.nn.log_sigmoid(signs * (design @ z)).sum()

    return {
        "banana": lambda z: norm.logpdf(0.7, z[0] + z[1] ** 2, 0.5),
        "logistic": logistic,
        "counts": lambda z: (
            poisson.logpmf(4, jnp.exp(z[0] + z[1] * z[2] / 2)) + poisson.logpmf(2, jnp.exp(z[1]))
        ),
    }


def sampled(log_likelihood: Callable[[Any], Any], latents: int) -> dict[str, Any]:
    """Posterior means and standard deviations, and E ℓ, with the Monte Carlo errors of the means."""
    import jax
    import numpy as np
    from numpyro.diagnostics import effective_sample_size
    from numpyro.infer import MCMC, NUTS

    def energy(z: Any) -> Any:
        return 0.5 * (z**2).sum() - log_likelihood(z)

    kernel = NUTS(potential_fn=energy, target_accept_prob=0.95)
    chains = MCMC(
        kernel,
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    chains.run(
        jax.random.PRNGKey(0), init_params=0.1 * jax.random.normal(jax.random.PRNGKey(1), (CHAINS, latents))
    )
    draws = np.asarray(chains.get_samples(group_by_chain=True))
    heights = np.asarray(jax.vmap(jax.vmap(log_likelihood))(draws))[..., None]

    def mean(values: Any) -> dict[str, list[float]]:
        flat = values.reshape(-1, values.shape[-1])
        error = flat.std(0) / np.sqrt(np.asarray(effective_sample_size(values)))
        return {"mean": flat.mean(0).tolist(), "error": error.tolist()}

    return {"first": mean(draws), "square": mean(draws**2), "height": mean(heights)}


def main() -> None:
    """Sample, and write the result."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import numpyro

    jax.config.update("jax_enable_x64", True)
    found = {
        name: sampled(log_likelihood, 3 if name == "counts" else 2)
        for name, log_likelihood in log_likelihoods().items()
    }
    facts = {"numpyro": numpyro.__version__, "chains": CHAINS, "warmup": WARMUP, "draws_of_each": DRAWS}
    write_json(RESULTS / "hmc.json", {**provenance("python -m experiments.hmc"), **facts, "models": found})


if __name__ == "__main__":
    main()
