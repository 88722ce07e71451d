"""What `summary.json` says of privacy, held to a report's claim, which was held to the charges before.

Guarantee: `check_summary` passes a summary only if, of each silo that took a step, it says the claim's epsilon and
steps. One that a deployed server wrote, where ledgers are here, may say fewer steps and a higher epsilon.

Does NOT hold what else stands there, as mu; nor an epsilon where nothing is claimed, since noise was seeded; nor one in
a server's own report of a run with jobs besides training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmodel.errors import ClaimRefuted
from fedmodel.privacy.events import EPSILON_IF_HIDDEN
from scenarios.report.verifier.holding import hold


def check_summary(folder: Path, report: Mapping[str, Any], scenario: Mapping[str, Any], *, goes_on: bool) -> None:
    """Refuse a summary that says another epsilon, or more or other steps, than the claim.

    Args:
        folder: The report's.
        report: Of which the claim follows.
        scenario: Of the run.
        goes_on: Whether the claim is of all that a budget holds, and a server's word of this run alone.

    Raises:
        ClaimRefuted: Which silo's figure is another.
    """
    rows = {row["silo"]: row for row in json.loads((folder / "summary.json").read_bytes())["privacy"]}
    if rows.keys() != {row["silo"] for row in report["claim"]["silos"]}:
        raise ClaimRefuted("summary.json: privacy: is of other silos than the report")
    reported = report["run"].get("reported", False)
    for claimed in report["claim"]["silos"]:
        row = rows[claimed["silo"]]
        same = row["source"] == "ledger" or reported
        if row["steps"] != claimed["steps"] if same else row["steps"] > claimed["steps"]:
            raise ClaimRefuted(
                f"summary.json: {claimed['silo']}: {row['steps']} steps stand, {claimed['steps']} follow"
            )
        if not row["steps"] or (reported and scenario.get("besides")):
            continue
        told = {name: claimed[name] for name in ("epsilon", EPSILON_IF_HIDDEN) if name in claimed}
        if set(told.values()) == {None}:
            continue
        if same:
            hold(f"privacy[{claimed['silo']}]", row, told, "the charges", "summary.json")
        elif not goes_on:
            _check_no_less(claimed["silo"], row, told)


def _check_no_less(silo: str, row: Mapping[str, Any], told: Mapping[str, float | None]) -> None:
    """Refuse a figure of a plan under the claim, which is of that plan or of a cap under it; none claims nothing."""
    for name, claimed in told.items():
        figure = row.get(name)
        if figure is not None and (claimed is None or (figure < claimed and not math.isclose(figure, claimed))):
            raise ClaimRefuted(f"summary.json: {silo}: {name} {figure} stands, and the claim is {claimed}")
