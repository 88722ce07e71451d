"""The figures of privacy that a scenario or a law may state, each with its range, and what is wrong outside of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from fedmodel.privacy.events import LEAST_DELTA, LEAST_NOISE, LEAST_RATE, MOST_EPSILON, MOST_NOISE, UnitName
from fedmodel.privacy.mechanisms import protecting_mechanism

LARGEST_TARGET = 100


def _is_some_noise(value: object) -> object:
    """Refuse a noise multiplier of 0, and say how a run without noise is asked for."""
    if value == 0 and not isinstance(value, bool):
        raise ValueError(f"found 0, which is no noise and protects nobody; the least is {LEAST_NOISE}. {_BASELINE}")
    return value


def _is_a_target(value: object) -> object:
    """Refuse an epsilon that is no target worth a run, and say how a run without noise is asked for."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value > LARGEST_TARGET:
        raise ValueError(f"found {value:g}, which promises nothing; the largest is {LARGEST_TARGET}. {_BASELINE}")
    return value


_BASELINE = (
    "To see what privacy costs, simulate the same scenario without noise, which protects nobody: privacy.baseline ="
    ' "no-noise" (or "no-noise-no-clip")'
)
NoiseMultiplier = Annotated[float, Field(ge=LEAST_NOISE, le=MOST_NOISE), BeforeValidator(_is_some_noise)]
TargetEpsilon = Annotated[float, Field(gt=0, le=LARGEST_TARGET), BeforeValidator(_is_a_target)]
MechanismName = Annotated[str, AfterValidator(protecting_mechanism)]
SampleRate = Annotated[float, Field(ge=LEAST_RATE, le=1)]
Epsilon = Annotated[float, Field(gt=0, le=MOST_EPSILON)]
Delta = Annotated[float, Field(ge=LEAST_DELTA, lt=1)]


def records_are_said(unit: UnitName, max_records: int | None) -> None:
    """Refuse a unit of several records without a cap, and a cap on a record."""
    if (unit == "record") == (max_records is not None):
        raise ValueError(
            'max_records, the most records of one unit that are trained on, is given with unit = "person" or "client",'
            f" and only then; found unit = {unit!r} with {'none' if max_records is None else max_records}"
        )
