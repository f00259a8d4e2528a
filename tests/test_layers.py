"""Attention is the same function, whichever way a processor is best at."""

import pytest
import torch
import torch.nn.functional as F

from unigen import layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "m"), [(7, 7), (5, 700), (600, 600)])
@pytest.mark.parametrize("scores", [1, 100_000, 2**21])  # a head at once, some, all
@pytest.mark.parametrize("tiles", [False, True])
def test_attention_is_the_softmax_of_the_products(n, m, scores, tiles, dtype, monkeypatch):
    monkeypatch.setattr(layers, "SCORES", scores)
    monkeypatch.setattr(layers, "TILES", tiles)
    torch.manual_seed(0)
    wide = [torch.randn(2, length, 3, 8, dtype=dtype) for length in (n, m, m)]
    q, k, v = (x.transpose(1, 2).requires_grad_() for x in wide)  # strided, as a fused layer's are
    made = layers.attend(q, k, v)
    exact = F.scaled_dot_product_attention(*(x.detach().double() for x in (q, k, v)))
    assert made.shape == q.shape
    assert made.dtype == dtype
    far = (made.double() - exact).abs().max() / exact.abs().max()
    assert far < (1e-6 if dtype == torch.float32 else 0.02)
    made.sum().backward()
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in (q, k, v))
