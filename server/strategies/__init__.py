"""Strategies: who trains in a round, and what the mean of their updates does to the model; a file each.

A kind is one file here, whose `make(scenario, options)` returns a `Strategy`. `federation.strategy` names it, as its
file is named, with a hyphen for each underscore. A file that has a section `Options` says with it what
`federation.strategy_options` may hold; one without takes none.

Guarantee: a strategy costs no privacy. `apply` is given means that are differentially private already, each charged at
every silo that is in it, and what it computes from them, over however many rounds, is post-processing (Dwork and Roth
2014, proposition 2.1). `choose` is given the names of silos and the number of the round, and never a record or anything
made of one. No privacy amplification is claimed for who was chosen: each silo's ledger is charged as if everyone knew.

A strategy that has a method `combine` makes the mean itself, of the single updates. It runs only where
`encryption.secure_aggregation = "off"` lets the server see them, and is refused otherwise. Each update is
differentially private by itself, at the epsilon of its own silo's ledger and for the unit that is charged there, since
all of its noise was added at the silo before it left (`fedmodel.learning.jobs.training`): what is made of several
updates is post-processing of each.

One of the user's own is no file here: `federation.strategy` names it as `package.module:function`, and what that makes
is held to this door (`server.strategies._own`).

A strategy whose `BY_COORDINATE` is true says that a coordinate of the model after, and of what is kept, follows from
that coordinate of the model, of the means and of what was kept, and that `apply` takes vectors of any length. Such a
one an audit follows (`fedmodel.audit.sum_gauges`); all on board that are of means say so.

Does NOT protect the model from silos that lie: most strategies see one mean and no single update, and what those that
do see them promise is in `server.strategies._robust`. What is released is the model after every round, so that a
strategy hides nothing that its state holds.

Shapes: P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fedmodel.config import Scenario, explained
from fedmodel.config.own_packages import StrategyPackage
from fedmodel.errors import ConfigError
from fedmodel.kinds.section import Section
from fedmodel.system.kinds import kinds, not_known

# What Flower's people look for here, and where it is: options of Flower's strategies, and names of some of them.
_OPTIONS_ELSEWHERE: Final = {
    "eta_l": "training.learning_rate",
    "proximal_mu": "training.proximal",
    "fraction_train": "federation.cohort",
    "min_train_nodes": "federation.min_silos",
}
_NAMES_ELSEWHERE: Final = {
    "fedprox": "FedProx is what silos do, under any strategy: leave the strategy as it is, such as 'fedavg', and set"
    " training.proximal to its mu",
    "fedmedian": "it is 'median' here",
    "fedtrimmedavg": "it is 'trimmed-mean' here",
}


class Strategy(Protocol):
    """Who trains in a round, and what a mean does to the model. It holds nothing that changes: its state is bytes.

    The state that `apply` returns is kept in the run's checkpoint with the model, and given to the next `apply`, in
    this process or, where that was killed, in another one. Before the first mean it is empty. A round that failed
    closed has no mean, and leaves model and state as they were.
    """

    def choose(self, silos: Sequence[str], number: int) -> list[str]:
        """Return which of these silos train.

        Args:
            silos: Those that can still be asked, in any order.
            number: The round; under secure aggregation the first one of its window, in which a cohort stays.

        Returns:
            Silos among them, each once: the same for the same arguments, in any process.
        """

    def apply(
        self, model_P: NDArray[np.float32], mean_P: NDArray[np.float32], state: bytes
    ) -> tuple[NDArray[np.float32], bytes]:
        """Return the model after a round, and the state for the next.

        Args:
            model_P: The model that was trained from, float32 of shape `(P,)`; not changed.
            mean_P: The weighted mean of the updates, or what `combine` made of them, float32 of shape `(P,)`; not
                changed.
            state: What the last call returned; empty at first.
        """


@runtime_checkable
class Combining(Strategy, Protocol):
    """A strategy that makes the mean itself, where single updates are visible."""

    def combine(self, updates: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what is given to `apply` for the mean of a round's updates.

        Args:
            updates: By silo, `federation.min_silos` of them or more, each float32 of shape `(P,)`; not changed.

        Returns:
            A vector float32 of shape `(P,)`, the same for the same updates in any order.
        """


KINDS = kinds(__name__)
"""By name, the modules of the strategies."""


def strategy_of(scenario: Scenario) -> Strategy:
    """Return the strategy that a scenario names, with the options that it says.

    Raises:
        ConfigError: When there is none of that name, it does not take such options, they do not fit the federation, or
            it needs single updates where secure aggregation hides them.
    """
    name, strategy = scenario.federation.strategy, None
    if ":" in name:
        from server.strategies._own import own_strategy  # which is based on one of these kinds

        strategy = own_strategy(scenario)
    else:
        options = options_of(scenario)
        strategy = KINDS[name].make(scenario, options)
    mode = scenario.encryption.secure_aggregation
    if mode != "off" and isinstance(strategy, Combining):
        what = "leaves the server their sum alone" if mode == "on" else "computes what masks would leave, their sum"
        raise ConfigError(
            f"federation.strategy = {name!r} looks at each silo's own update, and"
            f' encryption.secure_aggregation = "{mode}" {what}; take a strategy of means, such as "fedavg", or'
            ' secure_aggregation = "off", with which the server sees every update'
        )
    return strategy


def check_strategy(scenario: Scenario, parameters: int) -> None:
    """Refuse what is wrong with a strategy before a run has a folder; one of the user's own is tried on made-up means.

    Args:
        scenario: Names it.
        parameters: Of its model.

    Raises:
        ConfigError: As `strategy_of`; or when it does not do what is asked of one.
    """
    strategy_of(scenario)
    if ":" in scenario.federation.strategy:
        from server.strategies._own import check_own

        check_own(scenario, parameters)


def check_listed_strategy(scenario: Scenario, packages: Mapping[str, StrategyPackage]) -> None:
    """Refuse a strategy of the user's own that is not the code that a deployed server's file approved of.

    Args:
        scenario: Names it.
        packages: Of `server.toml`, by name.

    Raises:
        ConfigError: As `server.strategies._listed` says.
    """
    if ":" in scenario.federation.strategy:
        from server.strategies import _listed

        _listed.check_listed_strategy(scenario, packages)


def settings_of(scenario: Scenario) -> dict[str, object]:
    """Return what is set of the strategy that a scenario names, said or by default; code of one's own is not imported.

    Raises:
        ConfigError: As `options_of`.
    """
    if ":" in scenario.federation.strategy:
        return dict(scenario.federation.strategy_options)
    return options_of(scenario).model_dump(mode="json")


def why_not_followed(strategy: Strategy) -> str | None:
    """Return why an audit cannot tell whether each update is in what a strategy makes of a round; None where it can.

    It knows means and models at some coordinates, and takes the strategy's steps again there.
    """
    if isinstance(strategy, Combining):
        return "makes of updates something else than their mean, in which an audit tells whether each is with its noise"
    if not getattr(strategy, "BY_COORDINATE", False):
        return "may move a coordinate of the model by others, and an audit follows some coordinates alone"
    return None


def options_of(scenario: Scenario) -> Section:
    """Return the options of the strategy that a scenario names, those that it does not say by their defaults.

    Raises:
        ConfigError: When there is no strategy of that name, or it does not take such options.
    """
    name, said = scenario.federation.strategy, scenario.federation.strategy_options
    if name not in KINDS:
        if name in _NAMES_ELSEWHERE:
            raise ConfigError(f"federation.strategy = {name!r}: {_NAMES_ELSEWHERE[name]}")
        raise ConfigError(f"federation.strategy: {not_known('strategy', name, KINDS)}")
    declared: type[Section] = getattr(KINDS[name], "Options", Section)
    for option in said:
        if option in _OPTIONS_ELSEWHERE and option not in declared.model_fields:
            raise ConfigError(f"federation.strategy_options.{option}: that is {_OPTIONS_ELSEWHERE[option]} here")
    if said and not declared.model_fields:
        raise ConfigError(f"strategy {name!r} takes no options; leave federation.strategy_options out")
    try:
        return declared.model_validate(said)
    except ValidationError as error:
        raise ConfigError(f"federation.strategy_options.{explained(error, declared)}") from error
