"""CPU matrix products that are faster than `@`.

torch multiplies float32 matrices with MKL, which leaves half of an AVX-512 processor unused unless
it is from Intel. oneDNN, which torch also includes, does not.
"""

import torch
from torch import Tensor

# The operator that torch.compile uses for a linear layer on a CPU. Its arguments are input, weight,
# bias and an activation, here none.
_ONEDNN = (
    torch.ops.mkldnn._linear_pointwise.default
    if torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    else None
)
HALF = (torch.bfloat16, torch.float16)
# Below this number of multiplications, oneDNN's overhead outweighs its speed.
_SMALLEST = 1 << 20


def multiplies_bfloat16() -> bool:
    """Whether this processor has bfloat16 instructions; without them, float32 is faster."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def multiplies(a: Tensor) -> bool:
    """Whether matrices like this one are best multiplied in their own dtype."""
    if a.device.type == "cpu" and a.dtype == torch.bfloat16:
        return multiplies_bfloat16()
    return a.device.type == "cuda" or a.dtype not in HALF


def times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a (n, k) @ b (m, k).T -> (n, m), float32 for half-precision inputs. Not differentiable."""
    return _in_float32(a, b.T)


def transposed_times(a: Tensor, b: Tensor) -> Tensor:
    """a (k, n).T @ b (k, m) -> (n, m), float32 for half-precision inputs. Not differentiable."""
    # oneDNN copies its first argument to make rows contiguous, so pass the smaller one first.
    return _in_float32(a.T, b) if a.shape[1] <= b.shape[1] else _in_float32(b.T, a).T


def _in_float32(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, float32 for half-precision inputs.

    On a CPU with bfloat16 instructions, the result of bfloat16 inputs is rounded to bfloat16 first.
    """
    if a.dtype not in HALF:
        return product(a, b)
    if a.device.type == "cuda":  # accumulates in float32 anyway
        return torch.mm(a, b, out_dtype=torch.float32)
    return product(a, b).float() if multiplies(a) else product(a.float(), b.float())


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in their own dtype. Not differentiable."""
    large = a.numel() * b.shape[1] >= _SMALLEST
    if _ONEDNN is not None and large and a.dtype == torch.float32 and a.device.type == "cpu":
        return _ONEDNN(a, b.T, None, "none", [], "")
    return a @ b
