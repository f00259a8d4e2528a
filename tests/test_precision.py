"""bfloat16 where a device multiplies it itself, float32 elsewhere."""

import pytest
import torch
from torch import nn

from unigen import optim, precision


@pytest.mark.parametrize(
    ("able", "native"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx2": True}, True),
        ({"bf16": True}, True),
        ({"avx512_bf16": False, "avx2": True}, False),
        ({}, False),
    ],
)
def test_a_processor_is_asked_what_it_can(able, native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert precision.native("cpu") is native
    assert precision.fastest("cpu") is (torch.bfloat16 if native else torch.float32)
    a = torch.randn(4, 4)
    for asked, made in ((None, native), (True, True), (False, False)):
        with precision.autocast("cpu", asked):
            assert ((a @ a).dtype is torch.bfloat16) is made


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_of_muon_is_orthogonal(shape, dtype, monkeypatch):
    monkeypatch.setattr(optim, "fastest", lambda device: dtype)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    y = optim.orthogonal(x, (3.4445, -4.775, 2.0315)).float()
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert y.shape == x.shape
    inner = u.T @ y @ v.T  # between the same singular vectors, every value is about 1
    assert ((inner.diagonal() > 0.6) & (inner.diagonal() < 1.3)).all()
    assert (inner - inner.diagonal().diag()).abs().max() < (1e-3 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_is_that_of_torch_but_for_rounding(dtype, monkeypatch):
    monkeypatch.setattr(optim, "fastest", lambda device: dtype)
    moved = []
    for kind in (torch.optim.Muon, optim.Muon):
        generator = torch.Generator().manual_seed(0)
        weights = [
            nn.Parameter(torch.randn(shape, generator=generator))
            for shape in ((32, 32), (16, 48), (48, 16))
        ]
        optimizer = kind(weights, lr=0.02, momentum=0.95, weight_decay=0.01)
        start = [p.detach().clone() for p in weights]
        for _ in range(5):
            for p in weights:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        moved.append([p.detach() - s for p, s in zip(weights, start, strict=True)])
        assert optimizer.state_dict()["state"].keys() == {0, 1, 2}
    for theirs, ours in zip(*moved, strict=True):
        assert (theirs - ours).norm() < 0.02 * theirs.norm()
