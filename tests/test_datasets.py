"""Data sets: the geometry of the toys undone, languages against brute force and PyTorch, files written and read back."""

from __future__ import annotations

import gzip
import itertools
import math
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from identkit.lidvae.datasets import (
    TOYS,
    Dataset,
    LSTMLanguage,
    MarkovLanguage,
    binarised,
    checkerboard,
    circles,
    digits,
    eight_gaussians,
    fashion_mnist,
    from_csv,
    from_file,
    from_idx,
    from_npz,
    from_rows,
    from_text,
    lstm_sequences,
    markov_sequences,
    mnist,
    omniglot,
    pinwheel,
    read_idx,
    spirals,
    split_rows,
    two_moons,
)

DRAWN: dict[str, Callable[..., Dataset]] = TOYS | {
    "markov_sequences": markov_sequences,
    "lstm_sequences": lstm_sequences,
}
REAL = Path(os.environ.get("IDENTKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
real_data = pytest.mark.skipif(
    not (REAL / "mnist_t10k-images-idx3-ubyte.gz").exists(), reason="no images in IDENTKIT_DATA"
)


def joined(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """All rows, in double precision, and their labels or latents."""
    about = dataset.labels or dataset.latents
    assert about is not None
    return torch.cat([dataset.train, dataset.validation, dataset.test]).double(), torch.cat(about)


# --- drawn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_seed_decides_every_draw_and_nothing_else_does(draw: Callable[..., Dataset]) -> None:
    before = torch.get_rng_state()
    one, again, other = draw(100, 3), draw(100, torch.Generator().manual_seed(3)), draw(100, 4)
    assert torch.equal(torch.get_rng_state(), before)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(one, part), getattr(again, part))
    assert not torch.equal(one.train, other.train)
    assert torch.equal(joined(one)[1], joined(again)[1])
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(draw(100, generator).train, one.train)
    assert not torch.equal(draw(100, generator).train, one.train)  # the generator has moved on
    assert (len(one.train), len(one.validation), len(one.test)) == (80, 10, 10)
    assert "n=100: 80 train + 10 validation + 10 test" in repr(one)


@pytest.mark.parametrize("draw", TOYS.values(), ids=TOYS)
def test_every_component_of_a_toy_is_as_likely(draw: Callable[..., Dataset]) -> None:
    counts = joined(draw(20_000))[1].bincount().double()
    p = 1 / len(counts)
    assert ((counts - 20_000 * p).abs() < 5 * math.sqrt(20_000 * p * (1 - p))).all()


def test_pinwheel_unwound_is_a_thin_gaussian() -> None:
    x, arm = joined(pinwheel(20_000))
    assert x.square().sum(1).mean().item() == pytest.approx(1 + 0.3**2 + 0.05**2, rel=0.02)
    radius = x.norm(dim=1)
    assert radius.mean().item() == pytest.approx(1, abs=0.01)
    assert radius.std().item() == pytest.approx(0.3, rel=0.03)
    # The points lie at the angle −θ = −(2π arm / 5 + e^r / 4), but for across / r.
    off = torch.atan2(x[:, 1], x[:, 0]) + 2 * math.pi * arm / 5 + 0.25 * radius.exp()
    across = radius * torch.sin(off)
    typical = radius > 0.5
    assert across[typical].mean().abs() < 0.002
    assert across[typical].std().item() == pytest.approx(0.05, rel=0.05)
    assert torch.allclose(joined(pinwheel(20_000, scale=10))[0], 10 * x, rtol=1e-6)
    # The five arms are one arm, turned: over all of them the mean is 0 and the covariance a multiple of 1.
    assert x.mean(0).abs().max() < 0.03
    assert torch.allclose(x.T.cov(), 0.546 * torch.eye(2, dtype=x.dtype), atol=0.02)


def test_moons_rings_and_spirals_lie_on_their_curves() -> None:
    x, moon = joined(two_moons(2_000, noise=1e-9))
    centre = torch.stack([moon, moon / 2], 1)
    assert torch.allclose((x - centre).norm(dim=1), torch.ones(2_000, dtype=x.dtype), atol=1e-6)
    assert (x[moon == 0, 1] > -1e-6).all() and (x[moon == 1, 1] < 0.5 + 1e-6).all()

    x, ring = joined(circles(2_000, rings=3, noise=1e-9))
    assert torch.allclose(x.norm(dim=1), 1 - ring.double() / 3, atol=1e-6)

    x, arm = joined(spirals(2_000, arms=3, turns=2, noise=1e-9))
    radius = x.norm(dim=1)
    off = torch.atan2(x[:, 1], x[:, 0]) - 2 * math.pi * (2 * radius + arm / 3)
    assert (radius * off.sin()).abs().max() < 1e-5 and (off.cos() > 0.9)[radius > 0.01].all()
    assert radius.square().mean().item() == pytest.approx(1 / 2, abs=0.03)

    x, moon = joined(two_moons(20_000, noise=0.1))
    off = (x - torch.stack([moon, moon / 2], 1)).norm(dim=1) - 1
    assert off.std().item() == pytest.approx(0.1, rel=0.05)


def test_a_checkerboard_is_uniform_on_its_black_squares() -> None:
    x, square = joined(checkerboard(20_000))
    cell = (x + 2).floor().long()
    assert ((x.abs() <= 2).all(1)).all() and ((cell.sum(1) % 2) == 0).all()
    assert torch.equal(square, 2 * cell[:, 1] + cell[:, 0] // 2)
    inside = x - x.floor()
    assert (inside.mean(0) - 0.5).abs().max() < 0.01 and (inside.var(0) - 1 / 12).abs().max() < 0.003


def test_eight_gaussians_have_their_means_and_spreads() -> None:
    x, component = joined(eight_gaussians(40_000))
    for i in range(8):
        mine = x[component == i]
        mean = torch.tensor([2 * math.cos(math.pi * i / 4), 2 * math.sin(math.pi * i / 4)])
        assert (mine.mean(0) - mean).abs().max() < 0.02
        assert torch.allclose(mine.T.cov(), 0.04 * torch.eye(2, dtype=x.dtype), atol=0.003)


# --- languages ----------------------------------------------------------------------------------------------

LANGUAGES = {
    "markov": MarkovLanguage.random(3, 2, seed=5),
    "lstm": LSTMLanguage.random(3, 2, hidden=4, seed=5),
}


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_the_likelihood_of_all_sequences_sums_to_one_and_is_how_often_they_come(language: Any) -> None:
    x = torch.tensor(list(itertools.product(range(3), repeat=3)))
    z = torch.tensor([[0.3, -0.7], [2.0, 1.0]], dtype=torch.float64)
    log_law = language.log_likelihood(x, z.expand(27, 2, 2))
    assert torch.allclose(log_law.logsumexp(0), z.new_zeros(2), atol=1e-12)
    # p(x) = ∫ p(x | z) p(z) dz by Gauss–Hermite quadrature, against frequencies.
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    grid = torch.cartesian_prod(torch.from_numpy(nodes), torch.from_numpy(nodes))
    log_weight = torch.from_numpy(np.log(np.outer(weights, weights).ravel() / (2 * math.pi)))
    law = (language.log_likelihood(x, grid.expand(27, -1, -1)) + log_weight).logsumexp(1).exp()
    n = 50_000
    drawn, _ = language.sample(n, 3, torch.Generator().manual_seed(1))
    counts = (drawn @ torch.tensor([9, 3, 1])).bincount(minlength=27)
    assert ((counts - n * law).abs() < 5 * (n * law * (1 - law)).sqrt() + 1).all()


def test_the_lstm_is_that_of_pytorch() -> None:
    language = LSTMLanguage.random(7, 2, hidden=5, seed=1)
    cell = torch.nn.LSTMCell(5, 5, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih.copy_(language.input_weight)
        cell.weight_hh.copy_(language.state_weight)
        cell.bias_ih.copy_(language.bias)
        cell.bias_hh.zero_()
        x, z = language.sample(4, 6, torch.Generator().manual_seed(0))
        memory, total = None, torch.zeros(4, dtype=torch.float64)
        for t in range(6):
            read = language.embedding[x[:, t - 1] if t else torch.full((4,), 7)]
            memory = cell(read, memory)
            logits = memory[0] @ language.output.T + z @ language.steering.T
            total += torch.distributions.Categorical(logits=logits).log_prob(x[:, t])
    assert torch.allclose(language.log_likelihood(x, z[:, None])[:, 0], total, atol=1e-12)


def test_true_latents_are_recovered_by_the_exact_posterior() -> None:
    data = markov_sequences(1_000, 2)
    assert data.latents is not None
    language = MarkovLanguage.random(20, 2, seed=0)
    nodes = torch.linspace(-5, 5, 41, dtype=torch.float64)
    grid = torch.cartesian_prod(nodes, nodes)
    x, z = data.test, data.latents.test.double()
    log_weight = language.log_likelihood(x, grid.expand(len(x), -1, -1)) - grid.square().sum(1) / 2
    weight = log_weight.softmax(1)
    mean = weight @ grid
    spread = weight @ grid.square() - mean.square()
    # Rows and latents belong together: errors are as large as the posterior says, and far below the prior's.
    assert ((mean - z).square() / spread).mean().item() == pytest.approx(1, abs=0.3)
    assert (mean - z).square().mean() < 0.2
    # Another draw of one language shares its steering; another language does not.
    assert torch.equal(language.steering, MarkovLanguage.random(20, 2, seed=0).steering)
    assert not torch.equal(language.steering, MarkovLanguage.random(20, 2, seed=1).steering)
    scaled = language.steering / math.sqrt(20)
    assert torch.allclose(scaled.T @ scaled, torch.eye(2, dtype=scaled.dtype), atol=1e-12)
    assert language.steering.sum(0).abs().max() < 1e-12
    assert lstm_sequences(100, latent_dim=0).latents is None


# --- tables -------------------------------------------------------------------------------------------------


def test_the_split_is_disjoint_complete_and_fixed() -> None:
    for n in (10, 19, 1_797):
        parts = split_rows(n)
        assert [len(part) for part in parts] == [n - 2 * (n // 10), n // 10, n // 10]
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(n))
    assert (split_rows(50).validation.tolist(), split_rows(50).test.tolist()) == FIXED


FIXED = ([20, 11, 41, 34, 36], [35, 39, 48, 45, 28])


def test_labels_and_latents_stay_with_their_rows() -> None:
    x = torch.arange(60.0).reshape(30, 2)
    data = from_rows(x, "gaussian", labels=torch.arange(30), latents=-x)
    assert data.labels is not None and data.latents is not None
    for rows, label, latent in zip(
        (data.train, data.validation, data.test), data.labels, data.latents, strict=True
    ):
        assert torch.equal(rows, x[label]) and torch.equal(latent, -x[label])
    assert data.n == 30 and data.to("cpu").labels is not data.labels


def test_standardised_columns_go_back() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50.0, 0.01]) + 7
    data = from_rows(x, "gaussian", standardise=True, divide=2)
    assert data.train.mean(0).abs().max() < 1e-5 and torch.allclose(data.train.std(0), torch.ones(3))
    assert data.scale is not None
    assert torch.allclose(data.scale.back(data.test), x[split_rows(200).test], rtol=1e-5)


def test_grey_values_are_binarised_as_asked() -> None:
    grey = from_rows(torch.linspace(0, 1, 400).reshape(100, 4), "bernoulli")
    fresh, once = binarised(grey, 1), binarised(grey, 1, fresh=False)
    assert torch.equal(fresh.test, once.test) and torch.equal(fresh.validation, once.validation)
    assert not torch.equal(binarised(grey, 2).test, fresh.test)
    for dataset in (fresh, once):
        assert set(dataset.test.unique().tolist()) == {0, 1}
    assert torch.equal(fresh.train, grey.train)
    generator = torch.Generator().manual_seed(0)
    first, second = (fresh.draw(fresh.train, generator) for _ in range(2))
    assert set(first.unique().tolist()) == {0, 1} and not torch.equal(first, second)
    assert torch.equal(once.draw(once.train, generator), once.train) and "afresh" in repr(fresh)
    many = from_rows(torch.rand(40_000, 1, generator=generator), "bernoulli")
    drawn = binarised(many, 0, fresh=False)
    assert ((drawn.train - many.train) * (many.train - 0.5)).mean().abs() < 0.005  # E[x | grey] = grey


def test_digits_are_those_of_scikit_learn() -> None:
    data = digits()
    assert (data.n, data.shape) == (1_797, (8, 8)) and data.scale is not None and data.labels is not None
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    x, label = load_digits(return_X_y=True)
    rows = split_rows(1_797).test
    assert np.array_equal(data.scale.back(data.test).numpy(), x[rows])
    assert np.array_equal(data.labels.test.numpy(), label[rows])


# --- files --------------------------------------------------------------------------------------------------

IDX = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, IDX[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("kind", IDX)
def test_idx_round_trip(kind: str, tmp_path: Path) -> None:
    array = (np.random.default_rng(0).random((20, 3, 2)) * 100).astype(kind)
    (tmp_path / "plain.idx").write_bytes(idx(array))
    (tmp_path / "packed-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    for name in ("plain.idx", "packed-ubyte.gz"):
        read = read_idx(tmp_path / name)
        assert read.dtype == array.dtype and np.array_equal(read, array)
    labels = np.arange(20, dtype=np.uint8)
    (tmp_path / "labels.idx").write_bytes(idx(labels))
    data = from_idx(tmp_path / "plain.idx", likelihood="gaussian", labels=tmp_path / "labels.idx")
    assert data.shape == (3, 2) and data.labels is not None
    assert np.array_equal(data.train.numpy(), array.reshape(20, 6)[data.labels.train].astype(np.float32))
    assert from_file(tmp_path / "packed-ubyte.gz", divide=100).likelihood == "bernoulli"


def test_csv_and_npz_round_trips(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    kinds = np.array(["setosa", "virginica"])[np.arange(20) % 2]
    lines = [f'"{a!r}",{kind},{b!r}' for (a, b), kind in zip(x.tolist(), kinds, strict=True)]
    named, bare = tmp_path / "named.csv", tmp_path / "bare.csv"
    named.write_bytes("\r\n".join(['"a, b",kind,b', *lines, "", ""]).encode("utf-8-sig"))
    bare.write_text("\n".join(f"{a!r},{b!r}" for a, b in x.tolist()))
    np.savez(tmp_path / "two.npz", rows=x, kinds=kinds)
    np.save(tmp_path / "one.npy", x)
    table = from_csv(named, label="kind")
    arrays = from_npz(tmp_path / "two.npz", labels="kinds")
    rows = split_rows(20)
    for data in (table, arrays, from_file(bare), from_file(tmp_path / "one.npy")):
        assert np.array_equal(data.train.numpy(), x[rows.train].astype(np.float32))
    for data in (table, arrays):
        assert data.labels is not None and data.label_names == ("setosa", "virginica")
        assert torch.equal(data.labels.test, rows.test % 2)
    assert table.columns == ("a, b", "b") and from_csv(bare).columns == ("x[1]", "x[2]")
    counted = tmp_path / "counted.csv"
    counted.write_text("0,1\n" + "\n".join(f"{i},{i % 7 + 8}" for i in range(20)))
    assert from_csv(counted, header=True, likelihood="poisson", label="1").columns == ("0",)
    assert from_csv(counted, header=False, likelihood="poisson").n == 21
    labels = from_csv(counted, header=True, label="1").labels  # numbers stay the numbers they are
    assert labels is not None and torch.equal(labels.train, rows.train % 7 + 8)


@pytest.mark.parametrize(("unit", "join"), [("word", " "), ("character", "")])
def test_text_round_trip(unit: Any, join: str, tmp_path: Path) -> None:
    path = tmp_path / "song.txt"
    text = "\n".join(f"ä verse of {number % 7} words" for number in range(100)) + "\n"
    path.write_text(text, encoding="utf-8", newline="\r\n")
    data = from_text(path, unit=unit, length=7 if unit == "word" else 24)
    rows = torch.empty(data.n, data.train.shape[1], dtype=torch.long)
    for place, part in zip(split_rows(data.n), (data.train, data.validation, data.test), strict=True):
        rows[place] = part
    read = join.join(token for row in rows for token in data.tokens(row))
    assert (read if unit == "character" else read.replace(" <eol> ", "\n").replace(" <eol>", "\n")) in text
    assert len(read) > 0.98 * len(text) and data.vocabulary is not None
    # The cut-off keeps the most frequent tokens of the training part, and <unk> stands for the others.
    counts = data.train.flatten().bincount(minlength=len(data.vocabulary))
    assert counts[0] == 0 and (counts[1:].diff() <= 0).all()
    short = from_text(path, unit=unit, length=data.train.shape[1], vocabulary_size=4)
    assert short.vocabulary == data.vocabulary[:4]
    assert torch.equal(short.train, torch.where(data.train < 4, data.train, 0))
    common = from_text(path, unit=unit, length=data.train.shape[1], least_count=int(counts[3]))
    assert common.categories == 1 + int((counts[1:] >= counts[3]).sum())


def test_a_text_with_unknown_words_keeps_them_unknown(tmp_path: Path) -> None:
    (tmp_path / "cut.txt").write_text("the <unk> sat on the <unk> mat\n" * 20)
    data = from_text(tmp_path / "cut.txt", length=3)
    assert data.vocabulary is not None and data.vocabulary.count("<unk>") == 1
    assert data.tokens(torch.tensor([0])) == ["<unk>"] and (data.train == 0).any()


# --- real images --------------------------------------------------------------------------------------------


@real_data
def test_real_images_are_split_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTKIT_DATA", str(REAL))
    for load, least in ((mnist, 10_000), (fashion_mnist, 3_615), (omniglot, 4_840)):
        data = load()
        assert data.n >= least and data.shape == (28, 28) and f"n={data.n:,}" in repr(data)
        assert len(data.test) == len(data.validation) == data.n // 10
        assert data.train.min() == 0 and data.train.max() == 1
    assert repr(omniglot(labels="character")).endswith("242 labels)")


@real_data
def test_real_images_carry_their_labels() -> None:
    for data, classes in (
        (mnist(folder=REAL), 10),
        (fashion_mnist(folder=REAL), 10),
        (omniglot(folder=REAL), 8),
    ):
        assert data.labels is not None and set(torch.cat(data.labels).tolist()) == set(range(classes))
        # The nearest class mean does far better than chance only if images and labels belong together.
        means = torch.stack([data.train[data.labels.train == label].mean(0) for label in range(classes)])
        right = torch.cdist(data.test, means).argmin(1) == data.labels.test
        assert right.float().mean() > (0.3 if classes == 8 else 0.6)


def test_fetching_without_pooch_or_network_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'identkit\[data\]'"):
        mnist(fetch=True)

    def offline(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route")

    stub = SimpleNamespace(os_cache=lambda name: tmp_path / name, retrieve=offline)
    monkeypatch.setitem(sys.modules, "pooch", stub)
    with pytest.raises(OSError, match=r"could not be fetched.*set IDENTKIT_DATA"):
        fashion_mnist(fetch=True)


def test_what_is_fetched_becomes_one_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    asked = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked.append((url, known_hash))
        rows = 60 if "train" in fname else 10
        shape = (rows, 28, 28) if "images" in fname else (rows,)
        (tmp_path / fname).write_bytes(gzip.compress(idx(generator.integers(0, 10, shape, dtype=np.uint8))))
        return str(tmp_path / fname)

    monkeypatch.setitem(sys.modules, "pooch", SimpleNamespace(os_cache=lambda _: tmp_path, retrieve=retrieve))
    fetched = mnist(fetch=True)
    assert fetched.n == 70 and fetched.scale is not None
    assert torch.equal(fetched.scale.back(fetched.train).unique(), torch.arange(10.0))
    assert all(known.startswith("sha256:") and len(known) == 71 for _, known in asked) and len(asked) == 4


# --- abuses -------------------------------------------------------------------------------------------------


def rows(**entries: float) -> Tensor:
    """Twenty rows of two columns in (0, 1); `x3_1=v` puts v into row 3, column 1."""
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    for place, value in entries.items():
        row, column = map(int, place[1:].split("_"))
        x[row - 1, column - 1] = value
    return x


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def table(folder: Path, line: str) -> Path:
    """Twenty good lines and, as the third, one that is not."""
    lines = [f"{i},{i * i}" for i in range(20)]
    return written(folder, "t.csv", "\n".join(["a,b", *lines[:2], line, *lines[2:]]))


Abuse = tuple[Callable[[Path], Any], tuple[str, ...]]
WORDS = ["0", "1", "2"]
ABUSES: dict[str, Abuse] = {
    "NaN": (
        lambda _: from_rows(rows(x3_1=math.nan), "gaussian"),
        ("x, row 3, column x[1]", "finite number", "nan"),
    ),
    "infinite": (
        lambda _: from_rows(rows(x2_2=math.inf), "poisson"),
        ("row 2, column x[2]", "finite", "inf"),
    ),
    "beyond single precision": (
        lambda _: from_rows(rows().double() * 1e300, "gaussian"),
        ("row 1", "single precision", "e+"),
    ),
    "constant column": (
        lambda _: from_rows(
            torch.cat([rows(), torch.ones(20, 1)], 1), "gaussian", columns=["a", "b", "flat"]
        ),
        ("constant columns: flat", "vary", "16 training rows"),
    ),
    "constant column, standardised": (
        lambda _: from_rows(torch.cat([rows(), torch.ones(20, 1)], 1), "gaussian", standardise=True),
        ("constant columns: x[3]",),
    ),
    "constant in single precision": (
        lambda _: from_rows(rows().double() * 1e-9 + 1e9, "gaussian"),
        ("constant columns: x[1], x[2]",),
    ),
    "all constant": (lambda _: from_rows(torch.ones(20, 2), "bernoulli"), ("all equal",)),
    "Bernoulli above 1": (
        lambda _: from_rows(rows(x4_1=1.5), "bernoulli"),
        ("row 4, column x[1]", "[0, 1]", "1.5", "divide=255"),
    ),
    "Bernoulli below 0": (
        lambda _: from_rows(rows(x4_1=-0.5), "bernoulli"),
        ("row 4, column x[1]", "[0, 1]", "-0.5"),
    ),
    "Poisson negative": (
        lambda _: from_rows(rows().round().where(rows() < 0.9, -1), "poisson"),
        ("0, 1, 2, …", "-1"),
    ),
    "Poisson not whole": (lambda _: from_rows(rows(), "poisson"), ("row 1, column x[1]", "0, 1, 2, …", "0.")),
    "categorical not whole": (
        lambda _: from_rows(rows(), "categorical", vocabulary=WORDS),
        ("0, …, 2", "got 0."),
    ),
    "categorical out of range": (
        lambda _: from_rows(torch.arange(20)[:, None], "categorical", vocabulary=WORDS),
        ("x, row 4, column x[1]", "0, …, 2", "3 categories", "got 3"),
    ),
    "categorical without categories": (
        lambda _: from_rows(rows().round(), "categorical"),
        ("categories", "None"),
    ),
    "unknown likelihood": (lambda _: from_rows(rows(), "normal"), ("likelihood", "gaussian", "'normal'")),
    "too few to split": (lambda _: pinwheel(9), ("n should be", "at least 10", "9")),
    "too few rows": (
        lambda _: from_rows(rows()[:7], "gaussian", name="mine"),
        ("mine", "at least 10 rows", "got 7"),
    ),
    "no table": (lambda _: from_rows(torch.zeros(20), "gaussian"), ("table", "(20,)")),
    "labels of another length": (
        lambda _: from_rows(rows(), "gaussian", labels=torch.arange(7)),
        ("labels", "20 rows", "got 7"),
    ),
    "standardised counts": (
        lambda _: from_rows(rows().round(), "poisson", standardise=True),
        ("standardise", "poisson"),
    ),
    "divided by nothing": (lambda _: from_rows(rows(), "gaussian", divide=0), ("divide", "positive", "0")),
    "binarised without grey": (lambda _: binarised(pinwheel(10), 0), ("Bernoulli", "gaussian")),
    "a seed that is none": (lambda _: pinwheel(10, -1), ("seed", "at least 0", "-1")),
    "noise below zero": (lambda _: two_moons(10, noise=-1), ("noise", "positive", "-1")),
    "an odd board": (lambda _: checkerboard(10, squares=3), ("squares", "even", "3")),
    "more latents than symbols": (
        lambda _: markov_sequences(10, vocabulary=2, latent_dim=2),
        ("vocabulary", "latent_dim = 2", "2"),
    ),
    "words of numbers": (lambda _: pinwheel(10).tokens(torch.tensor([0])), ("pinwheel", "categorical")),
    "missing CSV": (lambda folder: from_file(folder / "no.csv"), ("no.csv", "file", "No such file")),
    "missing NPZ": (lambda folder: from_file(folder / "no.npz"), ("no.npz", "No such file")),
    "missing IDX": (lambda folder: from_file(folder / "no.idx"), ("no.idx", "No such file")),
    "missing text": (lambda folder: from_file(folder / "no.txt", length=3), ("no.txt", "No such file")),
    "unknown suffix": (lambda folder: from_file(folder / "a.pkl"), ("a.pkl", ".csv")),
    "empty CSV": (lambda folder: from_csv(written(folder, "e.csv", "\n")), ("e.csv", "empty")),
    "names without rows": (lambda folder: from_csv(written(folder, "e.csv", "a,b\n")), ("e.csv", "rows")),
    "repeated name": (lambda folder: from_csv(written(folder, "e.csv", "a,a\n1,2\n")), ("e.csv", "'a'")),
    "names or numbers": (
        lambda folder: from_csv(written(folder, "e.csv", "5.1,setosa\n4.9,setosa\n")),
        ("first line", "5.1,setosa", "header="),
    ),
    "a word in a table": (
        lambda folder: from_csv(table(folder, "1,two")),
        ("t.csv, row 3, column b", "number", "'two'"),
    ),
    "an empty cell": (lambda folder: from_csv(table(folder, ",2")), ("t.csv, row 3, column a", "''")),
    "a NaN in a table": (lambda folder: from_csv(table(folder, "1,nan")), ("t.csv, row 3, column b", "nan")),
    "a short row": (lambda folder: from_csv(table(folder, "1")), ("t.csv, row 3", "2 cells", "got 1")),
    "a long row beside labels": (
        lambda folder: from_csv(table(folder, "1,2,3"), label="b"),
        ("t.csv, row 3", "2 cells", "got 3"),
    ),
    "no such label": (lambda folder: from_csv(table(folder, "1,2"), label="c"), ("label", "a, b", "'c'")),
    "not UTF-8": (lambda folder: from_csv(written(folder, "e.csv", b"\xff\xfe")), ("e.csv", "UTF-8")),
    "a pickle": (
        lambda folder: from_npz(saved(folder, a=np.array([{}], dtype=object))),
        ("a.npz", "pickled"),
    ),
    "not an NPZ": (lambda folder: from_npz(written(folder, "a.npz", "hello")), ("a.npz", "NPZ")),
    "a broken NPZ": (lambda folder: from_npz(written(folder, "a.npz", "PK\x03\x04..")), ("a.npz", "NPZ")),
    "an array of words": (
        lambda folder: from_npz(saved(folder, a=np.array(["b"] * 20))),
        ("a.npz", "numbers"),
    ),
    "which array": (lambda folder: from_npz(saved(folder, a=[1], b=[2])), ("key", "a, b", "None")),
    "no such array": (lambda folder: from_npz(saved(folder, a=[1]), key="b"), ("key", "(a)", "'b'")),
    "wrong magic number": (
        lambda folder: read_idx(written(folder, "a.idx", b"\x89PNG....")),
        ("a.idx", "magic", "89 50 4e 47"),
    ),
    "no bytes": (lambda folder: read_idx(written(folder, "a.idx", b"")), ("a.idx", "magic", "no bytes")),
    "header cut off": (
        lambda folder: read_idx(written(folder, "a.idx", b"\0\0\x08\x03\0\0")),
        ("a.idx", "3 axes", "6 bytes"),
    ),
    "IDX cut off": (
        lambda folder: read_idx(written(folder, "a.idx", idx(np.zeros((5, 2), np.uint8))[:-1])),
        ("a.idx", "22 bytes", "(5, 2)", "got 21"),
    ),
    "gzip cut off": (
        lambda folder: read_idx(written(folder, "a.gz", gzip.compress(bytes(99))[:-9])),
        ("a.gz", "gzip"),
    ),
    "labels of fewer images": (
        lambda folder: from_idx(
            written(folder, "x.idx", idx(np.eye(20, dtype=np.uint8))),
            labels=written(folder, "y.idx", idx(np.zeros(5, np.uint8))),
        ),
        ("labels of", "x.idx", "20 rows", "got 5"),
    ),
    "empty text": (lambda folder: from_text(written(folder, "e.txt", " \n"), length=3), ("e.txt", "empty")),
    "short text": (
        lambda folder: from_text(written(folder, "e.txt", "a b c " * 9), length=3),
        ("e.txt", "at least 10 rows", "3 words", "got 9"),
    ),
    "binary text": (
        lambda folder: from_text(written(folder, "e.txt", b"a\xff"), length=3),
        ("UTF-8", "byte 1"),
    ),
    "unknown unit": (
        lambda folder: from_text(written(folder, "e.txt", "a"), length=3, unit="byte"),
        ("unit", "'byte'"),
    ),
    "no length": (lambda folder: from_text(folder / "e.txt", length=0), ("length", "at least 1", "0")),
    "no images": (lambda folder: mnist(folder=folder), ("mnist_train-images", "neither", "fetch=True")),
    "no garments": (lambda folder: fashion_mnist(folder=folder), ("fashion_mnist_train-images", "neither")),
    "no letters": (lambda folder: omniglot(folder=folder), ("omniglot_small_28x28.npz", "No such file")),
    "no folder": (lambda folder: mnist(folder=folder / "no"), ("folder should", "exists", "no")),
    "no variable": (lambda _: omniglot(), ("Omniglot", "IDENTKIT_DATA")),
}


@pytest.mark.parametrize(("abuse", "said"), ABUSES.values(), ids=ABUSES)
def test_bad_data_are_refused_by_name(
    abuse: Callable[[Path], Any], said: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IDENTKIT_DATA", raising=False)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are checked one by one)
        abuse(tmp_path)
    for words in said:
        assert words in str(caught.value)


def test_no_tensor_is_another_type() -> None:
    with pytest.raises(TypeError, match="mine should be a tensor of real numbers, got ndarray"):
        from_rows(np.zeros((20, 2)), "gaussian", name="mine")
    with pytest.raises(TypeError, match="complex64"):
        from_rows(torch.zeros(20, 2, dtype=torch.complex64), "gaussian")
