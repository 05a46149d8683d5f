"""`load`: data by a name or a file's path, with a note of how to load them again."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from identkit.lidvae.datasets.dataset import Dataset, binarised
from identkit.lidvae.datasets.files import from_csv, from_idx, from_npz
from identkit.lidvae.datasets.images import digits, fashion_mnist, mnist, omniglot
from identkit.lidvae.datasets.sequences import lstm_sequences, markov_sequences
from identkit.lidvae.datasets.text import from_text
from identkit.lidvae.datasets.toys import TOYS

IMAGES: Mapping[str, Callable[..., Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "omniglot": omniglot,
}
"""Whose grey values `load` makes black and white, unless told not to."""

NAMES: Mapping[str, Callable[..., Dataset]] = {
    **{name.replace("_", "-"): toy for name, toy in TOYS.items()},
    **IMAGES,
    "markov": markov_sequences,
    "lstm": lstm_sequences,
}
"""Data by name."""

_LENGTH = 20  # tokens of a text's sequences, unless told
_LOADERS = {
    **dict.fromkeys((".npz", ".npy"), from_npz),
    **dict.fromkeys((".txt", ".text", ".md"), from_text),
    **dict.fromkeys((".idx", "-ubyte"), from_idx),
    ".csv": from_csv,
}


def load(source: str | Path, **options: Any) -> Dataset:
    """Load data by name, or from a file, with the options of their loader; `Dataset.recipe` says how to do it again.

    Args:
        source: one of `NAMES` (pinwheel, digits, mnist, …), or the path of a CSV, NPZ, NPY, IDX or text file.
        options: those of the loader, such as ``n`` of a toy, ``likelihood`` of a file, ``length`` of a text (20 tokens
            by default here); and for Bernoulli data ``binarise``: whether grey values become black and white, once for
            the rows that judge and afresh for each batch (`binarised`, seed 0). By default images by name do, files not.

    Raises:
        ValueError: neither a name nor a file, an option that its loader does not have, and whatever the loader refuses.

    >>> load("pinwheel", n=100)
    Dataset('pinwheel', n=100: 80 train + 10 validation + 10 test, 2 columns, gaussian, 5 labels)
    """
    name = str(source)
    chosen = loader(name)
    given = dict(options)
    black_and_white = given.pop("binarise", name in IMAGES)
    _refuse_unknown(name, given, chosen)
    if chosen in NAMES.values():
        found, kept = chosen(**given), name
    else:
        path = Path(source).resolve()
        found = chosen(path, **{**({"length": _LENGTH} if chosen is from_text else {}), **given})
        kept = str(path)
    if black_and_white:
        found = binarised(found, 0)
    return replace(found, recipe={"source": kept, **options})


def loader(source: str | Path) -> Callable[..., Dataset]:
    """What `load` reads data of this name, or a file of this kind, with.

    Raises:
        ValueError: the name is of no kind that is known, or there is no such file.
    """
    name = str(source)
    named = NAMES.get(name.replace("_", "-"))
    if named is not None:
        return named
    low = name.lower().removesuffix(".gz")
    for ending, reader in _LOADERS.items():
        if low.endswith(ending):
            if not Path(name).is_file():
                raise ValueError(f"{name} should be a file, and there is none")
            return reader
    close = difflib.get_close_matches(low, NAMES, n=2, cutoff=0.6)
    guess = f"did you mean {' or '.join(close)}?" if close else f"names are {', '.join(NAMES)}"
    what = "is a file of unknown kind" if Path(name).is_file() else "is neither a name nor a file"
    raise ValueError(f"data {name!r} {what} (.csv, .npz, .npy, .idx, -ubyte, .txt, .md; .gz); {guess}")


def _refuse_unknown(name: str, options: Mapping[str, Any], chosen: Callable[..., Dataset]) -> None:
    known = inspect.signature(chosen).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        takes = ", ".join(option for option in known if option != "path") or "none"
        raise ValueError(f"{name} takes the options {takes}, got {unknown[0]!r}")
