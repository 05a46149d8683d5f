"""Data from files: CSV tables whose headers are element names, and the R dump files of the paper."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ASSIGNMENT = re.compile(
    r"(?m)^(?P<name>[A-Za-z][\w.]*)\s*<-\s*"
    r"(?:(?:structure\(\s*)?c\((?P<entries>[^()]*)\)(?:\s*,\s*\.Dim\s*=\s*c\((?P<shape>[\dL,\s]*)\)\s*\))?"
    r"|(?P<number>[-+.\w]+)\s*$)"
)


@dataclass(frozen=True)
class Table:
    """Rows of numbers under the observations' names; None where a cell is empty."""

    names: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]

    @property
    def missing(self) -> tuple[int, str] | None:
        """Row (from 1) and column of the first empty cell, or None."""
        cells = ((i, j) for i, row in enumerate(self.rows, 1) for j, cell in enumerate(row) if cell is None)
        first = next(cells, None)
        return None if first is None else (first[0], self.names[first[1]])


def read_csv(path: str | Path, names: Sequence[str] | None = None) -> Table:
    r"""Read a table with one column for each of `names`, in any order; an empty cell is a missing value.

    So is an empty line between two rows of a table of one column; other empty lines say nothing.

    Args:
        path: a file in UTF-8, cells separated by commas, the first line holding the names.
        names: the observations that the model declares, such as ``("y[1]", "y[2]")``; None for whatever the file has.

    Raises:
        ValueError: a missing, unknown or repeated column, a row of another length, a cell that is no finite
            number, or no rows; the message names file, row (counted from 1, without the header) and column.
        OSError: the file cannot be read.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "table.csv"
    ...     _ = file.write_text('"y[2]","y[1]"\n0.5,1\n,2\n')
    ...     read_csv(file, ["y[1]", "y[2]"]).rows
    ((1.0, 0.5), (2.0, None))
    """
    lines = _lines(Path(path))
    if not lines:
        expected = f", {','.join(names)}," if names else ""
        raise ValueError(f"{path} should start with a line of names{expected} but is empty")
    header = [re.sub(r"\s", "", cell) for cell in lines[0]]
    if names is None and all(is_number(cell) for cell in header):
        raise ValueError(
            f"{path} should start with a line of names, got the numbers {', '.join(header)[:60]}: "
            "the first datum would be lost as a header"
        )
    names = header if names is None else names
    _refuse_header(path, header, names)
    order = [header.index(name) for name in names]
    if len(lines) == 1:
        raise ValueError(f"{path} should have at least one row under its names, got none")
    rows = []
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(header):
            raise ValueError(f"{path}, row {number} should have {len(header)} cells, got {len(line)}")
        rows.append(tuple(_number(path, number, header[column], line[column]) for column in order))
    return Table(tuple(names), tuple(rows))


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} should be a text file in UTF-8, got bytes that are not") from error
    except csv.Error as error:
        raise ValueError(f"{path} should be a CSV file: {error}") from error
    kept = [number for number, line in enumerate(lines) if line]
    if not kept:
        return []
    # In a table of one column an empty cell is an empty line: only after the last value does it say nothing.
    column = len(lines[kept[0]]) == 1
    return [line or [""] for line in lines[kept[0] : kept[-1] + 1] if line or column]


def _refuse_header(path: str | Path, header: Sequence[str], names: Sequence[str]) -> None:
    repeated = [name for name in header if header.count(name) > 1]
    missing = [name for name in names if name not in header]
    unknown = [name for name in header if name not in names]
    expected = f"should have the columns {', '.join(names)}"
    if repeated:
        raise ValueError(
            f"{path} {expected}, each once; repeated: {repeated[0] or 'a column without a name'}"
        )
    if missing:
        raise ValueError(f"{path} {expected}; missing: {', '.join(missing)}")
    if unknown:
        shown = ", ".join(name or "a column without a name" for name in unknown)
        raise ValueError(f"{path} {expected}; unknown: {shown}")


def is_number(text: str) -> bool:
    """Whether a cell holds a number, NaN and infinities among them; ``1_000`` is a number in Python alone."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _number(path: str | Path, row: int, column: str, cell: str) -> float | None:
    text = cell.strip()
    if not text:
        return None
    value = float(text) if is_number(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(
            f"{path}, row {row}, column {column} should hold a finite number, got {text[:40]!r}; "
            "leave the cell empty where a value is missing"
        )
    return value


def read_r_dump(path: str | Path) -> dict[str, list]:
    r"""Read the numbers of an R dump file: ``N <- 3``, ``y <- c(1, 2)``, ``structure(c(…), .Dim = c(n, d))``.

    Arrays are stored column by column, as R does; a scalar is a list of one, a matrix a list of rows.

    Args:
        path: the file.

    Raises:
        ValueError: an entry that is no number, or a shape that does not fit.
        OSError: the file cannot be read.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "dump.R"
    ...     _ = file.write_text("N <- 2\nx <-\nstructure(c(1, 2, 3,\n4), .Dim = c(2, 2))\n")
    ...     read_r_dump(file)
    {'N': [2.0], 'x': [[1.0, 3.0], [2.0, 4.0]]}
    """
    text = Path(path).read_text(encoding="utf-8")
    found: dict[str, list] = {}
    for match in _ASSIGNMENT.finditer(text):
        name = match["name"]
        try:
            entries = [float(entry) for entry in (match["number"] or match["entries"]).split(",")]
        except ValueError as error:
            raise ValueError(f"{path}: {name} should hold numbers only ({error})") from error
        found[name] = _reshaped(path, name, entries, match["shape"])
    return found


def _reshaped(path: str | Path, name: str, entries: list[float], shape: str | None) -> list:
    if shape is None:
        return entries
    lengths = [int(length.strip().rstrip("L")) for length in shape.split(",")]
    if len(lengths) != 2 or lengths[0] * lengths[1] != len(entries):
        raise ValueError(
            f"{path}: {name} should be a matrix of {len(entries)} entries, got the shape {lengths}"
        )
    return [entries[row :: lengths[0]] for row in range(lengths[0])]
