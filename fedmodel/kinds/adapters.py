"""Low-rank adapters beside linear layers (Hu et al. 2021, arXiv 2106.09685), by `peft`.

Guarantee: an adapter's dropout draws masks from where noise comes from (`fedmodel.kinds.layers.Dropout`). Each adapter
is two linear layers of torch that are called, so that every kind of gradients computes them as any other.

Does NOT freeze the model: `fedmodel.kinds.adapted` does.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import safetensors.torch
from torch import Tensor, nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.layers import Dropout
from fedmodel.system.packages import missing
from fedmodel.system.quiet import quiet

IN_NAMES: Final = ".lora_"
"""What the names of an adapter's parameters have in them, and no others."""
_TASKS: Final = {
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "causal-lm": "CAUSAL_LM",
    "feature-extraction": "FEATURE_EXTRACTION",
}  # as peft calls them; a base of hidden tokens is of none


@dataclass(frozen=True)
class Lora:
    """What adapters are.

    Attributes:
        targets: Linear layers that have one, by the last part of their names.
        rank: Of each.
        alpha: What one adds is multiplied with alpha / rank.
        dropout: Share of what goes into one that is dropped.
    """

    targets: tuple[str, ...]
    rank: int
    alpha: float
    dropout: float


def with_lora(module: nn.Module, config: Lora, whole: Collection[str] = ()) -> nn.Module:
    """Return a model with adapters, whose parameters are drawn from torch's global generator; it is changed itself.

    Args:
        module: The model.
        config: What adapters are.
        whole: Names of parameters that train whole: a layer of one has no adapter.

    Raises:
        ConfigError: When `peft` is not installed, or the model has no such layer.
    """
    try:
        with quiet():  # of torchao, which peft imports where it lies
            from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError:
        raise missing("peft", 'adapt = "lora"', "llm") from None
    apart = {name.rpartition(".")[0] for name in whole}
    linear = {name for name, one in module.named_modules() if _is_linear(one) and name not in apart}
    lost = [one for one in config.targets if not any(name == one or name.endswith(f".{one}") for name in linear)]
    if lost:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigError(f"model.targets: the base has no linear layer {lost[0]!r}; it has {', '.join(known)}")
    chosen = [name for name in linear if any(name == one or name.endswith(f".{one}") for one in config.targets)]
    turned = not isinstance(module.get_submodule(chosen[0]), nn.Linear)  # as GPT-2 has them
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # which it divides, and says is whole
        target_modules=sorted(chosen),
        lora_dropout=config.dropout,
        fan_in_fan_out=turned,
        bias="none",
    )
    adapted_module: nn.Module = inject_adapter_in_model(lora, module)
    for parent in list(adapted_module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout) and child.p > 0:
                parent.register_module(name, Dropout(child.p))
    return adapted_module


def as_peft_saves(module: nn.Module, state: Mapping[str, Tensor], task: str) -> dict[str, bytes]:
    """Return the files of a folder that `peft.PeftModel.from_pretrained` reads, by their names.

    Args:
        module: What `with_lora` returned.
        state: Of what trains in it, by the names of the module's own parameters.
        task: What the base is for, as a scenario says it.
    """
    wholes = _wholes(module, {name for name in state if IN_NAMES not in name})
    left: Any = module.peft_config  # where peft leaves what adapters are
    config = replace(
        left["default"],
        task_type=_TASKS.get(task),
        modules_to_save=wholes or None,
        inference_mode=True,
    )
    told = {key: sorted(one) if isinstance(one, set) else one for key, one in config.to_dict().items()}
    named = {f"base_model.model.{name.replace('.default.', '.')}": one.contiguous() for name, one in state.items()}
    return {
        "adapter_config.json": (json.dumps(told, indent=1, sort_keys=True) + "\n").encode(),
        "adapter_model.safetensors": safetensors.torch.save(named, {"format": "pt"}),
    }


def read_by_peft(module: nn.Module, folder: Path) -> nn.Module:
    """Return a base with adapters from a folder, by peft itself, as whoever else uses them reads them."""
    with quiet():
        from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what peft asks transformers
        found: nn.Module = PeftModel.from_pretrained(module, str(folder))
    return found


def _wholes(module: nn.Module, names: set[str]) -> list[str]:
    """Return the layers that train whole: the largest of which every parameter is one of those named.

    peft calls a head by one name, of whatever layers it is made.
    """
    found: list[str] = []
    for name, layer in module.named_modules():
        inside = {f"{name}.{one}" for one, _ in layer.named_parameters(remove_duplicate=False)}
        if name and inside and inside <= names and not any(name.startswith(f"{one}.") for one in found):
            found.append(name)
    return found


def _is_linear(layer: nn.Module) -> bool:
    """Tell whether a layer is a linear one, as torch or as GPT-2 in transformers has it."""
    return type(layer) is nn.Linear or type(layer).__name__ == "Conv1D"
