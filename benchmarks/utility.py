"""What privacy costs, and what federation costs, on real data of several fields, beside published figures.

    python benchmarks/utility.py [--field heart] [--seeds 5] [--rows central] [--json]

Each field is a built-in scenario. Its rows are of one model: trained over the silos at each epsilon and without
privacy; trained centrally, on all silos' records together, by plain Opacus at the same epsilon; the same with as much
noise as all silos add together, which tells whether noise alone is what federation costs; and the answer that is the
majority's. A seed is a split into training and held-out records, a partition and a first model; noise is the
operating system's, and Opacus's own. What was chosen for a field (rates, rounds, clip) was chosen on other seeds, from
101 on, and is not charged for: over data that are private it would cost a budget too.

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
from pathlib import Path
from typing import Any, Final

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import torch
from fields import credit, fashion, heart, survival
from fields.field import NO_PRIVACY, Field, Level, Scores
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
    "survival": survival.FIELD,
    "fashion": fashion.FIELD,
}


def trained(who: str, field: Field, level: Level, settings: list[str]) -> Scores:
    """Return the figures of one run of a row."""
    if who == FEDERATED:
        return federated(field, settings)
    silos = len(read_scenario(field.scenario, settings).federation.silos)
    return central(field, level, settings, math.sqrt(silos) if who == CENTRAL_AS_NOISY else 1.0)


def measured(name: str, seeds: int, named: str = "") -> list[dict[str, Any]]:
    """Return every row of a field whose name has some words: its figures for each seed, and the CPU seconds of all."""
    field, rows = FIELDS[name], []
    for way, level_name in ((way, level) for way in field.ways for level in field.levels):
        level = field.levels[level_name]
        for who in (FEDERATED, CENTRAL, CENTRAL_AS_NOISY):
            if named not in f"{who}, {way}" or (who == CENTRAL_AS_NOISY and level_name == NO_PRIVACY):
                continue
            started, runs = time.process_time(), []
            for seed in range(_FIRST_SEED, _FIRST_SEED + seeds):
                own = [one.replace("SEED", str(seed)) for one in field.ways[way]]
                settings = [*level.settings, *own, f"seed={seed}", "encryption={}"]
                runs.append(trained(who, field, level, settings))
            spent = (time.process_time() - started) / seeds
            rows.append({"row": f"{who}, {way}", "level": level_name, "runs": runs, "cpu_seconds": spent})
    alone = [majority(field, [f"seed={seed}"]) for seed in range(_FIRST_SEED, _FIRST_SEED + seeds)]
    rows.append({"row": "one answer for all", "level": "", "runs": alone, "cpu_seconds": 0.0})
    for row, figures in field.besides.items():
        runs = [figures([f"seed={seed}"]) for seed in range(_FIRST_SEED, _FIRST_SEED + seeds)]
        rows.append({"row": row, "level": NO_PRIVACY, "runs": runs, "cpu_seconds": 0.0})
    return rows


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
