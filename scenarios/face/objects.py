"""From a script's own objects, a model and data, to the scenario that names them.

What is said of privacy stands in the scenario as it was said. Nothing of it is guessed: where a figure is missing, one
line says which, and what it decides. Everything else that has a default here is written into the scenario too, so that
a run's folder says all of what was done.

Does NOT read a record: how many there are is asked of the objects (`len`), for the expected size of a lot, and only
where that is not said. The number is public from then on. Whoever may not tell it says `expected_batch_size`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from fedmodel.errors import ConfigError
from fedmodel.kinds.section import Section
from scenarios.face.bases import Base, texts_alone, texts_of
from scenarios.face.naming import DATA, by_name, is_module, metrics_of, name_of, strategy_name
from scenarios.face.said import check_said

if TYPE_CHECKING:
    from torch import nn


HELD_OUT: Final = 0.2
LEARNING_RATE: Final = 0.1
_STEPS: Final = ("ema_decay", "gradients", "max_physical_batch", "threads")  # as the section `training` calls them
_ROUNDED: Final = 1e-9  # so that a product which is a whole number stays one
_starts: Final[list[TemporaryDirectory[str]]] = []


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
    batch = said.get("expected_batch_size")
    if batch is None:
        batch = _batch(said, len(silos))
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
    if metrics := metrics_of(said):
        document["metrics"] = [by_name(one) for one in metrics]
    return document | _chosen(said, "seed")


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
    if not is_module(model):
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
    found: dict[str, Any] = {"source": "own", "use": DATA, **_chosen(said, "label", "person", "task")}
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
    made: dict[str, Callable[[Any], Any]] = {"strategy_options": dict, "strategy": strategy_name}
    return {key: made[key](value) if key in made else value for key, value in found.items()}


def _training(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `training`: plain SGD, and an epoch a round, where nothing else is said."""
    found = {
        "loss": by_name(said.get("loss", "cross-entropy")),
        "optimizer": said.get("optimizer", "sgd"),
        "learning_rate": float(said.get("learning_rate", LEARNING_RATE)),
        **_chosen(said, "momentum", "local_steps", "local_epochs", "proximal", "precision", *_STEPS),
        **({} if said.get("schedule") is None else {"schedule": dict(said["schedule"])}),
        **({} if said.get("lots") is None else {"lots": list(said["lots"])}),
    }
    return found if "local_steps" in found or "local_epochs" in found else {**found, "local_epochs": 1}


def _batch(said: Mapping[str, Any], silos: int) -> int:
    """Return how large a lot is expected to be: the sample rate of an even share, or of the smallest of a list.

    Raises:
        ConfigError: When the claim hides how many records a silo has, which would be told so.
    """
    if said.get("unit") == "client":
        raise ConfigError(
            'expected_batch_size is missing: unit="client" hides how many records a silo has, and from that number,'
            " as a public one, it would be worked out; say about how many records a lot has, whatever there are"
        )
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


def _chosen(said: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: said[name] for name in names if said.get(name) is not None}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "script"
