"""Probes models that have no symbols, only a decoder or a density: what sampling can say, and what bounds certify.

Sampling finds collisions and never proves injectivity; `GLOBAL` comes from `bounds` alone. Nothing here reads a
`Model`.
"""
