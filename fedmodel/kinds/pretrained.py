"""A base as one module for a task, built by the real loading code of `transformers` from the bytes that were hashed.

Guarantee: `transformers` is given the tensors of `fedmodel.kinds.bases` and one of its own architectures by name. It is
given no path, and loads no code, no pickle, no kernel and nothing from a network. The base's own dropout is off, since
its masks could be guessed. Weights of 16 bits are computed with in float32, in which each of them is exact. Where the
base is to be held in fewer bits (`fedmodel.kinds.held`), no matrix of it is ever widened as a whole: a model is built
around stand-ins of one number each, and what is held takes their place.

Does NOT freeze anything, nor choose what trains: `fedmodel.kinds.adapted` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor, nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.bases import base_of, mask_token
from fedmodel.kinds.held import Matrix, hold
from fedmodel.kinds.shape import ArrayShape
from fedmodel.system.packages import missing
from fedmodel.system.quiet import quiet

FEATURES: Final = "feature-extraction"
MASKED: Final = "masked-lm"
_OFFLINE: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
_CLASSES: Final = {
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "token-classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING",
    "feature-extraction": "MODEL_MAPPING",
}
_LANGUAGE: Final = ("causal-lm", "masked-lm")


WHOLE: Final = "float32"
"""The precision in which a base is held as it is."""


@dataclass(frozen=True)
class _Loaded:
    """A base in memory, which all models of it in this process share.

    Attributes:
        told: Its configuration.
        tokenizer: Its `tokenizer.json`.
        state: Its tensors; for matrices that are held in fewer bits, stand-ins of their shapes.
        held: These matrices, by where a stand-in lies in memory.
    """

    told: Mapping[str, Any]
    tokenizer: bytes = field(repr=False)
    state: dict[str, Tensor] = field(default_factory=dict)
    held: dict[int, Matrix] = field(default_factory=dict)


def as_model(
    sha256: str, task: str, outputs: int, tokens: ArrayShape, precision: str = WHOLE
) -> tuple[nn.Module, set[str]]:
    """Return a base as a task's model, and the names of what it lacks for that: parameters that are new.

    New ones are drawn from torch's global generator. The others have memory that all models of the base share. In
    another precision than float32 the model has no matrices of the base before `filled` puts them in.

    Args:
        sha256: Of the base.
        task: Which of `transformers`' models.
        outputs: Of a task that gives each text or token one of several classes, how many outputs there are.
        tokens: What a record's tokens look like.
        precision: In which the base is held.

    Raises:
        ConfigError: When `transformers` is not installed, the base cannot be had, is of another architecture than the
            task's, its weights are not that architecture's, or records do not fit it.
    """
    auto = _transformers()
    loaded = _loaded(sha256, precision, task)
    told, kind = loaded.told, str(loaded.told["model_type"])
    known, mapping = auto.architectures, getattr(auto.models, _CLASSES[task])
    if kind not in known or known[kind] not in mapping:
        raise ConfigError(
            f"the base is of architecture {kind!r}, for which transformers has no model of task = {task!r}; take"
            " another base, or another task"
        )
    with quiet():  # of torchao, which transformers imports where it lies
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
                state_dict=dict(loaded.state),
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
    if precision != WHOLE:
        _check_stood_in(loaded, there, lacking, kind)
    return module, lacking


def mask_token_of(sha256: str, task: str, precision: str) -> int | None:
    """Return what stands for a hidden token in the texts of a base; None for a task that hides none.

    Raises:
        ConfigError: When the base cannot be had, or has no such token.
    """
    return mask_token(_loaded(sha256, precision, task).tokenizer, sha256) if task == MASKED else None


def filled(module: nn.Module, sha256: str, task: str, precision: str) -> nn.Module:
    """Return a model of a base with the base's matrices in it, held in a precision; it is changed itself.

    Args:
        module: What `as_model` returned, of the same base, task and precision, with adapters or without.
        sha256: Of the base.
        task: Which of `transformers`' models.
        precision: In which the base is held.

    Raises:
        ConfigError: When the base has layers that cannot be held so.
    """
    if precision != WHOLE:
        hold(module, _loaded(sha256, precision, task).held, precision)
    return module


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


def _check_stood_in(loaded: _Loaded, there: Mapping[str, nn.Parameter], lacking: set[str], kind: str) -> None:
    """Refuse an architecture whose parameters transformers makes of several of a file's: of stand-ins it makes none."""
    own = {one.data_ptr() for one in loaded.state.values()}
    names = sorted(
        name for name, one in there.items() if one.dim() > 1 and name not in lacking and one.data_ptr() not in own
    )
    if names:
        raise ConfigError(
            f"the base is of architecture {kind!r}, whose {names[0]} is put together from several tensors of a file,"
            ' and is not held in fewer bits; take model.base_precision = "float32"'
        )


@lru_cache(maxsize=1)
def _loaded(sha256: str, precision: str, task: str) -> _Loaded:  # noqa: ARG001 - what a matrix is for is the task's
    """Return a base's configuration and its tensors, of which all models in this process share the memory.

    Numbers of 16 bits are widened to float32, exactly, and once: each model would else have a copy of its own. Matrices
    that are to be held in fewer bits are left as they are read.
    """
    base = base_of(sha256)
    found = _Loaded(base.config, base.tokenizer)
    for data in base.weights:
        try:
            read = safetensors.torch.load(data)
        except safetensors.SafetensorError as error:
            raise ConfigError(
                f"the base of SHA-256 {sha256[:16]}... has a file that is no safetensors: {error}"
            ) from None
        for name, one in read.items():
            if precision == WHOLE or one.dim() != 2 or not one.is_floating_point():
                found.state[name] = _widened(one)
                continue
            stand_in = torch.zeros(1).expand(one.shape)
            found.state[name], found.held[stand_in.data_ptr()] = stand_in, Matrix(one)
    return found


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
