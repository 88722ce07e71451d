"""Tables of persons whose ids are spelled in many ways, read as a silo reads its own: is each of them one person?

The check `records_of_a_person` of the suite of planted faults. What reads them is the silos' own code, from the file to
the records that are left of each person; who is who stands in a feature, which no id touches.

Does NOT try every spelling: `tests/fedmodel/data/test_persons.py` has the kinds.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario
from fedmodel.data import silo_records

_MOST: Final = 2  # records of one person that are used; each has more
_SILOS: Final = {
    # One person a row; in the second table nothing but an id's own characters says that "7" and "07" are two.
    "spelled": (("P-0", "P-0 ", "\u00a0P-0", "P-0\ufeff"), ("P-1\u3000", "P-1", "\uff30-1"), ("é", "e\u0301", "é ")),
    "figures": (("7", "7 ", "７"), ("07", " 07", "07"), ("70", "70 ", "70\u2003"), ("1e3", "1e3 ", "1e3")),
}  # fmt: skip


def misgrouped(folder: Path, run: dict[str, Any]) -> int:
    """Write the tables into a folder, read them, and return of how many persons more or fewer records are left.

    Args:
        folder: An empty one.
        run: A scenario's document, whose data and unit are put in place of its own.
    """
    for silo, persons in _SILOS.items():
        with (folder / f"{silo}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [[one, who, "no"] for who, spellings in enumerate(persons) for one in spellings]
            csv.writer(file).writerows([["id", "who", "ill"], *rows])
    scenario = Scenario.model_validate({**run, **_asked(run, folder)})
    wrong = 0
    for silo, persons in _SILOS.items():
        who = silo_records(scenario, silo).x_NF[:, 0].round().tolist()
        wrong += sum(who.count(number) != _MOST for number in range(len(persons)))
    return wrong


def _asked(run: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what of a scenario is about persons and their tables."""
    column = {"name": "who", "type": "float", "range": [-1.0, 1.0]}
    table = {"name": "spellings", "label": "ill", "labels": ["no", "yes"], "columns": [column], "person": "id"}
    return {
        "data": {"source": "table", "folder": str(folder), "feature_bound": 100.0, **table},
        "federation": {**run["federation"], "silos": list(_SILOS)},
        "privacy": {**run["privacy"], "unit": "person", "max_records": _MOST},
    }
