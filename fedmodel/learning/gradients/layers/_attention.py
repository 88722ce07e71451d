"""Torch's multi-head attention, taken apart while records pass: linear layers around what has no parameters.

`nn.MultiheadAttention` computes all of itself in one function, within which no layer's input or output is seen. While
records pass it is computed here, as that function does it, from the same parameters: projections, which are noted,
scaled dot products (Vaswani et al. 2017, section 3.2), and the output's layer, which is a linear one that is called.

Does NOT take what torch adds to keys and values (`add_bias_kv`, `add_zero_attn`): such a layer is refused by name.

Shapes: B rows of a physical batch, T queries and S keys of a record, E entries, H heads.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients.layers._linear import Note, of_product
from fedmodel.learning.gradients.layers.parts import Kept, Part


def is_taken_apart(layer: nn.Module) -> bool:
    """Tell whether a layer is one that is computed here."""
    return type(layer) is nn.MultiheadAttention and layer.bias_k is None and not layer.add_zero_attn


def attend(
    layer: nn.MultiheadAttention,
    note: Note,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,  # noqa: ARG001 - torch wants the mask all the same
) -> tuple[Tensor, Tensor | None]:
    """Return what the layer's own `forward` does, with the same arguments.

    Raises:
        PrivacyError: When records have no dimension of their own.
    """
    if query.dim() != 3:
        raise PrivacyError("attention was given one record without a dimension for records")
    heads = layer.num_heads
    projected = _projected(layer, note, _records_first(layer, query, key, value))
    query_BHTE, key_BHSE, value_BHSE = [torch.unflatten(one, 2, (heads, -1)).transpose(1, 2) for one in projected]
    padding = None if key_padding_mask is None else key_padding_mask[:, None, None]
    masks = [_mask(attn_mask, heads), _mask(padding, heads)]
    given = [one.to(query.dtype) for one in masks if one is not None]
    mask = sum(given[1:], given[0]) if given else None
    dropout = layer.dropout if layer.training else 0.0
    weights = None
    if need_weights:
        logits_BHTS = query_BHTE @ key_BHSE.mT / query_BHTE.shape[3] ** 0.5
        weights = torch.softmax(logits_BHTS if mask is None else logits_BHTS + mask, dim=3)
        mixed_BHTE = functional.dropout(weights, dropout) @ value_BHSE
        weights = weights.mean(dim=1) if average_attn_weights else weights
    else:
        mixed_BHTE = functional.scaled_dot_product_attention(query_BHTE, key_BHSE, value_BHSE, mask, dropout)
    output_BTE: Tensor = layer.out_proj(mixed_BHTE.transpose(1, 2).flatten(2))
    return output_BTE if layer.batch_first else output_BTE.transpose(0, 1), weights


def _records_first(layer: nn.MultiheadAttention, *given: Tensor) -> list[Tensor]:
    """Return tensors with records along the first dimension; those that were one are one."""
    if layer.batch_first:
        return list(given)
    turned = {id(one): one.transpose(0, 1) for one in given}
    return [turned[id(one)] for one in given]


def _projected(layer: nn.MultiheadAttention, note: Note, given: list[Tensor]) -> list[Tensor]:
    """Return queries, keys and values of what was given for each, and note how."""
    packed, bias, size = layer.in_proj_weight, layer.in_proj_bias, layer.embed_dim
    if packed is not None and given[0] is given[1] and given[1] is given[2]:
        output = functional.linear(given[0], packed, bias)
        note(partial(_parts, packed, slice(None), bias, slice(None)), given[0], output)
        return list(output.chunk(3, dim=2))
    found = []
    for place, one in enumerate(given):
        rows = slice(place * size, (place + 1) * size)
        own = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)[place]
        weight, of_weight = (own, slice(None)) if packed is None else (packed, rows)
        output = functional.linear(one, weight[of_weight], None if bias is None else bias[rows])
        note(partial(_parts, weight, of_weight, bias, rows), one, output)
        found.append(output)
    return found


def _parts(
    weight: Tensor,
    of_weight: slice,
    bias: Tensor | None,
    of_bias: slice,
    _: nn.Module,
    given: Tensor,
    grad: Tensor,
) -> list[Part]:
    """Return what records add to some rows of a weight and of a bias."""
    found = of_product(weight, None, given, grad, of_weight)
    if bias is not None and bias.requires_grad:
        found.append(Kept(bias, grad.sum(dim=1), of_bias))
    return found


def _mask(mask: Tensor | None, heads: int) -> Tensor | None:
    """Return what is added to logits, of four dimensions: minus infinity where torch's mask is true."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(mask, -torch.inf)
    return torch.unflatten(mask, 0, (-1, heads)) if mask.dim() == 3 else mask
