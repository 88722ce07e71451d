"""What beginning from a file costs: to read it, to check that it fits, and to carry ledgers on, beside a run's cost.

Ratios are within one run of this script: each pair is measured in turn, several times, and medians are told.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import safetensors.torch
import torch

from fedmodel.config import Scenario, StartConfig, read_scenario
from fedmodel.learning.models import build_model
from scenarios.simulation.simulate import check_scenario, placed, run_folder, simulate

_TIMES = 5


def seconds(*calls: Callable[[], object]) -> list[float]:
    """Return the median time of each call; they take turns."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(_TIMES):
        for call, times in zip(calls, found, strict=True):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in found]


def run(scenario: Scenario, folder: Path) -> None:
    """Check and simulate a scenario."""
    with run_folder(scenario, folder) as run_dir:
        simulate(scenario, check_scenario(scenario), "in-process", "cpu", run_dir, nullcontext())


def main() -> None:
    """Measure, and print a line for each."""
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    scenario = read_scenario("digits")
    with TemporaryDirectory() as name:
        folder = Path(name)
        for hidden in ((64,), (2048, 2048)):
            wide = scenario.model_copy(
                update={"model": read_scenario("hospitals", [f"model.hidden={list(hidden)}"]).model}
            )
            module = build_model(wide.model, wide.data.shape, 1)
            (folder / "w.safetensors").write_bytes(safetensors.torch.save(module.state_dict()))
            begun = wide.begun(StartConfig(file=str(folder / "w.safetensors"), trained_on="public"))
            plain, more = seconds(
                lambda one=wide: check_scenario(placed(one)), lambda one=begun: check_scenario(placed(one))
            )  # type: ignore[misc]
            size = (folder / "w.safetensors").stat().st_size
            print(
                f"check, a file of {size / 1e6:.1f} MB: {plain:.3f} s without, {more:.3f} s with, {more / plain:.2f}x"
            )
        hospitals = read_scenario("hospitals")
        run(hospitals, folder / "first")
        count = iter(range(1000))

        def fresh() -> None:
            run(placed(hospitals), folder / f"run-{next(count)}")

        def going_on() -> None:
            start = StartConfig(file=str(folder / "first"))
            run(placed(hospitals.begun(start)), folder / f"run-{next(count)}")

        plain, more = seconds(fresh, going_on)
        print(f"run of hospitals: {plain:.2f} s from random, {more:.2f} s going on from a run, {more / plain:.2f}x")


if __name__ == "__main__":
    main()
