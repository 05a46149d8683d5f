"""`verify`: the checker's verdict beside the exact posterior, and whether the theorem holds on every datum.

Wang, Blei & Cunningham (2021), Theorem 1 (theory/T1): the posterior equals the prior *iff* the likelihood is
constant in the latent. The checker proves one side without ever computing a posterior, the posterior measures the
other without knowing a symbol; `agrees` compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from identkit.model.model import Model
from identkit.model.protocol import ExactModel
from identkit.theorem.declared import verify_declared
from identkit.theorem.rows import Row, TheoremCheck

if TYPE_CHECKING:
    from identkit.lidvae.models import Autoencoder

__all__ = ["Row", "TheoremCheck", "verify"]


def verify(
    model: Model | ExactModel | Autoencoder | str,
    x: Any,
    at: Mapping[Any, Any] | None = None,
    pooled: bool = False,
    *,
    mask: Any = None,
    setting: str = "",
) -> TheoremCheck:
    """Confirm on these data that the posterior equals the prior iff the likelihood ignores the latents (theory/T1).

    A datum agrees when it is CONSTANT and its KL to the prior is zero up to its stated error, or when it is not
    CONSTANT and the KL exceeds that error; and the KL lies in its certified band (theory/T4). A datum that is seen
    but moves the posterior by less than the error is *below precision* (None), provided that an evaluation under
    the prior gives the same KL and ball arithmetic confirms the gap in ℓ; UNKNOWN is None too. All else is False.

    Args:
        model: a declared model, its text, an exact classical model, or a trained one of one member with up to three
            latents: then the verdict on its decoder's law stands beside the true posterior by lattice sums.
        x: data, (n, d) numpy or torch, or a mapping from names to columns; rows are independent draws.
        at: values for the parameters of a declared model, all of them.
        pooled: whether the rows are one data set that shares its latents.
        mask: (n, d), True where x is observed; an exact model whose family takes NaN for a missing value needs none.
        setting: a few words that tell this check from others of the same model.

    Raises:
        ValueError: as `check` and `collapse` do.

    >>> t = verify("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", [[0.3], [2.0]], at={"w": 0})
    >>> t.agrees, t.verdict.level, t.collapse.mean_kl
    (True, <Level.CONSTANT: 'CONSTANT'>, 0.0)
    """
    if not isinstance(model, str | Model):
        from identkit.lidvae.models import Autoencoder

        if isinstance(model, Autoencoder):
            from identkit.theorem.trained import verify_trained

            for argument, given in (("at", at), ("pooled", pooled or None), ("mask", mask)):
                if given is not None:
                    raise ValueError(
                        f"{argument} goes with a model that has symbols, got {type(model).__name__}"
                    )
            return verify_trained(model, x, setting=setting)
    return verify_declared(model, x, at, pooled, mask, setting)
