"""What holding a report to somebody outside its folder costs, and what keeping text and pictures inert does.

    python benchmarks/report.py [--json]

One run of `quickstart` with its end countersigned and without, alternately; then the page of such a run with its
pictures as data, and as markup without a look at its characters. CPU seconds of this process, medians: other work on
the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

from markupsafe import Markup

from fedmodel.config import read_scenario
from scenarios.report import build
from scenarios.report.illustrated import write_report
from scenarios.report.page import render
from scenarios.report.page_check import read_pictures
from scenarios.simulation.simulate import check_scenario, run_folder, simulate
from server import server_app

_REPEATS = 3


def cpu_seconds(step: Callable[[], object]) -> float:
    """Return what a step takes of this process."""
    started = time.process_time()
    step()
    return time.process_time() - started


def run(to: Path) -> Path:
    """Simulate one run."""
    scenario = read_scenario("quickstart")
    with run_folder(scenario, to) as folder:
        simulate(scenario, check_scenario(scenario), "in-process", "cpu", folder, nullcontext())
    return folder


def measured() -> dict[str, float]:
    """Return medians in seconds, and what they are of those without the remedy."""
    found: dict[str, list[float]] = {name: [] for name in ("countersigned", "not", "inert", "not_inert", "verify")}
    with tempfile.TemporaryDirectory() as folder:
        last = run(Path(folder) / "warm")
        for number in range(_REPEATS):
            found["countersigned"].append(cpu_seconds(partial(run, Path(folder) / f"with-{number}")))
            with patch.object(server_app, "collect_countersignatures", lambda *_: {}):
                found["not"].append(cpu_seconds(partial(run, Path(folder) / f"without-{number}")))
        write_report(last)
        report, pictures = build.read_report(last).report, read_pictures(last)
        for _ in range(_REPEATS):
            found["inert"].append(cpu_seconds(lambda: render.render(report, pictures)))
            with ExitStack() as stack:
                stack.enter_context(patch.object(render, "framed", Markup))
                stack.enter_context(patch.object(render, "inert_lines", lambda text: text))
                found["not_inert"].append(cpu_seconds(lambda: render.render(report, pictures)))
            found["verify"].append(cpu_seconds(lambda: build.verify(last, render=render.render)))
    medians = {name: statistics.median(times) for name, times in found.items()}
    return {
        **{f"{name}_s": round(value, 3) for name, value in medians.items()},
        "countersigned_ratio": round(medians["countersigned"] / medians["not"], 3),
        "inert_ratio": round(medians["inert"] / medians["not_inert"], 3),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    found = measured()
    print(json.dumps(found) if as_json else "\n".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
