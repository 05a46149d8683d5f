"""The IDX format of MNIST: two zero bytes, the type, the number of axes, their lengths, then the numbers."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

# LeCun, Cortes & Burges, "The MNIST database": third byte of the magic number → type, most significant byte first.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


def read_idx(path: str | Path) -> np.ndarray:
    """Read an array from an IDX file, packed by gzip or not.

    Raises:
        ValueError: no such file, a wrong magic number, an unknown type, or more or fewer bytes than the header
            promises; the message names the file.
    """
    packed = read_bytes(path)
    try:
        content = gzip.decompress(packed) if packed.startswith(_GZIP) else packed
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} should be a whole gzip file, but unpacking it failed: {error}") from error
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        types = ", ".join(f"{code:02x}" for code in _TYPES)
        raise ValueError(
            f"{path} should start with the magic number of an IDX file, bytes 00 00, a type ({types}) and the "
            f"number of axes, got {magic.hex(' ') or 'no bytes'}"
        )
    axes, start = magic[3], 4 + 4 * magic[3]
    if len(content) < start:
        raise ValueError(
            f"{path} should hold the lengths of its {axes} axes, but ends after {len(content)} bytes"
        )
    shape = tuple(np.frombuffer(content, ">u4", axes, 4).tolist())
    kind = np.dtype(_TYPES[magic[2]])
    expected = start + prod(shape) * kind.itemsize
    if len(content) != expected:
        raise ValueError(
            f"{path} should have {expected:,} bytes for an array of the shape {shape}, got {len(content):,}"
        )
    return np.frombuffer(content, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: as `read_bytes`, and for bytes that are no such text.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} should be a text in UTF-8, got {error.reason} at byte {error.start}"
        ) from error


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: the file is not there or cannot be read; the message names it.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} should be a file that can be read: {error.strerror}") from error
