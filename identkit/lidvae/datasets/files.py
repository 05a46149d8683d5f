"""The user's own tables: CSV, NPZ, NPY and IDX files. Nothing in them is ever executed: no pickles."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from identkit.lidvae.datasets.dataset import Dataset, from_rows
from identkit.lidvae.datasets.idx import read_bytes, read_idx, read_text
from identkit.lidvae.datasets.text import from_text
from identkit.model.compiled.data import whole
from identkit.tables import is_number


def from_file(path: str | Path, **options: Any) -> Dataset:
    """Read a file by the loader that its name asks for, with that loader's options.

    ``.csv``: `from_csv`; ``.npz``, ``.npy``: `from_npz`; ``.txt``, ``.text``, ``.md``: `from_text`; ``.idx``,
    ``-ubyte``, packed by gzip or not: `from_idx`.

    Raises:
        ValueError: another name, or what the loader refuses.
    """
    name = Path(path).name.lower().removesuffix(".gz")
    if name.endswith(".csv"):
        return from_csv(path, **options)
    if name.endswith((".npz", ".npy")):
        return from_npz(path, **options)
    if name.endswith((".txt", ".text", ".md")):
        return from_text(path, **options)
    if name.endswith((".idx", "-ubyte")):
        return from_idx(path, **options)
    raise ValueError(f"{path} should end in .csv, .npz, .npy, .txt, .idx or -ubyte (.gz), to say what it is")


def from_csv(
    path: str | Path,
    *,
    likelihood: str = "gaussian",
    header: bool | None = None,
    label: str | None = None,
    categories: int | None = None,
    divide: float = 1.0,
    standardise: bool = False,
) -> Dataset:
    """Read a table of numbers, cells separated by commas.

    Args:
        path: a file in UTF-8.
        likelihood: what the numbers are.
        header: whether the first line names the columns, which are x[1], x[2], … otherwise. None: it does if none of
            its cells is a number, it does not if all are (but for 0, 1, 2, …, which may be either).
        label: the column that says what each row is, words or numbers; it is no part of x.
        categories: how many values a categorical column may take, 0 to categories − 1.
        divide, standardise: as in `from_rows`.

    Raises:
        ValueError: a missing or empty file, a row of another length, a cell that is no number, and whatever
            `from_rows` refuses; the message names file, row (from 1, without the names) and column.
    """
    names, body = _header(path, header)
    if label is not None and label not in names:
        raise ValueError(f"label should be one of the columns of {path} ({', '.join(names)}), got {label!r}")
    codes: dict[str, int] = {}
    place = None if label is None else names.index(label)
    # The label's words become numbers as they come, so that one fast pass reads the table.
    converters: dict[int | str, Callable[[str], int]] | None = (
        None if place is None else {place: lambda cell: codes.setdefault(cell.strip(), len(codes))}
    )
    try:
        table = np.loadtxt(
            io.StringIO(body), delimiter=",", quotechar='"', comments=None, ndmin=2, converters=converters
        )
    except ValueError as error:
        raise ValueError(
            _fault(path, body, names, place) or f"{path} should be a CSV table: {error}"
        ) from error
    if table.shape[1] != len(names):
        raise ValueError(
            f"{path} should have {len(names)} cells in each row, as it has names, got {table.shape[1]}"
        )
    kept = [column for column in range(len(names)) if column != place]
    said, label_names = None, None
    if place is not None:
        said, label_names = _codes(_words(list(codes), table[:, place].astype(np.int64)), path)
    return from_rows(
        torch.from_numpy(table[:, kept]),
        likelihood,
        name=Path(path).name,
        source=str(path),
        labels=said,
        label_names=label_names,
        columns=[names[column] for column in kept],
        divide=divide,
        standardise=standardise,
        vocabulary=_numbered(categories),
    )


def from_npz(
    path: str | Path,
    *,
    likelihood: str = "gaussian",
    key: str | None = None,
    labels: str | None = None,
    categories: int | None = None,
    divide: float = 1.0,
    standardise: bool = False,
) -> Dataset:
    """Read one array of an NPZ file, or an NPY file, as rows: its first axis counts them, the others are flattened.

    Args:
        path: the file.
        likelihood: what the numbers are.
        key: the array's name; None where there is only one.
        labels: the name of the array that says what each row is, numbers or words.
        categories, divide, standardise: as in `from_csv`.

    Raises:
        ValueError: a missing or broken file, pickled objects, an unknown name, and whatever `from_rows` refuses.
    """
    arrays = _arrays(path)
    names = ", ".join(arrays)
    if key is None:
        others = [name for name in arrays if name != labels]
        if len(others) != 1:
            raise ValueError(f"key should name one of the arrays of {path} ({names}), got None")
        key = others[0]
    for title, name in (("key", key), ("labels", labels)):
        if name is not None and name not in arrays:
            raise ValueError(f"{title} should name one of the arrays of {path} ({names}), got {name!r}")
    return _from_array(
        arrays[key],
        path,
        labels=None if labels is None else arrays[labels],
        likelihood=likelihood,
        vocabulary=_numbered(categories),
        divide=divide,
        standardise=standardise,
    )


def from_idx(
    path: str | Path,
    *,
    likelihood: str = "bernoulli",
    labels: str | Path | None = None,
    categories: int | None = None,
    divide: float = 1.0,
    standardise: bool = False,
) -> Dataset:
    """Read an IDX file, the format of MNIST, as rows; images of 0 to 255 need ``divide=255``.

    Args:
        path: the file, packed by gzip or not.
        likelihood: what the numbers are.
        labels: the IDX file that says what each row is.
        categories, divide, standardise: as in `from_csv`.

    Raises:
        ValueError: what `read_idx` and `from_rows` refuse.
    """
    return _from_array(
        read_idx(path),
        path,
        labels=None if labels is None else read_idx(labels),
        likelihood=likelihood,
        vocabulary=_numbered(categories),
        divide=divide,
        standardise=standardise,
    )


def _from_array(array: np.ndarray, path: str | Path, labels: np.ndarray | None, **options: Any) -> Dataset:
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ValueError(f"{path} should hold rows of numbers, got {array.dtype} of the shape {array.shape}")
    shape = array.shape[1:] or (1,)
    x = array.reshape(len(array), int(np.prod(shape)))
    if array.dtype not in (np.uint8, np.float32):
        x = x.astype(np.float64)
    codes, names = (None, None) if labels is None else _codes(labels, path)
    return from_rows(
        torch.from_numpy(np.ascontiguousarray(x)),
        options.pop("likelihood"),
        name=Path(path).name,
        source=str(path),
        labels=codes,
        label_names=names,
        shape=shape if len(shape) > 1 else None,
        **options,
    )


def _codes(labels: np.ndarray, path: str | Path) -> tuple[Int[Tensor, " n"], list[str] | None]:
    """Labels as whole numbers: as they are, or words in alphabetical order."""
    if labels.ndim != 1 or labels.dtype.kind not in "biuU":
        got = f"{labels.dtype} of the shape {labels.shape}"
        raise ValueError(f"labels of {path} should be a list of whole numbers or words, got {got}")
    if labels.dtype.kind == "U":
        words, codes = np.unique(labels, return_inverse=True)
        return torch.from_numpy(codes.astype(np.int64)), words.tolist()
    return torch.from_numpy(labels.astype(np.int64)), None


def _arrays(path: str | Path) -> dict[str, np.ndarray]:
    content = io.BytesIO(read_bytes(path))
    try:
        found = np.load(content, allow_pickle=False)
        return {"array": found} if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} should be an NPZ or NPY file of numbers without pickled objects: {error}"
        ) from error


def _header(path: str | Path, header: bool | None) -> tuple[list[str], str]:
    """The columns' names and the lines below them."""
    text = _text(path)
    first, _, rest = text.lstrip("\n").partition("\n")
    cells = [cell.strip() for cell in next(csv.reader([first]), [])]
    if not cells:
        raise ValueError(f"{path} should be a table of numbers, but is empty")
    numbers = sum(map(is_number, cells))
    counted = cells == [str(column) for column in range(len(cells))]  # as pandas names columns without a name
    if header is None and (0 < numbers < len(cells) or counted):
        raise ValueError(
            f"the first line of {path} should hold names or numbers, got {first[:60]!r}, which may be either; say "
            "header=True or header=False"
        )
    if not (header if header is not None else numbers == 0):
        return [f"x[{column + 1}]" for column in range(len(cells))], text
    repeated = [name for name in cells if cells.count(name) > 1 or not name]
    if repeated:
        raise ValueError(
            f"{path} should name each column once, got {repeated[0]!r} twice or a column without a name"
        )
    if not rest.strip():
        raise ValueError(f"{path} should have rows under its names, got none")
    return cells, rest


def _text(path: str | Path) -> str:
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n")


def _words(words: list[str], codes: np.ndarray) -> np.ndarray:
    """The labels as they stand in the file: whole numbers if all are, words otherwise."""
    column = np.array(words)[codes]
    return column.astype(np.int64) if all(word.isdecimal() for word in words) else column


def _fault(path: str | Path, body: str, names: list[str], label: int | None) -> str | None:
    """What is wrong with a table, found cell by cell: slower than reading it, and only done when that failed."""
    for row, cells in enumerate(filter(None, csv.reader(io.StringIO(body))), 1):
        if len(cells) != len(names):
            return f"{path}, row {row} should have {len(names)} cells, got {len(cells)}"
        for column, cell in enumerate(cells):
            if column != label and not is_number(cell):
                return f"{path}, row {row}, column {names[column]} should hold a number, got {cell[:40]!r}"
    return None


def _numbered(categories: int | None) -> list[str] | None:
    return None if categories is None else [str(value) for value in range(whole(categories, "categories", 2))]
