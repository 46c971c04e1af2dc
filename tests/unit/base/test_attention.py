"""Attention on a GPU: which kernel of torch's is asked for, and that it is asked for the same thing."""

import pytest
import torch
import torch.nn.functional as F

import tiny
from lorary.base import attention, decoder

META = torch.device("meta")


@pytest.fixture
def asked(monkeypatch):
    """What torch's attention is called with: heads of q, heads of k, and whether they are grouped."""
    calls, plain = [], F.scaled_dot_product_attention

    def record(q, k, v, *arguments, enable_gqa=False, **settings):
        calls.append((q.shape[1], k.shape[1], enable_gqa))
        assert k.shape == v.shape
        return plain(q, k, v, *arguments, enable_gqa=enable_gqa, **settings)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    return calls


@pytest.mark.parametrize(("dtype", "call"), [(torch.float32, (4, 4, False)), (torch.bfloat16, (4, 2, True))])
def test_grouped_heads_are_spread_where_no_fused_kernel_takes_them(asked, dtype, call):
    """In float32 torch's kernel for grouped heads on a GPU keeps tokens x tokens scores a head."""
    q, k = (torch.empty(1, heads, 9, 8, dtype=dtype, device=META) for heads in (4, 2))
    assert attention.attend(q, k, k).shape == q.shape
    assert asked == [call]


@pytest.mark.parametrize(("dtype", "call"), [(torch.float32, (4, 4, False)), (torch.bfloat16, (4, 2, True))])
def test_so_they_are_in_models_of_transformers(asked, tmp_path, monkeypatch, dtype, call):
    from transformers import masking_utils

    tiny.make_model(tmp_path, "granite")
    model = decoder.load(tmp_path, "float32", torch.device("cpu"))
    decoder.logits(model, torch.ones(1, 9, dtype=torch.long))
    assert set(asked) == {(4, 2, True)}  # a processor's kernel takes them
    asked.clear()
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda _: None)  # it looks at values
    decoder.logits(model.to(META, dtype), torch.ones(1, 9, dtype=torch.long, device=META))
    assert set(asked) == {call}


def test_heads_that_are_spread_are_those_of_the_group():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 9, 8, dtype=torch.float64, requires_grad=True) for heads in (6, 2, 2))
    spread = F.scaled_dot_product_attention(q, attention.spread(k, 6), attention.spread(v, 6), is_causal=True)
    grouped = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(spread, grouped)
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (spread, grouped)), strict=True):
        torch.testing.assert_close(a, b)
