"""A rehearsal of a deployment on one machine: the very commands that a server and its silos are started with.

It makes a federation's kits, starts `fedmodel server start` and one `fedmodel silo start` a silo, each a process with
its own kit and key file, TLS between them, hands in the scenario, follows it, and ends all that it started.

Where the machine allows it, each party is in a network namespace of its own: a silo reaches the server's port and
nothing else, and no port is opened on the machine itself. Else all share the loopback interface.

    DIR/kits/            as `fedmodel provision` makes them: authority/, server/, silos/NAME/, keys/
    DIR/summary.json     and all else that a run's folder has; the model is an age file to the server's key
    DIR/ledgers/         copies of the silos' ledgers, from which the table of privacy is replayed
    DIR/logs/            what each process printed

Does NOT show what distance, other clocks and other hands do to a deployment: all parties share a machine here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedmodel.config import FederationFile, Scenario, TableSource
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.kinds.bases import copy_base, folder_of_base
from fedmodel.learning.description import DESCRIPTION
from fedmodel.provision import bases_of
from fedmodel.provision.authority import issue
from fedmodel.system.distributions import providing
from fedmodel.system.durable import erase_folder
from fedmodel.system.supervision import end_with_parent
from scenarios.deployment import runs
from scenarios.deployment.networks import Networks, loopback, namespaces
from scenarios.deployment.own_tables import SERVER, lay_tables
from scenarios.runs.summary import rows_from_ledgers, sum_up
from server.metrics import BESIDES, METRICS
from server.usefulness import USEFULNESS

_STOP_S: Final = 15.0
_STRATEGY: Final = "federation.strategy"


@dataclass(frozen=True)
class _Party:
    """A process of the rehearsal.

    Attributes:
        name: "server", or a silo's.
        kit: Its kit.
        key: Its key file.
        log: What it prints.
    """

    name: str
    kit: Path
    key: Path
    log: Path

    @property
    def command(self) -> list[str]:
        verb = "server" if self.name == SERVER else "silo"
        return [_fedmodel(), verb, "start", str(self.kit), "--key-file", str(self.key)]


def rehearse(
    scenario: Scenario,
    parameters: int,
    folder: Path,
    watching: Callable[[Path], AbstractContextManager[object]],
    tables: Mapping[str, TableSource],
    *,
    apart: bool | None = None,
    packages: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Deploy a scenario on this machine, run it, end everything, and return the summary.

    Args:
        scenario: Checked by `check_scenario`.
        parameters: What that returned.
        folder: Made by `run_folder`.
        watching: Given the path of `metrics.jsonl`, what is open while the run goes on.
        tables: Where each party's own lies (`scenarios.deployment.own_tables.own_tables`).
        apart: Whether each party gets a network namespace; None where the machine may say.
        packages: Installed ones whose code the scenario names, by name and version (`packages_of`).

    Raises:
        FedmodelError: When a process ends too early, or the run fails; what was written until then stays.
    """
    started = time.monotonic()
    with _network([SERVER, *scenario.federation.silos], apart) as network:
        kits = folder / "kits"
        with _undone(kits):
            issue(_federation(scenario, network, packages or {}), [scenario], kits)
            lay_tables(scenario, tables, kits)
            _lay_bases(scenario, kits)
            run, _ = runs.submit(kits / SERVER, scenario, network.kind)
        with _running(_parties(scenario, folder), network, _environment(scenario)) as check_alive:
            runs.follow(run, watching(run.folder / "metrics.jsonl"), check_alive)
    _gather(scenario, folder, run.folder)
    ledgers = {silo: folder / "ledgers" / f"{silo}.sqlite" for silo in scenario.federation.silos}
    kit_ledgers = {silo: kits / "silos" / silo / "ledgers" / f"{silo}.sqlite" for silo in ledgers}
    privacy = rows_from_ledgers(scenario, kit_ledgers)
    seconds = time.monotonic() - started
    return sum_up(
        scenario,
        folder,
        seconds,
        privacy,
        engine="deployment",
        device="cpu",
        parameters=parameters,
        network=network.kind,
        packages=packages,
        code=runs.named_of(run.folder),
    )


def _lay_bases(scenario: Scenario, kits: Path) -> None:
    """Give each party its own copy of the base that a scenario is built on, where its file says that it lies."""
    for sha256, place in bases_of(scenario).items():
        found = folder_of_base(sha256)
        for kit in (kits / SERVER, *(kits / "silos" / silo for silo in scenario.federation.silos)):
            if found is not None:
                copy_base(found, kit / place)


@contextmanager
def _undone(kits: Path) -> Iterator[None]:
    """Take kits away again where a run is refused before any party was started: nobody has used their keys."""
    try:
        yield
    except FedmodelError:
        erase_folder(kits)
        raise


def packages_of(scenario: Scenario) -> dict[str, str]:
    """Return the installed packages whose code a scenario names, as a federation's file would list them.

    Raises:
        ConfigError: When it names code of none.
    """
    return _provided(scenario.silos_code, "silo")


def _strategy_packages_of(scenario: Scenario) -> dict[str, str]:
    """Return the installed package that a scenario's strategy is of, where that is the user's own."""
    return _provided({key: use for key, use in scenario.own_code.items() if key == _STRATEGY}, "server")


def _provided(named: Mapping[str, str], party: str) -> dict[str, str]:
    """Return the installed packages that names of code are of, by name and version."""
    found = {}
    for key, use in named.items():
        provided = providing(use.partition(":")[0])
        if provided is None:
            raise ConfigError(
                f"{key} = {use!r} is code of no installed package, and a deployed {party} imports nothing else: make a"
                " package of it and install that, or take `fedmodel simulate`, which imports it from beside the file"
            )
        found[provided[0]] = provided[1]
    return found


def _federation(scenario: Scenario, network: Networks, packages: Mapping[str, str]) -> FederationFile:
    """Return what a rehearsal's federation is made from; its law admits the scenario and nothing more."""
    return FederationFile.model_validate(
        {
            "name": scenario.name,
            "post_quantum": scenario.encryption.post_quantum,
            "scenarios": [scenario.name],
            "packages": dict(packages),
            "strategy_packages": _strategy_packages_of(scenario),
            "server": {"hosts": [network.host], "port": network.port, "listen": network.host},
            "silos": [{"name": silo} for silo in scenario.federation.silos],
        }
    )


def _parties(scenario: Scenario, folder: Path) -> list[_Party]:
    kits, logs = folder / "kits", folder / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    places = {SERVER: kits / SERVER} | {silo: kits / "silos" / silo for silo in scenario.federation.silos}
    return [_Party(name, kit, kits / "keys" / f"{name}.key", logs / f"{name}.log") for name, kit in places.items()]


@contextmanager
def _network(names: list[str], apart: bool | None) -> Iterator[Networks]:
    """Give each party a network of its own, or all of them the loopback interface."""
    with ExitStack() as stack:
        network = None if apart is False else stack.enter_context(namespaces(names, required=apart is True))
        yield loopback() if network is None else network


@contextmanager
def _running(parties: list[_Party], network: Networks, environment: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Run every party's process; the block gets what raises as soon as one has ended. At its end all end, at once."""
    processes: dict[str, subprocess.Popen[bytes]] = {}

    def check_alive() -> None:
        for party in parties:
            status = processes[party.name].poll()
            if status is not None:
                last = _last_line(party.log)
                raise FedmodelError(f"{party.name} ended with status {status}: {last}; see {party.log}")

    try:
        for party in parties:
            processes[party.name] = _start(party, network, environment)
        yield check_alive
    finally:
        for process in processes.values():
            process.terminate()
        deadline = time.monotonic() + _STOP_S
        for process in processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            if process.poll() is None:
                process.kill()  # what it started ends with it
                process.wait()


def _start(party: _Party, network: Networks, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start one party's command, in a session of its own: a terminal's Ctrl-C reaches the rehearsal alone."""
    command = [*network.inside(party.name), *party.command]
    with party.log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - a fixed command, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
            preexec_fn=end_with_parent,  # nothing that was rehearsed trains on when this command is killed
        )


def _environment(scenario: Scenario) -> Mapping[str, str]:
    """Return what parties are started with; silos that take what they can get of the cores share them out."""
    found = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if scenario.training.threads == "auto":
        found.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // len(scenario.federation.silos))))
    return found


def _gather(scenario: Scenario, folder: Path, run: Path) -> None:
    """Lay out the run's folder as every run's: the server's files, and copies of the silos' ledgers."""
    written = (METRICS, BESIDES, "model.safetensors.age", DESCRIPTION, USEFULNESS, "server.log", "charges.json")
    for name in written:
        if (run / name).exists():
            shutil.copy2(run / name, folder / name)
    ledgers = folder / "ledgers"
    ledgers.mkdir(mode=0o700, exist_ok=True)
    for silo in scenario.federation.silos:
        path = folder / "kits" / "silos" / silo / "ledgers" / f"{silo}.sqlite"
        if path.exists():
            shutil.copy2(path, ledgers / path.name)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _fedmodel() -> str:
    """Return the command that was installed beside this Python."""
    path = Path(sys.executable).parent / "fedmodel"
    if not path.exists():
        raise FedmodelError(f"fedmodel is not installed beside {sys.executable}; install it again")
    return str(path)
