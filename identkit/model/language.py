"""The text notation: ``z ~ Normal(0, 1); observe x ~ Normal(w*z, s)`` to a `Model` and back.

The grammar is language.lark; no user text ever reaches `eval` or `sympify`.
"""

from __future__ import annotations

from typing import Any

from sympy import Expr

from identkit.model.expansion import expanded
from identkit.model.expressions import Constants
from identkit.model.model import Model
from identkit.model.printing import written
from identkit.model.syntax import LanguageError, tree

__all__ = ["LanguageError", "parse", "parse_assignments", "parse_constant", "written"]


def parse(text: str, name: str = "model") -> Model:
    """The model that a text declares.

    Undeclared names are real parameters (or take the domain of the scale or probability that they stand for);
    each is listed in ``model.notes``.

    >>> m = parse("z[2] ~ Normal(0, 1); observe x ~ Normal(w[1]*z[1] + w[2]*z[2], s)")
    >>> m.latent_names, [str(symbol) for symbol in m.parameters]
    (('z[1]', 'z[2]'), ['w[1]', 'w[2]', 's'])

    Args:
        text: statements of the notation, one a line or separated by ``;``.
        name: what to call the model in tables and figures.

    Raises:
        LanguageError: a ValueError with `line` and `column`, for anything the notation does not allow.
    """
    if not isinstance(text, str):
        raise TypeError(f"text should be a string, got {type(text).__name__}")
    return expanded(text, name)


def parse_constant(text: str, argument: str) -> Expr:
    """The exact value of a constant expression; decimals mean exact decimals.

    >>> parse_constant("sqrt(4/3*log(4))", "x"), parse_constant("1.5", "x")
    (2*sqrt(3)*sqrt(log(4))/3, 3/2)

    Raises:
        ValueError: naming `argument`, for what is no real constant.
    """
    try:
        flat = _one_line(text)
        return Constants(flat).scalar(tree(flat, "constant").children[0])
    except LanguageError as error:
        shown = text if len(text) <= 60 else text[:57] + "..."
        problem = f"{argument} should be a constant such as 1/2 or sqrt(2), got {shown!r}: {error.problem}"
        raise ValueError(problem) from None


def parse_assignments(text: str, argument: str) -> dict[str, Any]:
    """The values in ``w=[1,0],s=1/2``: commas outside brackets separate, values are constants or lists.

    >>> parse_assignments("w=[1, 0], s=1/2, y[1,2]=0.1", "at")
    {'w': [1, 0], 's': 1/2, 'y[1,2]': 1/10}

    Raises:
        ValueError: naming `argument`, with the place of the error.
    """
    values: dict[str, Any] = {}
    try:
        flat = _one_line(text)
        constants = Constants(flat)
        for assignment in tree(flat, "assignments").children:
            key, value = constants.assignment(assignment)
            if key in values:
                raise constants.error(f"{key} has a value already", assignment)
            values[key] = value
    except LanguageError as error:
        raise ValueError(f"{argument} should be of the form w=[1,0],s=1/2; {error}") from None
    return values


def _one_line(text: str) -> str:
    return " ".join(text.split())
