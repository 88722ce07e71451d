"""What a field is to the benchmark of utility: a scenario, its levels of privacy, and how an answer is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.data import held_out_records, silo_records
from fedmodel.data.records import Records

Scores = dict[str, float]
NO_PRIVACY: Final = "no privacy"
"""What the level is called that has neither noise nor clip."""


@dataclass(frozen=True)
class Level:
    """One epsilon of a field, and what was chosen for it.

    Attributes:
        settings: Overrides of the scenario; `privacy.epsilon` is among them unless the baseline is.
        central: Learning rate, steps and clip of the central run.
        published: The figure of others, with its source.
        noisy: The same of the central run with all silos' noise, where that learns better by others; else None.
    """

    settings: tuple[str, ...]
    central: tuple[float, int, float]
    published: str = ""
    noisy: tuple[float, int, float] | None = None


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        levels: By what they are called.
        score: Figures of scores of the positive class, or of all classes, on the held-out records.
        ways: Settings that replace others' data or scaling, by what they are called.
        at_once: Records of a central lot whose gradients are held together; the lot is added up of such parts.
        ghost: Whether Opacus clips by two passes and holds no record's gradient: faster where these are large.
        besides: Other rows, without privacy: their figures by a seed.
    """

    scenario: str
    levels: dict[str, Level]
    score: Callable[[Scenario, Records, NDArray[Any]], Scores]
    ways: dict[str, tuple[str, ...]]
    at_once: int = 10_000
    ghost: bool = False
    besides: Mapping[str, Callable[[int], Scores]] = field(default_factory=dict)


def records_of(scenario: Scenario) -> tuple[Records, tuple[Records, ...]]:
    """Return the held-out records, and every silo's."""
    return held_out_records(scenario), tuple(silo_records(scenario, silo) for silo in scenario.federation.silos)
