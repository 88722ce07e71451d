"""A base as one module for a task, built by the real loading code of `transformers` from the bytes that were hashed.

Guarantee: `transformers` is given the tensors of `fedmodel.kinds.bases` and one of its own architectures by name. It is
given no path, and loads no code, no pickle, no kernel and nothing from a network. The base's own dropout is off, since
its masks could be guessed. Weights of 16 bits are computed with in float32, in which each of them is exact.

Does NOT freeze anything, nor choose what trains: `fedmodel.kinds.adapted` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor, nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.bases import base_of
from fedmodel.kinds.shape import ArrayShape
from fedmodel.system.packages import missing

FEATURES: Final = "feature-extraction"
_OFFLINE: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
_CLASSES: Final = {
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "token-classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING",
    "feature-extraction": "MODEL_MAPPING",
}
_LANGUAGE: Final = ("causal-lm", "masked-lm")


def as_model(sha256: str, task: str, outputs: int, tokens: ArrayShape) -> tuple[nn.Module, set[str]]:
    """Return a base as a task's model, and the names of what it lacks for that: parameters that are new.

    New ones are drawn from torch's global generator. The others have memory that all models of the base share.

    Args:
        sha256: Of the base.
        task: Which of `transformers`' models.
        outputs: Of a task that gives each text or token one of several classes, how many outputs there are.
        tokens: What a record's tokens look like.

    Raises:
        ConfigError: When `transformers` is not installed, the base cannot be had, is of another architecture than the
            task's, its weights are not that architecture's, or records do not fit it.
    """
    auto = _transformers()
    told, state = _loaded(sha256)
    kind = str(told["model_type"])
    known, mapping = auto.architectures, getattr(auto.models, _CLASSES[task])
    if kind not in known or known[kind] not in mapping:
        raise ConfigError(
            f"the base is of architecture {kind!r}, for which transformers has no model of task = {task!r}; take"
            " another base, or another task"
        )
    found = mapping[known[kind]]
    chosen = found[0] if isinstance(found, tuple) else found
    with _quiet():
        try:
            own = _without_dropout(known[kind].from_dict({key: one for key, one in told.items() if _is_plain(key)}))
            _check_fits(own, kind, tokens)
            if task not in (*_LANGUAGE, FEATURES):
                own.num_labels = outputs
            module, about = chosen.from_pretrained(
                None,
                config=own,
                state_dict=dict(state),
                dtype=torch.float32,
                attn_implementation="sdpa" if getattr(chosen, "_supports_sdpa", False) else "eager",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                local_files_only=True,
                trust_remote_code=False,
            )
        except ConfigError:
            raise
        except Exception as error:
            first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise ConfigError(f"the base cannot be built as {chosen.__name__}: {first}") from None
    if task == FEATURES and getattr(module, "pooler", None) is not None:
        module.pooler = None  # which would be computed for nobody
    there = dict(module.named_parameters(remove_duplicate=False))
    lacking = {*about["missing_keys"], *(one[0] for one in about["mismatched_keys"])} & there.keys()
    _check_whole(module, lacking, kind)
    return module, lacking


def _is_plain(key: str) -> bool:
    """Tell whether a key of a base's configuration is of its architecture: no code by which attention is computed."""
    return key[0] != "_" and "implementation" not in key and key not in ("id2label", "label2id", "num_labels")


def _without_dropout(own: Any) -> Any:
    """Return a configuration with all rates of dropout zero, those that it does not say and that have a default too."""
    for key, value in own.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(own, key, 0.0)
    return own


def _check_fits(own: Any, kind: str, tokens: ArrayShape) -> None:
    """Refuse a base of no one text, records of more tokens than it knows, or longer ones than it has positions for."""
    if own.is_encoder_decoder or getattr(own, "vocab_size", None) is None:
        raise ConfigError(
            f"the base is of architecture {kind!r}, which does not take one text; take an encoder of texts or a decoder"
        )
    below, length = tokens.below or 0, tokens.size[0]
    if below > own.vocab_size:
        raise ConfigError(
            f"records have tokens up to {below - 1}, and the base knows {own.vocab_size}; read texts by the base's own"
            " tokenizer.json"
        )
    most = getattr(own, "max_position_embeddings", None)
    if most is not None and length > most:
        raise ConfigError(f"records have {length} tokens, and the base has positions for {most}; set a smaller length")


def _check_whole(module: nn.Module, lacking: set[str], kind: str) -> None:
    """Refuse weights that are not those of the base's architecture: a head may be new, and nothing else."""
    inner = f"{getattr(module, 'base_model_prefix', '')}."
    within = dict(module.named_children()).get(inner[:-1])
    names = sorted(
        name for name in lacking if (name.startswith(inner) if within is not None else True) and "pooler." not in name
    )
    if names:
        raise ConfigError(
            f"the base's weights are not those of {kind!r} as its config.json has it: {len(names)} are missing or of"
            f" another shape, such as {names[0]}; take a folder whose files belong together"
        )


@lru_cache(maxsize=1)
def _loaded(sha256: str) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """Return a base's configuration and its tensors, of which all models in this process share the memory.

    Numbers of 16 bits are widened to float32, exactly, and once: each model would else have a copy of its own.
    """
    base, state = base_of(sha256), dict[str, Tensor]()
    for data in base.weights:
        try:
            state.update({name: _widened(one) for name, one in safetensors.torch.load(data).items()})
        except safetensors.SafetensorError as error:
            raise ConfigError(
                f"the base of SHA-256 {sha256[:16]}... has a file that is no safetensors: {error}"
            ) from None
    return base.config, state


def _widened(tensor: Tensor) -> Tensor:
    """Return real numbers of 16 bits in float32, and whatever else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _transformers() -> Any:
    """Return the tables of architectures of transformers, which is kept from asking a network."""
    for name in _OFFLINE:
        os.environ.setdefault(name, "1")
    try:
        from transformers.models.auto import configuration_auto, modeling_auto
    except ModuleNotFoundError:
        raise missing("transformers", 'model.use = "hf:..."', "llm") from None
    return SimpleNamespace(architectures=configuration_auto.CONFIG_MAPPING, models=modeling_auto)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing bars and tables of what a base lacks, which is said by us."""
    from transformers import utils

    logging: Any = utils.logging  # some of which has no types
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
