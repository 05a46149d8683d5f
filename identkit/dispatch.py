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
    about: str | None = None,
    pooled: bool = False,
) -> Verdict:
    """Which latents does the likelihood see, which parameters do the data determine? (theory/T1–T3, T6)

    Args:
        model: a `Model`, its text, or anything with ``.symbolic()`` such as `GaussianMixture`.
        at: values by symbol or name; what is not named is generic (almost every value). In the latent question
            they fix parameters; otherwise they are the point whose fibre is asked for.
        data: observed values by name, numbers or exact constant expressions as text; then the answer is about
            these data alone. Columns of several numbers are rows, each with latents of its own.
        about: "latents" at fixed parameters, "parameters" with the latents integrated out, or "joint"; latents if
            there are any, else parameters.
        pooled: whether the rows of `data` share their latents.

    Raises:
        ValueError: for an unknown name, a value outside its domain, or incomplete data.
        TypeError: for something that is not a model.

    >>> check("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", at={"w": 0}).latents
    {'z': <Level.CONSTANT: 'CONSTANT'>}
    """
    if about not in (None, "latents", "parameters", "joint"):
        raise ValueError(f"about should be 'latents', 'parameters' or 'joint', got {about!r}")
    for argument, values in (("at", at), ("data", data)):
        if values is not None and not isinstance(values, Mapping):
            raise TypeError(
                f"{argument} should be a mapping from names to values, got {type(values).__name__}"
            )
    model = as_symbolic(model)
    about = about or ("latents" if model.latents else "parameters")
    if data is not None and about != "latents":
        raise ValueError(
            f"data goes with about='latents', got about={about!r}: parameters are asked about in law"
        )
    if data is not None:
        from identkit.symbolic.on_data import check_data

        return check_data(model, data, at=at, pooled=pooled)
    if pooled:
        raise ValueError("pooled=True needs data: it says that the rows share their latents")
    if about != "latents":
        from identkit.symbolic.parameters import check_fibre

        return check_fibre(model, about, at=at)
    from identkit.symbolic.checker import check_latents

    return check_latents(model, at=at)


def remedies(model: Any, verdict: Verdict, seconds: float = 20.0) -> list[dict[str, str]]:
    """Constraints that make more identifiable, each re-checked on the constrained model.

    Args:
        model: the model that was checked, as `check` takes it.
        verdict: what `check` said about it.
        seconds: time allowed.

    Returns:
        the best first, each with the keys ``constraint`` and ``level``.

    >>> remedies("observe x ~ Normal(a + b, 1)", check("observe x ~ Normal(a + b, 1)"))[0]
    {'constraint': 'a = 0', 'level': 'GLOBAL'}
    """
    from identkit.symbolic.remedy import remedies as search

    return search(as_symbolic(model), verdict, seconds)


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
    raise TypeError(
        f"model should be a Model, its text, or have a symbolic() method, got {type(model).__name__}"
    )
