"""What privacy costs, and what federation costs, on real data of several fields, beside published figures.

    python benchmarks/utility.py [--field heart] [--seeds 5] [--rows central] [--json]

Each field is a built-in scenario, or an example. Its rows are of one model: trained over the silos at each epsilon and
without privacy; trained centrally, on all silos' records together, by plain Opacus at the same epsilon; the same with
as much noise as all silos add together, which tells whether noise alone is what federation costs; and the answer that
is the majority's. A seed is a split into training and held-out records, a partition and a first model; noise is the
operating system's, and Opacus's own. What was chosen for a field (rates, rounds, clip) was chosen on other seeds, from
101 on, or on records held out of the training part where the test part is the set's own. It is not charged for: over
data that are private it would cost a budget too.

Silos train in one process without masks, which changes no figure but by rounding. Opacus adds the noise that this
project's accountant asks for at that epsilon, over as many steps.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import torch
from fields import credit, fashion, heart, insurance, survival
from fields.field import NO_PRIVACY, Field, Level, Scores, records_of
from fields.training import central, federated, majority

from fedmodel.config import read_scenario
from fedmodel.kinds.own_code import open_meanwhile

_FIRST_SEED: Final = 11
FEDERATED: Final = "federated"
CENTRAL: Final = "central Opacus"
CENTRAL_AS_NOISY: Final = "central Opacus with all silos' noise"
FIELDS: Final = {
    "heart": heart.FIELD,
    "credit": credit.FIELD,
    "insurance": insurance.FIELD,
    "survival": survival.FIELD,
    "fashion": fashion.FIELD,
}


def trained(who: str, field: Field, level: Level, settings: list[str]) -> Scores:
    """Return the figures of one run of a row."""
    if who == FEDERATED:
        return federated(field, settings)
    if who == CENTRAL:
        return central(field, level.central, settings)
    silos = len(read_scenario(field.scenario, settings).federation.silos)
    return central(field, level.noisy or level.central, settings, math.sqrt(silos))


@dataclass
class Row:
    """A row while it is measured.

    Attributes:
        row: What it is called.
        level: What its level is called; empty where it has none.
        figures: Its figures by a seed.
        runs: Those of each seed so far.
        cpu_seconds: Spent on them.
    """

    row: str
    level: str
    figures: Callable[[int], Scores]
    runs: list[Scores] = field(default_factory=list)
    cpu_seconds: float = 0.0


def rows_of(name: str, named: str) -> Iterator[Row]:
    """Return every row of a field whose name has some words; of one answer for all, and of others' models, always."""
    held = FIELDS[name]
    for way, level_name in ((way, level) for way in held.ways for level in held.levels):
        for who in (FEDERATED, CENTRAL, CENTRAL_AS_NOISY):
            if named in f"{who}, {way}" and not (who == CENTRAL_AS_NOISY and level_name == NO_PRIVACY):
                level, own = held.levels[level_name], held.ways[way]
                yield Row(f"{who}, {way}", level_name, partial(of_a_seed, who, held, level, own))
    yield Row("one answer for all", "", lambda seed: majority(held, [f"seed={seed}"]))
    yield from (Row(row, NO_PRIVACY, figures) for row, figures in held.besides.items())


def of_a_seed(who: str, held: Field, level: Level, own: tuple[str, ...], seed: int) -> Scores:
    """Return the figures of a row's run."""
    said = [one.replace("SEED", str(seed)) for one in own]
    return trained(who, held, level, [*level.settings, *said, f"seed={seed}", "encryption={}"])


def measured(name: str, seeds: int, named: str = "") -> list[dict[str, Any]]:
    """Return every row of a field whose name has some words: its figures for each seed, and the CPU seconds of a run.

    All rows of a seed come before the next seed's, since the last deal is kept: features of pictures take as long to
    make as a run takes. The first deal of a seed is in no row's seconds.
    """
    rows = list(rows_of(name, named))
    for seed in range(_FIRST_SEED, _FIRST_SEED + seeds):
        records_of(read_scenario(FIELDS[name].scenario, [f"seed={seed}"]))
        for row in rows:
            started = time.process_time()
            row.runs.append(row.figures(seed))
            row.cpu_seconds += time.process_time() - started
    return [{"row": r.row, "level": r.level, "runs": r.runs, "cpu_seconds": r.cpu_seconds / seeds} for r in rows]


def cell(runs: list[Scores], figure: str) -> str:
    """Return the mean, and one standard deviation where there are several seeds.

    >>> cell([{"accuracy": 0.8}, {"accuracy": 0.9}], "accuracy")
    '0.850 ± 0.071'
    """
    values = [run[figure] for run in runs]
    if any(map(math.isnan, values)):
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{math.fsum(values) / len(values):.3f}{spread}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--field", choices=list(FIELDS), nargs="*", default=list(FIELDS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", default="", help="rows whose name has these words alone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with open_meanwhile():  # a scaling of `fields.heart` is code of a user's own
        found = {name: measured(name, arguments.seeds, arguments.rows) for name in arguments.field}
    if arguments.json:
        print(json.dumps(found))
        return
    for name, rows in found.items():
        for table in dict.fromkeys(_table(figure) for figure in rows[0]["runs"][0]):
            show(name, table, rows)


def _table(figure: str) -> str:
    """Return which table a figure stands in.

    >>> _table("AUROC"), _table("cost by ratio: 5")
    ('', 'cost by ratio')
    """
    return figure.rpartition(": ")[0]


def show(name: str, table: str, rows: list[dict[str, Any]]) -> None:
    """Print one table of a field."""
    figures = [figure for figure in rows[0]["runs"][0] if _table(figure) == table]
    columns = [figure.rpartition(": ")[2] for figure in figures]
    title = f"{name}: {table}" if table else name
    print(f"\n| {title} | | {' | '.join(columns)} | published | CPU s |\n|---|---|{'---|' * (len(columns) + 2)}")
    for row in rows:
        level = FIELDS[name].levels.get(row["level"])
        cells = [cell(row["runs"], figure) for figure in figures]
        said = [row["row"], row["level"], *cells, level.published if level else "", f"{row['cpu_seconds']:.1f}"]
        print(f"| {' | '.join(said)} |", flush=True)


if __name__ == "__main__":
    main()
