"""Fitted estimators of scikit-learn, by their attributes: scikit-learn itself is never imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from identkit.adapters.topics import TopicModel
from identkit.classical.gaussian_mixture import GaussianMixture
from identkit.classical.linear_gaussian import PPCA, FactorAnalysis

_TAKEN: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "FactorAnalysis": ("components_", FactorAnalysis.from_sklearn),
    "GaussianMixture": ("means_", GaussianMixture.from_sklearn),
    "LatentDirichletAllocation": (
        "components_",
        lambda fitted: TopicModel(fitted.components_, fitted.doc_topic_prior_),
    ),
    "PCA": ("components_", PPCA.from_sklearn),
}
"""An estimator's class: what it has once it is fitted, and how it is taken over."""


def from_sklearn(fitted: Any) -> Any:
    """Take over a fitted `FactorAnalysis`, `PCA`, `GaussianMixture` or `LatentDirichletAllocation`.

    Args:
        fitted: the estimator after its `fit`, or an estimator of a class that inherits from one of these.

    Returns:
        a `FactorAnalysis`, a `PPCA` of the same covariance (Tipping & Bishop 1999), a `GaussianMixture`, or
        a `TopicModel`: all at the fitted parameters, without their uncertainty.

    Raises:
        TypeError: another class, such as `BayesianGaussianMixture`, whose parameters are not fitted numbers.
        ValueError: it is not fitted; a PCA that leaves nothing to the noise; topics that are none.

    >>> from sklearn.decomposition import PCA
    >>> fitted = PCA(1).fit([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> from_sklearn(fitted).symbolic().name
    'PPCA'
    """
    kinds = [kind.__name__ for kind in type(fitted).__mro__ if kind.__module__.startswith("sklearn.")]
    known = next((kind for kind in kinds if kind in _TAKEN), None)
    if known is None:
        raise TypeError(
            f"fitted should be a {', '.join(_TAKEN)} of scikit-learn, got {type(fitted).__name__}: "
            "for other models give the decoder with prior= and likelihood="
        )
    attribute, taken_over = _TAKEN[known]
    if not hasattr(fitted, attribute):
        raise ValueError(f"fitted should be fitted: this {known} has no {attribute}; call its fit first")
    return taken_over(fitted)
