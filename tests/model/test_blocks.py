"""Attention of blocks: both ways to compute it agree."""

import pytest
import torch
from torch import Tensor

from model.backbones.attention import attend

CAUSAL = torch.full((6, 6), -torch.inf).triu(1)
MASKS = {"none": None, "bool": CAUSAL == 0, "additive": CAUSAL}


def heads(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(3, 6, 2, 8, generator=generator).to(torch.bfloat16).transpose(1, 2)
        for _ in range(3)
    ]


@pytest.mark.parametrize("mask", MASKS)
def test_plain_products_attend_as_the_fused_kernel_does(mask: str) -> None:
    query, key, value = heads(0)
    want = attend(query.float(), key.float(), value.float(), MASKS[mask])
    with torch.inference_mode():
        fused = attend(query, key, value, MASKS[mask] if mask != "additive" else CAUSAL.bfloat16())
    plain = attend(query.requires_grad_(), key, value, MASKS[mask])
    assert plain.dtype == fused.dtype == torch.bfloat16
    torch.testing.assert_close(fused.float(), want, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(plain.float(), want, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("mask", ["none", "bool"])
def test_plain_products_have_the_gradient_of_the_fused_kernel(mask: str) -> None:
    def gradients(dtype: torch.dtype) -> list[Tensor]:
        parts = [part.to(dtype).requires_grad_() for part in heads(1)]
        attend(parts[0], parts[1], parts[2], MASKS[mask]).float().sin().sum().backward()
        return [part.grad.float() for part in parts if part.grad is not None]

    for found, want in zip(gradients(torch.bfloat16), gradients(torch.float32), strict=True):
        torch.testing.assert_close(found, want, atol=5e-2, rtol=5e-2)
