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
    prior: Any = None,
    likelihood: Any = None,
    x: Any = None,
    seed: int = 0,
) -> Verdict:
    """Which latents does the likelihood see, which parameters do the data determine? (theory/T1–T3, T6)

    A model with symbols is proved. A network or a function without them is probed, with bounds where its architecture
    allows one.

    Args:
        model: a `Model`, its text, or anything with ``.symbolic()`` such as `GaussianMixture`; or a decoder together
            with `prior` and `likelihood`, a function ``(x, z) → log p(x | z)`` with `prior` and `x`, or a model
            with `prior` and either `decoder` and `likelihood`, or ``log_likelihood(x, z)``. Or what scikit-learn or
            hmmlearn fitted, as `from_sklearn` and `from_hmmlearn` take it (of a hidden Markov model two steps).
        at: values by symbol or name; what is not named is generic (almost every value). In the latent question
            they fix parameters; otherwise they are the point whose fibre is asked for.
        data: observed values by name, numbers or exact constant expressions as text; then the answer is about
            these data alone. Columns of several numbers are rows, each with latents of its own.
        about: "latents" at fixed parameters, "parameters" with the latents integrated out, or "joint"; latents if
            there are any, else parameters.
        pooled: whether the rows of `data` share their latents.
        prior: a torch distribution of one latent, for what is probed.
        likelihood: turns what the decoder returns for n latents into n laws of a datum, a torch distribution.
        x: data, first axis over rows: what a log density is asked about, and the histories of a model of sequences.
        seed: of the sampling in a probe.

    Raises:
        ValueError: for an unknown name, a value outside its domain, or incomplete data; for a decoder whose output is
            not finite, or no function of each latent alone (dropout, batch normalisation).
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
    model = _taken_over(model)
    kind = type(model).__name__
    of_networks = {"prior": prior, "likelihood": likelihood, "x": x}
    if not has_symbols(model):
        of_symbols = {"at": at, "data": data, "pooled": pooled or None}
        _refuse(of_symbols, f"goes with a model that has symbols, got {kind}")
        if about not in (None, "latents"):
            raise ValueError(f"about should be 'latents' for a model without symbols, got {about!r}")
        if callable(getattr(model, "verdict", None)):  # a model of its own kind, which brings its own proof
            _refuse(of_networks, f"goes with a decoder or a density, got {kind}")
            return model.verdict()
        from identkit.numeric.checker import check_numeric

        return check_numeric(model, prior=prior, likelihood=likelihood, x=x, seed=seed)
    _refuse(of_networks, f"goes with a decoder or a density; this {kind} declares its own, and takes data=")
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


def _refuse(arguments: Mapping[str, Any], why: str) -> None:
    for name, given in arguments.items():
        if given is not None:
            raise ValueError(f"{name} {why}")


def _taken_over(model: Any) -> Any:
    """What another library fitted, as a model of ours; texts and models as they are, without a look at adapters."""
    if has_symbols(model):
        return model
    from identkit.adapters.fitted import taken_over

    return taken_over(model)


def has_symbols(model: Any) -> bool:
    """Whether a model is proved about: a text, a `Model`, or an object with ``.symbolic()``."""
    from identkit.model.model import Model

    return isinstance(model, str | Model) or callable(getattr(model, "symbolic", None))


def as_symbolic(model: Any) -> Any:
    """The `Model` behind a text, a `Model`, or an object with ``.symbolic()``."""
    from identkit.model.language import parse
    from identkit.model.model import Model

    if isinstance(model, str):
        return parse(model)
    if isinstance(model, Model):
        return model
    model = _taken_over(model)
    if callable(getattr(model, "symbolic", None)):
        return model.symbolic()
    raise TypeError(
        f"model should be a Model, its text, or have a symbolic() method, got {type(model).__name__}"
    )
