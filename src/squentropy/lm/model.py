"""GPT-2's architecture as in nanoGPT: pre-norm, tied embeddings, GELU.

Positions are learned, or ALiBi (Press et al. 2022, arXiv 2108.12409), with which a small model
learns as much from half the tokens. Parameters have the same names as in Hugging Face's GPT-2; the
only difference is that linear weights are (out, in) here and (in, out) there.
"""

import copy
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squentropy.lm import cpu_block
from squentropy.lm.matmul import times_transposed

BASE_WIDTH = 128
"""The n_embd at which muP equals the standard parametrization."""


@dataclass(frozen=True)
class Config:
    """The shape of a GPT. `dropout` applies in training only; `positions` is learned or alibi.

    parametrization  standard, or mup: initial weights, learning rates and outputs scale with the
                     width, so hyperparameters transfer between widths (Yang et al. 2022, arXiv
                     2203.03466, table 8). Wider models have more heads of the same size, so the
                     attention scale does not change.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool
    positions: str = "learned"
    parametrization: str = "standard"

    asdict = asdict

    @property
    def multiple(self) -> float:
        """muP's m: the width divided by `BASE_WIDTH`; 1 for the standard parametrization."""
        return self.n_embd / BASE_WIDTH if self.parametrization == "mup" else 1.0

    def output(self, hidden: Tensor) -> Tensor:
        """The last hidden states, from the output of the last norm.

        muP divides them by m, because the output matrix is the embedding, whose weights do not
        shrink with the width.
        """
        return hidden if self.multiple == 1 else hidden / self.multiple


class Cache:
    """Keys and values of the tokens so far: per layer, a pair of (B, heads, T, head width)."""

    def __init__(self, n_layer: int):
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * n_layer
        self.length = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        past = self.layers[layer]
        if past is not None:
            key, value = torch.cat((past[0], key), 2), torch.cat((past[1], value), 2)
        self.layers[layer] = (key, value)
        return key, value

    def keep(self, rows: list[int]) -> None:
        """Drop all batch rows except these."""
        self.layers = [pair and (pair[0][rows], pair[1][rows]) for pair in self.layers]


class Linear(nn.Linear):
    """A linear layer that is faster on a CPU when gradients are disabled."""

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type == "cpu" and x.dtype == torch.float32
        if not plain or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        y = times_transposed(x.flatten(0, -2), self.weight).view(*x.shape[:-1], -1)
        return y if self.bias is None else y.add_(self.bias)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: Config):
        super().__init__()
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.n_head = config.n_head
        self.dropout = config.dropout

    def forward(self, x: Tensor, bias: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        batch, length, width = x.shape
        qkv = self.c_attn(x).view(batch, length, 3, self.n_head, width // self.n_head)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        dropout = self.dropout if self.training else 0.0
        if bias is None:  # with a cache, a single query sees all keys and needs no mask
            mixed = F.scaled_dot_product_attention(
                query, key, value, dropout_p=dropout, is_causal=length > 1
            )
        else:
            mixed = F.scaled_dot_product_attention(
                query, key, value, bias.to(query.dtype), dropout_p=dropout
            )
        mixed = self.c_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return F.dropout(mixed, self.dropout, self.training)


class MLP(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.c_proj(F.gelu(self.c_fc(x))), self.dropout, self.training)


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        cache: Cache | None,
        noise: cpu_block.Noise | None,
        layer: int,
    ) -> Tensor:
        if noise is not None:
            attn, mlp = self.attn, self.mlp
            layers = (self.ln_1, attn.c_attn, attn.c_proj, self.ln_2, mlp.c_fc, mlp.c_proj)
            parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
            return cpu_block.block(x, bias, noise, attn.n_head, attn.dropout, *parameters)
        x = x + self.attn(self.ln_1(x), bias, cache, layer)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Maps token ids (B, T) to the last hidden states (B, T, n_embd).

    The logits are `hidden @ model.output_weight.T`. Losses and scores take the two factors, so the
    logits need not be materialised.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        learned = config.positions == "learned"
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if learned else None
        self.slopes: Tensor | None
        slopes = None if learned else alibi_slopes(config.n_head)
        self.register_buffer("slopes", slopes, persistent=False)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                # As in GPT-2, scale the 2 n_layer projections that add to the residual stream.
                scale = (2 * config.n_layer) ** -0.5 if "c_proj" in name else 1.0
                if name.startswith("h."):
                    scale *= config.multiple**-0.5
                nn.init.normal_(parameter, std=0.02 * scale)

    @property
    def output_weight(self) -> Tensor:
        """(C, n_embd), tied to the token embedding."""
        return self.wte.weight

    def hidden_matrices(self) -> list[Tensor]:
        """The matrices of the blocks, both of whose dimensions grow with the width."""
        return [p for p in self.h.parameters() if p.dim() == 2]

    def folded(self) -> "GPT":
        """The same function in the standard parametrization: muP's m is in the last norm."""
        if self.config.parametrization == "standard":
            return self
        model = copy.deepcopy(self)
        model.config = replace(self.config, parametrization="standard")
        with torch.no_grad():
            for parameter in model.ln_f.parameters():
                parameter.div_(self.config.multiple)
        return model

    def parameter_count(self) -> int:
        """Number of parameters without positions, as in nanoGPT; the tied matrix counts once."""
        positions = self.wpe.weight.numel() if self.wpe is not None else 0
        return sum(p.numel() for p in self.parameters()) - positions

    def forward(
        self, ids: Tensor, cache: Cache | None = None, noise: cpu_block.Noise | None = None
    ) -> Tensor:
        """With a `cache`, `ids` continue where it ends: first a whole prompt, then one token each.

        With `noise`, which provides the dropout masks, this is a training step on a CPU; see
        cpu_block.py.
        """
        start = cache.length if cache is not None else 0
        positions = torch.arange(start + ids.shape[1], device=ids.device)
        x, bias = self.wte(ids), None
        if self.wpe is not None:
            x = x + self.wpe(positions[start:])
        if self.slopes is not None:
            bias = alibi(self.slopes, positions[start:], positions)
        dropout = self.config.dropout
        if noise is not None:
            x = cpu_block.dropped(x, noise, dropout)
        else:
            x = F.dropout(x, dropout, self.training)
        for layer, block in enumerate(self.h):
            x = block(x, bias, cache, noise, layer)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.config.output(self.ln_f(x))


def alibi_slopes(heads: int) -> Tensor:
    """(heads,): how much each head's score falls per token of distance."""
    return 2.0 ** (-8 * torch.arange(1, heads + 1) / heads)


def alibi(slopes: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """(heads, Q, K): the bias to add to attention scores at these positions.

    Minus the slope times the distance; minus infinity if the key comes after the query.
    """
    distance = queries.unsqueeze(-1) - keys
    bias = -slopes.view(-1, 1, 1) * distance
    return bias.masked_fill(distance < 0, -torch.inf)
