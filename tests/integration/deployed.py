"""A server or a silo with small apps, in a process of its own: `python -m tests.integration.deployed ROLE ...`.

ROLE is server, silo, or hasty-server, whose deadlines are short.

Its folder is one of `tests.integration.authority`. Flower, TLS, sockets and supervision are real, the two apps are not.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from clients.executor import Bench, run_executor
from clients.supernode import Node, run_supernode
from fedmodel.errors import FedmodelError, ProtocolError
from fedmodel.system.durable import replace_file
from fedmodel.system.packages import code_hash
from fedmodel.system.supervision import Child, Supervisor
from server.coordinator import Desk, run_coordinator
from server.share import Limits
from server.superlink import Link, run_superlink
from tests.integration import authority

TALK = "tests.talk"
small_client, small_server = ClientApp(), ServerApp()


@small_client.query("echo")
def _echo(message: Message, context: Context) -> Message:
    said = message.content[TALK]["said"]
    return Message(
        RecordDict({TALK: ConfigRecord({"said": said, "home": str(context.node_config["home"]), "pid": os.getpid()})}),
        reply_to=message,
    )


@small_server.main()
def _talk(grid: Grid, context: Context) -> None:
    """Talk with every node as often as tests.json beside the run says, and write down what came back."""
    run_dir = Path(str(context.run_config["run-dir"]))
    asked = json.loads((run_dir / "asked.json").read_text())
    answers = []
    for number in range(asked["times"]):
        deadline = time.monotonic() + 300
        while len(nodes := sorted(grid.get_node_ids())) < asked["silos"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        started = time.monotonic()
        said = RecordDict({TALK: ConfigRecord({"said": number})})
        ids = set(grid.push_messages([Message(said, node, asked.get("kind", "query.echo"), ttl=60) for node in nodes]))
        while ids and time.monotonic() < started + 60:
            for reply in grid.pull_messages(list(ids)):
                ids.discard(reply.metadata.reply_to_message_id)
                answers.append(
                    {"error": reply.error.reason}
                    if reply.has_error()
                    else {**reply.content[TALK]} | {"s": time.monotonic() - started}
                )
            time.sleep(0.005)
        replace_file(run_dir / "answers.json", json.dumps(answers).encode())
    if asked.get("fails"):
        raise ProtocolError("this run fails, as asked")


_HELD: list[BinaryIO] = []  # locks of ports, until this process ends


def free_port() -> int:
    """Return a port that nobody listens on, and that no other process of tests is given while this one runs.

    It lies below those that the system gives to whoever connects, so none takes it before its server does.
    """
    folder = Path(tempfile.gettempdir()) / f"fedmodel-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for port in range(20_000, 32_000):
        lock = (folder / str(port)).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _HELD.append(lock)
        return port
    raise RuntimeError("no port of 20,000 to 31,999 is free")


@contextmanager
def started(*words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run this module in a process, and end it, whatever becomes of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.deployed", *words], stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(condition: Callable[[], object], timeout_s: float = 300.0, why: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, why() or "did not come about"
        time.sleep(0.02)


def submit(folder: Path, name: str, **asked: object) -> Path:
    """Lay out a run of the small apps."""
    run = folder / "home" / "runs" / name
    run.mkdir(parents=True)
    (run / "scenario.toml").write_text((Path(__file__).with_name("small.toml")).read_text())
    (run / "asked.json").write_text(json.dumps({"silos": 1, "times": 1, **asked}))
    (run / "run.json").write_text(json.dumps({"run": str(time.time_ns()), "submitted": f"{time.time_ns()}"}))
    return run


def outcome(run: Path, timeout_s: float = 300.0) -> dict[str, object]:
    """Wait for a run's outcome."""
    path = run / "outcome.json"
    logs = run.parent.parent.parent / "logs"
    wait_until(
        path.exists, timeout_s, lambda: "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in logs.glob("*"))
    )
    found: dict[str, object] = json.loads(path.read_text())
    return found


def hasty(silos: int, files: int) -> Limits:
    """Return the limits of a real server, but that nobody is waited for as long."""
    return replace(Limits.of(silos, files), handshake_s=2.0, header_s=2, closing_s=2.0, grace_s=3.0)


def server(folder: Path, port: int, limits: Callable[[int, int], Limits] = Limits.of) -> list[Child]:
    sockets = Path(tempfile.mkdtemp(prefix="fm-"))
    secret = os.urandom(32)
    (folder / "server.socket").write_text(str(sockets / "link"))
    link = Link(
        host="127.0.0.1",
        port=port,
        tls=lambda: authority.server_tls(folder),
        roster=folder / "roster.json",
        watched=(folder / "roster.json", folder / "revoked.pem"),
        socket=sockets / "link",
        secret=secret,
        limits=limits,
    )
    desk = Desk(
        home=folder / "home",
        nodes=lambda: authority.node_keys(folder),
        app=small_server,
        device="cpu",
        socket=sockets / "link",
        secret=secret,
    )
    return [
        Child(
            "superlink", lambda facts: run_superlink(link, facts), folder / "logs" / "superlink.log", ("coordinator",)
        ),
        Child("coordinator", lambda facts: run_coordinator(desk, facts), folder / "logs" / "coordinator.log"),
    ]


def silo(folder: Path, port: int, name: str, certificate: str, code: str) -> list[Child]:
    sockets = Path(tempfile.mkdtemp(prefix="fm-"))
    secret = os.urandom(32)
    (folder / f"{certificate}.socket").write_text(str(sockets / "node"))
    node = Node(
        address=f"127.0.0.1:{port}",
        tls=lambda: authority.silo_tls(folder, certificate),
        key=lambda: authority.read_node(folder, name),
        look=authority.looked(folder, name),
        recognise=lambda certificate: None,
        socket=sockets / "node",
        secret=secret,
    )
    bench = Bench(
        home=folder / name, code=code or code_hash(), app=small_client, socket=sockets / "node", secret=secret
    )
    logs = folder / "logs"
    return [
        Child("supernode", lambda facts: run_supernode(node, facts), logs / f"{certificate}-supernode.log"),
        Child(
            "executor", lambda facts: run_executor(bench, facts), logs / f"{certificate}-executor.log", ("supernode",)
        ),
    ]


def main(role: str, where: str, port: str, name: str = "", certificate: str = "", code: str = "") -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = Path(where)
    children = (
        server(folder, int(port), Limits.of if role == "server" else hasty)
        if role in ("server", "hasty-server")
        else silo(folder, int(port), name, certificate or name, code)
    )
    (folder / "flower").mkdir(exist_ok=True)
    os.environ["FLWR_HOME"] = str(folder / "flower")
    try:
        Supervisor(children).run()
    except FedmodelError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    from tests.integration import deployed  # under its own name, as tests know it

    sys.exit(deployed.main(*sys.argv[1:]))
