"""Data to train on, each as a `Dataset`: toys in the plane, sequences, images, and the user's own files.

Every loader draws from an explicit seed and splits all rows at hand 80/10/10 in one fixed way; nothing here trains.
"""

from __future__ import annotations

from identkit.lidvae.datasets.dataset import Dataset, Parts, Scale, binarised, from_rows, split_rows
from identkit.lidvae.datasets.files import from_csv, from_file, from_idx, from_npz
from identkit.lidvae.datasets.idx import read_idx
from identkit.lidvae.datasets.images import digits, fashion_mnist, mnist, omniglot
from identkit.lidvae.datasets.named import IMAGES, NAMES, load, loader
from identkit.lidvae.datasets.sequences import (
    Language,
    LSTMLanguage,
    MarkovLanguage,
    lstm_sequences,
    markov_sequences,
)
from identkit.lidvae.datasets.support import LIKELIHOODS, refuse_outside
from identkit.lidvae.datasets.text import from_text
from identkit.lidvae.datasets.toys import (
    TOYS,
    checkerboard,
    circles,
    eight_gaussians,
    pinwheel,
    spirals,
    two_moons,
)

__all__ = [
    "IMAGES",
    "LIKELIHOODS",
    "NAMES",
    "TOYS",
    "Dataset",
    "LSTMLanguage",
    "Language",
    "MarkovLanguage",
    "Parts",
    "Scale",
    "binarised",
    "checkerboard",
    "circles",
    "digits",
    "eight_gaussians",
    "fashion_mnist",
    "from_csv",
    "from_file",
    "from_idx",
    "from_npz",
    "from_rows",
    "from_text",
    "load",
    "loader",
    "lstm_sequences",
    "markov_sequences",
    "mnist",
    "omniglot",
    "pinwheel",
    "read_idx",
    "refuse_outside",
    "spirals",
    "split_rows",
    "two_moons",
]
