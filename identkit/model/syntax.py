"""From text to a syntax tree: the grammar of language.lark, the layout of lines, errors one can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Tree, UnexpectedInput

MAX_TEXT = 100_000
MAX_NESTING = 60
_SHOWN = 100

# What a terminal of the grammar is called in an error message.
_WORDS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "OBSERVE": "observe",
    "_NL": "the end of the line",
    "_IN": "in",
    "_DOTS": "..",
    "COLON": ":",
    "COMMA": "a comma",
    "SEMICOLON": ";",
    "EQUAL": "=",
    "TILDE": "~",
    "LPAR": "(",
    "RPAR": ")",
    "LSQB": "[",
    "RSQB": "]",
    "COMPARISON": "> or <",
    "_INDENT": "an indented line",
    "_DEDENT": "the end of the loop",
}
_STATEMENT = {"OBSERVE", "_PARAMETER", "_KNOWN", "_CONSTRAINT", "_SUMMARY", "_FOR"}
_OPERATORS = {"SIGN", "TIMES", "_POWER"}
_OPENING, _CLOSING = "([", ")]"
_BRACKETS = {"LPAR": 1, "LSQB": 1, "RPAR": -1, "RSQB": -1}


class LanguageError(ValueError):
    """A model text that says something else than the notation allows, with the place and what was expected.

    >>> print(LanguageError("a family is expected", "z ~ 1", 1, 5))
    line 1, column 5: a family is expected
      z ~ 1
          ^
    """

    def __init__(self, problem: str, text: str, line: int, column: int) -> None:
        self.problem, self.line, self.column = problem, line, column
        super().__init__(f"line {line}, column {column}: {problem}\n{_pointed(text, line, column)}")


def tree(text: str, start: str = "model") -> Tree[Token]:
    """The syntax tree of a text; `start` is model, constant or assignments.

    Raises:
        LanguageError: for what the grammar does not allow, and for texts beyond the limits above.
    """
    text = plain(text)
    if len(text) > MAX_TEXT:
        raise LanguageError(
            f"a model text may have at most {MAX_TEXT:,} characters, this one has {len(text):,}", text, 1, 1
        )
    try:
        parsed = _grammar().parse(f"{text}\n", start=start)
    except _Layout as error:
        problem, token = error.args
        raise LanguageError(problem, text, token.line, token.column) from None
    except UnexpectedInput as error:
        raise _explained(error, text) from None
    _refuse_deep(parsed, text)
    return parsed


def plain(text: str) -> str:
    """The text with tabs and line ends in one form, in which columns count."""
    return text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(8)


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` looks like a misspelling of.

    >>> suggestion("Norml", ["Normal", "Beta"]), suggestion("sigma", ["mu"])
    ('Normal', None)
    """
    plain = {other.casefold().replace("_", ""): other for other in known if other != name}
    close = difflib.get_close_matches(name.casefold().replace("_", ""), plain, n=1, cutoff=0.75)
    return plain[close[0]] if close else None


class _Layout(Exception):
    """A line's indentation or a bracket's depth is wrong; carries the problem and the token."""


class _Lines:
    """Turns line ends into statement ends, indentation into blocks; inside brackets a line continues."""

    always_accept = ("_NL",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        indents: list[int] = []
        depth = 0
        outside = False
        last: Token | None = None
        for token in stream:
            if token.type == "_NL":
                # Decided here, not at the next token: what that token is depends on the line's having ended.
                if last is not None and depth == 0:
                    width = len(token.rpartition("\n")[2])
                    outside = width < indents[0]
                    yield token
                    yield from _indented(token, max(width, indents[0]), last, indents)
                continue
            if outside:
                raise _Layout("this line starts left of the first one", token)
            if last is None:
                indents.append((token.column or 1) - 1)
            if token.type == "NAME" and not token.isidentifier():
                raise _Layout(
                    f"{token[:20]} is not a name: it should be letters, digits and underscores", token
                )
            last = token
            if token.type in _BRACKETS:
                depth = max(0, depth + _BRACKETS[token.type])
            if depth > MAX_NESTING:
                raise _Layout(f"brackets may be nested {MAX_NESTING} deep at most", token)
            yield token
        if last is None or depth:
            yield Token("_NL", "\n", line=last.end_line if last else 1, column=last.end_column if last else 1)


def _indented(newline: Token, width: int, last: Token, indents: list[int]) -> Iterator[Token]:
    # The blocks that a line of this indentation opens or closes.
    place = Token("_NL", "", line=newline.end_line, column=newline.end_column)
    if width > indents[-1]:
        if last.type != "COLON":
            raise _Layout("this line is indented, but only the body of a for loop may be", place)
        indents.append(width)
        yield Token.new_borrow_pos("_INDENT", "", place)
    while width < indents[-1]:
        indents.pop()
        if width > indents[-1]:
            raise _Layout("this line's indentation matches no line above it", place)
        yield Token.new_borrow_pos("_DEDENT", "", place)


@cache
def _grammar() -> Lark:
    return Lark(
        files("identkit.model").joinpath("language.lark").read_text(encoding="utf-8"),
        parser="lalr",
        start=["model", "constant", "assignments"],
        postlex=_Lines(),  # type: ignore[arg-type]
        propagate_positions=True,
        maybe_placeholders=False,
    )


def _refuse_deep(parsed: Tree[Token], text: str) -> None:
    # Not recursive itself: a sign repeated 50,000 times nests the tree without any bracket.
    depths: dict[int, int] = {}
    for subtree in parsed.iter_subtrees():
        below = [depths[id(child)] for child in subtree.children if isinstance(child, Tree)]
        depths[id(subtree)] = 1 + max(below, default=0)
        if depths[id(subtree)] > 2 * MAX_NESTING:
            problem = f"this is nested too deeply (more than {2 * MAX_NESTING} operations); name its parts"
            raise LanguageError(problem, text, subtree.meta.line, subtree.meta.column)


def _explained(error: Any, text: str) -> LanguageError:
    line, column = int(error.line), int(error.column)
    token = getattr(error, "token", None)
    if token is None:
        character = text.split("\n")[line - 1][column - 1]
        hint = {"{": "; blocks are written by indentation", "'": "; write transpose(W)"}.get(character, "")
        return LanguageError(f"the character {character!r} has no meaning here{hint}", text, line, column)
    expected = set(error.accepts or error.expected)
    return LanguageError(_problem(token, expected, text, line, column), text, line, column)


def _problem(token: Token, expected: set[str], text: str, line: int, column: int) -> str:
    found = _WORDS[token.type] if token.type in ("_NL", "_INDENT", "_DEDENT") else token[:20]
    before = text.split("\n")[line - 1][: column - 1].rstrip()
    opened = _open_bracket(text, line, column)
    if opened is not None:
        bracket, opening_line, opening_column = opened
        ends = token.type in ("_NL", "TILDE", "COLON", "SEMICOLON") or opening_line < line
        if ends and not (expected & {"NUMBER"}):
            closing = _CLOSING[_OPENING.index(bracket)]
            where = f"the {bracket} of line {opening_line}, column {opening_column}"
            return f"expected a comma or {closing} to close {where}, but found {found}"
        if token.type == "EQUAL":
            return "expected a comma or ) but found =; arguments are given by position, as in Normal(0, 1)"
    if before.endswith("~"):
        return f"expected a family, such as Normal(0, 1), but found {found}"
    if before.endswith("<") or (token == "<" and text.split("\n")[line - 1][column : column + 1] == "-"):
        return "a definition is written with =, not with <-"
    if "TIMES" in expected and token.type in ("NAME", "NUMBER", "LPAR") and before[-1:].isdigit():
        return f"expected an operator but found {found}; a product is written with *, as in 2*x"
    if token.type in ("RPAR", "RSQB") and opened is None:
        return f"this {found} closes a bracket that was never opened"
    separates = "SEMICOLON" in expected and token.type in _STATEMENT | {"NAME"}
    hint = "; statements are separated by ; or a new line" if separates else ""
    return f"expected {_wanted(expected)} but found {found}{hint}"


def _wanted(expected: set[str]) -> str:
    expected = expected - {"$END", "_DEDENT"}
    words: list[str] = []
    if _STATEMENT & expected:
        words.append("a statement (such as z ~ Normal(0, 1), observe x ~ …, name = …, parameter …)")
        expected = expected - _STATEMENT - {"NAME", "SEMICOLON", "_NL"}
    if {"NUMBER", "SIGN"} <= expected:
        words.append("an expression")
        expected = expected - {"NUMBER", "NAME", "SIGN", "LPAR", "LSQB"}
    if expected >= _OPERATORS:
        expected = expected - _OPERATORS - {"LSQB"}
        words.append("an operator")
    words.extend(_WORDS.get(name, name.strip("_").lower()) for name in sorted(expected))
    return (
        " or ".join([", ".join(words[:-1]), words[-1]])
        if len(words) > 1
        else "".join(words) or "nothing more"
    )


def _open_bracket(text: str, line: int, column: int) -> tuple[str, int, int] | None:
    # The innermost bracket still open just before this place; comments hold none.
    opened: list[tuple[str, int, int]] = []
    for number, row in enumerate(text.split("\n")[:line], 1):
        code = row.partition("#")[0]
        for position, character in enumerate(code[: column - 1] if number == line else code, 1):
            if character in _OPENING:
                opened.append((character, number, position))
            elif character in _CLOSING and opened:
                opened.pop()
    return opened[-1] if opened else None


def _pointed(text: str, line: int, column: int) -> str:
    rows = plain(text).split("\n")
    row = rows[line - 1] if line <= len(rows) else ""
    start = max(0, column - 1 - _SHOWN // 2)
    window = "".join(
        character if character.isprintable() else " " for character in row[start : start + _SHOWN]
    )
    return f"  {window}\n  {' ' * (column - 1 - start)}^"
