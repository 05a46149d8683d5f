"""PyMC's compiled log density as a torch function, gradient included."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor


class CompiledDensity:
    """``z ↦ log p(data | z)`` of a PyMC model, row by row: latents (n, …) → (n,), with its gradient by PyTensor."""

    def __init__(self, model: Any) -> None:
        """Compile ``Σ log p(x | z)`` over the observed variables and its gradient, for batches of free variables.

        Raises:
            ValueError: it is no function of these alone.
        """
        pymc, pytensor = importlib.import_module("pymc"), importlib.import_module("pytensor")
        vectorized = importlib.import_module("pytensor.graph.replace").vectorize_graph
        tensor = pytensor.tensor
        # PyMC clones what it derives densities of, so that free variables are known by their values alone.
        values = {rv: rv.type() for rv in model.free_RVs}
        data = {rv: model.rvs_to_values[rv] for rv in model.observed_RVs}
        logs = importlib.import_module("pymc.logprob.basic").conditional_logp({**values, **data})
        total = tensor.sum([logs[value].sum() for value in data.values()])
        drawn = [np.asarray(value) for value in pymc.draw(model.free_RVs, random_seed=0)]
        self.shapes = [value.shape for value in drawn]
        given = [
            tensor.tensor(dtype=rv.type.dtype, shape=(None, *shape))
            for rv, shape in zip(model.free_RVs, self.shapes, strict=True)
        ]
        each = vectorized(total, dict(zip(values.values(), given, strict=True)))
        self.types = [variable.type.dtype for variable in given]
        finite = [not kind.startswith("float") for kind in self.types]
        slopes = (
            []
            if any(finite)
            else tensor.grad(each.sum(), given, disconnected_inputs="ignore", return_disconnected="zero")
        )
        self.compiled = pytensor.function(given, [each, *slopes], on_unused_input="ignore")
        self._refuse_chance(torch.cat([torch.as_tensor(v, dtype=torch.float64).reshape(-1) for v in drawn]))

    def _refuse_chance(self, z: Tensor) -> None:
        """A law without a density of its own would be drawn instead: other dice, other values."""
        numpy_random = importlib.import_module("pytensor.tensor.random.type").RandomType
        dice = [shared for shared in self.compiled.get_shared() if isinstance(shared.type, numpy_random)]
        before = [shared.get_value() for shared in dice]
        value = self.run(z.unsqueeze(0))[0]
        try:
            for number, shared in enumerate(dice):
                shared.set_value(np.random.default_rng(1 + number))
            again = self.run(z.unsqueeze(0))[0]
        finally:
            for shared, old in zip(dice, before, strict=True):
                shared.set_value(old)
        if not torch.equal(value, again):
            raise ValueError(
                "log p(data | z) should be a function of the free variables, but draws at random"
            )

    def __call__(self, z: Tensor) -> Tensor:
        """Score latents (n, …) given in one vector each."""
        flat = z.reshape(len(z), -1)
        value: Any = _Compiled.apply(flat, self)
        return value[0]

    def run(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values (n,) and gradients (n, k); the gradient is zero for finite latents."""
        array = z.detach().to("cpu", torch.float64).numpy()
        sizes = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = [
            part.reshape(len(array), *shape).astype(kind)
            for part, shape, kind in zip(np.split(array, sizes, 1), self.shapes, self.types, strict=True)
        ]
        value, *slopes = self.compiled(*parts)
        gradient = (
            np.concatenate([slope.reshape(len(array), -1) for slope in slopes], 1)
            if slopes
            else np.zeros_like(array)
        )
        value = np.broadcast_to(value, (len(array),)).copy()
        return torch.from_numpy(value).to(z), torch.from_numpy(gradient).to(z)


class _Compiled(torch.autograd.Function):
    """The density with its gradient, for reverse and forward mode and under `torch.vmap`."""

    @staticmethod
    def forward(z: Tensor, density: CompiledDensity) -> tuple[Tensor, Tensor]:
        return density.run(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return grads[0].unsqueeze(-1) * gradient, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return (gradient * tangents[0]).sum(-1), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, z: Tensor, density: CompiledDensity) -> Any:
        z = z.movedim(in_dims[0], 0)
        value, gradient = _Compiled.apply(z.reshape(-1, z.shape[-1]), density)  # pyright: ignore[reportGeneralTypeIssues]
        return (value.reshape(z.shape[:-1]), gradient.reshape(z.shape)), (0, 0)
