"""The mechanisms that a silo may release by, a file each, and how a stored event is read back.

    dp-sgd       Poisson lots, clipped gradients, Gaussian noise on their sum
    gaussian     a clipped vector of each record, Gaussian noise on their sum, as of a count
    none-unsafe  the same pipeline without noise, which protects nobody; a simulation's baseline alone

The list is what this folder holds. A name that comes from a file or a peer is looked up in it, and nothing is ever
imported by it. A kind's file has `MECHANISM`, which is what `Mechanism` says, and the class of its event: frozen,
validated, stored under the file's name. Import torch inside `release`, since a silo joins a run without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

from fedmodel.errors import LedgerError
from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms._mechanism import Facts, Limits, Mechanism
from fedmodel.system.kinds import kinds, not_known

__all__ = [
    "MECHANISMS",
    "Facts",
    "Limits",
    "Mechanism",
    "event_from_json",
    "known_mechanism",
    "mechanism_of",
    "protecting_mechanism",
]

MECHANISMS: Final[Mapping[str, Mechanism]] = {name: kind.MECHANISM for name, kind in kinds(__name__).items()}
_MOST_CHARACTERS: Final = 2_000


def mechanism_of(event: Event) -> Mechanism:
    """Return the mechanism of an event."""
    return MECHANISMS[event.mechanism]


def known_mechanism(name: str) -> str:
    """Return the name of a mechanism.

    Raises:
        ValueError: When it is none.
    """
    if name not in MECHANISMS:
        raise ValueError(not_known("mechanism", name, MECHANISMS))
    return name


def protecting_mechanism(name: str) -> str:
    """Return the name of a mechanism that protects, as a scenario or a law says it.

    Raises:
        ValueError: When it is no such name.
    """
    protecting = {known: kind for known, kind in MECHANISMS.items() if kind.protects}
    if name not in protecting:
        raise ValueError(not_known("mechanism", name, protecting))
    return name


@lru_cache(maxsize=256)
def event_from_json(text: str) -> Event:
    """Read an event back; of one text, the one event that this process made of it.

    Raises:
        LedgerError: When the mechanism is unknown, or a field is missing, unknown or out of range.
    """
    if len(text) > _MOST_CHARACTERS:  # what a hostile peer could make a parser of numbers or brackets do
        raise LedgerError(f"an event of {len(text)} characters is no event")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LedgerError("an event is not JSON") from error
    name = document.get("mechanism") if isinstance(document, Mapping) else None
    kind = MECHANISMS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise LedgerError(f"an event's mechanism is not known; known: {', '.join(MECHANISMS)}")
    if set(document) != {field.name for field in fields(kind.event)}:
        raise LedgerError(f"a {name} event must have exactly its own fields; one is missing or unknown")
    values: dict[str, Any] = dict(document)
    if values.get("realised_sample_rate") == -1.0:
        raise LedgerError(f"a {name} event says the rate that was drawn with")
    return kind.event(**values)
