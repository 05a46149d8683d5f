"""The hierarchical normal model (eight schools)."""

from __future__ import annotations

from identkit.classical.hierarchical_normal.model import EIGHT_SCHOOLS, HierarchicalNormal

__all__ = ["EIGHT_SCHOOLS", "HierarchicalNormal"]
