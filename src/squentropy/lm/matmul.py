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
HALF = (torch.bfloat16, torch.float16)
# Multiplications below which oneDNN's overhead outweighs its rate.
_SMALLEST = 1 << 20


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for it; others are slower than in float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def multiplies(a: Tensor) -> bool:
    """Whether products of matrices like this one are best left in its precision."""
    if a.device.type == "cpu" and a.dtype == torch.bfloat16:
        return multiplies_bfloat16()
    return a.device.type == "cuda" or a.dtype not in HALF


def times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a (n, k) @ b (m, k).T -> (n, m), of half precision in float32. Not differentiable."""
    return _in_float32(a, b.T)


def transposed_times(a: Tensor, b: Tensor) -> Tensor:
    """a (k, n).T @ b (k, m) -> (n, m), of half precision in float32. Not differentiable."""
    # oneDNN copies its first argument to have its rows contiguous, so the smaller one goes first.
    return _in_float32(a.T, b) if a.shape[1] <= b.shape[1] else _in_float32(b.T, a).T


def _in_float32(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, of half precision in float32, if on a CPU rounded to bfloat16 on the way."""
    if a.dtype not in HALF:
        return product(a, b)
    if a.device.type == "cuda":  # adds up in float32 anyway
        return torch.mm(a, b, out_dtype=torch.float32)
    return product(a, b).float() if multiplies(a) else product(a.float(), b.float())


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in their own precision. Not differentiable."""
    large = a.numel() * b.shape[1] >= _SMALLEST
    if _ONEDNN is not None and large and a.dtype == torch.float32 and a.device.type == "cpu":
        return _ONEDNN(a, b.T, None, "none", [], "")
    return a @ b
