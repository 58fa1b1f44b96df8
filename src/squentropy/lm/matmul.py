"""Matrix products of a processor that are faster than `@`.

torch multiplies float32 matrices by MKL, which leaves half of an AVX-512 processor unused unless
Intel made it. oneDNN, which torch also brings along, does not.
"""

import torch
from torch import Tensor

# The operator that torch.compile calls for a linear layer on a CPU: input, weight, bias, and a
# function to apply to the result, here none.
_ONEDNN = (
    torch.ops.mkldnn._linear_pointwise.default
    if torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    else None
)
# Multiplications below which oneDNN's overhead outweighs its rate.
_SMALLEST = 1 << 20


def times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a (n, k) @ b (m, k).T -> (n, m), of half precision in float32. Not differentiable."""
    return _product(a, b.T)


def transposed_times(a: Tensor, b: Tensor) -> Tensor:
    """a (k, n).T @ b (k, m) -> (n, m), of half precision in float32. Not differentiable."""
    # oneDNN copies its first argument to have its rows contiguous, so the smaller one goes first.
    return _product(a.T, b) if a.shape[1] <= b.shape[1] else _product(b.T, a).T


def _product(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype in (torch.bfloat16, torch.float16):
        if a.device.type == "cuda":  # adds up in float32 anyway
            return torch.mm(a, b, out_dtype=torch.float32)
        a, b = a.float(), b.float()
    suits_onednn = (
        _ONEDNN is not None
        and a.dtype == torch.float32
        and a.device.type == "cpu"
        and a.numel() * b.shape[1] >= _SMALLEST
    )
    return _ONEDNN(a, b.T, None, "none", [], "") if suits_onednn else a @ b
