"""Hashes of records, by which the same call of a script, or another machine, is told from one with other records.

Sensitive: who has it can tell whether it is of given records. It stays where the records are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedmodel.config import Scenario
from fedmodel.kinds.sources.own import OwnConfig

if TYPE_CHECKING:
    from fedmodel.data.records import Records


def own_records_hash(scenario: Scenario) -> str:
    """Return the SHA-256 of the server's held-out records and every silo's, as they were dealt; in hexadecimal.

    Returns:
        Nothing where records are not a user's own.

    Raises:
        ConfigError, DataError: As `fedmodel.data.own.own_dealt` does.
    """
    if not isinstance(scenario.data, OwnConfig):
        return ""
    from fedmodel.data.own import own_dealt

    held_out, silos = own_dealt(scenario)
    digest = hashlib.sha256(b"fedmodel/v1/own-records")
    for part in (held_out, *silos):
        _add(digest, part)
    return digest.hexdigest()


def records_hash(scenario: Scenario) -> str:
    """Return the SHA-256 of what every silo of a simulation trains on, as it is dealt here; in hexadecimal.

    Raises:
        ConfigError, DataError: As `fedmodel.data.access.silo_records` does.
    """
    from fedmodel.data import silo_records

    digest = hashlib.sha256(b"fedmodel/v1/simulated-records")
    for silo in scenario.federation.silos:
        _add(digest, silo_records(scenario, silo))
    return digest.hexdigest()


def _add(digest: hashlib._Hash, part: Records) -> None:
    """Add a part's arrays, each behind its name, type and shape."""
    named = dict(part.x) if isinstance(part.x, Mapping) else {"": part.x}
    for name, one in [*sorted(named.items()), ("targets", part.y_N), ("persons", part.person_N)]:
        about = f"{name} {one.dtype.str} {one.shape}".encode()
        digest.update(len(about).to_bytes(8, "big") + about + one.tobytes())
