"""A base's matrices, held in fewer bits than are computed with, and widened to float32 where they are used.

| `base_precision` | An entry of a linear layer's matrix is          | Of a table of embeddings, or tied to one |
|------------------|-------------------------------------------------|-------------------------------------------|
| "float32"        | 4 bytes, as it is                               | 4 bytes, as it is                         |
| "bf16"           | 2 bytes, the nearest bfloat16                   | 2 bytes, the nearest bfloat16             |
| "nf4"            | half a byte, the nearest of 16 levels; and each | 2 bytes, the nearest bfloat16             |
|                  | 64 of them have a scale of 4 bytes              |                                           |

The levels are those of NormalFloat, quantiles of a normal distribution (Dettmers et al. 2023, arXiv 2305.14314, section
3 and appendix E). Biases, factors of norms and whatever belongs to another kind of layer stay in float32, and so does
all that trains.

Guarantee: a layer computes, forward and back to what went in, what a layer of torch's with the values that are held
computes in float32, by the same kernels: no value of a record is rounded otherwise than there, in whatever company it
is, and under autocast what is cast is the same. The matrix in float32 is in memory while its layer computes, and in
between what is held. The gradient of a matrix itself is never asked for, since it is frozen.

Does NOT make a base what it is in float32: adapters that were trained on rounded matrices belong to these.

Shapes: B batch, p outputs, d inputs, N entries of a matrix, in blocks of 64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import ConfigError

LEVELS: Final = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Of NormalFloat with 4 bits, from Dettmers et al. 2023, appendix E."""
BLOCK: Final = 64
"""Entries that share a scale."""
_AT_ONCE: Final = 1 << 20  # entries that are compared with all levels, so that packing takes little memory


class Packed:
    """A matrix in fewer bits.

    Args:
        values: In bfloat16, of the matrix's own shape; or two levels in each byte, of all entries in a row.
        scale: Of levels, float32, the largest size of an entry in each block; None of bfloat16.
        size: Of the matrix.
    """

    def __init__(self, values: Tensor, scale: Tensor | None, size: tuple[int, ...]) -> None:
        self.values, self.scale, self.size = values, scale, size

    @classmethod
    def of(cls, matrix: Tensor, precision: str) -> Packed:
        """Return a matrix in a precision, "bf16" or "nf4"."""
        if precision == "bf16":
            return cls(matrix.to(torch.bfloat16), None, matrix.shape)
        entry_N = matrix.reshape(-1).float()
        block_LE = functional.pad(entry_N, (0, -len(entry_N) % BLOCK)).view(-1, BLOCK)
        scale_L = block_LE.abs().amax(dim=1)
        share_N = (block_LE / scale_L.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).view(-1)
        level_K = torch.tensor(LEVELS)
        between_K = (level_K[1:] + level_K[:-1]) / 2
        code_N = torch.cat([torch.bucketize(one, between_K).to(torch.uint8) for one in torch.split(share_N, _AT_ONCE)])
        return cls(code_N[::2] * 16 + code_N[1::2], scale_L, matrix.shape)


class Matrix:
    """A matrix of a base as it was read, until it is first packed, and from then on as it was packed then.

    Args:
        read: As its file has it.
    """

    def __init__(self, read: Tensor) -> None:
        self._read: Tensor | None = read
        self._packed: Packed | None = None

    def packed(self, precision: str) -> Packed:
        """Return it packed, once for all models of the process."""
        if self._packed is None:
            assert self._read is not None  # noqa: S101 - it is let go below alone
            self._packed, self._read = Packed.of(self._read, precision), None
        return self._packed

    def whole(self) -> Tensor:
        """Return it in float32, for a layer that is not known.

        Raises:
            ConfigError: When a layer that is known has the same matrix.
        """
        if self._read is None:
            raise ConfigError(
                "the base has a matrix that a linear layer or a table shares with a layer of another kind, which is"
                ' never held in fewer bits; take model.base_precision = "float32"'
            )
        self._read = self._read.float()
        return self._read


def widened(values: Tensor, scale: Tensor | None, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a matrix as it is computed with.

    >>> packed = Packed.of(torch.tensor([[2.0, -1.4, 0.0, 0.15]]), "nf4")
    >>> packed.values.dtype, widened(packed.values, packed.scale, packed.size, torch.float32)
    (torch.uint8, tensor([[ 2.0000, -1.3924,  0.0000,  0.1592]]))
    """
    if scale is None:
        return values.to(dtype)
    level_K = torch.tensor(LEVELS, device=values.device)
    # A byte's two levels at once: a row of a table of all bytes.
    pair_K2 = torch.stack([level_K.repeat_interleave(16), level_K.repeat(16)], dim=1)
    share_LE = functional.embedding(values.int(), pair_K2).view(-1, BLOCK)
    entry_N = (share_LE * scale[:, None]).view(-1)[: math.prod(size)]
    return entry_N.view(size).to(dtype)


class _Product(torch.autograd.Function):
    """x W' + b, of which the matrix is widened in each pass anew, and not kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, bias: Tensor | None, values: Tensor, scale: Tensor | None, size: tuple[int, ...], turned: bool
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        matrix = widened(values, scale, size, dtype)
        return functional.linear(x, matrix.t() if turned else matrix, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - as torch calls it
        _, _, values, scale, ctx.size, ctx.turned = inputs
        ctx.save_for_backward(values, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of what went in and of the bias."""
        (grad,) = grads
        values, scale = ctx.saved_tensors
        flat_Np = grad.reshape(-1, grad.shape[-1])
        given, bias = None, None
        if ctx.needs_input_grad[0]:
            matrix = widened(values, scale, ctx.size, grad.dtype)
            flat_Nd = flat_Np @ (matrix.t() if ctx.turned else matrix)
            given = flat_Nd.view(*grad.shape[:-1], flat_Nd.shape[-1])
        if ctx.needs_input_grad[1]:
            bias = flat_Np.sum(dim=0)
        return given, bias, None, None, None, None


class HeldLinear(nn.Module):
    """A linear layer of a frozen matrix.

    Args:
        weight: What is held of it; layers of one matrix share it.
        packed: The rest.
        bias: The layer's own.
        turned: Whether y = x W, as GPT-2 in transformers has it, and not x W'.
    """

    scale: Tensor | None

    def __init__(self, weight: nn.Parameter, packed: Packed, bias: nn.Parameter | None, *, turned: bool) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.register_buffer("scale", packed.scale, persistent=False)
        self._size, self._turned = packed.size, turned

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, `(B, ..., p)`."""
        found: Tensor = _Product.apply(x, self.bias, self.weight, self.scale, self._size, self._turned)  # type: ignore[no-untyped-call]
        return found


class HeldTable(nn.Module):
    """A table of embeddings in bfloat16, frozen, whose rows are float32 when they are looked up."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, index: Tensor) -> Tensor:
        """Return the rows of indices."""
        return functional.embedding(index, self.weight).float()


def _children(parent: nn.Module) -> list[tuple[str, Any]]:
    """Return a layer's parts by their places, also where one part has two."""
    return list(parent._modules.items())  # noqa: SLF001 - named_children leaves second names out


def hold(module: nn.Module, matrices: Mapping[int, Matrix], precision: str) -> None:
    """Put what is held in the place of a model's layers with frozen matrices; the model is changed.

    Args:
        module: Whose matrices are stand-ins.
        matrices: By where the first entry of a stand-in lies in memory.
        precision: "bf16" or "nf4".

    Raises:
        ConfigError: When a layer of another kind shares a matrix with one of these.
    """
    layers = [
        (parent, place, child, child.weight.data_ptr())
        for parent in list(module.modules())
        for place, child in _children(parent)
        if _is_known(child) and child.weight.data_ptr() in matrices
    ]
    tables = {at for _, _, child, at in layers if type(child) is nn.Embedding}
    packed = {at: matrices[at].packed("bf16" if at in tables else precision) for *_, at in layers}
    weights = {at: nn.Parameter(one.values, requires_grad=False) for at, one in packed.items()}
    for parent, place, child, at in layers:
        parent.register_module(
            place,
            HeldTable(weights[at])
            if type(child) is nn.Embedding
            else HeldLinear(weights[at], packed[at], child.bias, turned=type(child) is not nn.Linear),
        )
    for one in module.parameters():
        if one.data_ptr() in matrices:
            one.data = matrices[one.data_ptr()].whole()


def _is_known(layer: nn.Module | None) -> bool:
    """Tell whether a layer is a linear one, as torch or as GPT-2 in transformers has it, or a table."""
    return type(layer) in (nn.Linear, nn.Embedding) or type(layer).__name__ == "Conv1D"
