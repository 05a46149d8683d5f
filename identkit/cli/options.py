"""Settings as one types them, ``components=3,hidden=[64,64]``, as names and values."""

from __future__ import annotations

import re
from typing import Any


def settings(text: str, option: str) -> dict[str, Any]:
    """Names and their values: numbers, true or false, words, and lists of these in brackets.

    Args:
        text: pieces ``name=value``, separated by commas outside brackets.
        option: what messages call it.

    Raises:
        ValueError: a piece of another form, or a name that comes twice.

    >>> settings("components=3, hidden=[64,32], tolerance=1e-8, map=icnn, standardise=true", "--fit")
    {'components': 3, 'hidden': [64, 32], 'tolerance': 1e-08, 'map': 'icnn', 'standardise': True}
    """
    found: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in re.split(r",(?![^\[]*\])", text))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name.isidentifier() or not value:
            raise ValueError(f"{option} should be settings such as components=3, got {part!r}")
        if name in found:
            raise ValueError(f"{option} should say {name} once, got it twice: {text!r}")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return [_value(piece.strip()) for piece in text[1:-1].split(",") if piece.strip()]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
