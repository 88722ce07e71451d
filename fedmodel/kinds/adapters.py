"""Low-rank adapters beside linear layers (Hu et al. 2021, arXiv 2106.09685), by `peft`.

Guarantee: an adapter's dropout draws masks from where noise comes from (`fedmodel.kinds.layers.Dropout`). Each adapter
is two linear layers of torch that are called, so that every kind of gradients computes them as any other.

Does NOT freeze the model: `fedmodel.kinds.adapted` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.layers import Dropout
from fedmodel.system.packages import missing

IN_NAMES: Final = ".lora_"
"""What the names of an adapter's parameters have in them, and no others."""


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


def with_lora(module: nn.Module, config: Lora) -> nn.Module:
    """Return a model with adapters, whose parameters are drawn from torch's global generator; it is changed itself.

    Raises:
        ConfigError: When `peft` is not installed, or the model has no such layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError:
        raise missing("peft", 'adapt = "lora"', "llm") from None
    linear = {name for name, one in module.named_modules() if _is_linear(one)}
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


def _is_linear(layer: nn.Module) -> bool:
    """Tell whether a layer is a linear one, as torch or as GPT-2 in transformers has it."""
    return type(layer) is nn.Linear or type(layer).__name__ == "Conv1D"
