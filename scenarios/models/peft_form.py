"""Adapters in the form of `peft`: a folder that `peft.PeftModel.from_pretrained` reads, beside the base itself.

| File                        | What it holds                                                                |
|-----------------------------|------------------------------------------------------------------------------|
| `adapter_config.json`       | rank, alpha and the layers, as peft writes them; no folder of anybody's      |
| `adapter_model.safetensors` | adapters, and what the base lacked for its task and trained whole            |
| `answer.safetensors`        | of `task = "feature-extraction"`: the linear layer on the mean of a text     |

Guarantee: what is compared before a folder stands is what peft makes of it on the base, with `transformers`' own mask
of attention: answers of records, and outputs at each token that stands where each has one.

Does NOT hold the base, nor its tokenizer: whoever gets the folder needs the very same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.data.named import arrays, each
from fedmodel.errors import ConfigError
from fedmodel.kinds.adapted import mean_of_text
from fedmodel.kinds.adapters import as_peft_saves, read_by_peft
from fedmodel.kinds.hidden import in_turn
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.kinds.pretrained import FEATURES, as_model, filled, mask_token_of
from fedmodel.kinds.tokens import text_arrays
from fedmodel.learning.description import DESCRIPTION, Description, read_description
from fedmodel.learning.inputs import Inputs, called, rows_at_once
from fedmodel.system.durable import replace_file
from scenarios.models.trained import Trained

ADAPTERS: Final = "adapter_model.safetensors"
_ANSWER: Final = "answer"
_INNER: Final = "base."


def write(model: Trained, path: Path) -> None:
    """Write the folder's files beside a path, that of adapters at it.

    Raises:
        ConfigError: When the model has no adapters of peft's.
    """
    config = model.description.model
    if not isinstance(config, HfConfig) or config.adapt != "lora":
        raise ConfigError(
            "--format peft is of adapters of low rank, and this model has none; take safetensors, whose tensors have"
            " the names of the model's own parameters"
        )
    state = model.module.state_dict()
    inner = {name.removeprefix(_INNER): one for name, one in state.items() if name.startswith(_INNER)}
    answer = {name.partition(".")[2]: one.contiguous() for name, one in state.items() if not name.startswith(_INNER)}
    files = as_peft_saves(model.module.get_submodule(_INNER[:-1]), inner, config.task)
    if answer:
        files[f"{_ANSWER}.safetensors"] = safetensors.torch.save(answer)
    for name, data in files.items():
        replace_file(path.with_name(name), data)


def opened(path: Path) -> _Outside:
    """Open it again by peft and transformers, the base from where this process knows that it lies."""
    description = read_description(path.with_name(DESCRIPTION))
    config, shape = description.model, description.data
    if not isinstance(config, HfConfig) or config.sha256 is None:
        raise ConfigError(f"{path.with_name(DESCRIPTION)}: describes no model on a base")
    tokens, mask = text_arrays(shape)
    held = config.base_precision
    module, _ = as_model(config.sha256, config.task, shape.outputs, (shape.inputs or {})[tokens], held)
    answer = None
    if config.task == FEATURES:
        answer = nn.Linear(int(module.config.hidden_size), shape.outputs)  # type: ignore[union-attr, arg-type]
        answer.load_state_dict(safetensors.torch.load(path.with_name(f"{_ANSWER}.safetensors").read_bytes()))
    whole = filled(read_by_peft(module, path.parent), config.sha256, config.task, held)
    mask_token = mask_token_of(config.sha256, config.task, held)
    return _Outside(description, whole.eval(), answer, (tokens, mask), mask_token)


class _Outside:
    """Adapters as others use them.

    Args:
        description: What they read and answer.
        module: peft's, on the base.
        answer: What stands on the mean of a text, where anything does.
        names: Of the arrays of tokens, and of which of them stand.
        mask_token: What a token is hidden by, of a model that foretells hidden ones.
    """

    def __init__(
        self,
        description: Description,
        module: nn.Module,
        answer: nn.Linear | None,
        names: tuple[str, str | None],
        mask_token: int | None,
    ) -> None:
        self._description, self._module, self._answer, self._names = description, module, answer, names
        self._mask_token = mask_token

    def __call__(self, x_N: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return what records are answered, as `answers` does."""
        return _in_lots(self._description, x_N, self._outputs)

    def _outputs(self, x_B: Inputs) -> Tensor:
        assert isinstance(x_B, Mapping)  # noqa: S101 - text_arrays has looked
        tokens, mask = self._names
        token_BT = x_B[tokens]
        mask_BT = torch.ones_like(token_BT) if mask is None else x_B[mask]
        if self._answer is not None:
            found = self._module(input_ids=token_BT, attention_mask=mask_BT)
            answer_BK: Tensor = self._answer(mean_of_text(found.last_hidden_state, mask_BT))
            return answer_BK

        def logits(input_BT: Tensor) -> Tensor:
            found: Tensor = self._module(input_ids=input_BT, attention_mask=mask_BT).logits
            return found[..., : self._description.data.outputs]

        return logits(token_BT) if self._mask_token is None else in_turn(logits, token_BT, self._mask_token)


def answers(model: Trained, x_N: Any) -> NDArray[np.float32]:
    """Return what the model answers of records, or its outputs at each token; zeros where no token stands."""
    return _in_lots(model.description, x_N, lambda x_B: called(model.module, x_B))


def _in_lots(description: Description, x_N: Any, outputs: Any) -> NDArray[np.float32]:
    """Return answers, batch by batch."""
    aim, rows, found = description.aim, rows_at_once(description.data), list[NDArray[np.float32]]()
    _, mask = text_arrays(description.data)
    with torch.no_grad():
        for start in range(0, len(next(iter(arrays(x_N)))), rows):
            x_B = each(x_N, lambda one: torch.tensor(one[start : start + rows]))  # noqa: B023 - at once
            output_B: Tensor = outputs(x_B)
            answer_B = aim.answers(output_B) if output_B.dim() == 2 else output_B
            if mask is not None and isinstance(x_B, Mapping):
                stands_BT = x_B[mask] != 0
                stands_B = stands_BT[:, :, None] if output_B.dim() == 3 else stands_BT.any(dim=1)
                answer_B = torch.where(stands_B if answer_B.dim() != 2 else stands_B[:, None], answer_B, 0.0)
            found.append(answer_B.numpy())
    return np.concatenate(found)
