"""Recognises what other libraries fitted, by the module of its class, so that `check` takes it as it is."""

from __future__ import annotations

from typing import Any


def taken_over(model: Any) -> Any:
    """The model behind a fitted estimator of scikit-learn or hmmlearn; anything else as it is.

    Raises:
        TypeError, ValueError: as `from_sklearn` and `from_hmmlearn`.
    """
    libraries = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    if "hmmlearn" in libraries:  # first: its models are estimators of scikit-learn too
        from identkit.adapters.hmm_learn import asked_about

        return asked_about(model)
    if "sklearn" in libraries:
        from identkit.adapters.scikit_learn import from_sklearn

        return from_sklearn(model)
    return model
