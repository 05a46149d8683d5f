"""The mathematics that identkit implements, statement by statement: what it says, why it is true, and code that checks it.

``python -m theory`` checks everything and prints one line per check. A module holds one statement: the theorem, its
assumptions, a proof to read, the source, and functions that check the steps of the proof, the examples that attain the
bounds, and a counterexample for each assumption that is left out.

What stands on what:

* **By machine, for all models of a size** (z3, over the reals): T1 up to five states, T2 for every map of up to
  four states, T3 for small tables and statistics, and steps of T2 (z³ + wz), T5 (Gaussian spheres) and T6 (loadings,
  MA(1), mixtures).
* **By machine, as identities** (SymPy): derivatives and chords of T4, the steps of T5's information proof, the silent
  decoder, the calculator, symmetries and singular points of T6.
* **By machine, exactly on instances** (fractions): T1 to T3 on random finite models, covariances by pairs, counterexamples.
* **By hand** (the docstrings): everything on general spaces. Conditional laws in T2, limits and integrability in T4.1, the
  entropic Kneser–Poulsen theorem with its regularity in T5, the constant rank theorem's use in T6. What a proof takes
  from the literature is named there: Gross and Bakry–Émery (T4.4 sketches them), the area formula, invariance of domain.
* **Tried in numbers only** (floats or 50 digits against quadrature): the inequalities of T4 on random laws, T5's maps, the
  derivative of the entropy and finite priors in the plane. A number that satisfies an inequality proves nothing; it would
  have shown a wrong constant, and `tests/test_theory.py` shows that it does.
* **Simulated only**: that random decoders stay between floor and ceiling for a Gaussian prior (`t5_simulation`).

Every check takes ``share``, which scales its number of instances, and ``claim``, the formula or assumption under test.
identkit never imports this package; it imports identkit where it checks identkit's own functions.
"""

from __future__ import annotations
