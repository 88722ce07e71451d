"""What it costs to know whose a record is, and whether a table is another budget's: normal forms, and sources.

    python benchmarks/tables.py [--json]

A table is read with its persons, whose ids are grouped by their normal form; beside it, in the same run, the same table
is read with ids grouped as they are spelled. Whole numbers are read as a gap makes a program write them, and whole.
A charge is preceded by a look at all tables of a silo, and at what its ledger remembers of their sources; beside it,
the charge. Medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
from pyarrow import csv

from clients.sources import Source
from fedmodel.config import SiloFile, TableSource
from fedmodel.crypto import SigningKey
from fedmodel.data import table_records, tables
from fedmodel.kinds.sources.table import TableConfig
from fedmodel.ledger import Asked, Ledger, Scope
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent

_RECORDS, _PERSONS, _REPEATS = 200_000, 100_000, 5
_SPELLED = {  # by what is told: form, and a person's id
    "text, plain": ("text", "P-{:06}"),
    "text, with outer space": ("text", " P-{:06}\u00a0"),
    "caseless": ("caseless", "P-{:06}"),
    "digits": ("digits", "{:09}"),
}
_FILES = (1, 100, 1_000)


def seconds(step: Callable[[], object]) -> float:
    """Return the median time of a step."""
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def reading(folder: Path, form: str, spelling: str) -> dict[str, float]:
    """Return what reading a table takes, by normal forms and by spellings."""
    who_N = np.random.default_rng(1).integers(0, _PERSONS, _RECORDS)
    columns = {"id": [spelling.format(who) for who in who_N], "age": who_N % 90, "ill": ["no"] * _RECORDS}
    csv.write_csv(pa.table(columns), folder / "table.csv")
    age = {"name": "age", "type": "float", "range": [0.0, 90.0]}
    config = TableConfig.model_validate({
        "source": "table", "name": "ward", "label": "ill", "labels": ["no", "yes"], "columns": [age],
        "person": {"column": "id", "form": form},
    })  # fmt: skip
    source = TableSource(csv=str(folder / "table.csv"))
    normal = seconds(lambda: table_records(config, source))
    with mock.patch.object(tables, "normal_ids", lambda values, *_: values.cast(pa.large_string())):
        spelled = seconds(lambda: table_records(config, source))
    return {"normal": normal, "spelled": spelled, "ratio": normal / spelled}


def gaps(folder: Path) -> dict[str, float]:
    """Return what reading whole numbers that a gap made floats takes, and what reading them whole does."""
    visits_N = np.random.default_rng(1).integers(0, 1_000, _RECORDS)
    column = {"name": "visits", "type": "integer", "range": [0.0, 1_000.0]}
    config = TableConfig.model_validate({
        "source": "table", "name": "ward", "label": "ill", "labels": ["0", "1"], "columns": [column],
    })  # fmt: skip
    times = {}
    for name, end in (("whole", ""), ("floats", ".0")):
        cells = {"visits": [f"{n}{end}" for n in visits_N], "ill": [f"{n % 2}{end}" for n in visits_N]}
        csv.write_csv(pa.table(cells), folder / f"{name}.csv")
        times[name] = seconds(partial(table_records, config, TableSource(csv=str(folder / f"{name}.csv"))))
    return {**times, "ratio": times["floats"] / times["whole"]}


def checking(folder: Path, files: int) -> dict[str, float]:
    """Return what is looked at before a charge takes, and the charge, with tables of so many files in all."""
    key, scope = SigningKey.generate(), Scope("one", "record", 1, 1e-6, 500.0, 4)
    for name in ("one", "two"):
        (folder / name).mkdir()
        for number in range(max(1, files // 2)):
            (folder / name / f"{number}.csv").write_text(f"age,ill\n{name}{number:09},no\n")
    budget = {"unit": "record", "delta": 1e-6, "epsilon": 500.0}
    law = SiloFile.model_validate({
        "name": "north", "budgets": {"one": budget, "two": budget}, "encryption": {"secure_aggregation": "off"},
        "tables": {"one": {"folder": "one"}, "two": {"folder": "two"}},
    })  # fmt: skip
    source = Source(law, folder, "one", scope, key)
    with Ledger(folder / "north.sqlite", "north", key, folder / "ledger.head") as ledger:
        ledger.reserve(Asked(scope, "run", DpSgdEvent(50.0, 1.0, 0.01, 100_000, 64), 1))
        source.remember(ledger, "run")
        rounds = iter(range(1, 1_000))

        def look() -> None:
            source.check(ledger)
            source.remember(ledger, "run")

        def charge() -> None:
            number = next(rounds)
            ledger.charge("run", number, 1, f"{number:064d}")

        checked, charged = seconds(look), seconds(charge)
    return {"check": checked, "charge": charged, "ratio": checked / charged}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    found: dict[str, dict[str, float]] = {}
    as_json = parser.parse_args().json
    for name, (form, spelling) in _SPELLED.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = reading(Path(folder), form, spelling)
    with tempfile.TemporaryDirectory() as folder:
        found["whole numbers as floats"] = gaps(Path(folder))
    for files in _FILES:
        with tempfile.TemporaryDirectory() as folder:
            found[f"{files} files"] = checking(Path(folder), files)
    if as_json:
        print(json.dumps(found))
        return
    for name, row in found.items():
        print(f"{name:24}", "  ".join(f"{key} {figure:.4f}" for key, figure in row.items()))


if __name__ == "__main__":
    main()
