"""How a scenario names a script's objects, and which of them only this process has.

A function or a class that others can import is "module:name"; whatever else is "script:name", and is handed over
within this process under that name (`fedmodel.kinds.own_code`).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from fedmodel.errors import ConfigError
from fedmodel.kinds.own_code import OF_A_SCRIPT
from scenarios.face.bases import Base, texts_alone, texts_of

if TYPE_CHECKING:
    from torch import nn

DATA: Final = f"{OF_A_SCRIPT}:data"
"""A script's records."""


def named_objects(said: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return, by the name that the scenario calls it, each object of the script that only this process has."""
    model = said["model"]
    train, test = _records_of(said)

    def data() -> Any:
        return train if test is None else {"train": train, "test": test}

    found: dict[str, Callable[..., Any]] = {DATA: data}
    if isinstance(model, Base):
        pass  # which the scenario knows by its hash
    elif is_module(model):
        found[name_of(type(model), "model", alone=True)] = maker_of(model)
    elif callable(model):
        found[name_of(model, "model")] = model
    if callable(strategy := said.get("strategy")):
        found[strategy_name(strategy)] = strategy
    for one in (said.get("loss"), *metrics_of(said)):
        if one is not None and not isinstance(one, str):
            name, function = by_name(one), _as_function(one)
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
    if isinstance(model, type) or not is_module(model):
        return cast("Callable[..., nn.Module]", model)
    return partial(copy.deepcopy, cast("nn.Module", model))


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


def metrics_of(said: Mapping[str, Any]) -> tuple[str | Callable[..., Any], ...]:
    """Return the figures that are asked for; one alone is one."""
    metrics = said.get("metrics") or ()
    return (metrics,) if isinstance(metrics, str) or callable(metrics) else tuple(metrics)


def by_name(function: str | Callable[..., Any]) -> str:
    """Return how a scenario names a loss or a figure: as it is said, or as the object that it is."""
    if isinstance(function, str):
        return function
    if is_module(function):
        return name_of(type(function), "function", alone=True)
    return name_of(function, "function")


def strategy_name(strategy: str | Callable[..., Any]) -> str:
    """Return how a scenario names a strategy."""
    return strategy if isinstance(strategy, str) else name_of(strategy, "strategy")


def _as_function(function: Any) -> Callable[..., Any]:
    """Return what computes a loss or a figure: of a module of torch's, such as `CrossEntropyLoss`, a call of it.

    Raises:
        ConfigError: When it learns something itself, or gives one loss for all records.
    """
    if not is_module(function):
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


def is_module(model: Any) -> bool:
    """Tell whether something is a module of torch's that is made already, without importing torch."""
    return not isinstance(model, type) and hasattr(model, "state_dict") and hasattr(model, "parameters")
