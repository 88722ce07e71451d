"""Records: what they are, how they are scaled, and how a data set (`fedmodel.kinds.sources`) is dealt out to silos.

Features are scaled by reference ranges that the scenario declares. This module computes no mean, deviation, minimum or
count of records to scale by: such a statistic would be a release about patients that nobody paid for. Where a scenario
took its ranges from is for it to say; those of `hospitals` were published with the data set, long before any run.

Order of operations, all from the scenario's seed: load, hold out the server's test part, deal the rest to silos.
Held-out records are never seen by a silo.

A silo's own table is for `fedmodel.data.tables`; who gets which records, for `fedmodel.data.access`.

Does NOT protect anything: records are plaintext in this process. One process holds the records that are dealt to every
silo: these data sets are published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario, data_from_json
from fedmodel.data.apart import held_apart
from fedmodel.data.named import arrays, each, together
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.partition import Partition, Units, labels_of
from fedmodel.kinds.source import Dealt
from fedmodel.privacy.events import UnitName
from fedmodel.seeds import derive_seed


@dataclass(frozen=True)
class Records:
    """Scaled records in memory.

    Sensitive: all arrays, and their length under add/remove adjacency.

    Attributes:
        x: What a model is given of them: one array (float32, shape `(N, *features)`), or several of any type by name,
            all of one first dimension. A model is called with one as `model(x)`, and with several by their names.
        y_N: Targets, of any type and shape `(N, ...)`: int64 labels in `[0, classes)`, or whatever else a loss takes.
            No value has a meaning of its own here.
        person_N: Whose each record is, as numbers that mean nothing else.

    Raises:
        DataError: When the arrays are not of one length, or there is none.
    """

    x: NDArray[Any] | Mapping[str, NDArray[Any]]
    y_N: NDArray[Any]
    person_N: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {len(one) for one in (*arrays(self.x), self.person_N)}
        if lengths != {len(self.y_N)} or not list(arrays(self.x)):
            raise DataError("records are arrays of one length, with as many targets and persons; these are not")

    @property
    def x_NF(self) -> NDArray[np.float32]:  # noqa: N802 - a shape, as everywhere
        """The array of records that are one.

        Raises:
            DataError: When they are several, which have no order.
        """
        if isinstance(self.x, Mapping):
            raise DataError(f"these records are several arrays, {', '.join(self.x)}, where one is needed")
        return self.x

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """Return the records of all parts, in their order.

        Raises:
            DataError: When they are not of the same arrays.
        """
        x = together([part.x for part in parts], np.concatenate)
        y_N, person_N = (np.concatenate([getattr(part, name) for part in parts]) for name in ("y_N", "person_N"))
        return cls(x, y_N, person_N)

    def __len__(self) -> int:
        return len(self.y_N)

    def __repr__(self) -> str:
        return "Records(...)"  # a repr ends up in logs; neither values nor their number belong there

    def take(self, index_N: NDArray[np.intp] | slice) -> Records:
        """Return the chosen records."""
        return Records(each(self.x, lambda one: one[index_N]), self.y_N[index_N], self.person_N[index_N])

    def capped(self, unit: UnitName, max_records: int) -> Records:
        """Return the records of which no privacy unit has more than so many.

        Guarantee: adding or removing all records of one unit adds or removes at most `max_records` of those returned,
        and changes no other: which of a person's are kept, the first, hangs on that person's alone. A client is
        everything that a silo holds.
        """
        match unit:
            case "record":
                return self
            case "client":
                return self.take(np.arange(min(len(self), max_records), dtype=np.intp))
            case "person":
                order_N = np.argsort(self.person_N, kind="stable")
                sorted_N = self.person_N[order_N]
                # How many of the same person come before, in stored order.
                earlier_N = np.arange(len(self)) - np.searchsorted(sorted_N, sorted_N, side="left")
                return self.take(np.sort(order_N[earlier_N < max_records]))


def scale(x_NF: NDArray[np.float64], config: Dealt) -> NDArray[np.float32]:
    """Map each feature's reference range onto [-1, 1] and bound what lies far outside.

    Args:
        x_NF: Raw features, shape `(N, *features)`.
        config: Declares `reference_range`, or `reference_ranges` by feature name, and `feature_bound`.

    Returns:
        float32 features in `[-feature_bound, feature_bound]`. A function of each record alone.

    Raises:
        ConfigError: When ranges are named that the source does not have, or some are missing.
        DataError: When a feature is not finite.
    """
    if not np.isfinite(x_NF).all():
        raise DataError("a feature is NaN or infinite; clean the source before it is used for training")
    shape = config.shape
    if config.reference_ranges:
        _check_names(set(config.reference_ranges), shape.names)
        low_F, high_F = np.array([config.reference_ranges[name] for name in shape.names]).T
    elif config.reference_range is not None:
        low_F, high_F = (np.full(shape.features, end) for end in config.reference_range)
    else:
        raise ConfigError(
            f"data.reference_range is missing: {config.source} features are scaled by public ranges that the scenario"
            " declares, never by statistics of the records"
        )
    return onto_unit(x_NF, low_F, high_F, config.feature_bound)


def onto_unit(
    x_NF: NDArray[np.float64], low_F: NDArray[np.float64] | float, high_F: NDArray[np.float64] | float, bound: float
) -> NDArray[np.float32]:
    """Map `[low, high]` onto [-1, 1], value by value, and bound what lies outside of plus and minus `bound`.

    >>> onto_unit(np.array([0.0, 5.0, 99.0]), 0.0, 10.0, 3.0).tolist()
    [-1.0, 0.0, 3.0]
    """
    with np.errstate(over="ignore"):  # an infinity is bounded like any other number
        scaled_NF = (x_NF - (low_F + high_F) / 2) / ((high_F - low_F) / 2)
    bounded_NF: NDArray[np.float32] = np.clip(scaled_NF, -bound, bound).astype(np.float32)
    return bounded_NF


def dealt(scenario: Scenario) -> tuple[Records, tuple[Records, ...]]:
    """Return a data set as it is dealt out: the server's held-out records, and every silo's.

    Raises:
        ConfigError: When features are not scaled as must be.
        DataError: When the records cannot be dealt out as declared.
    """
    return _deal(*_deal_key(scenario))


def _deal_key(scenario: Scenario) -> tuple[str, tuple[str, ...], int, bool, tuple[int, ...]]:
    """Return what a deal depends on, in a form that can be a cache's key."""
    if scenario.seed is None:
        raise ConfigError("the scenario has no seed; a partition cannot be repeated without one")
    state = scenario.data.state() if isinstance(scenario.data, Dealt) else ()
    whole = scenario.privacy.unit != "record"
    return scenario.data.model_dump_json(), scenario.federation.silos, scenario.seed, whole, state


@lru_cache(maxsize=2)
def _deal(
    config_json: str, silos: tuple[str, ...], seed: int, whole: bool, _: tuple[int, ...]
) -> tuple[Records, tuple[Records, ...]]:
    """Load, hold out and deal, once a process: the held-out records, and every silo's.

    Where a claim is for more than a record, `whole`, a kind's own rule of what is held out gives way to persons drawn
    by chance: whoever trains has no record in what is measured and told without noise.
    """
    config = data_from_json(config_json)
    if not isinstance(config, Dealt):
        raise ConfigError(f"data.source = {config.source!r} is not dealt out: every silo has its own")
    drawn = derive_seed(seed, "records")
    raw, y_N = config.load(drawn)
    person_N = config.persons(len(y_N), derive_seed(seed, "persons"))
    x = _checked(raw, config) if isinstance(raw, Mapping) else scale(raw, config)

    def column(name: str) -> NDArray[Any] | None:
        value_N = config.groups(name, drawn)
        has_persons = name == "person" and config.why_no_persons() is None
        return person_N if value_N is None and has_persons else value_N

    everything, apart_N = Records(x, y_N, person_N), None if whole else config.apart()
    if apart_N is None:
        return deal_out(everything, config.held_out, config.partition, silos, seed, column)
    left_N = np.flatnonzero(~apart_N)
    left = everything.take(left_N)
    parts = deal_out(left, None, config.partition, silos, seed, lambda name: _taken(column(name), left_N))[1]
    return everything.take(np.flatnonzero(apart_N)), parts


def _taken(value_N: NDArray[Any] | None, index_N: NDArray[np.intp]) -> NDArray[Any] | None:
    """Return what the chosen records say in a column, None where there is none."""
    return None if value_N is None else value_N[index_N]


def forget_deals() -> None:
    """Forget what this process dealt, where code that a scenario names may be another by now."""
    _deal.cache_clear()


def deal_out(
    everything: Records,
    held_out: float | None,
    config: Partition,
    silos: tuple[str, ...],
    seed: int,
    column: Callable[[str], NDArray[Any] | None],
) -> tuple[Records, tuple[Records, ...]]:
    """Hold records out, and deal the rest to silos; persons whole, by the label of their first record.

    Args:
        everything: Whose persons are numbers that rise from 0 and skip none.
        held_out: Share of persons whose records are held out, of each label about the same; none where None.
        config: How the rest is dealt.
        silos: Their names, in order.
        seed: The scenario's.
        column: What each record says in a column that is no feature, None where there is no such column.

    Returns:
        What is held out, and every silo's part.

    Raises:
        DataError: When the records cannot be dealt out as declared.
    """
    person_N = everything.person_N
    _, first_P = np.unique(person_N, return_index=True)
    label_P = labels_of(everything.y_N[first_P])
    train_P, test_P = np.arange(len(first_P)), np.empty(0, np.intp)
    if held_out is not None:
        train_P, test_P = held_apart(label_P, len(first_P), held_out, derive_seed(seed, "held-out") % 2**32)
    units = Units(
        len(train_P),
        None if label_P is None else label_P[train_P],
        lambda name: _said(name, column(name), person_N, first_P)[train_P],
        "records" if len(first_P) == len(person_N) else "persons",
    )
    rng = np.random.default_rng(derive_seed(seed, "partition"))
    dealt = [train_P[part] for part in config.parts(units, silos, rng)]
    apart, *silos_own = (everything.take(_records_of(persons, person_N)) for persons in (np.sort(test_P), *dealt))
    return apart, tuple(silos_own)


def _said(
    column: str, value_N: NDArray[Any] | None, person_N: NDArray[np.int64], first_P: NDArray[np.intp]
) -> NDArray[Any]:
    """Return what each person says in a column by which records are dealt; refuse one that says two things."""
    if value_N is None or value_N.shape != person_N.shape:
        raise DataError(
            f"data.partition.column = {column!r}: the source does not say it of each record; deal by another column, or"
            ' by "person" where the source says whose records are'
        )
    if not np.array_equal(value_N[first_P][person_N], value_N):
        raise DataError(
            f"data.partition.column = {column!r}: some person's records differ in it, and a person's records all go to"
            " one silo; deal by another column"
        )
    return value_N[first_P]


def _checked(x: Mapping[str, NDArray[Any]], config: Dealt) -> dict[str, NDArray[Any]]:
    """Return several arrays, which their kind has scaled, in the order in which it says them; refuse any other."""
    wanted = config.shape.inputs or {}
    for name, one in wanted.items():
        if name not in x or x[name].shape[1:] != one.size or (x[name].dtype.kind in "iu") != (one.below is not None):
            raise DataError(f"source {config.source!r} gives no array {name!r} of the shape and type that it says")
        if one.below is None and not np.isfinite(x[name]).all():
            raise DataError(f"a value of {name!r} is NaN or infinite; clean the source before it is used for training")
    if more := x.keys() - wanted.keys():
        raise DataError(f"source {config.source!r} gives {', '.join(sorted(more))} too, of which it says nothing")
    return {name: x[name] for name in wanted}


def _records_of(persons: NDArray[np.intp], person_N: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the places of these persons' records, in the order in which the persons are named."""
    if len(person_N) == person_N[-1] + 1 or not len(persons):
        return persons  # everyone has one
    order_N = np.argsort(person_N, kind="stable")
    begin_P, end_P = (np.searchsorted(person_N[order_N], persons, side) for side in ("left", "right"))
    count_P = end_P - begin_P
    # In each person's run of `order_N`, one place after another.
    at_N = np.arange(count_P.sum()) + np.repeat(begin_P - np.cumsum(count_P) + count_P, count_P)
    found: NDArray[np.intp] = order_N[at_N]
    return found


def _check_names(given: set[str], known: tuple[str, ...]) -> None:
    """Refuse ranges for features that are not there, and features without a range."""
    for name in sorted(given - set(known)):
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"data.reference_ranges: the source has no feature {name!r}{hint}")
    for name in known:
        if name not in given:
            raise ConfigError(f"data.reference_ranges: feature {name!r} has no range; declare a public one")
