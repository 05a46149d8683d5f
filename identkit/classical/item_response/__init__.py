"""Item response: abilities behind answers, by quadrature."""

from __future__ import annotations

from identkit.classical.item_response.model import ItemResponse

__all__ = ["ItemResponse"]
