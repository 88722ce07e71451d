"""A user's own data set (`fedmodel.kinds.sources.own`): its function called, its records checked, its shape settled.

A function returns one data set (`fedmodel.data.taking` has the forms), which is held out of and dealt; a list with one
for each silo, in the scenario's order; or `{"train": either of these, "test": one}`, where the test part is the
server's. Where there is no test part, `held_out` says which share of the records, or of each silo's, is.

Guarantee: what is returned by `settled` says of a record everything that a model is built by, and `own_dealt` refuses
records of any other shape or type, before a silo is charged: every array of every part is of one shape, labels are
whole numbers from 0 up to `classes`, real numbers are finite.

The shape is settled from a simulation's own records only. Nothing here runs at a deployed silo
(`OwnConfig.why_not_deployed`). Does NOT hide what it is settled by: how many classes there are, and below what whole
numbers stay, is one more than the greatest of any record, unless the scenario says it.

A run that is taken up again refuses a function that returns other records by then, as one does that draws them anew
(`scenarios.simulation.resuming`). A seed is an argument to give it.

Does NOT notice that in the processes of one run, under an engine that has several.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.data import records
from fedmodel.data.keys import Keys
from fedmodel.data.parts import Parts
from fedmodel.data.records import Records, onto_unit
from fedmodel.data.taken import Taken, by_record
from fedmodel.data.taking import take
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.own_calls import fitting
from fedmodel.kinds.own_code import resolve
from fedmodel.kinds.shape import CLASSIFICATION, IGNORED, MULTI_LABEL, REGRESSION, ArrayShape, DataShape
from fedmodel.kinds.sources.own import ArrayConfig, OwnConfig
from fedmodel.privacy.events import UnitName

_KEY = "data.use"


def settled(scenario: Scenario) -> Scenario:
    """Return a simulation's scenario that says what is public about its own data set: what it did not say is settled.

    Raises:
        ConfigError: When the function cannot be called, or what the scenario says does not go with its records.
        DataError: When its records break a rule.
    """
    config = scenario.data
    if not isinstance(config, OwnConfig):
        return scenario
    parts = _parts(config, scenario.federation.silos)
    first = parts.silos[0]
    shape: dict[str, Any] = {}
    if isinstance(first.x, Mapping):
        found = {name: _array_of(name, parts) for name in first.x}
        if config.features is not None:
            raise ConfigError(f"data.features is of one array, and {first.where} gives {', '.join(found)}; say inputs")
        shape["inputs"] = {**found, **config.inputs}
    else:
        if config.inputs:
            raise ConfigError(f"data.inputs names arrays, and {first.where} gives one without a name; say features")
        one = _array_of(None, parts)
        shape = {"features": one.size if config.features is None else config.features}
        shape["below"] = one.below if config.below is None else config.below
    shape |= _targets_of(config, parts)
    found_config = config.model_copy(update=shape)
    _check(found_config, parts)
    return scenario.model_copy(update={"data": found_config})


def own_dealt(scenario: Scenario) -> tuple[Records, tuple[Records, ...]]:
    """Return the server's held-out records, and every silo's.

    Raises:
        ConfigError: When the function cannot be called.
        DataError: When its records are not as the scenario says, or cannot be dealt out.
    """
    config = scenario.data
    if not isinstance(config, OwnConfig) or scenario.seed is None:
        raise ConfigError("the scenario has no data.use, or no seed; read it as a simulation does")
    found = _Same(resolve(config.use, _KEY))
    unit = scenario.privacy.unit
    return _dealt_once(found, config.model_dump_json(), scenario.federation.silos, scenario.seed, unit)


def gives_one(scenario: Scenario) -> bool:
    """Return whether the function returns one data set, which is dealt out, and not one for each silo.

    Raises:
        ConfigError: When the function cannot be called.
        DataError: When its records break a rule.
    """
    config = scenario.data
    return isinstance(config, OwnConfig) and _parts(config, scenario.federation.silos).are_dealt


def forget_deals() -> None:
    """Forget what this process dealt, where code that a scenario names may be another by now."""
    records.forget_deals()
    _dealt_once.cache_clear()


class _Same:
    """A function, which is like itself alone, and is kept for as long as this is."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


@lru_cache(maxsize=1)
def _dealt_once(
    found: _Same, config_json: str, silos: tuple[str, ...], seed: int, unit: UnitName
) -> tuple[Records, tuple[Records, ...]]:
    """Check and deal, once a process; nobody whom a claim for `unit` is to hide is in what is held out."""
    config = _read_back(config_json)
    parts = _taken_once(found, _reading(config), silos)
    _check(config, parts)
    parts.check_apart(unit)
    held_out, dealt = parts.dealt_out(config.held_out, config.partition, config.feature_bound, silos, seed)
    return _in_range(held_out, config), tuple(_in_range(part, config) for part in dealt)


def _in_range(part: Records, config: OwnConfig) -> Records:
    """Return records whose numbers are mapped onto [-1, 1] and bounded to it, where the scenario says their range."""
    if config.target_range is None:
        return part
    low, high = config.target_range
    return Records(part.x, onto_unit(part.y_N.astype(np.float64), low, high, 1.0), part.person_N)


def _read_back(config_json: str) -> OwnConfig:
    return OwnConfig.model_validate_json(config_json)


def _reading(config: OwnConfig) -> str:
    """Return what reading hangs on, as text: not on the shape that is settled by it."""
    unsettled: dict[str, Any] = {"features": None, "below": None, "inputs": {}, "classes": None}
    return config.model_copy(update=unsettled).model_dump_json()


def _parts(config: OwnConfig, silos: tuple[str, ...]) -> Parts:
    """Call the function, and take what it returns, once a process."""
    return _taken_once(_Same(resolve(config.use, _KEY)), _reading(config), silos)


@lru_cache(maxsize=1)
def _taken_once(found: _Same, config_json: str, silos: tuple[str, ...]) -> Parts:
    """Call the function, and take what it returns."""
    config = _read_back(config_json)
    given, test = _called(found.thing, config), None
    where = f"{_KEY} = {config.use!r}"
    if isinstance(given, Mapping) and "train" in given:
        if more := [str(key) for key in given if key not in ("train", "test")]:
            raise DataError(f"{where}: returned {', '.join(more)} besides train and test; leave them out")
        given, test = given["train"], given.get("test")
    if (test is None) == (config.held_out is None):
        said = "returned a test part, and data.held_out says a share" if config.held_out else "returned no test part"
        raise DataError(
            f'{where}: {said}; the server evaluates on {{"train": ..., "test": ...}} of the function or on'
            " data.held_out, a share: give one of the two"
        )
    keys = Keys(config.label, config.person, config.labels, config.task == REGRESSION, config.group)
    taken_test = None if test is None else take(test, f"{where}, test", keys)
    if not isinstance(given, list):
        return Parts((take(given, where, keys),), True, taken_test)
    if len(given) != len(silos):
        raise DataError(
            f"{where}: returned a list of {len(given)}, and there are {len(silos)} silos; a list has one data set for"
            " each silo, in the order of federation.silos"
        )
    named = [take(one, f"{where}, silo {silo}", keys) for silo, one in zip(silos, given, strict=True)]
    return Parts(tuple(named), False, taken_test)


def _called(factory: Any, config: OwnConfig) -> Any:
    """Return what the function returns."""
    given = fitting(factory, config.use, _KEY, config.arguments, {})
    try:
        return factory(**given)
    except (Exception, SystemExit) as error:
        # Its words could hold a value.
        raise DataError(f"{_KEY} = {config.use!r}: raised {type(error).__name__}; call it alone to see why") from None


def _array_of(name: str | None, parts: Parts) -> ArrayConfig:
    """Return what is public about an array of all parts, by what they hold."""
    found = [_by_name(part.x).get(name) for part in parts]
    first: NDArray[Any] = _by_name(parts.silos[0].x)[name]
    if first.dtype.kind == "f":
        return ArrayConfig(size=first.shape[1:])
    most = [int(one.max()) for one in found if one is not None and one.dtype.kind == "i" and one.size]
    return ArrayConfig(size=first.shape[1:], below=max(2, 1 + max(most, default=0)))


def _targets_of(config: OwnConfig, parts: Parts) -> dict[str, Any]:
    """Return what is public about targets and was not said, by what they hold."""
    target_N = parts.silos[0].y_N
    found: dict[str, Any] = {}
    if config.task not in (CLASSIFICATION, MULTI_LABEL):
        found["target"] = config.target or target_N.shape[1:]
    if config.labels or config.classes is not None or config.task == REGRESSION:
        return found
    several = config.task == MULTI_LABEL and target_N.ndim > 1
    most = target_N.shape[1] if several else _most_classes(parts)
    return found | {"classes": max(2, most)}


def _most_classes(parts: Parts) -> int:
    """Return how many classes labels number; refuse more than there are labels, of which some would have none.

    A label out of place would else be told as that of a model with too few outputs, in words that give its value.
    """
    last = max(parts, key=lambda part: int(part.y_N.max()))
    most = 1 + int(last.y_N.max())
    if most > sum(part.y_N.size for part in parts):
        at = int(np.argmax(by_record(last.y_N == last.y_N.max()).any(axis=1)))
        raise DataError(
            f"{last.where}: record {at}: its label is larger than the number of labels that there are; number classes"
            " from 0, or say data.classes"
        )
    return most


def _check_targets(part: Taken, shape: DataShape) -> None:
    """Refuse targets of another shape than the task's, and whole ones that are none of its classes."""
    wanted = shape.targets
    if part.y_N.shape[1:] != tuple(wanted.size):
        one = "one number, a class" if shape.task == CLASSIFICATION else f"of shape {list(wanted.size)}"
        raise DataError(
            f"{part.where}: a label has shape {list(part.y_N.shape[1:])}; for task {shape.task!r} it is {one}"
        )
    if wanted.below is None:
        return
    ignored_N = (part.y_N == IGNORED) if wanted.ignores else np.zeros_like(part.y_N, dtype=np.bool_)
    wrong_N = by_record(((part.y_N < 0) | (part.y_N >= wanted.below)) & ~ignored_N).any(axis=1)
    if wrong_N.any():
        but = f", nor {IGNORED}, which counts for nothing" if wanted.ignores else ""
        rule = f"is no class from 0 to {wanted.below - 1}{but}; number classes from 0, or say data.classes"
        if shape.task == MULTI_LABEL:
            rule = "is no row of 0 and 1, which say of each label whether it is there"
        raise DataError(f"{part.where}: record {int(np.argmax(wrong_N))}: its label {rule}")


def _check(config: OwnConfig, parts: Parts) -> None:
    """Refuse records of another shape or type than the scenario says, and labels that are none of its classes."""
    shape = config.shape
    wanted = _by_name(shape.arrays)
    for part in parts:
        found = _by_name(part.x)
        if wanted.keys() != found.keys():
            raise DataError(f"{part.where}: gives {_listed(found)}, where {_listed(wanted)} is declared or came first")
        for name, one in wanted.items():
            _check_array(f"{part.where}: ", "x" if name is None else repr(name), found[name], one)
        _check_targets(part, shape)


def _by_name(x: Any) -> dict[str | None, Any]:
    """Return arrays, or what is said of them, by name; the one that has none by None."""
    return dict(x) if isinstance(x, Mapping) else {None: x}


def _listed(found: Mapping[str | None, Any]) -> str:
    names = [name for name in found if name is not None]
    return f"arrays {', '.join(names)}" if names else "one array"


def _check_array(where: str, called: str, found: NDArray[Any], wanted: ArrayShape) -> None:
    """Refuse an array of another shape or type."""
    if found.shape[1:] != tuple(wanted.size):
        raise DataError(
            f"{where}{called} of a record has shape {list(found.shape[1:])}, where {list(wanted.size)} is declared or"
            " came first"
        )
    if (found.dtype.kind == "i") != (wanted.below is not None):
        sorts = ("whole numbers", "real ones") if found.dtype.kind == "i" else ("real numbers", "whole ones")
        raise DataError(f"{where}{called} holds {sorts[0]}, where {sorts[1]} are declared or came first")
    if wanted.below is not None:
        outside_N = by_record((found < 0) | (found >= wanted.below)).any(axis=1)
        if outside_N.any():
            raise DataError(
                f"{where}record {int(np.argmax(outside_N))}: a value of {called} is no whole number from 0 to"
                f" {wanted.below - 1}; if it is a measure and no code, give it as a float"
            )
