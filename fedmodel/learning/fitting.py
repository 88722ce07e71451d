"""The tensors of a file put into a model, each by its name, or all that does not fit said at once.

Guarantee: after `fit` every parameter of the model holds what the file has under its name, in float32, and is finite;
or ConfigError is raised and the model is as it was. A buffer of whole numbers or truths holds what the file has, which
has to be of that very type. float32 is taken bit for bit; float16 and bfloat16 are widened
exactly; float64 is rounded to the nearest float32, and refused where that is infinite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from safetensors import SafetensorError, deserialize
from torch import Tensor, nn

from fedmodel.config import ModelConfig
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.models import build_model, outlined

_TYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_WHOLE: Final = {
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool
}  # fmt: skip
_MOST_NAMED: Final = 6


def fit(module: nn.Module, data: bytes, name: str) -> None:
    """Put a file's tensors into a model.

    Args:
        module: The model; on the CPU.
        data: A whole safetensors file.
        name: What to call it in a message.

    Raises:
        ConfigError: With every kind of misfit: names, shapes, types, and values that are no finite float32.
    """
    wanted = module.state_dict()
    tensors = tensors_of(data, wanted, name)
    _check_shared(wanted, tensors, name)
    module.load_state_dict(tensors)


def check_fits(config: ModelConfig, shape: DataShape, data: bytes, name: str) -> None:
    """Refuse a file that does not fit a model, without memory for the model if its kind can be built so.

    Raises:
        ConfigError: As `fit` does.
    """
    with outlined(config):
        wanted = build_model(config, shape, seed=0).state_dict()
    _check_shared(wanted, tensors_of(data, wanted, name), name)


def tensors_of(data: bytes, wanted: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return a file's tensors, which are of those that are wanted and no others: real numbers in float32.

    Args:
        data: A whole safetensors file.
        wanted: Tensors of the model, which may be without memory: their shapes and types are looked at.
        name: What to call the file in a message.
    """
    try:
        found: dict[str, dict[str, Any]] = dict(deserialize(data))  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError) as error:
        raise ConfigError(f"{name}: is no safetensors file that can be read: {error}") from None
    wrong = [
        *_listed("lacks", sorted(wanted.keys() - found.keys())),
        *_listed("has what the model has not:", sorted(found.keys() - wanted.keys())),
    ]
    both = sorted(wanted.keys() & found.keys())
    wrong += _listed("of another shape:", [
        f"{key} is {_shown(found[key]['shape'])} and {_shown(wanted[key].shape)} is needed"
        for key in both if tuple(found[key]["shape"]) != tuple(wanted[key].shape)
    ])  # fmt: skip
    whole = {key for key in both if not (wanted[key].is_floating_point() or wanted[key].is_complex())}
    wrong += _listed("of a type that is no float of 16, 32 or 64 bits:", [
        f"{key} is {found[key]['dtype']}" for key in both if key not in whole and found[key]["dtype"] not in _TYPES
    ])  # fmt: skip
    wrong += _listed("of another type:", [
        f"{key} is {found[key]['dtype']} and {str(wanted[key].dtype).removeprefix('torch.')} is needed"
        for key in sorted(whole) if _WHOLE.get(found[key]["dtype"]) != wanted[key].dtype
    ])  # fmt: skip
    if wrong:
        raise ConfigError(f"{name}: does not fit the scenario's model: {'; '.join(wrong)}")
    tensors = {
        key: torch.frombuffer(bytearray(found[key]["data"]), dtype=(_TYPES | _WHOLE)[found[key]["dtype"]])
        .to(wanted[key].dtype if key in whole else torch.float32)
        .reshape(wanted[key].shape)
        for key in wanted
    }
    unfit = [key for key in both if not bool(torch.isfinite(tensors[key]).all())]
    if unfit:
        told = "".join(_listed("", unfit)).strip()
        raise ConfigError(f"{name}: holds NaN, infinity, or what is too large for float32, in {told}; no run begins so")
    return tensors


def _check_shared(wanted: dict[str, Tensor], tensors: dict[str, Tensor], name: str) -> None:
    """Refuse two values of what is one tensor of the model by two names, as tied parameters are."""
    first: dict[object, str] = {}
    for key, value in wanted.items():
        place = key if value.is_meta else (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if not torch.equal(tensors[key], tensors[same := first.setdefault(place, key)]):
            raise ConfigError(f"{name}: {key} and {same} differ, and in the scenario's model they are one tensor")


def _listed(what: str, names: list[str]) -> Iterable[str]:
    """Say which there are, the first few by name; nothing where there are none."""
    if names:
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        yield f"{what} {', '.join(names[:_MOST_NAMED])}{more}"


def _shown(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"
