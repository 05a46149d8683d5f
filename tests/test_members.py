"""Members of one module are so many modules: layers, perceptrons and convolutions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from identkit.lidvae.encoders import ResidualNetwork
from identkit.lidvae.members import Linear, member, members_of, stack
from identkit.lidvae.mlp import MLP
from tests.map_examples import generator, normal

BUILT: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda members: Linear(members, 48, 3, generator=generator()),
    "mlp": lambda members: MLP(members, 48, 3, (7, 5), generator=generator()),
    "residual": lambda members: ResidualNetwork(members, (3, 4, 4), 2, (4, 6), generator=generator()),
}


@pytest.fixture(params=BUILT)
def module(request: pytest.FixtureRequest) -> nn.Module:
    return BUILT[request.param](3).double()


def test_together_is_a_loop_over_members(module: nn.Module) -> None:
    x = normal(3, 10, 48)
    together = module(x)
    alone = [member(module, number) for number in range(3)]
    for number, one in enumerate(alone):
        assert members_of(one) == 1
        assert (one(x[number]) - together[number]).abs().max() < 1e-12
        assert (one(x[number : number + 1]) - together[number]).abs().max() < 1e-12
    assert torch.equal(stack([stack(alone[:2]), alone[2]])(x), together)
    assert not torch.equal(together[0], together[1])  # each starts elsewhere


def test_gradients_stay_with_their_member(module: nn.Module) -> None:
    module(normal(3, 10, 48))[0].square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        seen = [bool(own.any()) for own in parameter.grad]
        closed = name.startswith("inner")  # behind a convolution that starts at 0
        assert seen == ([False] * 3 if closed else [True, False, False]), name


def test_a_member_is_a_copy_and_keeps_what_is_frozen() -> None:
    pair = Linear(2, 3, 1, generator=generator())
    pair.bias.requires_grad_(False)
    last = member(pair, -1)
    assert not last.bias.requires_grad and last.weight.requires_grad
    last.weight.data.zero_()
    assert bool(pair.weight.any())
    with pytest.raises(IndexError, match="number should be below"):
        member(pair, 2)


def test_what_has_no_members_is_refused() -> None:
    with pytest.raises(ValueError, match="first axis"):
        members_of(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4)))
    with pytest.raises(ValueError, match="at least one"):
        stack([])
    with pytest.raises(ValueError, match="shapes of the first"):
        stack([Linear(1, 3, 2, generator=generator()), Linear(1, 4, 2, generator=generator())])


def test_the_same_generator_gives_the_same_weights_and_leaves_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = (BUILT["residual"](2) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
