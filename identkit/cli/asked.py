"""What was asked: models from files, standard input and the zoo; values and data from options and tables."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from identkit.zoo import CASES
from identkit.zoo.case import Case

DRAWN = 100
"""Rows drawn from a model of the zoo that is verified without data."""

_HINT = "to check a text, pipe it: echo 'z ~ Normal(0,1); observe x ~ Normal(z,1)' | identkit check -"


@dataclass(frozen=True)
class Question:
    """A model, the values given for its parameters, and the entry of the zoo that it is."""

    model: Any
    at: Mapping[str, Any] = field(default_factory=dict)
    case: Case | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """The values given, completed from the zoo where the model is an entry of it."""
        own = {} if self.case is None else self.case.numbers
        return {**own, **self.at}


def question(source: str, at: str | None) -> Question:
    """Read a model and the values of its parameters.

    Args:
        source: a file, ``-`` for standard input, a name of the zoo, ``file.py:name``, or the folder of a run of
            `identkit train`, whose best member is meant.
        at: values such as ``w=[1,0],s=1/2``.

    Raises:
        ValueError: no such model, or a text that the notation does not allow.
        OSError: a file that cannot be read.
    """
    values = {} if at is None else _assigned(at, "--at")
    path = Path(source)
    if source == "-":
        return Question(_parsed(sys.stdin.read(), "model"), values)
    file, colon, name = source.rpartition(":")
    if colon and file.endswith(".py"):
        return Question(_declared(Path(file), name), values)
    if path.suffix == ".py":
        raise ValueError(f"{source} should be followed by a name in it, as in {source}:model")
    if _exists(source) or path.suffix == ".model":
        return Question(_parsed(_text(path), path.stem), values)
    if _exists(str(path / "config.json")):
        from identkit.lidvae.run import load

        return Question(load(path).best, values)
    case = case_named(source)
    return Question(case.build(), values, case)


def case_named(name: str) -> Case:
    """The entry of the zoo with this name.

    Raises:
        ValueError: there is none; the message has the names closest to it.
    """
    if name in CASES:
        return CASES[name]
    close = difflib.get_close_matches(name, CASES, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(close)}?" if close else "`identkit zoo` lists the names;"
    raise ValueError(f"{name[:60]!r} is neither a file nor a name of the zoo; {guess} {_HINT}")


def assignments(values: Mapping[str, Any]) -> str:
    """The values as one types them: ``w=[1,0],s=1/2``.

    >>> assignments({"w": [1, 0], "s": "1/2"})
    'w=[1,0],s=1/2'
    """

    def written(value: Any) -> str:
        return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)

    return ",".join(f"{key}={written(value)}" for key, value in values.items())


def data_to_prove(model: Any, data: str) -> dict[str, Any]:
    """Exact values by name, from ``x=1.2`` or from a table without gaps.

    Raises:
        ValueError, OSError: see `identkit.tables.read_csv`; an empty cell.
    """
    if not _is_file(data):
        return _assigned(data, "--data")
    from identkit.tables import read_csv

    table = read_csv(data, _symbolic(model).observation_names)
    if table.missing is not None:
        row, column = table.missing
        raise ValueError(
            f"{data}, row {row}, column {column} is empty, and a proof needs every value; "
            "`identkit verify` takes tables with missing values"
        )
    return {
        name: list(column) for name, column in zip(table.names, zip(*table.rows, strict=True), strict=True)
    }


def data_to_probe(data: str) -> list[tuple[float, ...]]:
    """Rows of a table without gaps, for a model that names no observations.

    Raises:
        ValueError, OSError: see `identkit.tables.read_csv`; an empty cell.
    """
    from identkit.tables import read_csv

    table = read_csv(data)
    if table.missing is not None:
        row, column = table.missing
        raise ValueError(f"{data}, row {row}, column {column} is empty, and a probe needs every value")
    return [tuple(value for value in row if value is not None) for row in table.rows]


def data_to_verify(model: Any, data: str) -> tuple[Any, Any]:
    """Data (n, d) as a float64 tensor with its mask, None where nothing is missing.

    Raises:
        ValueError, OSError: see `identkit.tables.read_csv`.
    """
    import torch

    from identkit.tables import read_csv

    symbolic = _symbolic(model)
    if not _is_file(data):
        return _rounded(symbolic, _assigned(data, "--data")), None

    table = read_csv(data, symbolic.observation_names)
    values = [[0.0 if cell is None else cell for cell in row] for row in table.rows]
    observed = torch.tensor([[cell is not None for cell in row] for row in table.rows])
    return torch.tensor(values, dtype=torch.float64), None if table.missing is None else observed


def table_to_fit(data: str | None, family: str, takes_missing: bool) -> tuple[tuple[str, ...], Any]:
    """The names of a table's columns, and all of them (n, d) as a float64 tensor, NaN where a cell is empty.

    Raises:
        ValueError, OSError: no file; an empty cell where the family takes none; see `identkit.tables.read_csv`.
    """
    import torch

    from identkit.tables import read_csv

    if data is None or not _is_file(data):
        raise ValueError(f"--data should be a CSV file to fit to, got {data!r}")
    table = read_csv(data)
    if table.missing is not None and not takes_missing:
        row, column = table.missing
        raise ValueError(f"{data}, row {row}, column {column} is empty, and {family} takes no missing values")
    rows = [[float("nan") if cell is None else cell for cell in row] for row in table.rows]
    return table.names, torch.tensor(rows, dtype=torch.float64)


def own_data(asked: Question, seed: int) -> tuple[Any, str]:
    """Data (n, d) for an entry of the zoo that is verified without any, and where they come from.

    Raises:
        ValueError: the model is not of the zoo, so data should be given.
    """
    import torch

    from identkit.model.compiled import compiled

    case = asked.case
    if case is None:
        names = ",".join(_symbolic(asked.model).observation_names)
        raise ValueError(
            f"--data should be given: a CSV file with the columns {names}, or values such as x=1.2"
        )
    if case.data is not None:
        return _rounded(
            _symbolic(asked.model), case.data
        ), f"{case.name} comes with --data {assignments(case.data)}"
    model = asked.model if hasattr(asked.model, "sample") else compiled(asked.model, asked.numbers)
    x, _ = model.sample(DRAWN, torch.Generator().manual_seed(seed))
    return x, f"{DRAWN} rows were drawn from {case.name} itself with seed {seed}"


def _rounded(symbolic: Any, values: Mapping[str, Any]) -> Any:
    # Exact values, of which a posterior takes the nearest floats.
    import torch

    from identkit.symbolic.on_data import exact_rows

    rows = exact_rows(symbolic, values)
    table = [[float(row[symbol]) for symbol in symbolic.observation_symbols] for row in rows]
    return torch.tensor(table, dtype=torch.float64)


def _symbolic(model: Any) -> Any:
    from identkit.dispatch import as_symbolic

    return as_symbolic(model)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} should be a text file in UTF-8, got bytes that are not") from error


def _parsed(text: str, name: str) -> Any:
    from identkit.model.language import parse

    if not text.strip():
        raise ValueError(
            "the model is empty; it should be a text such as z ~ Normal(0,1); observe x ~ Normal(z,1)"
        )
    return parse(text, name=name)


def _declared(path: Path, name: str) -> Any:
    """The model that a Python file calls `name`, or that its function of this name returns."""
    import importlib.util
    import traceback

    if not _exists(str(path)):
        raise ValueError(f"{path} should be a Python file, and there is none")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
        found = getattr(module, name, None)
        if found is None:
            known = ", ".join(n for n in vars(module) if not n.startswith("_")) or "nothing"
            raise ValueError(f"{path} should define {name!r}; it defines {known[:200]}")
        made = any(hasattr(found, attribute) for attribute in ("symbolic", "prior"))
        return found() if callable(found) and not made else found
    except (ValueError, TypeError):
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        where = f", line {place[-1]}" if place else ""
        raise ValueError(f"{path}{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))


def _is_file(data: str) -> bool:
    return data.lower().endswith(".csv") or _exists(data)


def _exists(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long, or with a null character: a text, not a path
        return False


def _assigned(text: str, option: str) -> dict[str, Any]:
    from identkit.model.language import parse_assignments

    if option == "--data" and "=" not in text:
        raise ValueError(
            f"--data should be a CSV file or values such as x=1.2, got {text!r}, and there is no such file"
        )
    return parse_assignments(text, option)
