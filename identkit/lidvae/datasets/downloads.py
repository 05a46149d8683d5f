"""Public files fetched once into the user's cache, each held to the hash that the world knows it by."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """Where the four files of an MNIST-like set are, and what they hash to."""

    title: str
    function: str
    """Its loader."""
    prefix: str
    """What stands before the files' names in a folder of the user's."""
    url: str
    sha256: dict[str, str]


# The hashes of torchvision's prototype data sets; those of the MNIST test set were also computed from the files.
MNIST = Source(
    "MNIST",
    "mnist",
    "mnist_",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)
FASHION_MNIST = Source(
    "Fashion-MNIST",
    "fashion_mnist",
    "fashion_mnist_",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)


def download(source: Source, name: str) -> Path:
    """Fetch a file into the user's cache, unless it is there already, and check its hash.

    Raises:
        ImportError: pooch is not installed.
        OSError: there is no network, or no such file behind it; the message says what to do without.
        ValueError: what came is not the file that was meant.
    """
    try:
        pooch = importlib.import_module("pooch")
    except ImportError as error:
        raise ImportError(f"fetching {source.title} needs pooch: pip install 'identkit[data]'") from error
    folder = Path(pooch.os_cache("identkit")) / source.function
    try:
        path = pooch.retrieve(
            source.url + name, known_hash=f"sha256:{source.sha256[name]}", fname=name, path=folder
        )
    except OSError as error:  # all that requests raises for a network is one
        raise OSError(
            f"{source.url + name} could not be fetched ({type(error).__name__}); get it elsewhere, put it as "
            f"{source.prefix + name} into a folder and set IDENTKIT_DATA to that folder"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{source.url + name} should have the hash {source.sha256[name]}: {error}"
        ) from error
    return Path(path)
