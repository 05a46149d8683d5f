"""`check`: one verb for every kind of model. Models with symbols are proved; each engine is imported when needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from identkit.verdict import Verdict


def check(
    model: Any,
    *,
    at: Mapping[Any, Any] | None = None,
    data: Mapping[Any, Any] | None = None,
    about: str = "latents",
    pooled: bool = False,
) -> Verdict:
    """Which latents does the likelihood see? (theory/T1–T3)

    Args:
        model: a `Model`, its text, or anything with ``.symbolic()`` such as `GaussianMixture`.
        at: values of parameters, by symbol or name; those not named are generic (almost every value).
        data: observed values by name, numbers or exact constant expressions as text; then the answer is about
            these data alone. Columns of several numbers are rows, each with latents of its own.
        about: "latents".
        pooled: whether the rows of `data` share their latents.

    Raises:
        ValueError: for an unknown name, a value outside its domain, or incomplete data.
        TypeError: for something that is not a model.

    >>> check("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", at={"w": 0}).latents
    {'z': <Level.CONSTANT: 'CONSTANT'>}
    """
    if about != "latents":
        raise ValueError(f"about should be 'latents', got {about!r}")
    model = as_symbolic(model)
    if data is not None:
        from identkit.symbolic.on_data import check_data

        return check_data(model, data, at=at, pooled=pooled)
    if pooled:
        raise ValueError("pooled=True needs data: it says that the rows share their latents")
    from identkit.symbolic.checker import check_latents

    return check_latents(model, at=at)


def as_symbolic(model: Any) -> Any:
    """The `Model` behind a text, a `Model`, or an object with ``.symbolic()``."""
    from identkit.model.language import parse
    from identkit.model.model import Model

    if isinstance(model, str):
        return parse(model)
    if isinstance(model, Model):
        return model
    if callable(getattr(model, "symbolic", None)):
        return model.symbolic()
    raise TypeError(f"model should be a Model, its text, or have a symbolic() method, got {type(model).__name__}")
