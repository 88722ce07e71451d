"""What noise from the operating system costs beside torch's own generator, in one run.

    python benchmarks/noise.py

Prints seconds a draw for each size (median of repeats) and the ratio. Ratios travel between machines; seconds do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from fedmodel.privacy.noise import OsNoise

_SIZES = (31, 2_817, 100_000, 1_000_000)
_REPEATS = 9


def seconds(draw: Callable[[], object]) -> float:
    """Return the median time of a call, after one that is not counted."""
    draw()
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        draw()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    cpu, source = torch.device("cpu"), OsNoise()
    print(f"{'parameters':>12} {'os':>12} {'torch':>12} {'os/torch':>9}")
    for size in _SIZES:
        ours = seconds(lambda size=size: source.gaussian(size, 1.0, cpu))
        theirs = seconds(lambda size=size: torch.normal(0.0, 1.0, (size,), dtype=torch.float64))
        print(f"{size:>12,} {ours:>10.2e} s {theirs:>10.2e} s {ours / theirs:>8.1f}x")


if __name__ == "__main__":
    main()
