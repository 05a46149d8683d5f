"""Vector fields, translations and maps of the unknowns as one writes them."""

from __future__ import annotations

from collections.abc import Mapping

from sympy import Expr, S, Symbol


def map_in_words(change: Mapping[Symbol, Expr]) -> str:
    """The map as text; two unknowns that change places are written once.

    >>> u, v, w = map(Symbol, "uvw")
    >>> map_in_words({u: v, v: u, w: -w})
    'u <-> v, w -> -w'
    """
    words, done = [], set()
    for symbol, image in change.items():
        if symbol in done:
            continue
        exchanged = image.is_Symbol and image != symbol and change.get(image) == symbol  # type: ignore[call-overload]
        words.append(f"{symbol.name} {'<->' if exchanged else '->'} {image}")
        done |= {symbol, image} if exchanged else {symbol}
    return ", ".join(words)


def field_in_words(components: Mapping[Symbol, Expr]) -> str:
    """The vector field as text.

    >>> w, s = map(Symbol, "ws")
    >>> field_in_words({w: w, s: -s})
    'w*d/dw - s*d/ds'
    """
    terms = []
    for symbol, entry in components.items():
        text = {S.One: "", S.NegativeOne: "-"}.get(entry, f"({entry})*" if entry.is_Add else f"{entry}*")
        terms.append(f"{text}d/d{symbol.name}")
    return " + ".join(terms).replace("+ -", "- ")


def translation_in_words(direction: Mapping[Symbol, Expr]) -> str:
    """Where a translation along a direction leads.

    >>> translation_in_words({Symbol("z[1]"): Symbol("w"), Symbol("z[2]"): S.NegativeOne})
    'z[1] + (w)*t, z[2] + (-1)*t'
    """
    return ", ".join(f"{symbol.name} + ({entry})*t" for symbol, entry in direction.items())
