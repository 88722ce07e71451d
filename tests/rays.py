"""A cluster of Ray nodes on this machine, for tests: begun by `ray start`, each ended by its own processes' ids."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from scenarios.simulation.engines.flower import free_port, stop_tree

_BEGINS_S = 300.0
# A machine that does much besides makes a node slow, and no node of it lost: that is what a test does.
_PATIENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_timeout_ms": "120000",
}
_RAY = str(Path(sys.executable).parent / "ray")
_WORDS = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats",
          "--block"]  # fmt: skip


@dataclass(frozen=True)
class Node:
    """One node, with the process that `ray start` is, beneath which all others of the node are."""

    process: subprocess.Popen[bytes]
    address: str

    def processes(self) -> list[psutil.Process]:
        """Return all of its processes."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]


@contextmanager
def node(folder: Path, address: str = "", environment: Mapping[str, str] | None = None) -> Iterator[Node]:
    """Begin a node, and end it.

    Args:
        folder: Where its log lies, and of a head the cluster's files; of a short name, since sockets lie there.
        address: Of the head that it joins; none for a head.
        environment: Variables besides.
    """
    joins = [f"--address={address}"]
    if not address:
        address = f"127.0.0.1:{free_port()}"
        joins = ["--head", f"--port={address.partition(':')[2]}", f"--temp-dir={folder}", "--include-dashboard=false"]
    log = folder / f"node-{free_port()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [_RAY, "start", *joins, *_WORDS],
            cwd=folder,
            env={**os.environ, **_PATIENT, **(environment or {})},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _BEGINS_S
        while b"Ray runtime started" not in log.read_bytes():
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield Node(process, address)
    finally:
        stop_tree(process)
