"""Code of the user's own that a run was made with, as its summary names it: never imported to read that.

| A name leads to                                          | What stands in the summary                            |
|----------------------------------------------------------|-------------------------------------------------------|
| a package that the silos' laws list, or `server.toml`    | its name and version, and a hash of its files         |
| a module of whoever simulated, or of the server's        | a hash of the files that were imported for it         |
| an object of a script                                    | a hash of its text where Python finds that            |

Of a deployed run this is noted as it is handed in (`scenarios.deployment.runs`), so that nobody imports it later.

Does NOT show that this code ran: that is the word of whoever wrote the summary, as the hash of the code is. Where a
silo's law lists a package, its files are in that hash, which silos countersign.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from fedmodel.config import Scenario
from fedmodel.kinds.own_code import source_hash
from fedmodel.system.distributions import owner
from fedmodel.system.packages import package_hash

NONE: Final[Mapping[str, str]] = MappingProxyType({})
STRATEGY: Final = "federation.strategy"


def named_code(
    scenario: Scenario, packages: Mapping[str, str] = NONE, strategies: Mapping[str, str] = NONE
) -> list[dict[str, Any]]:
    """Return a row for each name of code in a scenario, in a process that imported it.

    Args:
        scenario: What is done.
        packages: Those that silos' laws list, by name and version; none in a simulation.
        strategies: Those of which the server's own file lets a strategy be, likewise.
    """
    rows = []
    for key, use in scenario.own_code.items():
        package = owner(use.partition(":")[0], strategies if key == STRATEGY else packages)
        if package is None:
            rows.append({"key": key, "use": use, "sha256": source_hash({key: use})})
            continue
        hashed = package_hash(package.name, package.version)
        rows.append({"key": key, "use": use, "package": package.name, "version": package.version, "sha256": hashed})
    return rows


def sentence(row: Mapping[str, Any]) -> str:
    """Return what is to be said of a row, as a part of a sentence."""
    of = f"package {row['package']} {row['version']}" if row.get("package") else "whoever ran it"
    return f"{row['key']} = {row['use']!r}, of {of}, SHA-256 {row['sha256']}"
