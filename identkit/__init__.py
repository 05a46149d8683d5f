"""Which latents of a generative model can the data see, and which does the posterior hand back as the prior?

The public names load on first use, so that `import identkit` needs neither torch nor sympy.

>>> import identkit as ik
>>> {"check", "collapse", "verify"} <= set(dir(ik))
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    # What type checkers and editors see; tests/test_imports.py holds it equal to the table below.
    from identkit import plot as plot, zoo as zoo
    from identkit.adapters.hmm_learn import from_hmmlearn as from_hmmlearn
    from identkit.adapters.pymc_model import from_pymc as from_pymc
    from identkit.adapters.pyro_program import from_pyro as from_pyro
    from identkit.adapters.scikit_learn import from_sklearn as from_sklearn
    from identkit.classical.conjugate import (
        BetaBinomial as BetaBinomial,
        DirichletMultinomial as DirichletMultinomial,
        GammaExponential as GammaExponential,
        GammaPoisson as GammaPoisson,
        NormalInverseGamma as NormalInverseGamma,
        NormalNormal as NormalNormal,
    )
    from identkit.classical.gaussian_mixture import GaussianMixture as GaussianMixture
    from identkit.classical.hidden_markov import (
        CategoricalEmission as CategoricalEmission,
        GaussianEmission as GaussianEmission,
        HiddenMarkov as HiddenMarkov,
        PoissonEmission as PoissonEmission,
    )
    from identkit.classical.hierarchical_normal import HierarchicalNormal as HierarchicalNormal
    from identkit.classical.item_response import ItemResponse as ItemResponse
    from identkit.classical.linear_gaussian import (
        PPCA as PPCA,
        BayesianLinearRegression as BayesianLinearRegression,
        FactorAnalysis as FactorAnalysis,
    )
    from identkit.classical.mixture_weight import MixtureWeight as MixtureWeight
    from identkit.classical.mixtures import (
        FamilyMixture as FamilyMixture,
        LatentClass as LatentClass,
    )
    from identkit.classical.state_space import StateSpace as StateSpace
    from identkit.diagnosis import Diagnosis as Diagnosis, diagnose as diagnose
    from identkit.dispatch import check as check, remedies as remedies
    from identkit.lidvae.models import (
        GMVAE as GMVAE,
        LIDMVAE as LIDMVAE,
        LIDSVAE as LIDSVAE,
        LIDVAE as LIDVAE,
        VAE as VAE,
        SequenceVAE as SequenceVAE,
    )
    from identkit.lidvae.training import fit as fit
    from identkit.model.compiled import compiled as compiled
    from identkit.model.families import (
        Bernoulli as Bernoulli,
        Beta as Beta,
        Binomial as Binomial,
        Categorical as Categorical,
        Cauchy as Cauchy,
        Dirichlet as Dirichlet,
        Exponential as Exponential,
        Gamma as Gamma,
        Geometric as Geometric,
        InverseGamma as InverseGamma,
        Laplace as Laplace,
        LogNormal as LogNormal,
        Mixture as Mixture,
        Multinomial as Multinomial,
        MvNormal as MvNormal,
        NegativeBinomial as NegativeBinomial,
        Normal as Normal,
        Poisson as Poisson,
        StudentT as StudentT,
        Uniform as Uniform,
        select as select,
    )
    from identkit.model.language import parse as parse
    from identkit.model.model import Model as Model
    from identkit.posterior.information import Collapse as Collapse, collapse as collapse
    from identkit.theorem import TheoremCheck as TheoremCheck, verify as verify
    from identkit.verdict import (
        Certificate as Certificate,
        Invariance as Invariance,
        Level as Level,
        Verdict as Verdict,
    )
else:
    from importlib import import_module

    _SUBMODULES = ("plot", "zoo")
    _NAMES = {
        "identkit.verdict": ("Certificate", "Invariance", "Level", "Verdict"),
        "identkit.model.families": (
            *("Bernoulli", "Beta", "Binomial", "Categorical", "Cauchy", "Dirichlet", "Exponential", "Gamma"),
            *("Geometric", "InverseGamma", "Laplace", "LogNormal", "Mixture", "Multinomial", "MvNormal"),
            *("NegativeBinomial", "Normal", "Poisson", "StudentT", "Uniform", "select"),
        ),
        "identkit.model.model": ("Model",),
        "identkit.model.language": ("parse",),
        "identkit.model.compiled": ("compiled",),
        "identkit.diagnosis": ("Diagnosis", "diagnose"),
        "identkit.dispatch": ("check", "remedies"),
        "identkit.classical.conjugate": (
            *("BetaBinomial", "DirichletMultinomial", "GammaExponential", "GammaPoisson"),
            *("NormalInverseGamma", "NormalNormal"),
        ),
        "identkit.classical.gaussian_mixture": ("GaussianMixture",),
        "identkit.classical.hidden_markov": (
            *("CategoricalEmission", "GaussianEmission", "HiddenMarkov", "PoissonEmission"),
        ),
        "identkit.classical.hierarchical_normal": ("HierarchicalNormal",),
        "identkit.classical.item_response": ("ItemResponse",),
        "identkit.classical.linear_gaussian": ("BayesianLinearRegression", "FactorAnalysis", "PPCA"),
        "identkit.classical.mixture_weight": ("MixtureWeight",),
        "identkit.classical.mixtures": ("FamilyMixture", "LatentClass"),
        "identkit.classical.state_space": ("StateSpace",),
        "identkit.lidvae.models": ("GMVAE", "LIDMVAE", "LIDSVAE", "LIDVAE", "VAE", "SequenceVAE"),
        "identkit.lidvae.training": ("fit",),
        "identkit.posterior.information": ("Collapse", "collapse"),
        "identkit.adapters.hmm_learn": ("from_hmmlearn",),
        "identkit.adapters.pymc_model": ("from_pymc",),
        "identkit.adapters.pyro_program": ("from_pyro",),
        "identkit.adapters.scikit_learn": ("from_sklearn",),
        "identkit.theorem": ("TheoremCheck", "verify"),
    }
    _HOME = {name: home for home, names in _NAMES.items() for name in names}
    __all__ = sorted((*_SUBMODULES, *_HOME))

    def __getattr__(name: str) -> object:
        if name in _SUBMODULES:
            return import_module(f"identkit.{name}")
        if name not in _HOME:
            raise AttributeError(f"module 'identkit' has no attribute {name!r}")
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value  # found without this function from now on
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
