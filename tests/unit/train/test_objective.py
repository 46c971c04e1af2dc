"""The loss from hidden states in chunks, and the frozen layers' products: what torch's own operators compute."""

import pytest
import torch
import torch.nn.functional as F

from lorary.base import frozen
from lorary.base.frozen import FrozenLinear, can_pack
from lorary.train import objective as loss

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 4 * 50 * 3, 2**25], ids=["one", "three", "all"])
def test_losses_and_gradients_are_those_of_cross_entropy(monkeypatch, dtype, chunk):
    monkeypatch.setitem(loss.CHUNK, "cpu", chunk)
    torch.manual_seed(0)
    hidden = torch.randn(11, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 8, dtype=dtype)
    targets, owner = torch.randint(50, (11,)), torch.tensor([0] * 6 + [2] * 5)
    counts = torch.tensor([6, 1, 5])
    losses = loss.HeadLoss.apply(hidden, FrozenLinear(weight, None), targets, owner, counts)
    (losses * torch.tensor([1.0, 1.0, 0.5])).sum().backward()
    mine, hidden.grad = hidden.grad, None
    logits = F.linear(hidden, weight)
    expected = torch.stack([F.cross_entropy(logits[:6], targets[:6]), F.cross_entropy(logits[6:], targets[6:])])
    (expected * torch.tensor([1.0, 0.5])).sum().backward()
    close = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {}
    torch.testing.assert_close(losses[[0, 2]], expected, **close)
    torch.testing.assert_close(mine, hidden.grad, **close)
    torch.testing.assert_close(loss.losses_of_logits(logits, targets, owner, counts)[[0, 2]], expected)


def test_a_target_that_the_model_rules_out_has_a_finite_loss():
    hidden, head = torch.tensor([[200.0]]), FrozenLinear(torch.tensor([[1.0], [-1.0]]), None)
    losses = loss.HeadLoss.apply(hidden, head, torch.tensor([1]), torch.tensor([0]), torch.tensor([1]))
    assert losses.tolist() == [400.0]


def test_a_wide_layer_in_blocks_computes_the_same(monkeypatch):
    torch.manual_seed(0)
    x, weight = torch.randn(128, 64), torch.randn(frozen.WIDE + 100, 64)
    y = FrozenLinear(weight, None).product(x)
    monkeypatch.setattr(frozen, "WIDE", 2**20)
    assert y.shape == (128, frozen.BLOCK * 10 + 1024 + 100)
    torch.testing.assert_close(y, FrozenLinear(weight, None).product(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_computes_what_the_plain_one_does(monkeypatch, dtype, near, bias):
    if dtype == torch.bfloat16 and not can_pack(CPU, dtype):
        pytest.skip("this processor has no bfloat16 units")
    monkeypatch.setattr(frozen, "PACKED_FROM", 0)
    torch.manual_seed(0)
    weight, b = torch.randn(24, 16).to(dtype), torch.randn(24).to(dtype) if bias else None
    plain, packed = FrozenLinear(weight, b), FrozenLinear(weight, b)
    packed.pack()
    assert packed.weight is None
    for rows in (1, 7, 300):
        x, dy = torch.randn(2, rows, 16).to(dtype), torch.randn(2, rows, 24).to(dtype)
        torch.testing.assert_close(packed.product(x), plain.product(x), rtol=near, atol=10 * near)
        torch.testing.assert_close(packed.gradient(dy), plain.gradient(dy), rtol=near, atol=10 * near)
    x = torch.randn(3, 16, dtype=dtype, requires_grad=True)
    packed(x).sum().backward()
    torch.testing.assert_close(x.grad, plain.gradient(torch.ones(3, 24, dtype=dtype)), rtol=near, atol=10 * near)
