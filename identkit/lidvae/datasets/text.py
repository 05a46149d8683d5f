"""A text file as sequences of words or characters, rare ones replaced by ``<unk>``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch

from identkit.lidvae.datasets.dataset import Dataset, from_rows, split_rows
from identkit.lidvae.datasets.idx import read_text
from identkit.lidvae.datasets.support import refuse_few
from identkit.model.compiled.data import whole

UNKNOWN = "<unk>"
END_OF_LINE = "<eol>"


def from_text(
    path: str | Path,
    *,
    length: int,
    unit: str = "word",
    vocabulary_size: int = 10_000,
    least_count: int = 1,
) -> Dataset:
    r"""Cut a text into sequences of `length` tokens, one after the other; what is left at the end is dropped.

    A word is what stands between blanks, and each line ends with ``<eol>``; a character is any code point, a line
    break among them. The vocabulary is that of the training sequences alone, the most frequent first (alphabetically
    where counts are equal) after ``<unk>``, which is 0 and stands for all others. As the sequences are split at random,
    those of one page are in all parts; use separate files where that matters.

    Args:
        path: a file in UTF-8.
        length: tokens in a sequence.
        unit: what a token is, word or character.
        vocabulary_size: the most tokens that are kept, ``<unk>`` counted.
        least_count: how often a token must occur in the training sequences to be kept.

    Raises:
        ValueError: a missing, empty or too short file, bytes that are not UTF-8, or a bad argument.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "rhyme.txt"
    ...     _ = file.write_text("row row row your boat\n" * 20)
    ...     boats = from_text(file, length=5)
    >>> boats
    Dataset('rhyme.txt', n=24: 20 train + 2 validation + 2 test, 5 columns, categorical, 5 categories)
    >>> boats.vocabulary, " ".join(boats.tokens(boats.test[0]))
    (('<unk>', 'row', 'boat', 'your', '<eol>'), 'your boat <eol> row row')
    """
    whole(length, "length")
    whole(vocabulary_size, "vocabulary_size", 2)
    whole(least_count, "least_count")
    if unit not in ("word", "character"):
        raise ValueError(f"unit should be 'word' or 'character', got {unit!r}")
    tokens = _tokens(path, unit)
    n = len(tokens) // length
    refuse_few(n, 10, source=str(path), purpose=f"of {length} {unit}s each (length={length})")
    sequences = [tokens[start : start + length] for start in range(0, n * length, length)]
    seen = (token for row in split_rows(n).train.tolist() for token in sequences[row])
    vocabulary = _vocabulary(seen, vocabulary_size, least_count)
    index = {token: number for number, token in enumerate(vocabulary)}
    x = torch.tensor([[index.get(token, 0) for token in sequence] for sequence in sequences])
    return from_rows(x, "categorical", name=Path(path).name, source=str(path), vocabulary=vocabulary)


def _tokens(path: str | Path, unit: str) -> list[str]:
    text = read_text(path)
    if not text.strip():
        raise ValueError(f"{path} should hold a text, but is empty")
    if unit == "character":
        return list(text.replace("\r\n", "\n"))
    return [token for line in text.splitlines() for token in (*line.split(), END_OF_LINE)]


def _vocabulary(tokens: Iterable[str], size: int, least_count: int) -> list[str]:
    counts = Counter(tokens)
    counts.pop(UNKNOWN, None)  # a text that was cut before, such as the Penn Treebank of Mikolov, has its own
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [UNKNOWN, *(token for token, count in ordered[: size - 1] if count >= least_count)]
