"""What noise from the operating system costs, now and as it was, beside torch's own generator, in one run.

    python benchmarks/noise.py [--json]

Prints seconds a draw for each size, the least of repeats that take turns, of CPU time, and ratios. Ratios travel
between machines; seconds do not. `before` is the transform that this project had until noise was rounded exactly: bytes
of the operating system for each value, half the sum of four Box-Muller normals, all of a draw at once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from fedmodel.crypto import KEY_SIZE, SecretStream
from fedmodel.privacy.noise import OsNoise

_SIZES = (31, 2_817, 100_000, 1_000_000, 4_000_000)
_REPEATS = 7
_CPU = torch.device("cpu")


def before(size: int) -> Tensor:
    """Return unit normals as they were made: 32 bytes of the operating system for each."""
    uniform = _words(4 * size).view(2, 2 * size)
    share = (uniform[0] + 1).double() * 2.0**-53
    small = torch.nonzero(uniform[0] < 1 << 40)[:, 0]
    if len(small):
        share[small] = (uniform[0][small].double() + (_words(len(small)) + 1).double() * 2.0**-53) * 2.0**-53
    radius = torch.sqrt(-2.0 * torch.log(share))
    angle = uniform[1].double() * (2.0**-53 * 2.0 * math.pi)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)]).view(4, size).sum(dim=0) * 0.5


def _words(size: int) -> Tensor:
    bits = np.frombuffer(bytearray(os.urandom(8 * size)), dtype=np.int64)
    return (torch.from_numpy(bits) >> 11) & ((1 << 53) - 1)


def keystream(size: int) -> bytearray:
    """Return the bytes alone that a draw takes."""
    buffer = bytearray(8 * size)
    SecretStream(os.urandom(KEY_SIZE)).fill(buffer)
    return buffer


def torchs(size: int) -> Tensor:
    """Return unit normals of torch's generator, which protects nothing."""
    return torch.normal(0.0, 1.0, (size,), dtype=torch.float64)


def now(size: int) -> Tensor:
    """Return unit normals on the fine grid."""
    return OsNoise().gaussian(size, 1.0, _CPU)


def seconds(draws: Mapping[str, Callable[[int], object]], size: int) -> dict[str, float]:
    """Return the least CPU time of each draw, in turns, so that what disturbs one disturbs all."""
    least = dict.fromkeys(draws, math.inf)
    for _ in range(_REPEATS + 1):
        for name, draw in draws.items():
            started = time.process_time()
            draw(size)
            least[name] = min(least[name], time.process_time() - started)
    return least


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    torch.set_num_threads(1)
    draws = {"now": now, "before": before, "torch": torchs, "keystream": keystream}
    rows = [{"parameters": size, **seconds(draws, size)} for size in _SIZES]
    if as_json:
        print(json.dumps(rows))
        return
    print(f"{'parameters':>12}" + "".join(f"{name:>14}" for name in draws) + f"{'before/now':>12}{'now/torch':>11}")
    for row in rows:
        cells = "".join(f"{row[name]:>12.2e} s" for name in draws)
        print(f"{row['parameters']:>12,}{cells}{row['before'] / row['now']:>11.1f}x{row['now'] / row['torch']:>10.2f}x")


if __name__ == "__main__":
    main()
