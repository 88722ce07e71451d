"""Normalisation of each record by itself: y = n(x) w + b, with n(x) computed again, and each record's gradients kept.

Shapes: B rows of a physical batch, C channels, T positions, F normalised entries.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import PrivacyError
from fedmodel.learning.gradients.layers.parts import Family, Kept, Part

_Instance = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d


def of_features(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to factors and shifts of entries."""
    assert isinstance(layer, nn.LayerNorm | nn.RMSNorm)  # noqa: S101 - as `LAYERS` has it
    shape = layer.normalized_shape
    if isinstance(layer, nn.RMSNorm):
        normal = functional.rms_norm(given, list(shape), None, layer.eps)
    else:
        normal = functional.layer_norm(given, list(shape), None, None, layer.eps)
    grad_BTF, normal_BTF = (one.reshape(len(one), -1, layer.weight.numel()) for one in (grad, normal))
    found: list[Part] = []
    if layer.weight.requires_grad:
        found.append(Kept(layer.weight, (grad_BTF * normal_BTF).sum(dim=1)))
    shift = getattr(layer, "bias", None)
    if isinstance(shift, nn.Parameter) and shift.requires_grad:
        found.append(Kept(shift, grad_BTF.sum(dim=1)))
    return found


def of_channels(layer: nn.Module, given: Tensor, grad: Tensor) -> list[Part]:
    """Return what records add to factors and shifts of channels."""
    assert isinstance(layer, nn.GroupNorm | _Instance)  # noqa: S101 - as `LAYERS` has it
    if isinstance(layer, nn.GroupNorm):
        normal = functional.group_norm(given, layer.num_groups, None, None, layer.eps)
    elif layer.track_running_stats:
        raise PrivacyError("running statistics are of all records; set track_running_stats = False")
    else:
        normal = functional.instance_norm(given, eps=layer.eps)
    grad_BCT, normal_BCT = (one.reshape(*one.shape[:2], -1) for one in (grad, normal))
    found: list[Part] = []
    if layer.weight is not None and layer.weight.requires_grad:
        found.append(Kept(layer.weight, (grad_BCT * normal_BCT).sum(dim=2)))
    if layer.bias is not None and layer.bias.requires_grad:
        found.append(Kept(layer.bias, grad_BCT.sum(dim=2)))
    return found


LAYERS: Final[dict[type[nn.Module], Family]] = {
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm), of_features),
    **dict.fromkeys((nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), of_channels),
}
