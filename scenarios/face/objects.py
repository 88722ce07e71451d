"""From a script's own objects, a model and data, to the scenario that names them.

What is said of privacy stands in the scenario as it was said. Nothing of it is guessed: where a figure is missing, one
line says which, and what it decides. Everything else that has a default here is written into the scenario too, so that
a run's folder says all of what was done.

Does NOT read a record: how many there are is asked of the objects (`len`), for the expected size of a lot, and only
where that is not said. The number is public from then on. Whoever may not tell it says `expected_batch_size`.
"""

from __future__ import annotations

import copy
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Literal, Required, TypedDict, cast

import numpy as np

from fedmodel.errors import ConfigError
from fedmodel.kinds.own_code import OF_A_SCRIPT
from fedmodel.kinds.section import Section
from scenarios.face.bases import Base, texts_alone, texts_of

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
HELD_OUT: Final = 0.2
LEARNING_RATE: Final = 0.1
_STEPS: Final = ("ema_decay", "gradients", "max_physical_batch", "threads")  # as the section `training` calls them
_ROUNDED: Final = 1e-9  # so that a product which is a whole number stays one
_DATA: Final = f"{OF_A_SCRIPT}:data"
_starts: Final[list[TemporaryDirectory[str]]] = []


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


def named_objects(said: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return, by the name that the scenario calls it, each object of the script that only this process has."""
    model = said["model"]
    train, test = _records_of(said)

    def data() -> Any:
        return train if test is None else {"train": train, "test": test}

    found: dict[str, Callable[..., Any]] = {_DATA: data}
    if isinstance(model, Base):
        pass  # which the scenario knows by its hash
    elif _is_module(model):
        found[name_of(type(model), "model", alone=True)] = maker_of(model)
    elif callable(model):
        found[name_of(model, "model")] = model
    if callable(strategy := said.get("strategy")):
        found[_strategy_name(strategy)] = strategy
    for one in (said.get("loss"), *_metrics(said)):
        if one is not None and not isinstance(one, str):
            name, function = _by_name(one), _as_function(one)
            if found.get(name, one) is not one and getattr(found[name], "func", None) is not one:
                raise ConfigError(f"two functions would be called {name!r}; write each with def, by a name of its own")
            found[name] = function
    return found


def _records_of(said: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return train and test, whose texts are tokens of a base if they are given to one."""
    train, test, texts = texts_alone(said["train"]), texts_alone(said.get("test")), texts_of(said)
    if texts is None:
        return train, test
    read = [texts.read(one, f"train[{at}]") for at, one in enumerate(train)] if isinstance(train, list) else None
    return read or texts.read(train, "train"), None if test is None else texts.read(test, "test")


def maker_of(model: Callable[..., nn.Module] | nn.Module) -> Callable[..., nn.Module]:
    """Return what makes a model, the same each time it is called: of a module, copies."""
    if isinstance(model, type) or not _is_module(model):
        return cast("Callable[..., nn.Module]", model)
    return partial(copy.deepcopy, cast("nn.Module", model))


def document_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scenario's keys and values.

    Args:
        said: Of `Objects`.

    Raises:
        ConfigError: When something is missing, or does not go together.
        TypeError: When an argument has a name that is not known.
    """
    check_said(said)
    said = {**said, "train": texts_alone(said["train"])}
    silos = _silos(said)
    model = _model(said)
    given = {key: said[key] for key in ("epsilon", "noise_multiplier") if said.get(key) is not None}
    batch = _batch(said, len(silos)) if said.get("expected_batch_size") is None else said["expected_batch_size"]
    called = Path(model["use"].rpartition(":")[2]).name
    document: dict[str, Any] = {
        "name": said.get("name") or _slug(called),
        "summary": f"{called[:40]} over {len(silos)} silos, simulated by a script",
        "rounds": said["rounds"],
        "data": _data(said, batch),
        "federation": {"silos": silos, "min_silos": min(2, len(silos)), **_federation(said)},
        "model": model,
        "training": _training(said),
        "privacy": {
            "unit": said.get("unit", "record"),
            **_chosen(said, "max_records"),
            **given,
            **{key: said[key] for key in ("delta", "max_grad_norm", "sample_rate")},
            "expected_batch_size": batch,
        },
    }
    if metrics := _metrics(said):
        document["metrics"] = [_by_name(one) for one in metrics]
    return document | _chosen(said, "seed")


def name_of(thing: Any, otherwise: str, *, alone: bool = False) -> str:
    """Return how a scenario names an object: "module:name" where others can import it, and else "script:name".

    Args:
        thing: A function or a class.
        otherwise: Its name where it has none, such as a lambda.
        alone: Whether what is meant is an object of this process, whatever class can be imported.
    """
    module, name = getattr(thing, "__module__", None), str(getattr(thing, "__qualname__", otherwise))
    found: Any = None if module in (None, "__main__") or alone else sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is thing:
        return f"{module}:{name}"
    last = name.rpartition(".")[2]
    return f"{OF_A_SCRIPT}:{last if last.isidentifier() else otherwise}"


def _silos(said: Mapping[str, Any]) -> list[str]:
    """Return the silos' names: as they are called, or by number; of a list of parts as many as there are."""
    train, silos = said["train"], said.get("silos")
    parts = len(train) if isinstance(train, list) else None
    if silos is None and parts is None:
        raise ConfigError(
            "silos is missing: say among how many the records are dealt, or give train as a list, one each"
        )
    count = parts if silos is None else int(silos) if isinstance(silos, Integral) else len(silos)
    if parts is not None and count != parts:
        raise ConfigError(f"silos says {count}, and train is a list of {parts}, one for each silo; leave silos out")
    if count is None or count < 1:
        raise ConfigError(f"silos = {count} is none; say how many there are")
    if silos is not None and not isinstance(silos, Integral):
        return [str(name) for name in silos]
    return [f"silo-{number:0{len(str(count))}}" for number in range(1, count + 1)]


def _model(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `model`: a function or a class by its name, or a module, whose parameters are the start."""
    model = said["model"]
    arguments, standardised = dict(said.get("model_args") or {}), _chosen(said, "weight_standardization")
    if standardised.keys() & arguments.keys():
        raise ConfigError("model_args and weight_standardization both say whether weights are; say it once")
    if isinstance(model, Base):
        if arguments or standardised:
            raise ConfigError("model_args and weight_standardization are of a model of your own, and model is a base")
        return model.section()
    if not _is_module(model):
        if not callable(model):
            raise ConfigError(
                f"model is a {type(model).__name__}; give a class, a function that makes one, a module, or fm.Base"
            )
        return {"kind": "own", "use": name_of(model, "model"), **arguments, **standardised}
    if arguments:
        raise ConfigError("model_args are of a class or a function, and model is a module that is made already")
    use = name_of(type(model), "model", alone=True)
    start = {"file": str(_kept_start(model)), "trained_on": "public"}
    return {"kind": "own", "use": use, "init": start, **standardised}


def _kept_start(module: nn.Module) -> Path:
    """Write a module's parameters to a file of this process, and return where it lies."""
    from safetensors.torch import save

    if not _starts:
        _starts.append(TemporaryDirectory(prefix="fedmodel-"))  # taken away when the process ends
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    data = save(tensors)
    path = Path(_starts[0].name) / f"{sha256(data).hexdigest()}.safetensors"
    path.write_bytes(data)
    return path


def _data(said: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """Return the section `data`; where nothing is said of a partition, each silo is dealt its largest lot at least."""
    found: dict[str, Any] = {"source": "own", "use": _DATA, **_chosen(said, "label", "person", "task")}
    if isinstance(base := said["model"], Base):
        texts = texts_of(said)
        found = {"task": base.learns, **found, **({} if texts is None else texts.declared())}
    found |= {key: list(said[key]) for key in ("labels", "target_range") if said.get(key) is not None}
    found |= {key: dict(said[key]) for key in ("augment",) if said.get(key) is not None}
    if said.get("test") is None:
        found["held_out"] = said.get("held_out", HELD_OUT)
    elif said.get("held_out") is not None:
        raise ConfigError("give test, or held_out, the share of train that becomes it, not both")
    if said.get("partition") is None:
        found |= {} if isinstance(said["train"], list) else {"partition": {"min_records": _largest_lot(said, batch)}}
    else:
        if isinstance(said["train"], list):
            raise ConfigError(
                "partition deals one data set out, and train is a list with one for each silo; leave it out"
            )
        if not isinstance(said["partition"], Section):
            raise ConfigError(f"partition is a {type(said['partition']).__name__}; give one such as fm.Dirichlet(0.3)")
        found["partition"] = said["partition"].model_dump(mode="json", exclude_none=True)
    return found


def _federation(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of the section `federation`."""
    found = _chosen(said, "cohort", "min_silos", "strategy", "strategy_options")
    made: dict[str, Callable[[Any], Any]] = {"strategy_options": dict, "strategy": _strategy_name}
    return {key: made[key](value) if key in made else value for key, value in found.items()}


def _training(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `training`: plain SGD, and an epoch a round, where nothing else is said."""
    found = {
        "loss": _by_name(said.get("loss", "cross-entropy")),
        "optimizer": said.get("optimizer", "sgd"),
        "learning_rate": float(said.get("learning_rate", LEARNING_RATE)),
        **_chosen(said, "momentum", "local_steps", "local_epochs", "proximal", "precision", *_STEPS),
        **({} if said.get("schedule") is None else {"schedule": dict(said["schedule"])}),
        **({} if said.get("lots") is None else {"lots": list(said["lots"])}),
    }
    return found if "local_steps" in found or "local_epochs" in found else {**found, "local_epochs": 1}


def _batch(said: Mapping[str, Any], silos: int) -> int:
    """Return how large a lot is expected to be: the sample rate of an even share, or of the smallest of a list."""
    train = said["train"]
    held_out = 0.0 if said.get("test") is not None else float(said.get("held_out", HELD_OUT))
    parts = [_records(part) for part in train] if isinstance(train, list) else [_records(train)]
    left = [count - math.ceil(held_out * count) for count in parts]  # as many as are held out
    share = min(left) if isinstance(train, list) else left[0] / silos
    return max(1, math.floor(float(said["sample_rate"]) * share + _ROUNDED))


def _largest_lot(said: Mapping[str, Any], batch: int) -> int:
    """Return how large lots grow; what is wrongly said of that is the scenario's to refuse."""
    try:
        return max([batch, *(round(batch * float(one["times"])) for one in said.get("lots") or ())])
    except (TypeError, KeyError, ValueError, OverflowError):
        return batch


def _records(train: Any) -> int:
    """Return how many records there are."""
    try:
        columns = tuple(train.values()) if isinstance(train, Mapping) else train
        return len(columns[-1]) if isinstance(columns, tuple) and columns else len(columns)
    except TypeError:
        raise ConfigError(
            f"train is a {type(train).__name__}, which does not say how many records it has; give a map-style Dataset,"
            " a pair (x, y) of arrays, a frame, or a list with one of them for each silo"
        ) from None


def _metrics(said: Mapping[str, Any]) -> tuple[str | Callable[..., Any], ...]:
    """Return the figures that are asked for; one alone is one."""
    metrics = said.get("metrics") or ()
    return (metrics,) if isinstance(metrics, str) or callable(metrics) else tuple(metrics)


def _by_name(function: str | Callable[..., Any]) -> str:
    if isinstance(function, str):
        return function
    if _is_module(function):
        return name_of(type(function), "function", alone=True)
    return name_of(function, "function")


def _strategy_name(strategy: str | Callable[..., Any]) -> str:
    return strategy if isinstance(strategy, str) else name_of(strategy, "strategy")


def _as_function(function: Any) -> Callable[..., Any]:
    """Return what computes a loss or a figure: of a module of torch's, such as `CrossEntropyLoss`, a call of it.

    Raises:
        ConfigError: When it learns something itself, or gives one loss for all records.
    """
    if not _is_module(function):
        return cast("Callable[..., Any]", function)
    called = type(function).__name__
    if next(iter(function.parameters()), None) is not None:
        raise ConfigError(f"{called} has parameters of its own, which no silo trains; put them into the model")
    if getattr(function, "reduction", "none") != "none":
        raise ConfigError(
            f"{called} with reduction {function.reduction!r} gives one number for all records, where each needs its"
            f' own; make it with reduction="none", or give lambda output, target: ... that returns one a record'
        )
    return partial(function)


def _is_module(model: Any) -> bool:
    return not isinstance(model, type) and hasattr(model, "state_dict") and hasattr(model, "parameters")


def _chosen(said: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: said[name] for name in names if said.get(name) is not None}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "script"
