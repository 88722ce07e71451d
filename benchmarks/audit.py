"""What an audit costs: a round with canaries beside one without, and the audit of a scenario from plan to verdict.

Rounds with and without alternate, run by run, so that a busy machine slows both. Times are wall clock.

    python benchmarks/audit.py [--scenario hospitals] [--repeat 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fedmodel.audit.plan import SIGNIFICANCE, Plan
from fedmodel.config import Scenario, read_scenario
from scenarios.audit import evaluate, planning
from scenarios.runs import audit_entries
from scenarios.simulation import simulate


def seconds_per_round(scenario: Scenario, plan: Plan | None, folder: Path) -> list[float]:
    """Run once, and return how long each round took."""
    with simulate.run_folder(scenario, folder) as out:
        simulate.simulate(
            scenario,
            simulate.check_scenario(scenario),
            "in-process",
            "cpu",
            out,
            nullcontext(),
            (lambda: None) if plan is None else lambda: audit_entries.enter_plan(plan, out),
        )
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["seconds"] for line in lines]


def measure(name: str, repeat: int) -> dict[str, Any]:
    """Return medians, and their ratio."""
    plain = read_scenario(name)
    started = time.monotonic()
    audited, plan = planning.planned(plain, None, "probe", SIGNIFICANCE)
    planned_s = time.monotonic() - started
    without, with_them, whole = [], [], []
    with tempfile.TemporaryDirectory() as held:
        for turn in range(repeat):
            without += seconds_per_round(plain, None, Path(held) / f"{turn}-plain")
            started = time.monotonic()
            out = Path(held) / f"{turn}-audited"
            with_them += seconds_per_round(audited, plan, out)
            audit_entries.enter_seen(out)
            audit_entries.sign_off(out, evaluate.evaluate(audited, out))
            whole.append(planned_s + time.monotonic() - started)
    before, after = statistics.median(without), statistics.median(with_them)
    return {
        "scenario": name,
        "canaries": plan.canaries,
        "round_without_s": before,
        "round_with_s": after,
        "ratio": after / before,
        "plan_s": planned_s,
        "audit_s": statistics.median(whole),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="hospitals")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.scenario, options.repeat)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{found['scenario']}, {found['canaries']} canaries: a round {found['round_without_s']:.3f} s without,"
        f" {found['round_with_s']:.3f} s with, {found['ratio']:.2f} times; plan {found['plan_s']:.1f} s, audit"
        f" {found['audit_s']:.1f} s in all"
    )


if __name__ == "__main__":
    main()
