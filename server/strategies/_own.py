"""A strategy of the user's own, which `federation.strategy` names as `package.module:function`.

What the function returns has the door of this folder: `apply`, and where it wants them `choose` and `combine`.
`federation.strategy_options` are the function's arguments. It is the server's code alone: no silo imports it, and no
law has to list it. A deployed server imports what its own file lists (`server.strategies._listed`).

Guarantee: it costs no privacy, whatever it computes. It is given what a strategy on board is given: names of silos,
numbers of rounds, means that are differentially private already, and single updates where the server sees them anyway.
So all that it makes of them is post-processing. What it returns is held to what the door asks, each time: silos among
those that can be asked and enough of them, a model of the same length that is finite, and bytes
of which there is a most.

`check_own` tries it on made-up means before a run has a folder: twice, to find one that keeps something in itself. What
it keeps there would be gone in a run that is taken up again; what it returns as state is in the run's checkpoint. One
that says `BY_COORDINATE = True` is tried on some coordinates alone besides, which have to come to what they come to
among all: an audit takes its steps again where it looks, and nowhere else.

Does NOT confine that code: it runs with all the rights of the server, which holds every model, and the updates too
where nothing masks them. Does NOT find what it keeps elsewhere if that shows from the third mean on, nor a step
that looks at other coordinates only from there on, or only where means are larger than those made up.

Shapes: P parameters, W of them, T rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.errors import ConfigError, FedmodelError, ProtocolError
from fedmodel.kinds import own_calls
from fedmodel.provision import least_silos
from server.strategies.fedavg import FedAvg

KEY: Final = "federation.strategy"
_TRIED: Final = 2  # means, one after the other
_STEP: Final = 0.01  # of a coordinate of one
_STEPS: Final = (_STEP, 1.0)  # for one that goes by coordinates: a bound on a whole step may show in large ones alone
_SOME: Final = slice(1, None, 3)  # coordinates: neither the first, nor their places' parity, is kept
_LEAST_TRIED: Final = 20  # coordinates, so that some are left out whatever the model
# Bytes of state: eight averages of a model in float64, and what does not grow with it. Each checkpoint holds it.
_STATE_PARAMETER: Final = 64
_STATE_BESIDES: Final = 1_000_000
_SAME: Final = 1e-6  # of the largest coordinate, as an audit leaves open


class Own(FedAvg):
    """What a user's function made, held to the door; cohorts are drawn by the seed where it does not choose.

    Args:
        scenario: Its seed draws cohorts.
        made: What the function returned.
    """

    def __init__(self, scenario: Scenario, made: Any) -> None:
        super().__init__(scenario)
        self.use, self.made = scenario.federation.strategy, made
        self._least = least_silos(scenario)
        # On the instance: another one's may say otherwise.
        vars(self)["BY_COORDINATE"] = getattr(made, "BY_COORDINATE", False) is True

    def choose(self, silos: Sequence[str], number: int) -> list[str]:
        """Return who trains, as the user's own code says where it does.

        Raises:
            ProtocolError: When these are not silos that can be asked, each once, or fewer than begin a round where so
                many can be asked: such a round would come to no mean.
        """
        if not hasattr(self.made, "choose"):
            return super().choose(silos, number)
        found = self._called(lambda: list(self.made.choose(sorted(silos), number)), "choose")
        if not found or not all(isinstance(one, str) for one in found) or len(set(found)) != len(found):
            raise self._wrong("choose", f"returned {len(found)} names, where it returns silos, each once")
        if strange := sorted(set(found) - set(silos)):
            raise self._wrong("choose", f"returned {strange[0]!r}, which is none of the silos that can be asked")
        if len(found) < self._least <= len(silos):
            told = f"{len(found)} of {len(silos)} silos that can be asked"
            raise self._wrong("choose", f"returned {told}, where a round begins with {self._least} or more")
        return sorted(found)

    def apply(
        self, model_P: NDArray[np.float32], mean_P: NDArray[np.float32], state: bytes
    ) -> tuple[NDArray[np.float32], bytes]:
        """Return the model after a round and the state for the next, as the user's own code makes them.

        Raises:
            ProtocolError: When that is no model of the same length, finite, with bytes, or with too many of them.
        """
        found = self._called(lambda: self.made.apply(model_P.copy(), mean_P.copy(), state), "apply")
        if not isinstance(found, tuple) or len(found) != 2:
            raise self._wrong("apply", f"returned a {type(found).__name__}, where it returns a model and a state")
        after_P, kept = found
        if not isinstance(kept, bytes):
            raise self._wrong("apply", f"returned a {type(kept).__name__} for the state, where it returns bytes")
        if len(kept) > _STATE_PARAMETER * len(model_P) + _STATE_BESIDES:
            raise self._wrong(
                "apply",
                f"returned {len(kept):,} bytes of state, where {_STATE_PARAMETER} for each of {len(model_P)} parameters"
                " and a million besides are the most; keep less, such as averages in place of what they are of",
            )
        return self._vector(after_P, len(model_P), "apply"), kept

    def _vector(self, found: object, length: int, door: str) -> NDArray[np.float32]:
        """Return what was made as float32, or refuse what is none of this length, or not finite."""
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.shape != (length,):
            told = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
            raise self._wrong(door, f"returned {told}, where a vector of {length} real numbers is needed")
        with np.errstate(over="ignore"):  # which is refused below
            vector_P = found.astype(np.float32)
        if not np.isfinite(vector_P).all():
            raise self._wrong(door, "returned values that are not finite in float32; take smaller steps")
        return vector_P

    def _called(self, do: Callable[[], Any], door: str) -> Any:
        """Call the user's own code; of what it raises, the kind and the line are told."""
        try:
            return do()
        except (Exception, SystemExit) as error:
            raise self._wrong(door, f"raised {own_calls.failed(error, [self.use])}") from error

    def _wrong(self, door: str, what: str) -> ProtocolError:
        return ProtocolError(f"{KEY} = {self.use!r}: {door} {what}")


class OwnCombining(Own):
    """One that makes the mean itself, of single updates."""

    def combine(self, updates: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what the user's own code makes of single updates.

        Raises:
            ProtocolError: When it is no finite vector of their length.
        """
        given = {silo: updates[silo].copy() for silo in sorted(updates)}
        length = len(next(iter(given.values())))
        return self._vector(self._called(lambda: self.made.combine(given), "combine"), length, "combine")


def own_strategy(scenario: Scenario) -> Own:
    """Return the strategy that the user's function makes.

    Raises:
        ConfigError: When it cannot be found or called with the options, or what it makes cannot `apply`.
    """
    use = scenario.federation.strategy
    options = scenario.federation.strategy_options
    made = own_calls.call(use, KEY, options, {"scenario": scenario}, table=f"{KEY}_options")
    if isinstance(made, type) or not callable(getattr(made, "apply", None)):
        found = f"the class {made.__name__} itself" if isinstance(made, type) else f"a {type(made).__name__}"
        raise ConfigError(
            f"{KEY} = {use!r} returned {found}, where an object with a method apply(model, mean, state) is needed"
        )
    return OwnCombining(scenario, made) if hasattr(made, "combine") else Own(scenario, made)


def check_own(scenario: Scenario, parameters: int) -> None:
    """Try a strategy of the user's own on made-up means, twice from the start, before anything is written.

    Args:
        scenario: Names it.
        parameters: Of its model.

    Raises:
        ConfigError: When it refuses what every run does, makes something else of the same means in another process, or
            says `BY_COORDINATE = True` and makes something else of some coordinates alone.
    """
    try:
        once, again = (_tried(own_strategy(scenario), scenario, parameters) for _ in range(2))
        same = own_strategy(scenario)
        _tried(same, scenario, parameters)
        within = _tried(same, scenario, parameters)
    except ConfigError:
        raise
    except FedmodelError as error:
        raise ConfigError(str(error)) from error
    if once != again or once != within:
        raise ConfigError(
            f"{KEY} = {scenario.federation.strategy!r} makes something else of the same silos and means when asked"
            " again; it may draw from nothing but a seed of its own, and keep nothing but the state that it returns"
        )
    if same.BY_COORDINATE and not isinstance(same, OwnCombining):
        _check_by_coordinate(scenario, max(parameters, _LEAST_TRIED))


def _check_by_coordinate(scenario: Scenario, parameters: int) -> None:
    """Refuse one that says that it goes by coordinates, and makes something else of some alone than among all."""
    rng, strategy = np.random.default_rng(1), own_strategy(scenario)
    for size in _STEPS:
        mean_TP = rng.normal(0.0, size, (_TRIED, parameters)).astype(np.float32)
        try:
            all_W = _moved(strategy, mean_TP)[_SOME].astype(np.float64)
            apart = np.abs(all_W - _moved(strategy, mean_TP[:, _SOME])).max()
            told = "" if apart <= _SAME * np.abs(all_W).max() else "they come to something else than among all"
        except ProtocolError as error:
            told = str(error).removeprefix(f"{KEY} = {strategy.use!r}: ")
        if told:
            raise ConfigError(
                f"{KEY} = {strategy.use!r} says BY_COORDINATE = True, and of some coordinates alone {told}; leave it"
                " out: the strategy runs all the same, and an audit, which follows some coordinates, says why it cannot"
            )


def _moved(strategy: Own, mean_TP: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the model that means come to, one after the other, from zero."""
    model_P, state = np.zeros(mean_TP.shape[1], dtype=np.float32), b""
    for mean_P in mean_TP:
        model_P, state = strategy.apply(model_P, mean_P, state)
    return model_P


def _tried(strategy: Own, scenario: Scenario, parameters: int) -> list[object]:
    """Return all that a strategy says in a few made-up rounds."""
    rng = np.random.default_rng(1)
    model_P, state, found = np.zeros(parameters, dtype=np.float32), b"", list[object]()
    silos = scenario.federation.silos
    for number in range(1, _TRIED + 1):
        cohort = strategy.choose(silos, number)
        mean_P = rng.normal(0.0, _STEP, parameters).astype(np.float32)
        if isinstance(strategy, OwnCombining):
            mean_P = strategy.combine({silo: np.roll(mean_P, place) for place, silo in enumerate(cohort)})
        model_P, state = strategy.apply(model_P, mean_P, state)
        found += [cohort, mean_P.tobytes(), model_P.tobytes(), state]
    return found
