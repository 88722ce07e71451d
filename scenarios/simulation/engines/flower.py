"""The `flower` engine: the same apps under Flower's own simulation runtime, by `flwr run`, with Ray beneath.

A SuperLink of our own is started on a free loopback port, from an empty folder (Ray's workers would import whatever
lies in its working folder before the bundle), the app bundle is made from the installed packages, the run is followed
by its status (`flwr run` exits 0 for runs that fail), and everything started here, and everything that that
started, is stopped.

Telemetry, update checks and run-time installation of dependencies are off.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psutil
import tomli_w

from fedmodel.errors import FedmodelError
from fedmodel.system.environment import kept
from fedmodel.system.packages import app_files

if TYPE_CHECKING:
    from flwr.app.user_config import UserConfig

    from fedmodel.config import Scenario
    from scenarios.simulation.engines import Simulation

_START_S: Final = 60.0
_STOP_S: Final = 3.0
_POLL_S: Final = 2.0
_CONNECTION: Final = "here"


@dataclass(frozen=True)
class Flower:
    """Carries a run under Flower's simulation runtime."""

    one_process: bool = False
    keeps_ledgers: bool = True
    noise_added: str = "in a worker process of the simulation, which silos took turns in"
    records_read: str = (
        "Records of all silos were read in worker processes of one simulation, by one user on one machine: its code,"
        " and nothing else, kept them apart."
    )

    def check(self, scenario: Scenario) -> None:
        """Refuse nothing: it carries messages to the very apps that are deployed."""

    def carry(self, simulation: Simulation) -> None:
        """Return when the run has ended."""
        from fedmodel.learning.devices import cores  # imports torch

        scenario, device = simulation.scenario, simulation.device
        nodes, threads, cards = len(scenario.federation.silos), scenario.training.threads, _cards(device)
        told = {**simulation.run_config, "device": device.partition(":")[0]}
        federation = shared_out(nodes, 1 if threads == "auto" else threads, cores(), len(cards))
        run_under_flower(told, simulation.run_dir, federation, cards)


ENGINE: Final = Flower()


def shared_out(nodes: int, threads: int, cores: int, cards: int) -> str:
    """Return how Flower shares a machine out: how many silos there are, and what each one's turn takes of it.

    Args:
        nodes: How many simulated SuperNodes.
        threads: How many cores each trains with; more than there are would never be free.
        cores: Of the machine.
        cards: GPUs that silos train on, which all silos whose turn it is fit on at once; 0 where none is used.

    >>> shared_out(10, 1, 8, 0)
    'num-supernodes=10 client-resources-num-cpus=1 client-resources-num-gpus=0.0'
    >>> shared_out(10, 2, 8, 1)
    'num-supernodes=10 client-resources-num-cpus=2 client-resources-num-gpus=0.25'
    """
    each = min(threads, cores)
    at_once = max(1, min(nodes, cores // each))
    share = int(1000 * min(1.0, cards / at_once)) / 1000  # no more than what is there
    return f"num-supernodes={nodes} client-resources-num-cpus={each} client-resources-num-gpus={share}"


def _cards(device: str) -> list[str]:
    """Return the GPUs that a device stands for, as processes are told which they see; none of the cpu."""
    if not device.startswith("cuda"):
        return []
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    cards, number = seen.split(","), device.partition(":")[2]
    return [cards[int(number)]] if number else cards


def run_under_flower(run_config: UserConfig, run_dir: Path, federation: str, cards: Sequence[str] = ()) -> None:
    """Run the installed apps under Flower's simulation runtime, to the run's end.

    Args:
        run_config: The run's configuration.
        run_dir: Where Flower's own log goes, as `flower.log`.
        federation: How many simulated SuperNodes, and what each takes of the machine, by `shared_out`.
        cards: The GPUs that its processes see, each worker as many as its share; all of them where none is named.

    Raises:
        FedmodelError: When Flower does not start, or the run does not end as completed.
    """
    with tempfile.TemporaryDirectory(prefix="fedmodel-") as scratch:
        work = Path(scratch)
        app, empty = work / "fedmodel-app", work / "empty"
        write_bundle(app)
        empty.mkdir()
        port = free_port()
        environment = flower_environment(work / "flower-home", port)
        environment |= {"CUDA_VISIBLE_DEVICES": ",".join(cards)} if cards else {}
        (work / "run.toml").write_text(tomli_w.dumps(run_config), encoding="utf-8")
        with _superlink(port, empty, environment, run_dir / "flower.log"):
            started = flwr_json(
                [
                    "run",
                    str(app),
                    _CONNECTION,
                    "--run-config",
                    str(work / "run.toml"),
                    "--federation-config",
                    federation,
                ],
                empty,
                environment,
            )
            run_id = str(started["run-id"])
            status = follow(run_id, empty, environment)
    if status != "finished:completed":
        raise FedmodelError(_why(run_dir, status))


def write_bundle(app: Path) -> None:
    """Lay out an app from the packages as installed, so that it works from a checkout and from site-packages alike."""
    for name, content in app_files().items():
        path = app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def flower_environment(home: Path, port: int) -> dict[str, str]:
    """Return the environment for Flower's processes, and write its configuration.

    Of the user's own variables those stay that do in any process of this project: all of this happens on this machine.
    """
    home.mkdir()
    connection = {"address": f"127.0.0.1:{port}", "insecure": True}
    (home / "config.toml").write_text(
        tomli_w.dumps({"superlink": {"default": _CONNECTION, _CONNECTION: connection}}), encoding="utf-8"
    )
    return {
        **{
            name: value for name, value in kept(os.environ).items() if not name.startswith("RAY_")
        },  # its Ray is its own
        "FLWR_HOME": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUTF8": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


@contextmanager
def _superlink(port: int, folder: Path, environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run a SuperLink in simulation mode, and stop it and all it started."""
    command = [tool("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
    with log.open("wb") as output:
        # A session of its own, so that a terminal's Ctrl-C reaches this command alone, which then stops the rest.
        process = subprocess.Popen(  # noqa: S603 - a fixed command, no shell
            command, cwd=folder, env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_healthy(process, port, log)
        yield
    finally:
        stop_tree(process)


def wait_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the SuperLink answers."""
    deadline = time.monotonic() + _START_S
    direct = build_opener(ProxyHandler({}))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise FedmodelError(f"Flower's SuperLink ended with status {process.returncode} at start; see {log}")
        try:
            with direct.open(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise FedmodelError(f"Flower's SuperLink did not answer within {_START_S:.0f} s; see {log}")


@contextmanager
def running(command: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of Flower's commands in a folder of its own, its output in `log` there, and end all beneath it."""
    folder.mkdir()
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - a fixed command, no shell
            command, cwd=folder, env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        stop_tree(process)


def stop_tree(process: subprocess.Popen[bytes]) -> None:
    """End the SuperLink and everything beneath it: politely, then not, and again until nothing is left.

    Not by process group: Flower starts its executor in a session of its own, and Ray's workers with it. Left alone,
    they would go on training, and charging ledgers, with nobody watching.
    """
    known = _descendants(psutil.Process(process.pid)) if process.poll() is None else []
    for stop in (psutil.Process.terminate, psutil.Process.kill):
        for one in known:
            with contextlib.suppress(psutil.NoSuchProcess):
                stop(one)
        _, alive = psutil.wait_procs(known, timeout=_STOP_S)
        known = [one for parent in alive for one in _descendants(parent)]
        if not known:
            break
    process.wait(_STOP_S)


def _descendants(parent: psutil.Process) -> list[psutil.Process]:
    """Return a process and all beneath it, none where it has ended."""
    try:
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def follow(run_id: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Return the run's status once it has ended."""
    while True:
        listed = flwr_json(["ls", _CONNECTION, "--run-id", run_id], folder, environment)
        status = str(listed["runs"][0]["status"])
        if status.startswith("finished"):
            return status
        time.sleep(_POLL_S)


def flwr_json(arguments: list[str], folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Call Flower's command, and return the JSON object that it prints after its chatter."""
    done = subprocess.run(  # noqa: S603 - a fixed command, no shell
        [tool("flwr"), *arguments, "--format", "json"],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    start = done.stdout.find("{")
    if done.returncode or start < 0:
        raise FedmodelError(f"`flwr {arguments[0]}` failed: {(done.stderr or done.stdout).strip()[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout[start:])
    return answer


def _why(run_dir: Path, status: str) -> str:
    """Return the coordinator's own last word about a failed run."""
    log = run_dir / "server.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    if lines and " ERROR " in lines[-1]:
        return lines[-1].split(" ERROR ", maxsplit=1)[1]
    return f"the run ended as {status!r} under Flower; see {run_dir / 'flower.log'} and {log}"


def tool(name: str) -> str:
    """Return the command that was installed beside this Python."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise FedmodelError(f"{name} is not installed beside {sys.executable}; install fedmodel again")
    return str(path)


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
