"""What a silo's ledger costs: a charge with its head on disk, opening, and verifying, as the ledger grows.

    python benchmarks/ledger.py [--json]

A charge is what a round pays before it reads a record: the entry appended under `synchronous=FULL`, the head signed and
kept; and with it, the ledger opened and closed. Medians; seconds hang on the disk's sync, so what a bare synced write
costs is measured in the same run, and the ratio printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fedmodel.crypto import SigningKey
from fedmodel.ledger import Asked, Ledger, Scope, verify_ledger
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent

_SIZES = (100, 1_000, 5_000)
_REPEATS = 25
_SCOPE = Scope("benchmark", "record", 1, 1e-6, 500.0, 4)
_PLAN = DpSgdEvent(50.0, 1.0, 0.01, 100_000, 64)


def milliseconds(step: Callable[[int], object], repeats: int) -> float:
    """Return the median time of a step, in milliseconds."""
    times = []
    for number in range(repeats):
        started = time.perf_counter()
        step(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def measure(size: int) -> dict[str, float]:
    """Return the figures at one size of ledger."""
    identity = SigningKey.generate()
    with tempfile.TemporaryDirectory() as folder:
        path, head = Path(folder) / "silo.sqlite", Path(folder) / "ledger.head"

        def charge(number: int, round_number: int = 0) -> None:
            with Ledger(path, "silo", identity, head) as ledger:
                ledger.charge("run", round_number + number + 1, 1, f"{round_number + number:064d}")

        with Ledger(path, "silo", identity, head) as ledger:
            ledger.reserve(Asked(_SCOPE, "run", _PLAN, 1))
            for number in range(size):
                ledger.charge("run", number + 1, 1, f"{number:064d}")
            inside = milliseconds(lambda number: ledger.charge("run", 1, 1, f"{size + number:064d}"), _REPEATS)
        whole = milliseconds(lambda number: charge(number, size + _REPEATS), _REPEATS)

        def synced(_: int) -> None:
            with (Path(folder) / "bare").open("ab") as file:
                file.write(os.urandom(4096))
                file.flush()
                os.fsync(file.fileno())

        bare = milliseconds(synced, _REPEATS)
        verify = milliseconds(lambda _: verify_ledger(path, identity.public, [head.read_bytes()]), 1)
    return {"entries": size, "charge_ms": inside, "open_charge_close_ms": whole, "synced_write_ms": bare,
            "ratio": whole / bare, "verify_ms": verify}  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    rows = [measure(size) for size in _SIZES]
    if as_json:
        print(json.dumps(rows))
        return
    print(f"{'entries':>9} {'charge':>10} {'open to close':>14} {'synced write':>13} {'ratio':>7} {'verify':>10}")
    for row in rows:
        print(
            f"{row['entries']:>9,} {row['charge_ms']:>7.2f} ms {row['open_charge_close_ms']:>11.2f} ms"
            f" {row['synced_write_ms']:>10.2f} ms {row['ratio']:>6.1f}x {row['verify_ms']:>7.0f} ms"
        )


if __name__ == "__main__":
    main()
