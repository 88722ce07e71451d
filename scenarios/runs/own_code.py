"""Code of the user's own that a run was made with, as its summary names it: never imported to read that.

| A name leads to                                          | What stands in the summary                            |
|----------------------------------------------------------|-------------------------------------------------------|
| a package that the silos' laws list                      | its name and version, and a hash of its files         |
| a module of whoever simulated, or of the server's        | a hash of the files that were imported for it         |
| an object of a script                                    | a hash of its text where Python finds that            |

Does NOT show that this code ran: that is the word of whoever wrote the summary, as the hash of the code is. Where a
package is listed, its files are in that hash, which silos countersign.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmodel.config import Scenario
from fedmodel.kinds.own_code import source_hash
from fedmodel.system.distributions import owner
from fedmodel.system.packages import package_hash


def named_code(scenario: Scenario, packages: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a row for each name of code in a scenario, in the process that ran it.

    Args:
        scenario: What was done.
        packages: Those that silos' laws list, by name and version; none in a simulation.
    """
    rows = []
    for key, use in scenario.own_code.items():
        package = owner(use.partition(":")[0], packages)
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
