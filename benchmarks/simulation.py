"""What a round of a simulation costs, over the number of silos: a row for each engine, number of silos and masks.

    python benchmarks/simulation.py [--silos 10 100 300] [--engine vectorised] [--rounds 4] [--masks] [--json]

A 10-64-32-1 network, 36 records a silo, one step of DP-SGD a round. Seconds a round by the clock, the median after the
first round, in which models are built and measured; of CPU, of this process and its forks, the mean over all rounds;
how often files were synced in a round; and the summary of the whole run. Where several numbers of silos are asked for,
the slope between two of them says whether cost grows faster than their number: 1.0 is linear.

An engine is one more entry of `ENGINES`: from a scenario and a folder to what it measured. Other simulators, on work
without privacy, are in `benchmarks/simulation_peers.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final
from unittest.mock import patch

from fedmodel.config import Scenario, scenario_from
from fedmodel.system import durable
from scenarios.runs.summary import read_metrics
from scenarios.simulation.simulate import check_scenario, placed, run_folder, simulate

_RECORDS: Final = 40  # of each silo, a tenth of them held out


@dataclass(frozen=True)
class Row:
    """What one run took.

    Attributes:
        engine: What carried it.
        silos: How many.
        masks: Whether updates were masked.
        seconds: Of a round, the median after the first.
        cpu_seconds: Of a round, the mean over all of the run, checks and summary left out.
        syncs: Of a round, the mean.
        summary_seconds: From the last round to the summary, by the clock.
    """

    engine: str
    silos: int
    masks: bool
    seconds: float
    cpu_seconds: float
    syncs: float
    summary_seconds: float


def scenario_of(silos: int, rounds: int, *, masks: bool) -> Scenario:
    """Return the scenario that is run."""
    return placed(
        scenario_from(
            {
                "name": "many",
                "summary": "many silos of few records",
                "rounds": rounds,
                "seed": 7,
                "federation": {"silos": silos, "min_silos": max(2, silos // 2)},
                "model": {"kind": "mlp", "hidden": [64, 32]},
                "training": {
                    "loss": "cross-entropy",
                    "optimizer": "sgd",
                    "learning_rate": 0.5,
                    "local_steps": 1,
                },
                "privacy": {
                    "unit": "record",
                    "noise_multiplier": 4.0,
                    "delta": 1e-3,
                    "max_grad_norm": 1.0,
                    "sample_rate": 0.5,
                    "expected_batch_size": 16,
                },
                "data": {
                    "source": "synthetic",
                    "records": silos * _RECORDS,
                    "features": 10,
                    "held_out": 0.1,
                    "reference_range": [-5.0, 5.0],
                    "partition": {"kind": "iid"},
                },
                "encryption": {"secure_aggregation": "on", "bound": 50.0} if masks else {},
            }
        )
    )


def carried(engine: str, scenario: Scenario, folder: Path) -> Mapping[str, float]:
    """Carry a run by an engine that is one process; no silo may fail in it."""
    counted = multiprocessing.Value("q", 0)  # which forks of this process count in too
    fsync, together = os.fsync, durable._sync_all  # noqa: SLF001 - what is counted has no other place

    def one(descriptor: int) -> None:
        with counted.get_lock():
            counted.value += 1
        fsync(descriptor)

    def all_of(written: set[Path]) -> None:
        with counted.get_lock():
            counted.value += 1
        together(written)

    parameters = check_scenario(scenario)
    with run_folder(scenario, folder) as run_dir:
        marks = [_cpu_seconds(), 0.0]  # of an engine without kits, checks and all
        with patch.object(os, "fsync", one), patch.object(durable, "_sync_all", all_of):
            summary = simulate(
                scenario,
                parameters,
                engine,
                "cpu",
                run_dir,
                nullcontext(),
                kits_ready=lambda: marks.extend((_cpu_seconds(), float(counted.value))),
            )
            cpu = _cpu_seconds() - marks[-2]
    assert not summary["dropouts"], summary["dropouts"]
    lines = [line["seconds"] for line in read_metrics(folder / "metrics.jsonl")]
    assert len(lines) == scenario.rounds
    return {
        "seconds": statistics.median(lines[1:]),
        "cpu_seconds": cpu / scenario.rounds,
        "syncs": (counted.value - marks[-1]) / scenario.rounds,
        "summary_seconds": summary["timing"]["seconds_total"] - sum(lines),
    }


def _cpu_seconds() -> float:
    """Return what this process took until now, and all that it forked and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


ENGINES: Final[Mapping[str, Callable[[Scenario, Path], Mapping[str, float]]]] = {
    name: partial(carried, name) for name in ("in-process", "vectorised")
}


def measured(engine: str, silos: int, rounds: int, *, masks: bool) -> Row:
    """Return what a run takes."""
    with tempfile.TemporaryDirectory() as folder:
        found = ENGINES[engine](scenario_of(silos, rounds, masks=masks), Path(folder) / "run")
    return Row(engine, silos, masks, **found)


def slope(first: Row, second: Row) -> float:
    """Return the power of the number of silos by which seconds a round grow between two rows."""
    return math.log(second.seconds / first.seconds) / math.log(second.silos / first.silos)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--silos", type=int, nargs="+", default=[10, 100, 300])
    parser.add_argument("--engine", choices=list(ENGINES), default="in-process")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if min(asked.silos) < 3 or asked.rounds < 2:
        parser.error("three silos and two rounds at least: what is told is of rounds after the first")
    rows = [measured(asked.engine, silos, asked.rounds, masks=asked.masks) for silos in sorted(set(asked.silos))]
    slopes = [slope(*pair) for pair in itertools.pairwise(rows)]
    if asked.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "slopes": slopes}))
        return
    for row in rows:
        print(
            f"{row.engine}, {row.silos} silos{', masked' * row.masks}: {row.seconds:.3f} s a round,"
            f" {row.cpu_seconds:.3f} s of CPU, {row.syncs:.1f} syncs, {row.summary_seconds:.1f} s beside the rounds"
        )
    print("slopes:", ", ".join(f"{one:.2f}" for one in slopes) or "none")


if __name__ == "__main__":
    main()
