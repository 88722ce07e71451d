"""A base with what trains of it, as one module that records are given to.

Guarantee, of what `adapted` returns:

- *What trains is an adapter, or what the base lacks for its task, and nothing else.* `state_dict` is of that alone, so
  that it is all of the model that is ever sent, clipped, noised, charged or saved.
- *Each record is treated by itself.* The mask of attention is made here, of a record's own mask, in the same form
  whatever its companions are: left alone, `transformers` leaves a mask out where no record of a batch is padded, and a
  record's bits would hang on the others. The first position is always attended to, so that a record of nothing has
  finite outputs. `fedmodel.learning.preflight` measures all of it, of every model.

Does NOT make a base forget: what it was trained on before is no part of any claim.

Shapes: B records, T positions, H hidden, K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.adapters import IN_NAMES, Lora, with_lora
from fedmodel.kinds.hidden import Hider, foretold
from fedmodel.kinds.pretrained import FEATURES, WHOLE, as_model, filled, mask_token_of
from fedmodel.kinds.recomputed import recompute
from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.tokens import text_arrays


@dataclass(frozen=True)
class Adaptation:
    """What is made of a base.

    Attributes:
        sha256: Of the base.
        task: What stands on it.
        lora: Its adapters, None where it has none.
        biases: Whether all biases train.
        precision: In which the base is held (`fedmodel.kinds.held`).
        recomputes: Whether its blocks are computed again in the backward pass (`fedmodel.kinds.recomputed`).
    """

    sha256: str
    task: str
    lora: Lora | None = None
    biases: bool = False
    precision: str = WHOLE
    recomputes: bool = False


class Adapted(nn.Module):
    """A base, what is trained of it, and how records are given to it.

    Args:
        base: The model, adapters and all.
        answer: What is put on the mean of a text's hidden states; None where the base has outputs of its own.
        tokens: The array of a record that is its tokens.
        mask: The array that says where one stands; None where all do.
        outputs: K, to which a language model's are cut: a vocabulary may have fewer than the base has rows for.
        causal: Whether a position attends to those before it alone.
        mask_token: What stands for a token that is hidden (`fedmodel.kinds.hidden`); None where none is.
    """

    def __init__(
        self,
        base: nn.Module,
        answer: nn.Linear | None,
        tokens: str,
        mask: str | None,
        outputs: int,
        *,
        causal: bool,
        mask_token: int | None = None,
    ) -> None:
        super().__init__()
        self.base, self.answer = base, answer
        self.hider = None if mask_token is None else Hider()
        self._mask_token = mask_token
        self._tokens, self._mask, self._outputs, self._causal = tokens, mask, outputs, causal
        self.register_state_dict_post_hook(_of_what_trains)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_lacks_no_base)  # type: ignore[no-untyped-call]

    def forward(self, **arrays: Tensor) -> Tensor:
        """Return logits, `(B, K)`, or `(B, T, K)` where each position has an answer."""
        token_BT = arrays[self._tokens]
        mask_BT = torch.ones_like(token_BT) if self._mask is None else arrays[self._mask]
        given: dict[str, Any] = {"attention_mask": self._attended(mask_BT), "return_dict": True}
        given |= self._without_cache()

        def logits(input_BT: Tensor) -> Tensor:
            found: Tensor = self.base(input_ids=input_BT, **given).logits[..., : self._outputs]
            return found

        if self.hider is not None and self._mask_token is not None:
            places = self.hider.places(token_BT, trains=self.training)
            return foretold(logits, token_BT, places, self._mask_token)
        if self.answer is None:
            return logits(token_BT)
        found = self.base(input_ids=token_BT, **given)
        answer_BK: Tensor = self.answer(mean_of_text(found.last_hidden_state, mask_BT))
        return answer_BK

    def _attended(self, mask_BT: Tensor) -> Tensor:
        """Return which positions attend to which, `(B, 1, T, T)`: true where one does."""
        length = mask_BT.shape[1]
        place_T = torch.arange(length, device=mask_BT.device)
        stands_BT = (mask_BT != 0) | (place_T == 0)
        before_TT = (
            place_T[:, None] >= place_T if self._causal else place_T.new_ones((length, length), dtype=torch.bool)
        )
        return stands_BT[:, None, None, :] & before_TT

    def _without_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if self._causal else {}


def mean_of_text(hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the mean of what a base makes of a text's tokens that stand, `(B, H)`; zeros where none does."""
    weight_BT1 = mask_BT[:, :, None].to(hidden_BTH.dtype)
    return (hidden_BTH * weight_BT1).sum(dim=1) / weight_BT1.sum(dim=1).clamp(min=1.0)


def adapted(config: Adaptation, shape: DataShape) -> nn.Module:
    """Return a base with its adapters, whose new parameters are drawn from torch's global generator.

    Args:
        config: Which base, for what, and what trains; its hash is said.
        shape: What records look like.

    Raises:
        ConfigError: When `transformers` or `peft` is not installed, the base cannot be had, is of another architecture
            than the task's, its weights are not that architecture's, or records do not fit it.
    """
    tokens, mask = text_arrays(shape)
    base, lacking = as_model(config.sha256, config.task, shape.outputs, (shape.inputs or {})[tokens], config.precision)
    answer = nn.Linear(_width(base), shape.outputs) if config.task == FEATURES else None
    if config.lora is not None:
        base = with_lora(base, config.lora, lacking)
    base = filled(base, config.sha256, config.task, config.precision)
    if config.recomputes:
        recompute(base)
    causal = config.task == "causal-lm" or any(getattr(one, "is_causal", False) for one in base.modules())
    mask_token = mask_token_of(config.sha256, config.task, config.precision)
    model = Adapted(base, answer, tokens, mask, shape.outputs, causal=causal, mask_token=mask_token)
    _train_alone(model, config, {f"base.{name}" for name in lacking})
    return model


def _train_alone(model: nn.Module, config: Adaptation, lacking: set[str]) -> None:
    """Freeze all but adapters and what the base lacks; what trains has memory of its own.

    Raises:
        ConfigError: When nothing is left to train.
    """
    for name, one in model.named_parameters():
        adapter = IN_NAMES in name if config.lora is not None else config.biases and name.endswith("bias")
        one.requires_grad_(adapter or name in lacking or name.startswith("answer."))
        if one.requires_grad:
            one.data = one.data.clone()  # the frozen rest is memory that all models of one base share
    if not any(one.requires_grad for one in model.parameters()):
        raise ConfigError(
            f'adapt = "head" leaves nothing to train: the base lacks no head for task = "{config.task}"; take'
            ' adapt = "lora"'
        )


def _width(base: nn.Module) -> int:
    """Return H."""
    return int(base.config.hidden_size)  # type: ignore[union-attr, arg-type]  # of any model of transformers


def _of_what_trains(module: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Leave in a model's state what trains, and nothing of the base."""
    named = module.named_parameters(remove_duplicate=False)  # a parameter that is tied has several names
    trained = {f"{prefix}{name}" for name, one in named if one.requires_grad}
    for name in [name for name in state if name.startswith(prefix) and name not in trained]:
        del state[name]


def _lacks_no_base(module: nn.Module, incompatible: Any) -> None:
    """Take a base's own tensors for there where a state is put in: they are not in any."""
    frozen = {name for name, one in module.named_parameters(remove_duplicate=False) if not one.requires_grad}
    frozen |= {name for name, _ in module.named_buffers()}
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if name not in frozen]
