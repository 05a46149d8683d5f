"""`Dataset`: the three parts of a table, and what a model has to know about its columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from identkit.lidvae.datasets.support import (
    randomness,
    refuse_constant,
    refuse_few,
    refuse_outside,
)

_SPLIT_SEED = 80_10_10  # one split for ever: figures of different runs are about the same test rows


class Parts(NamedTuple):
    """One thing about the rows of each part: their labels, their latents, their places in the file."""

    train: Tensor
    validation: Tensor
    test: Tensor


class Scale(NamedTuple):
    """How columns were brought to the scale of training: ``kept = (read − location) / scale``."""

    location: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]

    def back(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Rows in the units of the file."""
        return x * self.scale + self.location


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dataset:
    """Rows to learn from, to choose by and to judge by; drawn or read once, never changed.

    >>> from identkit.lidvae.datasets import pinwheel
    >>> pinwheel(1_000)
    Dataset('pinwheel', n=1,000: 800 train + 100 validation + 100 test, 2 columns, gaussian, 5 labels)
    """

    name: str
    train: Shaped[Tensor, "n d"]
    """Single precision; whole numbers (int64) where the likelihood is categorical."""
    validation: Shaped[Tensor, "m d"]
    test: Shaped[Tensor, "k d"]
    likelihood: str
    """The family that suits the values: gaussian, bernoulli, poisson or categorical."""
    labels: Parts | None = None
    """What each row is: the arm, the digit; int64, (n,). For judging, never for training."""
    label_names: tuple[str, ...] | None = None
    latents: Parts | None = None
    """Where the data were drawn from a known model, the latents they were drawn with; (n, k)."""
    columns: tuple[str, ...] | None = None
    """Names of the d columns, where the file has them."""
    shape: tuple[int, ...] | None = None
    """What a row is as an array, such as (28, 28), whose entries it lists row by row."""
    scale: Scale | None = None
    """What takes x back to the units of the file; None: they are the same."""
    vocabulary: tuple[str, ...] | None = None
    """What the whole numbers of a categorical x stand for."""
    fresh: bool = False
    """Whether `train` holds probabilities of which each batch is a new draw (`binarised`)."""
    recipe: Mapping[str, Any] | None = None
    """The arguments of `load` that give the same data again; None for data made otherwise."""

    @property
    def n(self) -> int:
        """Rows in all three parts."""
        return len(self.train) + len(self.validation) + len(self.test)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Of all d columns: ``x[1]``, ``x[2]``, … where the file has none."""
        return self.columns or tuple(f"x[{column + 1}]" for column in range(self.train.shape[1]))

    @property
    def categories(self) -> int | None:
        """How many values a categorical x may take."""
        return None if self.vocabulary is None else len(self.vocabulary)

    def __repr__(self) -> str:
        parts = f"{len(self.train):,} train + {len(self.validation):,} validation + {len(self.test):,} test"
        facts = [f"{self.train.shape[1]:,} columns", self.likelihood]
        if self.vocabulary is not None:
            facts.append(f"{len(self.vocabulary):,} categories")
        if self.labels is not None:
            facts.append(f"{len(torch.cat(self.labels).unique()):,} labels")
        if self.latents is not None:
            facts.append(f"{self.latents.train.shape[1]} true latents")
        if self.fresh:
            facts.append("binarised afresh for each batch")
        return f"Dataset({self.name!r}, n={self.n:,}: {parts}, {', '.join(facts)})"

    def to(self, device: str | torch.device) -> Dataset:
        """The same data on another device."""

        def moved(parts: Parts | None) -> Parts | None:
            return None if parts is None else Parts(*(part.to(device) for part in parts))

        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            labels=moved(self.labels),
            latents=moved(self.latents),
            scale=None if self.scale is None else Scale(*(part.to(device) for part in self.scale)),
        )

    def fingerprint(self) -> dict[str, Any]:
        """What tells these data from all others: sizes, and a hash of every entry."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.train, self.validation, self.test):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return {
            "name": self.name,
            "rows": [len(self.train), len(self.validation), len(self.test)],
            "columns": self.train.shape[1],
            "hash": digest.hexdigest(),
        }

    def tokens(self, row: Int[Tensor, " d"]) -> list[str]:
        """What a categorical row says.

        Raises:
            ValueError: the data have no vocabulary.
        """
        if self.vocabulary is None:
            raise ValueError(f"{self.name} should be categorical to have tokens, got {self.likelihood}")
        return [self.vocabulary[index] for index in row.tolist()]

    def draw(self, x: Shaped[Tensor, "*e b d"], generator: torch.Generator) -> Shaped[Tensor, "*e b d"]:
        """Training rows as a step should see them: `fresh` probabilities become a new draw, others stay.

        The generator lives where the rows are.
        """
        return torch.bernoulli(x, generator=generator) if self.fresh else x


def split_rows(n: int, *, source: str = "the data") -> Parts:
    """Indices of training, validation and test rows: ⌊n/10⌋ for each of the last two, in one fixed shuffled order.

    Raises:
        ValueError: fewer than ten rows, so that a part would be empty.

    >>> [len(part) for part in split_rows(1797)]
    [1439, 179, 179]
    """
    refuse_few(n, 10, source=source, purpose="to be split 80/10/10")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(_SPLIT_SEED))
    tenth = n // 10
    return Parts(order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth])


def from_rows(
    x: Any,
    likelihood: str,
    *,
    name: str = "x",
    source: str | None = None,
    labels: Tensor | None = None,
    label_names: Sequence[str] | None = None,
    latents: Tensor | None = None,
    columns: Sequence[str] | None = None,
    shape: tuple[int, ...] | None = None,
    divide: float = 1.0,
    standardise: bool = False,
    vocabulary: Sequence[str] | None = None,
) -> Dataset:
    """Check rows against a likelihood and split them 80/10/10.

    Args:
        x: the rows, a tensor (n, d) of any type of real numbers.
        likelihood: the family that is to explain them: gaussian, bernoulli, poisson or categorical.
        name: what they are called.
        source: what messages call them; None for the name.
        labels, label_names, latents, columns, shape, vocabulary: as in `Dataset`; a categorical likelihood needs its
            vocabulary.
        divide: a number that all values are divided by first, such as 255 for grey values.
        standardise: whether each column is brought to mean 0 and standard deviation 1 over the training rows. Only
            for a Gaussian likelihood; densities are then those of the standardised columns.

    Raises:
        TypeError: no tensor.
        ValueError: no table; too few rows; NaN; values outside the support; constant columns; labels or latents of
            another length. The message names the source, value and expectation.
    """
    source = source or name
    if not isinstance(x, Tensor) or x.is_complex():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{source} should be a tensor of real numbers, got {got}")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(
            f"{source} should be a table of n rows and d columns, got the shape {tuple(x.shape)}"
        )
    if not (divide > 0 and divide < float("inf")):
        raise ValueError(f"divide should be a positive number, got {divide}")
    if standardise and likelihood != "gaussian":
        raise ValueError(f"standardise should be False for a {likelihood} likelihood, got True")
    for title, other in (("labels", labels), ("latents", latents)):
        if other is not None and len(other) != len(x):
            raise ValueError(f"{title} of {source} should have {len(x)} rows, as x has, got {len(other)}")
    rows = split_rows(len(x), source=source)
    named = list(columns) if columns else [f"x[{column + 1}]" for column in range(x.shape[1])]
    # Grey values are exact in single precision, and four times larger as doubles.
    x = x.to(torch.float32 if x.dtype in (torch.uint8, torch.float32) else torch.float64)
    x = x / divide if divide != 1 else x
    categories = None if vocabulary is None else len(vocabulary)
    refuse_outside(x, likelihood, source=source, columns=named, categories=categories)
    scale = Scale(x.new_zeros(x.shape[1]), x.new_full((x.shape[1],), divide)) if divide != 1 else None
    if standardise:
        train = x[rows.train].double()
        refuse_constant(train, likelihood, source=source, columns=named)
        location, spread = train.mean(0), train.std(0)
        x = (x - location) / spread
        scale = Scale(location * divide, spread * divide)
    kept = x.long() if likelihood == "categorical" else x.float()
    refuse_constant(kept[rows.train], likelihood, source=source, columns=named)

    def parted(whole_of_it: Tensor | None) -> Parts | None:
        return None if whole_of_it is None else Parts(*(whole_of_it[part] for part in rows))

    return Dataset(
        name=name,
        train=kept[rows.train],
        validation=kept[rows.validation],
        test=kept[rows.test],
        likelihood=likelihood,
        labels=parted(labels),
        label_names=None if label_names is None else tuple(label_names),
        latents=parted(latents),
        columns=None if columns is None else tuple(columns),
        shape=shape,
        scale=None if scale is None else Scale(*(part.float() for part in scale)),
        vocabulary=None if vocabulary is None else tuple(vocabulary),
    )


def binarised(dataset: Dataset, seed: int | torch.Generator, *, fresh: bool = True) -> Dataset:
    """Grey values become black or white: ``x ~ Bernoulli(grey)``, once for the rows that judge.

    Drawing the evaluation rows again at each call would add noise to every comparison (lidvae.md, "Pitfalls"). Training
    rows may be drawn anew for each batch, which keeps a flexible model from learning one draw by heart; or once too.

    Args:
        dataset: Bernoulli data.
        seed: what the draws come from.
        fresh: whether training rows stay grey, to be drawn for each batch by `Dataset.draw`.

    Raises:
        ValueError: another likelihood.
    """
    if dataset.likelihood != "bernoulli":
        raise ValueError(f"dataset should be Bernoulli to be binarised, got {dataset.likelihood}")
    generator = randomness(seed)
    # The evaluation rows first: they are the same whichever way the training rows go.
    validation = torch.bernoulli(dataset.validation, generator=generator)
    test = torch.bernoulli(dataset.test, generator=generator)
    train = dataset.train if fresh else torch.bernoulli(dataset.train, generator=generator)
    return replace(dataset, train=train, validation=validation, test=test, fresh=fresh)
