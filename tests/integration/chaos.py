"""A deployed federation whose processes are killed: server and silos as the command starts them, from its own kits.

Everything is real: a process a party with a sealed kit and a key file, TLS on the loopback interface, Flower, secure
aggregation, noise of the operating system. All that the processes write, scratch folders too, lies under one folder,
where tests look for what should not be there.

A kill has a target and a stage. The stage is waited for by what the server keeps of the round at hand: an answer is a
file whose name says its round and whose sealed content says its kind. Where a kill really struck is looked up after it.

Which of a party's processes is which is seen by the log that it writes to; where this account may not look (the
processes forbid it to others, and to their own account), tests that kill a part of a party are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import pytest
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

import fedmodel
from clients.silo import ledger_path
from fedmodel import wire
from fedmodel.config import FederationFile, Scenario
from fedmodel.crypto.sealed import Opener, open_bytes, opener_from_key_file, opener_from_secret
from fedmodel.ledger import Verified, verify_ledger
from fedmodel.provision import read_federation_roster
from fedmodel.provision.authority import issue
from fedmodel.provision.identity import Unlocked, open_identity
from fedmodel.system.supervision import end_with_parent
from scenarios.deployment.networks import Networks, loopback
from server import runs
from tests.integration.deployed import wait_until

TREE: Final = Path(fedmodel.__file__).parents[1]
COMMAND: Final = (sys.executable, "-c", "from scenarios.cli.main import main; main()")
SERVER: Final = "server"
SILOS: Final = ("north", "south", "west", "east")
STAGES: Final = ("before", "join", "share", "train", "commit", "reveal", "between", "again")
"""before: the run has begun and has no checkpoint; again: what was killed last is on its way back."""

_KINDS: Final = {"share": wire.SHARE, "train": wire.TRAIN, "commit": wire.COMMIT, "reveal": wire.REVEAL}
_EARLIER: Final = {"share": "between", "train": "share", "commit": "train", "reveal": "commit"}
_PARTS: Final = {"superlink": SERVER, "coordinator": SERVER}
_LOOK_S: Final = 0.004
_START_S: Final = 300.0
_GONE_S: Final = 10.0


@dataclass
class Kill:
    """A kill: what is to be killed and when, and what became of it.

    Attributes:
        target: "server" or a silo's name for all of its processes, or "superlink", "coordinator", "NAME/supernode" or
            "NAME/executor".
        stage: One of `STAGES`.
        struck: Round and stage of the newest answer that the server had when the target was dead.
    """

    target: str
    stage: str
    struck: str = ""

    @property
    def party(self) -> str:
        """Whose process it is."""
        return _PARTS.get(self.target, self.target.partition("/")[0])

    @property
    def part(self) -> str:
        """Which of the party's processes, empty for all."""
        return self.target.partition("/")[2] or (self.target if self.target in _PARTS else "")

    @property
    def kind(self) -> str:
        """The target without a silo's name."""
        return self.part or ("server" if self.party == SERVER else "silo")


@dataclass
class Party:
    """A party's kit, key file and process."""

    name: str
    kit: Path
    key: Path
    said: Path
    process: subprocess.Popen[bytes] | None = None
    seen: set[psutil.Process] = field(default_factory=set)

    def log(self, part: str) -> str:
        """Return what one of its processes wrote to the kit's log."""
        path = self.kit / "logs" / f"{part}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


class Deployment:
    """A federation on this machine.

    Args:
        root: A folder with a short path, since sockets lie under it.
        scenario: What its silos' laws admit.
        network: Where its parties are; on the loopback interface where none is given.
        beside: A folder more in PYTHONPATH of parties' processes.
    """

    def __init__(
        self,
        root: Path,
        scenario: Scenario,
        network: Networks | None = None,
        beside: Path | None = None,
    ) -> None:
        self.root, self.scenario, self.network, self._beside = root, scenario, network or loopback(), beside
        self.kits, self.scratch = root / "kits", root / "t"
        self.scratch.mkdir(mode=0o700)
        (root / "said").mkdir()
        self._environment = {**os.environ, "PYTHONPATH": str(TREE), "PYTHONUNBUFFERED": "1"}
        self._environment |= {"TMPDIR": str(self.scratch), "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
        issue(federation_of(scenario, self.network), [scenario], self.kits)
        places = {SERVER: self.kits / SERVER} | {silo: self.kits / "silos" / silo for silo in scenario.federation.silos}
        self.parties = {
            name: Party(name, kit, self.kits / "keys" / f"{name}.key", root / "said" / name)
            for name, kit in places.items()
        }
        self.run: runs.Submitted | None = None

    def command(self, name: str) -> list[str]:
        """Return what a party is started with."""
        party = self.parties[name]
        verb = SERVER if party.name == SERVER else "silo"
        words = [verb, "start", str(party.kit), "--key-file", str(party.key)]
        return [*self.network.inside(name), *COMMAND, *words]

    def start(self, *names: str) -> None:
        """Start parties, all of them where none is named."""
        for name in names or self.parties:
            self.launch(name, self.command(name))

    def launch(self, name: str, command: Sequence[str], tree: Path = TREE) -> None:
        """Start a party by a command of its own, or with other code."""
        party = self.parties[name]
        environment = {
            **self._environment,
            "PYTHONPATH": os.pathsep.join([str(tree), *([str(self._beside)] if self._beside else [])]),
        }
        with party.said.open("ab") as said:
            party.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment,
                cwd=tree,
                start_new_session=True,
                preexec_fn=end_with_parent,  # nothing is left of tests that are killed
            )

    def end(self, name: str) -> None:
        """End a party as a person does, and forget it."""
        party = self.parties.pop(name)
        assert party.process is not None
        party.process.terminate()
        party.process.wait(300)

    def cli(
        self, *words: str, prefix: Sequence[str] = COMMAND, timeout_s: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run the command, or what is given in place of it, to its end."""
        return subprocess.run(
            [*prefix, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=self._environment,
            cwd=TREE,
            timeout=timeout_s,
        )

    def submit(self) -> runs.Submitted:
        """Hand the scenario in."""
        self.run = runs.submit(self.kits / SERVER, self.scenario)
        return self.run

    @property
    def folder(self) -> Path:
        """Of the run."""
        assert self.run is not None
        return self.run.folder

    def metrics(self) -> list[dict[str, Any]]:
        """Return the whole lines that the server wrote."""
        path = self.folder / "metrics.jsonl"
        return (
            [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()] if path.exists() else []
        )

    def opened(self, name: str) -> Unlocked:
        """Return a party's keys."""
        return open_identity(self.parties[name].kit, opener_from_key_file(self.parties[name].key))

    def family(self, name: str) -> list[psutil.Process]:
        """Return a party's processes, its supervisor first; they are remembered."""
        party = self.parties[name]
        if party.process is None:
            return []
        try:
            found = [(top := psutil.Process(party.process.pid)), *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        party.seen.update(found)
        return found

    def part(self, name: str, part: str) -> psutil.Process | None:
        """Return the one of a party's processes that writes to a log, None while there is none."""
        for process in self.family(name)[1:]:
            try:
                if any(Path(file.path).name == f"{part}.log" for file in process.open_files()):
                    return process
            except psutil.AccessDenied:
                pytest.skip("this account may not see which of a party's processes is which; root may")
            except psutil.NoSuchProcess:
                continue
        return None

    def kill(self, kill: Kill) -> None:
        """Kill with SIGKILL; where a supervisor was killed, wait until all beneath it has ended by itself."""
        party = self.parties[kill.party]
        if kill.part:
            wait_until(lambda: self.part(kill.party, kill.part) is not None)
            victim = self.part(kill.party, kill.part)
            assert victim is not None
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
            return
        family = self.family(kill.party)
        assert party.process is not None
        party.process.kill()
        party.process.wait()
        wait_until(
            lambda: not alive(family), _GONE_S, lambda: f"{kill.party}: {alive(family)} outlived their supervisor"
        )

    def connected(self) -> None:
        """Wait until every silo is connected: one that comes when the silos have joined a run is left out of it."""

        def there() -> bool:
            self.check_up()
            return all("connected to the server" in self.parties[silo].log("supernode") for silo in SILOS)

        wait_until(there, _START_S, lambda: f"not every silo is connected\n{self.told()}")

    def check_up(self) -> None:
        """Refuse to go on with a party that has ended by itself."""
        for party in self.parties.values():
            if party.process is not None and party.process.poll() is not None:
                raise AssertionError(f"{party.name} ended with {party.process.returncode}: {party.said.read_text()}")

    def outcome(self, timeout_s: float) -> runs.Outcome:
        """Wait for the run's outcome."""

        def ended() -> bool:
            self.check_up()
            return runs.outcome_of(self.folder) is not None

        wait_until(ended, timeout_s, self.told)
        found = runs.outcome_of(self.folder)
        assert found is not None
        return found

    def told(self) -> str:
        """Return the ends of all logs, for whoever looks into a failure."""
        logs = [*self.root.glob("kits/*/logs/*"), *self.root.glob("kits/silos/*/logs/*")]
        logs += self.folder.glob("*.log") if self.run else []
        return "\n".join(f"== {log}\n{log.read_text(errors='replace')[-1500:]}" for log in sorted(logs))

    def stop(self) -> None:
        """End every party as a person does, and hold it to leaving no process behind."""
        families = {name: self.family(name) for name in self.parties}
        running = [party.process for party in self.parties.values() if party.process is not None]
        for process in running:
            if process.poll() is None:
                process.terminate()
        for process in running:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        left = [one for name, family in families.items() for one in alive([*family, *self.parties[name].seen])]
        left += [one for one in psutil.process_iter() if str(self.root) in " ".join(cmdline(one))]
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        assert not left, f"still there: {left}"

    def ledger(self, silo: str) -> Verified:
        """Verify a silo's ledger under the roster's key, its own head and the one that the server keeps."""
        kit = self.parties[silo].kit
        key = bytes.fromhex(read_federation_roster(self.parties[SERVER].kit).member(silo).identity)
        kept = (kit / "ledger.head", self.parties[SERVER].kit / "heads" / silo)
        return verify_ledger(ledger_path(kit, silo), key, [path.read_bytes() for path in kept if path.exists()])

    def charges(self, silo: str) -> dict[int, int]:
        """Return how often a silo was charged for each round."""
        if not ledger_path(self.parties[silo].kit, silo).exists():
            return {}
        found: dict[int, int] = {}
        for entry in self.ledger(silo).entries:
            if entry.kind == "charge" and entry.round is not None:
                found[entry.round] = found.get(entry.round, 0) + 1
        return found


@contextlib.contextmanager
def stopped_at_last(deployment: Deployment) -> Iterator[Deployment]:
    """End all that a deployment started, whatever becomes of the block."""
    try:
        yield deployment
    finally:
        deployment.stop()


def federation_of(scenario: Scenario, network: Networks) -> FederationFile:
    """Return what a federation for one scenario is made from."""
    return FederationFile.model_validate(
        {
            "name": scenario.name,
            "scenarios": [scenario.name],
            "post_quantum": scenario.encryption.post_quantum,
            "server": {"hosts": [network.host], "port": network.port, "listen": network.host},
            "silos": [{"name": silo} for silo in scenario.federation.silos],
        }
    )


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return those that have not ended."""
    found = []
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


def cmdline(process: psutil.Process) -> list[str]:
    """Return a process's words, none where it is gone."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


class Watch:
    """Sees how far a run is, by what its server keeps."""

    def __init__(self, deployment: Deployment) -> None:
        own = deployment.opened(SERVER)
        self._opener, self._deployment = opener_from_secret(own.age_secret), deployment
        self._kinds: dict[str, str] = {}

    def answers(self) -> list[tuple[int, str]]:
        """Return round and kind of all answers that the server has of the round at hand, oldest first."""
        found = []
        for path in sorted((self._deployment.folder / "answers").glob("*.age")):
            kind = self._kind(path)
            if kind:
                found.append((int(path.name[:7]), kind))
        return found

    def _kind(self, path: Path) -> str:
        if path.name not in self._kinds:
            try:
                data = of_a_run(path.read_bytes(), self._opener).partition(b"\n")[2]
            except FileNotFoundError:
                return ""
            message = message_from_proto(ProtoMessage.FromString(data)) if data else None
            self._kinds[path.name] = message.metadata.message_type if message else "late"
        return self._kinds[path.name]

    @property
    def is_begun(self) -> bool:
        return (self._deployment.folder / "answers").exists()

    @property
    def checkpoint(self) -> int:
        """When the newest checkpoint was written, 0 where there is none."""
        try:
            return (self._deployment.folder / "checkpoint.age").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def where(self) -> str:
        """Say how far the run is."""
        if not self.checkpoint:
            return "join" if self.is_begun else "before"
        found = self.answers()
        if not found:
            return f"{len(self._deployment.metrics())} between"
        number, kind = found[-1]
        return f"{number} {kind.removeprefix('query.')}"


class Executioner:
    """Carries a list of kills out, each at its moment, and starts again what does not come back by itself.

    Args:
        deployment: Up, with a run handed in.
        seed: Of the moments within stages.
    """

    def __init__(self, deployment: Deployment, seed: int) -> None:
        self.deployment, self.watch = deployment, Watch(deployment)
        self._chance = np.random.default_rng(seed)
        self._round = 0

    def carry_out(
        self, kills: Sequence[Kill], timeout_s: float = 300.0, then: Callable[[Kill], object] = lambda _: None
    ) -> None:
        """Kill in order, each at its moment; `then` is called when the target is dead and not yet started again."""
        for kill in kills:
            ready = self._ready(kill)
            wait_until_quick(ready, timeout_s, lambda kill=kill: f"{kill}: never came\n{self.deployment.told()}")  # type: ignore[misc]
            time.sleep(float(self._chance.uniform(0, self._jitter_s(kill))))
            self.deployment.kill(kill)
            kill.struck = self.watch.where()
            then(kill)
            self._round = len(self.deployment.metrics())
            if not kill.part:
                time.sleep(float(self._chance.uniform(0, 1.0)))
                self.deployment.start(kill.party)

    def _jitter_s(self, kill: Kill) -> float:
        """Return how long after its moment's beginning a kill may come."""
        return {"again": 1.5, "between": 0.05, "join": 0.2, "before": 0.1}.get(kill.stage, 0.03)

    def _ready(self, kill: Kill) -> Callable[[], bool]:
        """Return what tells that a kill's moment has come."""
        watch, after = self.watch, self._round
        if kill.stage == "before":
            return lambda: watch.is_begun and not watch.checkpoint
        if kill.stage == "join":
            return self._joins
        if kill.stage == "again":
            return self._coming_back(kill)
        if kill.stage == "between":
            past, checkpoint = len(self.deployment.metrics()), watch.checkpoint
            if self._chance.random() < 0.5:  # before the model and the line are written
                return lambda: watch.checkpoint != checkpoint
            return lambda: len(self.deployment.metrics()) > past
        if kill.party != SERVER and kill.stage == "train" and self._chance.random() < 0.5:
            charged = self._charged(kill.party)
            past = len(self.deployment.metrics())  # it may be out of a round or two after the kill before
            return lambda: self._charged(kill.party) != charged or len(self.deployment.metrics()) > past + 2
        stage, count = kill.stage, int(self._chance.integers(1, 3))
        if kill.party != SERVER:  # what the silo is about to be asked follows what the server just got
            stage = _EARLIER[stage]
        if stage == "between":
            past = len(self.deployment.metrics())
            return lambda: (done := len(self.deployment.metrics())) > past and done % 2 == 0
        wanted = _KINDS[stage]

        def reached() -> bool:
            found = watch.answers()
            return sum(number > after and kind == wanted for number, kind in found) >= count and found[-1][1] == wanted

        return reached

    def _joins(self) -> bool:
        """Return whether a silo has reserved its plan, and the run no checkpoint yet."""
        kits = [party for name, party in self.deployment.parties.items() if name != SERVER]
        return not self.watch.checkpoint and any(ledger_path(one.kit, one.name).exists() for one in kits)

    def _charged(self, silo: str) -> int:
        """Return when something was last written into a silo's ledger."""
        path = ledger_path(self.deployment.parties[silo].kit, silo)
        beside = (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-journal"))
        return max((one.stat().st_mtime_ns for one in beside if one.exists()), default=0)

    def _coming_back(self, kill: Kill) -> Callable[[], bool]:
        """Return what tells that a party killed before is on its way back: it said that it is there once more."""
        party = self.deployment.parties[kill.party]
        part, words = ("coordinator", "nodes are registered") if kill.party == SERVER else ("supernode", "connected to")
        before = party.log(part).count(words)
        return lambda: party.log(part).count(words) > before


def wait_until_quick(condition: Callable[[], object], timeout_s: float, why: Callable[[], str]) -> None:
    """Wait as `wait_until` does, looking more often."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(_LOOK_S)


def of_a_run(sealed: bytes, opener: Opener) -> bytes:
    """Open what a server keeps of a run, without the hash before it that says of which."""
    return open_bytes(sealed, opener)[32:]


def leftovers(root: Path) -> list[Path]:
    """Return files that somebody was still writing."""
    return [path for path in root.rglob("*") if re.search(r"\.(partial|tmp)$", path.name)]
