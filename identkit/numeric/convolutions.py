"""Convolutions and pooling in the steps of a `Program`: their windows are moves of elements, then comes a product."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from identkit.numeric.translator import Translator as T, Unknown, Value


def along(t: T, x: Any, given: Any) -> Value:
    """A number for each channel, the second axis of x."""
    channels = t.value(given)
    return t.reshaped(channels, 1, *channels.shape, *[1] * (len(t.value(x).shape) - 2))


def convolution(
    t: T,
    x: Any,
    weight: Any,
    bias: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Value:
    """A convolution of one image or signal, or the adjoint of one, with torch's arguments."""
    value, kernel = t.value(x), t.value(weight)
    flat = len(stride) == 1
    if len(stride) > 2 or value.shape[0] != 1:
        raise Unknown("convolution")
    if flat:  # one axis is two, the first of length 1
        value, kernel = (t.reshaped(v, *v.shape[:2], 1, v.shape[2]) for v in (value, kernel))
        stride, padding, dilation = [1, *stride], [0, *padding], [1, *dilation]
        output_padding = [0, *output_padding]
    convolve = _transposed if transposed else _direct
    result = convolve(t, value, kernel, stride, padding, dilation, output_padding, groups)
    if flat:
        result = t.reshaped(result, 1, result.shape[1], result.shape[3])
    return result if bias is None else t.add(result, along(t, result, bias))


def _windows(
    shape: tuple[int, ...], kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any
) -> Tensor:
    """Where each window of an image (C, H, W) reads: places from 1, 0 for padding, (C·kernel, windows)."""
    places = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).reshape(1, *shape)
    return functional.unfold(places, kernel, dilation, padding, stride)[0].long()


def _read(places: Tensor, index: Tensor) -> Tensor:
    """Elements by number from 1; 0 reads the zero of the padding."""
    return functional.pad(places.flatten(), (1, 0))[index]


def _direct(t: T, x: Value, w: Value, stride: Any, padding: Any, dilation: Any, _: Any, groups: int) -> Value:
    outs, ins, *kernel = w.shape
    _, channels, *image = x.shape
    index = _windows((channels, *image), tuple(kernel), stride, padding, dilation)
    columns = t.through(x, lambda places: _read(places, index))
    count = index.shape[1]
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(image, padding, dilation, kernel, stride, strict=True)
    ]
    product = t.matmul(
        t.reshaped(w, groups, outs // groups, ins * math.prod(kernel)),
        t.reshaped(columns, groups, ins * math.prod(kernel), count),
    )
    return t.reshaped(product, 1, outs, *size)


def _transposed(
    t: T, x: Value, w: Value, stride: Any, padding: Any, dilation: Any, more: Any, groups: int
) -> Value:
    """The adjoint of a convolution from its output's image to x: each window's product is added where it was read."""
    ins, outs, *kernel = w.shape
    _, channels, *image = x.shape
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + m + 1
        for n, s, p, d, k, m in zip(image, stride, padding, dilation, kernel, more, strict=True)
    ]
    count = math.prod(image)
    weights = t.through(
        t.reshaped(w, groups, ins // groups, outs * math.prod(kernel)), lambda p: p.transpose(1, 2)
    )
    columns = t.matmul(weights, t.reshaped(x, groups, channels // groups, count))
    reads = _windows((outs * groups, *size), tuple(kernel), stride, padding, dilation)[:, :count].flatten()
    # Sort the entries of `columns` by the pixel they go to, and pad each pixel's list to one length with zeros.
    order = torch.argsort(reads, stable=True)
    pixels = reads[order]
    order, pixels = order[pixels > 0], pixels[pixels > 0] - 1
    total = outs * groups * math.prod(size)
    often = torch.bincount(pixels, minlength=total)
    first = often.cumsum(0) - often
    table = torch.zeros(total, max(1, int(often.max())), dtype=torch.int64)
    table[pixels, torch.arange(len(pixels)) - first[pixels]] = order + 1
    spread = t.through(columns, lambda places: _read(places, table))
    return t.reshaped(t.total(spread, [1]), 1, outs * groups, *size)


def average(
    t: T,
    x: Any,
    kernel: list[int],
    stride: Any = (),
    padding: Any = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Value:
    """Average pooling of one image, with torch's arguments."""
    value = t.value(x)
    if ceil_mode or divisor_override is not None or not count_include_pad or value.shape[0] != 1:
        raise Unknown("average pooling")
    _, channels, *image = value.shape
    kernel = list(kernel) * (2 // len(kernel))
    stride, padding = list(stride) or kernel, list(padding) * (2 // len(padding))
    index = _windows((channels, *image), tuple(kernel), stride, padding, [1, 1])
    index = index.reshape(channels, math.prod(kernel), -1).transpose(1, 2)
    windows = t.through(value, lambda places: _read(places, index))
    size = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(image, padding, kernel, stride, strict=True)]
    mean = t.multiply(t.total(windows, [2]), t.reciprocal(float(math.prod(kernel))))
    return t.reshaped(mean, 1, channels, *size)
