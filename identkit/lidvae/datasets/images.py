"""Small images as rows of grey values in [0, 1]: scikit-learn's digits, MNIST, Fashion-MNIST, Omniglot.

They are read from the folder that the environment variable IDENTKIT_DATA names, all images at hand and no others;
MNIST and Fashion-MNIST are fetched whole where asked for. `binarised` makes them black and white.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from identkit.lidvae.datasets.dataset import Dataset, from_rows
from identkit.lidvae.datasets.downloads import FASHION_MNIST, MNIST, Source, download
from identkit.lidvae.datasets.files import from_npz
from identkit.lidvae.datasets.idx import read_idx

VARIABLE = "IDENTKIT_DATA"
_GARMENTS = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def digits() -> Dataset:
    """1,797 handwritten digits of 8 × 8 pixels with 17 levels of grey, from scikit-learn.

    Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        load_digits = importlib.import_module("sklearn.datasets").load_digits
    except ImportError as error:
        raise ImportError("digits needs scikit-learn: pip install scikit-learn") from error
    x, label = load_digits(return_X_y=True)
    return from_rows(
        torch.from_numpy(x),
        "bernoulli",
        name="digits",
        labels=torch.from_numpy(label),
        shape=(8, 8),
        divide=16,
    )


def mnist(*, folder: str | Path | None = None, fetch: bool = False) -> Dataset:
    """Handwritten digits of 28 × 28 pixels: whichever of the 60,000 and the 10,000 are at hand.

    LeCun, Bottou, Bengio & Haffner 1998. Both files make one set that is split anew, 80/10/10: `n` says how many.

    Args:
        folder: where ``mnist_train-images-idx3-ubyte.gz``, ``mnist_t10k-…`` lie; None for IDENTKIT_DATA.
        fetch: whether to use the complete 70,000 in the user's cache instead, downloaded the first time.

    Raises:
        ValueError: no folder, none of the files, or a broken one.
        ImportError, OSError: `fetch` without pooch, or without a network.
    """
    return _idx_images(MNIST, folder, fetch)


def fashion_mnist(*, folder: str | Path | None = None, fetch: bool = False) -> Dataset:
    """Garments of 28 × 28 pixels: whichever of the 60,000 and the 10,000 are at hand.

    Xiao, Rasul & Vollgraf 2017. Without ``fashion_mnist_train-images-idx3-ubyte.gz``, … the folder's
    ``fashion_mnist_train_first3615.npz``, the first 3,615 training images, stands in for them.

    Args, Raises: as for `mnist`.
    """
    if not fetch:
        part = _folder(FASHION_MNIST.title, folder) / "fashion_mnist_train_first3615.npz"
        if part.exists() and not _has_idx(FASHION_MNIST, part.parent):
            return _npz_images(part, FASHION_MNIST.title, "labels", _GARMENTS)
    return _idx_images(FASHION_MNIST, folder, fetch, _GARMENTS)


def omniglot(*, folder: str | Path | None = None, labels: str = "alphabet") -> Dataset:
    """Handwritten letters of eight alphabets, 4,840 drawings averaged to 28 × 28 pixels, ink white.

    Lake, Salakhutdinov & Tenenbaum 2015, both "background small" splits. There is nothing to fetch: the public files
    are drawings of 105 × 105 pixels in archives whose averaging could not be checked here.

    Args:
        folder: where ``omniglot_small_28x28.npz`` lies; None for IDENTKIT_DATA.
        labels: the alphabet (8), or the character (242).

    Raises:
        ValueError: no folder, no file, or a broken one.
    """
    path = _folder("Omniglot", folder, instead="") / "omniglot_small_28x28.npz"
    if labels not in ("alphabet", "character"):
        raise ValueError(f"labels should be 'alphabet' or 'character', got {labels!r}")
    found = _npz_images(path, "Omniglot", labels, None)
    if labels == "character":
        return found
    with np.load(path, allow_pickle=False) as arrays:
        return replace(found, label_names=tuple(arrays["alphabet_names"].tolist()))


def _npz_images(path: Path, name: str, labels: str, label_names: tuple[str, ...] | None) -> Dataset:
    found = from_npz(path, likelihood="bernoulli", key="images", labels=labels, divide=255)
    return replace(found, name=name, label_names=label_names)


def _idx_images(
    source: Source, folder: str | Path | None, fetch: bool, label_names: tuple[str, ...] | None = None
) -> Dataset:
    if fetch:
        files = {name: download(source, name) for name in source.sha256}
    else:
        place = _folder(source.title, folder)
        files = {name: place / (source.prefix + name) for name in source.sha256}
    images, labels = [], []
    for part in ("train", "t10k"):
        drawn, said = files[f"{part}-images-idx3-ubyte.gz"], files[f"{part}-labels-idx1-ubyte.gz"]
        if drawn.exists():
            images.append(read_idx(drawn))
            labels.append(read_idx(said))
    if not images:
        raise ValueError(
            f"{drawn.parent} should hold {source.prefix}train-images-idx3-ubyte.gz or {drawn.name} with their labels, got "
            f"neither; or call {source.function}(fetch=True)"
        )
    x = np.concatenate(images)
    return from_rows(
        torch.from_numpy(x.reshape(len(x), -1)),
        "bernoulli",
        name=source.title,
        source=f"{source.title} ({drawn.parent})",
        labels=torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        label_names=label_names,
        shape=x.shape[1:],
        divide=255,
    )


def _has_idx(source: Source, folder: Path) -> bool:
    return any((folder / (source.prefix + name)).exists() for name in source.sha256)


def _folder(title: str, folder: str | Path | None, instead: str = "; or fetch=True to download it") -> Path:
    named = folder or os.environ.get(VARIABLE)
    if not named:
        raise ValueError(
            f"{title} should have a folder: set the environment variable {VARIABLE}, or pass folder=…{instead}"
        )
    if not Path(named).is_dir():
        raise ValueError(
            f"{VARIABLE if folder is None else 'folder'} should name a folder that exists, got {named}"
        )
    return Path(named)
