"""Exact posteriors of any low-dimensional model by quadrature, and what they say: KL to the prior, flatness, bounds.

Nothing here reads a verdict or knows a classical model by name; closed forms live in `identkit.classical`.
"""
