"""What it costs that the ledger remembers secure aggregation: a signed list with and without its entry, and its bytes.

    python benchmarks/restore.py

A stage here is what a silo does for a COMMIT: ledger and state opened, the list signed, the state on disk, the entry
and the head on disk. Without the entry, the same stage with the ledger left as it was. Medians of one run.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

from clients.aggregation_state import answer
from fedmodel.config import read_scenario
from fedmodel.ledger import Ledger
from fedmodel.provision import provision, read_kit

_REPEATS = 100


def main() -> None:
    """Print the figures."""
    scenario = read_scenario("hospitals")
    with tempfile.TemporaryDirectory() as place:
        provision(scenario, Path(place))
        folder = Path(place) / "silos" / scenario.federation.silos[0]
        kit, path = read_kit(folder), folder / "ledger.sqlite"
        others = [number for number, one in enumerate(kit.roster.members, start=1) if one.name != kit.law.name]

        def stage(number: int) -> float:
            started = time.perf_counter()
            with Ledger(path, kit.law.name, kit.identity, folder / "ledger.head") as ledger:
                told = number.to_bytes(32, "big")
                answer(kit, folder, 7, ledger, told, lambda silo: silo.commit(number, 1, told, others))
            return time.perf_counter() - started

        stage(1)
        with_entry, without = [], []
        before = path.stat().st_size
        for number in range(2, 2 * _REPEATS, 2):
            with_entry.append(stage(number))
            with mock.patch.object(Ledger, "advance"):
                without.append(stage(number + 1))
        size = (path.stat().st_size - before) / len(with_entry)
    with_s, without_s = statistics.median(with_entry), statistics.median(without)
    print(f"a stage with its entry {with_s * 1e3:.1f} ms, without {without_s * 1e3:.1f} ms: {with_s / without_s:.2f}")
    print(f"an entry is {size:.0f} bytes of the ledger, its nodes and indexes included")


if __name__ == "__main__":
    main()
