"""What one hostile silo costs the others, and what the gate costs everybody.

    PYTHONPATH=. python benchmarks/peers.py [--seconds 5]

A real server on loopback, with the deadlines of a deployment. For each attack by one certificate: how long an honest
silo's calls take meanwhile (a new connection, `/health`, and a node's call for messages with its signature), and by how
much the server's memory has grown at its end. Then the cost of a request: Flower's app alone, and behind the door.
Attackers and server share this machine's cores, so that part of what an attack costs is the attacker's own work.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import socket
import ssl
import statistics
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from server.gateway import Gateway
from server.share import Limits, Shares
from tests.integration import authority
from tests.integration.served import Served, serving
from tests.integration.test_hostile_silo import HALF, HEALTH, MIB, PUSH, ROSTER, NodeOf, superlink


def holding(said: bytes) -> Callable[[Served, Any], None]:
    """Return an attack that says the beginning of something on all its connections, and then nothing."""

    def attack(served: Served, stop: Any) -> None:
        while not stop.is_set():
            with ExitStack() as held:
                for _ in range(60):
                    with contextlib.suppress(OSError):
                        one = held.enter_context(served.connect("south", "127.0.0.2", receive_bytes=4_096))
                        one.sendall(said)
                stop.wait(2)

    return attack


def small_records(served: Served, stop: Any) -> None:
    """Send bodies of one byte a record, encrypted beforehand, as fast as the line takes them."""

    def one() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", served.port), 10) as plain:
                records = _encrypted(served, plain, 200_000)
                plain.sendall(records)

    _in_threads(one, Limits.connections)


def requests(served: Served, stop: Any) -> None:
    """Ask as fast as answers come."""

    def one() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), served.connect("south", "127.0.0.3") as busy:
                while not stop.is_set() and busy.send(HEALTH):
                    busy.recv(65_536)

    _in_threads(one, Limits.connections)


def connections(served: Served, stop: Any) -> None:
    """Connect and close."""
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.socket() as plain:
            plain.bind(("127.0.0.5", 0))
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            plain.connect(("127.0.0.1", served.port))


def uploads(served: Served, stop: Any) -> None:
    """Send bodies that are refused when all of them is there."""

    def one() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), served.connect("south", "127.0.0.6") as plain:
                plain.sendall(PUSH + bytes(32 * MIB))
                plain.recv(65_536)

    _in_threads(one, 4)


ATTACKS: Final[dict[str, Callable[[Served, Any], None] | None]] = {
    "none": None,
    "half headers": holding(HALF),
    "bodies that do not come": holding(PUSH + bytes(8_192)),
    "answers that are not read": holding(ROSTER),
    "requests": requests,
    "connections": connections,
    "uploads of 32 MiB": uploads,
    "records of one byte": small_records,
}


def _in_threads(one: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _encrypted(served: Served, plain: socket.socket, count: int) -> bytes:
    """Shake hands, and return a request whose body is in records of one byte each."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.silo_tls(served.folder, "south").wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            incoming.write(plain.recv(65_536))
    tls.write(PUSH)
    for _ in range(count):
        tls.write(b"x")
    return outgoing.read()


@contextmanager
def attacked(served: Served, attack: Callable[[Served, Any], None] | None) -> Iterator[None]:
    """Attack from another process while the block lasts."""
    stop = multiprocessing.get_context("fork").Event()
    if attack is None:
        yield
        return
    process = multiprocessing.get_context("fork").Process(target=attack, args=(served, stop), daemon=True)
    process.start()
    try:
        time.sleep(1)
        yield
    finally:
        stop.set()
        process.join(5)
        process.kill()
        process.join()


def latencies(served: Served, north: NodeOf, seconds: float) -> list[float]:
    """Return how long honest calls take, for some seconds, each from a new connection."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(took) < 10:
        begun = time.perf_counter()
        assert served.ask("GET /health")[0] == 200
        north.pull()
        took.append((time.perf_counter() - begun) / 2)
        time.sleep(0.02)
    return took


async def per_request(app: Callable[..., Awaitable[None]], body: bytes, times: int) -> float:
    """Return the seconds of one request to an app of ASGI."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/fleet/push-object",
        "raw_path": b"/v1/fleet/push-object",
        "headers": [(b"host", b"x"), (b"content-length", str(len(body)).encode())],
        "query_string": b"",
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(_: Any) -> None:
        pass

    begun = time.perf_counter()
    for _ in range(times):
        await app({**scope}, receive, send)
    return (time.perf_counter() - begun) / times


async def nothing(_scope: Any, receive: Any, send: Any) -> None:
    """Answer at once: what is left is the gate."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    with serving("north", "south", padding_bytes=24 * MIB) as served:
        north, process = NodeOf(served, "north"), superlink(served)
        north.activate()
        latencies(served, north, 1.0)
        base = process.memory_info().rss
        for name, attack in ATTACKS.items():
            before = process.cpu_times()
            begun = time.monotonic()
            with attacked(served, attack):
                took = sorted(latencies(served, north, options.seconds))
                grown = process.memory_info().rss - base
            after, wall = process.cpu_times(), time.monotonic() - begun
            cpu = (after.user + after.system - before.user - before.system) / wall
            most = took[int(len(took) * 0.95)]
            print(
                f"{name:26} median {statistics.median(took) * 1e3:6.1f} ms   95% {most * 1e3:7.1f}"
                f"   worst {took[-1] * 1e3:7.1f}   memory +{grown / MIB:5.0f} MiB   server's core {cpu:4.0%}"
            )
    shares = Shares(Limits(requests_burst=1e9), ("nobody",))
    gateway = Gateway(nothing, Path("/nonexistent"), shares)
    for size in (100, 5 * MIB):
        alone, behind = (asyncio.run(per_request(app, bytes(size), 2_000)) for app in (nothing, gateway))
        print(f"a request of {size:8} bytes: the door adds {(behind - alone) * 1e6:.0f} us")


if __name__ == "__main__":
    main()
