"""What a claim costs to compute: epsilon of planned runs on both grids, of runs that ended early, Rényi, calibration.

    python benchmarks/accounting.py [--json]

Prints seconds (median of repeats) and the ratio of the fine grid to the coarse one. Every repeat asks for a noise that
differs in its last digits, so no cache answers. Ratios travel between machines; seconds do not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent

_DELTA = 1e-5
_REPEATS = 5
_ORDER = 8

# (rate, noise multiplier, steps, most records of a unit)
_PLANS: dict[str, list[tuple[float, float, int, int]]] = {
    "full lots": [(1.0, 6.56, 40, 1)],
    "usual": [(0.0128, 1.0, 1_560, 1)],
    "long": [(0.001, 0.8, 10_000, 1)],
    "heterogeneous": [(0.0128, 1.0, 1_560, 1), (0.02, 0.8, 500, 1), (0.1, 2.0, 300, 1)],
    "4 records": [(0.1, 3.0, 300, 4)],
    "16 records": [(0.01, 4.0, 1_000, 16)],
    "100 records": [(0.01, 10.0, 1_000, 100)],
    "million steps": [(0.9, 900.0, 1_000_000, 1)],
}
_CALIBRATED = ("full lots", "usual", "4 records")

_fresh = itertools.count(1)


def events(plan: list[tuple[float, float, int, int]]) -> list[DpSgdEvent]:
    """Return a plan's events, with noise that no earlier call has asked for."""
    noisier = 1 + 1e-9 * next(_fresh)
    return [
        DpSgdEvent(noise * noisier, 1.0, rate, steps, denominator=1, max_records=records)
        for rate, noise, steps, records in plan
    ]


def seconds(ask: Callable[[], object]) -> float:
    """Return the median time of a call, after one that is not counted."""
    ask()
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        ask()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def ended_early(event: DpSgdEvent) -> None:
    """Compute what is told of a run that took a quarter of its plan: the plan's, the steps' and the odometer's."""
    taken = -(-event.steps // 4)
    accounting.epsilon([event], _DELTA)
    accounting.epsilon([replace(event, steps=taken)], _DELTA)
    accounting.odometer(event, taken, _DELTA)


def measure(name: str) -> dict[str, float]:
    """Return what one plan costs, and what it claims."""
    plan = _PLANS[name]
    coarse = seconds(lambda: accounting.epsilon(events(plan), _DELTA, accounting.COARSE_GRID))
    fine = seconds(lambda: accounting.epsilon(events(plan), _DELTA))
    result = {
        "coarse_s": coarse,
        "fine_s": fine,
        "ratio": fine / coarse,
        "least_s": seconds(lambda: accounting.least_epsilon(events(plan), _DELTA)),
        "renyi_s": seconds(lambda: [accounting.renyi(event, _ORDER) for event in events(plan)]),
        "coarse_epsilon": accounting.epsilon(events(plan), _DELTA, accounting.COARSE_GRID),
        "fine_epsilon": accounting.epsilon(events(plan), _DELTA),
    }
    if len(plan) == 1:
        result["early_s"] = seconds(lambda: ended_early(events(plan)[0]))
    if name in _CALIBRATED:
        rate, _, steps, records = plan[0]
        target = result["fine_epsilon"]
        result["calibrate_s"] = seconds(
            lambda: accounting.calibrate(target * (1 + 1e-9 * next(_fresh)), _DELTA, rate, steps, records)
        )
    return result


def main() -> None:
    """Print the table, or one JSON object with all figures."""
    parser = argparse.ArgumentParser(description="What a claim costs to compute.")
    parser.add_argument("--json", action="store_true", help="print figures as one JSON object")
    as_json = parser.parse_args().json
    figures = {name: measure(name) for name in _PLANS}
    if as_json:
        print(json.dumps({"delta": _DELTA, "order": _ORDER, "repeats": _REPEATS, "plans": figures}, indent=2))
        return
    print(
        f"{'plan':<14} {'epsilon':>8} {'coarse':>8} {'coarse':>10} {'fine':>10} {'ratio':>7}"
        f" {'early end':>10} {'renyi':>10} {'calibrate':>10}"
    )
    for name, row in figures.items():
        calibrated = f"{row['calibrate_s']:>8.2f} s" if "calibrate_s" in row else f"{'':>10}"
        early = f"{row['early_s'] / row['fine_s']:>9.1f}x" if "early_s" in row else f"{'':>10}"
        print(
            f"{name:<14} {row['fine_epsilon']:>8.3f} {row['coarse_epsilon']:>8.3f} {row['coarse_s']:>8.3f} s"
            f" {row['fine_s']:>8.3f} s {row['ratio']:>6.1f}x {early} {row['renyi_s']:>8.1e} s {calibrated}"
        )


if __name__ == "__main__":
    main()
