"""What may be said of a simulation of a script's own objects, what has to be said, and what each is of.

Guarantee: a figure of privacy that is missing is refused, with what it decides, before anything is looked at; none is
guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, Literal, Required, TypedDict

import numpy as np

from fedmodel.errors import ConfigError
from fedmodel.kinds.section import Section
from scenarios.face.bases import Base

if TYPE_CHECKING:
    from torch import nn


class Objects(TypedDict, total=False):
    """What a scenario is made from; `fedmodel.simulate` says what each is."""

    model: Required[Callable[..., nn.Module] | nn.Module | Base]
    model_args: Mapping[str, Any]
    weight_standardization: bool
    train: Required[Any]
    test: Any
    label: str
    labels: Sequence[str]
    person: str
    task: str
    target_range: tuple[float, float]
    held_out: float
    loss: str | Callable[..., Any]
    metrics: Sequence[str | Callable[..., Any]]
    silos: int | Sequence[str]
    partition: Section
    augment: Mapping[str, Any]
    cohort: int
    rounds: Required[int]
    epsilon: float
    noise_multiplier: float
    unit: str
    max_records: int
    delta: Required[float]
    max_grad_norm: Required[float]
    sample_rate: Required[float]
    expected_batch_size: int
    optimizer: str
    learning_rate: float
    momentum: float
    local_steps: int
    local_epochs: int
    proximal: float
    schedule: Mapping[str, Any]
    lots: Sequence[Mapping[str, Any]]
    ema_decay: float
    gradients: str
    max_physical_batch: int | Literal["auto"]
    threads: int | Literal["auto"]
    precision: str
    strategy: str | Callable[..., Any]
    strategy_options: Mapping[str, bool | int | float | str]
    min_silos: int
    seed: int
    name: str


WHY: Final = {
    "epsilon or noise_multiplier": "how much a record may show",
    "delta": "with what probability the bound may fail",
    "max_grad_norm": "how far one record moves a step",
    "sample_rate": "each record's chance to be in a step's lot",
}
"""What has no default, and what it decides."""
_LISTED: Final = (list, tuple, np.ndarray)
_KINDS: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    **dict.fromkeys(("sample_rate", "held_out", "learning_rate"), ((Real,), "a number, such as 0.1")),
    **dict.fromkeys(("model_args", "strategy_options"), ((Mapping,), 'a dictionary, such as {"name": 1}')),
    "schedule": ((Mapping,), 'a dictionary, such as {"decay": "cosine"}'),
    "lots": ((list, tuple), 'a list, such as [{"from_round": 6, "times": 2}]'),
    "augment": ((Mapping,), 'a dictionary, such as {"flip": "horizontal", "views": 4}'),
    **dict.fromkeys(("labels", "target_range"), (_LISTED, "a list")),
    "silos": ((Integral, *_LISTED), "how many, or a list of names"),
}
"""What is computed with here; of the rest the scenario's own sections say what is wanted."""


def check_said(said: Mapping[str, Any]) -> None:
    """Refuse what is missing or unknown, before anything is looked at.

    Raises:
        ConfigError: With all that is missing, and why none of it is guessed.
        TypeError: When an argument has a name that is not known.
    """
    known = Objects.__annotations__
    for name in said:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise TypeError(f"{name!r} is no argument of a simulation of your own objects; {hint}")
    for name, (kinds, wanted) in _KINDS.items():
        found = said.get(name)
        if found is not None and (not isinstance(found, kinds) or isinstance(found, bool)):
            raise ConfigError(f"{name} is a {type(found).__name__}; give {wanted}")
    if not isinstance(strategy := said.get("strategy") or "", str) and not callable(strategy):
        raise ConfigError(
            f"strategy is a {type(strategy).__name__}; give a name, or a class or a function that makes one"
        )
    for name in ("model", "train", "rounds"):
        if said.get(name) is None:
            raise ConfigError(f"{name} is missing; a simulation of your own objects needs model, train and rounds")
    lacking = {
        name: why for name, why in WHY.items() if all(said.get(word) is None for word in name.split() if word != "or")
    }
    if lacking:
        told = ", ".join(f"{name} ({why})" for name, why in lacking.items())
        raise ConfigError(
            f"a privacy claim needs {told}: say {'it' if len(lacking) == 1 else 'them'}; nothing is guessed"
        )
    if said.get("epsilon") is not None and said.get("noise_multiplier") is not None:
        raise ConfigError("give one of epsilon and noise_multiplier, not both: each decides the other")
