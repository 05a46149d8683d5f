"""Follows a recorded graph of torch operations and writes its `Program`; what has no rule raises `Unknown`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from identkit.numeric.program import Builder

aten: Any = torch.ops.aten
_LARGEST = 1 << 22  # elements of one value; with more, no analysis would end in time


class Unknown(Exception):
    """The graph holds something without a rule."""


@dataclass(frozen=True)
class Value:
    """What a step of the builder computes, in the shape that the graph gives it."""

    step: int
    shape: tuple[int, ...]


@dataclass
class Translator:
    """The builder's steps for a graph's values; the rules call its arithmetic."""

    graph: fx.GraphModule
    rules: Mapping[str, Callable[..., Any]]
    builder: Builder

    def run(self, z: Any) -> Any:
        """Follow the graph; constants are tensors, all else is a `Value`."""
        found: dict[fx.Node, Any] = {}
        needed = _needed(self.graph)
        for node in self.graph.graph.nodes:
            if node not in needed:
                found[node] = z if node.op == "placeholder" else None
            elif node.op == "placeholder":
                found[node] = z
            elif node.op == "get_attr":
                constant = operator.attrgetter(str(node.target))(self.graph)
                if not isinstance(constant, Tensor):
                    raise Unknown(node.target)
                found[node] = constant.detach().cpu()
            elif node.op == "output":
                return map_arg(node.args[0], lambda n: found[n])
            else:
                _refuse_kind(node)
                target = _functional(node)
                args = map_arg(node.args, lambda n: found[n])
                kwargs = map_arg(dict(node.kwargs), lambda n: found[n])
                found[node] = self.call(target, tuple(args), dict(kwargs))
        raise Unknown("no output")

    def call(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation."""
        if target is operator.getitem:
            return args[0][args[1]]
        kwargs.pop("memory_format", None)
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        packet = getattr(target, "overloadpacket", None)
        schema = getattr(target, "_schema", None)
        if (
            packet is None
            or schema is None
            or schema.is_mutable
            or torch.Tag.nondeterministic_seeded in target.tags
        ):
            raise Unknown(target)
        name = packet.__name__
        tensors = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Value | Tensor)]
        if not any(isinstance(leaf, Value) for leaf in tensors) and (
            name in _MOVES
            or name in _EXACT
            or not any(isinstance(t, Tensor) and t.is_floating_point() for t in tensors)
        ):
            found = target(*args, **kwargs)
            return found.fill_(math.nan) if name in _UNFILLED and found.is_floating_point() else found
        if name in _SHAPES_ONLY:
            return target(*_mapped(args, _standing), **_mapped(kwargs, _standing))
        if name in _MOVES:
            _refuse_writing(name, args, kwargs)
            return self.move(target, args, kwargs, indexed=name in _INDEXED)
        if name not in self.rules:
            raise Unknown(name)
        return self.rules[name](self, *args, **kwargs)

    # --- values ------------------------------------------------------------------------------------------

    def value(self, given: Any) -> Value:
        """A constant or number as a value."""
        if isinstance(given, Value):
            return given
        tensor = given if isinstance(given, Tensor) else torch.tensor(given, dtype=torch.float64)
        if tensor.is_complex() or bool(torch.isinf(tensor).any()):
            raise Unknown("complex or infinite constants")
        return Value(self.builder.constant(tensor), tuple(tensor.shape))

    def step(self, given: Any) -> int:
        """The builder's step of a value."""
        return self.value(given).step

    def move(
        self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], indexed: bool = False
    ) -> Any:
        """Let the operation move numbered places instead of data, and so learn the index. Place 0 holds a zero.

        Tensors of whole numbers or truth values are data like others, unless the operation is `indexed` by them.
        """
        sources: list[int] = [self.builder.constant(torch.zeros(1))]
        offset = [1]

        def places(value: Value) -> Tensor:
            sources.append(value.step)
            size = self.builder.steps[value.step].size
            offset[0] += size
            return torch.arange(offset[0] - size, offset[0], dtype=torch.float64).reshape(value.shape)

        def numbered(leaf: Any) -> Any:
            if isinstance(leaf, Value):
                return places(leaf)
            if not isinstance(leaf, Tensor) or (indexed and not leaf.is_floating_point()):
                return leaf
            return places(self.value(leaf))

        moved = target(*_mapped(args, numbered), **_mapped(kwargs, numbered))
        return _mapped(moved, lambda index: self._taken(tuple(sources), index.long()))

    def _taken(self, sources: tuple[int, ...], index: Tensor) -> Value:
        """The gather, from those sources only that it reads."""
        if index.numel() > _LARGEST:
            raise Unknown("too large")
        ends = torch.tensor([self.builder.steps[s].size for s in sources]).cumsum(0)
        owner = torch.bucketize(index.flatten(), ends, right=True)
        used = owner.unique().tolist()
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends])[:-1]
        shift, total = starts.clone(), 0
        for source in used:
            shift[source] = starts[source] - total
            total += self.builder.steps[sources[source]].size
        index_in_used = index.flatten() - shift[owner]
        step = self.builder.gather(tuple(sources[s] for s in used), index_in_used)
        return Value(step, tuple(index.shape))

    def reshaped(self, given: Any, *shape: int) -> Value:
        """The same elements in another shape."""
        value = self.value(given)
        if math.prod(value.shape) != math.prod(shape):
            raise Unknown("shape")
        return Value(value.step, shape)

    def through(self, given: Any, change: Callable[[Tensor], Tensor]) -> Value:
        """A value moved as `change` moves tensors."""
        return self.move(change, (self.value(given),), {})

    def together(self, *given: Any) -> tuple[list[Value], tuple[int, ...]]:
        """Values broadcast to one shape."""
        values = [self.value(each) for each in given]
        shape = tuple(torch.broadcast_shapes(*(value.shape for value in values)))
        if math.prod(shape) > _LARGEST:
            raise Unknown("too large")
        return [
            value if value.shape == shape else self.through(value, lambda t: t.expand(shape))
            for value in values
        ], shape

    # --- arithmetic, for the rules -----------------------------------------------------------------------

    def add(self, one: Any, two: Any) -> Value:
        """``a + b`` with broadcasting."""
        (a, b), shape = self.together(one, two)
        return Value(self.builder.add(a.step, b.step), shape)

    def multiply(self, one: Any, two: Any) -> Value:
        """``a · b`` with broadcasting."""
        (a, b), shape = self.together(one, two)
        return Value(self.builder.multiply(a.step, b.step), shape)

    def negative(self, one: Any) -> Value:
        """``−a``."""
        return self.multiply(one, -1.0)

    def function(self, name: str, one: Any, *numbers: float) -> Value:
        """An elementwise function."""
        value = self.value(one)
        return Value(self.builder.function(name, value.step, *(float(n) for n in numbers)), value.shape)

    def reciprocal(self, one: Any) -> Value:
        """``1/a``; of a constant power of two exactly."""
        if not isinstance(one, Value):
            exact = torch.as_tensor(one, dtype=torch.float64)
            if bool((torch.frexp(exact).mantissa.abs() == 0.5).all()):
                return self.value(1 / exact)
        return self.function("power", one, -1.0)

    def select(self, condition: Any, one: Any, two: Any) -> Value:
        """``a`` where the condition is 1, else ``b``."""
        (c, a, b), shape = self.together(condition, one, two)
        return Value(self.builder.select(c.step, a.step, b.step), shape)

    def matmul(self, one: Any, two: Any) -> Value:
        """Products of (…, n, m) and (…, m, p)."""
        a, b = self.value(one), self.value(two)
        (n, m), p = a.shape[-2:], b.shape[-1]
        batch = math.prod(a.shape[:-2])
        step = self.builder.matmul(a.step, b.step, (batch, n, m, p))
        return Value(step, (*a.shape[:-2], n, p))

    def total(self, one: Any, axes: Any, keep: bool = False) -> Value:
        """The sum over axes; over all where none is named."""
        value = self.value(one)
        rank = len(value.shape)
        axes = [axes] if isinstance(axes, int) else axes
        over = sorted({axis % rank for axis in axes}) if axes else list(range(rank))
        kept = [axis for axis in range(rank) if axis not in over]
        moved = self.through(value, lambda t: t.permute(*kept, *over))
        step = self.builder.sum(moved.step, math.prod(value.shape[axis] for axis in over))
        shape = tuple(
            1 if axis in over else value.shape[axis] for axis in range(rank) if keep or axis not in over
        )
        return Value(step, shape)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, list | tuple):
        return [leaf for part in tree for leaf in _leaves(part)]
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in _leaves(part)]
    return [tree]


def _mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(part, change) for part in tree)
    if isinstance(tree, dict):
        return {key: _mapped(part, change) for key, part in tree.items()}
    return change(tree)


def _standing(leaf: Any) -> Any:
    """Something of the same shape, for operations that ask no more."""
    return torch.zeros(leaf.shape, dtype=torch.float64) if isinstance(leaf, Value) else leaf


def _needed(graph: fx.GraphModule) -> set[fx.Node]:
    """The nodes that the output depends on."""
    pending = [node for node in graph.graph.nodes if node.op == "output"]
    needed: set[fx.Node] = set()
    while pending:
        node = pending.pop()
        if node not in needed:
            needed.add(node)
            pending.extend(node.all_input_nodes)
    return needed


def _functional(node: fx.Node) -> Any:
    """An operation in place as one that makes a new value, where that is the same.

    It is where the memory written to is fresh, not a view of other memory, and nothing else reads it but this very
    operation. (Pieces of `unsafe_split` share memory, but not with each other: the cells of torch's recurrent networks
    write into them.)
    """
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return node.target
    name = node.target.overloadpacket.__name__  # type: ignore[union-attr]
    into = node.args[0] if node.args else None
    if (
        not isinstance(into, fx.Node)
        or not name.endswith("_")
        or list(into.users) != [node]
        or not _fresh(into)
    ):
        raise Unknown("memory that others may read is written to")
    overload = node.target._overloadname  # type: ignore[union-attr]
    return getattr(getattr(aten, name[:-1]), overload)


def _fresh(node: fx.Node) -> bool:
    """Whether a node's memory is its own."""
    if node.target is operator.getitem:
        source = node.args[0]
        packet = getattr(getattr(source, "target", None), "overloadpacket", None)
        return packet is not None and packet.__name__.startswith("unsafe_split")
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return False
    return schema.is_mutable or all(result.alias_info is None for result in schema.returns)


def _refuse_kind(node: fx.Node) -> None:
    """Arithmetic on whole numbers and truth values is not that of the reals (True + True is True in torch)."""
    made = node.meta.get("val")
    if not isinstance(made, Tensor):
        return
    packet = getattr(node.target, "overloadpacket", None)
    name = "" if packet is None else packet.__name__
    sources = [source.meta.get("val") for source in node.all_input_nodes]
    whole = any(isinstance(s, Tensor) and not s.is_floating_point() for s in sources)
    if made.is_complex() or (
        whole and not made.is_floating_point() and name in ("add", "sub", "rsub", "neg")
    ):
        raise Unknown("arithmetic that is not of the reals")


def _refuse_writing(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Moves that would not be moves: sums into a place, values rounded into whole numbers, places filled with others."""
    if name == "index_put" and (any(args[3:]) or kwargs.get("accumulate")):
        raise Unknown("accumulation")
    if name in _INTO and isinstance(args[0], Tensor) and not args[0].is_floating_point():
        raise Unknown("values rounded to integers")
    filled = list(args[2:3]) if name in ("masked_fill", "constant_pad_nd") else []
    if any(
        not isinstance(value, Value) and not (isinstance(value, int | float) and value == 0)
        for value in filled
    ):
        raise Unknown("filled with other values")
    if name in ("masked_fill", "constant_pad_nd") and "value" in kwargs and kwargs["value"] != 0:
        raise Unknown("filled with other values")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MOVES = _names(
    """
    alias cat clone concat constant_pad_nd copy detach diag_embed diagonal embedding expand flatten flip gather index
    index_put index_select lift_fresh masked_fill movedim narrow permute pixel_shuffle pixel_unshuffle reflection_pad1d
    reflection_pad2d repeat replication_pad1d replication_pad2d reshape _reshape_alias roll select select_scatter slice
    slice_scatter split split_with_sizes squeeze stack t transpose tril triu unbind unfold unsafe_split _unsafe_view
    unsqueeze upsample_nearest1d upsample_nearest2d view
    """
)
_MOVES = _MOVES | {f"{name}_copy" for name in _MOVES}
"""Operations that move data and compute nothing."""

_INDEXED = _names("index index_put index_select gather embedding masked_fill")
"""Moves that take whole numbers as places and truth values as masks."""

_INTO = _names("copy index_put select_scatter slice_scatter masked_fill")
"""Moves into their first argument, whose kind of numbers the result keeps."""

_SHAPES_ONLY = _names("zeros_like ones_like full_like new_zeros new_ones new_full")
"""Operations whose result depends on the shape of what they are given."""

_UNFILLED = _names("empty empty_like new_empty empty_strided")
"""Memory that code means to fill."""

_EXACT = _SHAPES_ONLY | _names("neg abs relu gt ge lt le eq ne where maximum minimum amax amin max min")
"""Operations that floats do without rounding, and so may be done at once on constants."""
