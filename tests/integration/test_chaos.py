"""Servers and silos killed at every stage of a run, for real: the run completes, ledgers verify, nobody pays twice.

`tests/server/test_journal.py` kills a server at every step of its code, in one process; `test_kills` kills a silo at
every step of its own. Here whole deployments of real processes are hit: supervisors, the parts that they watch, the
network.

A few kills are among the ordinary tests; `make test-chaos` does more than fifty, over all pairs of target and stage.
What is on the disks after a kill, and after a run, is read by whoever would steal them.

Not shown: what a power cut leaves. SIGKILL spares the kernel's cache.
"""

from __future__ import annotations

import csv
import logging
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load
from sklearn import datasets

from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto.sealed import opener_from_secret, read_sealed
from fedmodel.provision.kits import LAW, SERVER_LAW
from scenarios.deployment.networks import namespaces
from server.journal import Checkpoint
from server.run_files import SEALED_MODEL
from tests import tools
from tests.conftest import TINY
from tests.integration.chaos import (
    SERVER,
    SILOS,
    STAGES,
    Deployment,
    Executioner,
    Kill,
    Watch,
    leftovers,
    of_a_run,
    stopped_at_last,
)

pytestmark = pytest.mark.timeout(900)
ON = ['federation.silos=["north","south","west","east"]', "federation.tolerated_failures=100",
      "encryption.secure_aggregation=on", "encryption.bound=50.0", "encryption.colluding=0",
      "encryption.window=2"]  # fmt: skip
DEALT = ["data.partition.min_records=10"]
TUMOURS = """
[data]
source = "table"
name = "tumours"
label = "diagnosis"
labels = ["malignant", "benign"]
"""
MEASURES = {"mean radius": (5.0, 30.0), "mean texture": (5.0, 40.0), "mean area": (100.0, 2600.0),
            "mean smoothness": (0.05, 0.2)}  # fmt: skip
TARGETS = ("server", "superlink", "coordinator", "silo", "supernode", "executor")


def scenario_of(folder: Path, *settings: str, rounds: int, timeout_s: float, table: bool = False) -> Scenario:
    """Write the small scenario, of data that is dealt out or of tables, and read it."""
    text = TINY
    if table:
        columns = "".join(
            f'\n[[data.columns]]\nname = "{name}"\ntype = "float"\nrange = [{low}, {high}]\n'
            for name, (low, high) in MEASURES.items()
        )
        text = TINY.partition("[data]")[0] + TUMOURS + columns
    path = folder / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    of_data = ["privacy.expected_batch_size=50"] if table else DEALT
    times = [f"rounds={rounds}", f"federation.round_timeout_s={timeout_s}"]
    return read_scenario(str(path), [*ON, *of_data, *times, *settings])


@contextmanager
def up(
    scenario: Scenario, folder: Path, before: Callable[[Deployment], object] = lambda _: None
) -> Iterator[Deployment]:
    """A deployment that is up, with its run handed in; all of it ends with the block."""
    deployment = Deployment(folder, scenario)
    before(deployment)
    with stopped_at_last(deployment):
        deployment.start()
        deployment.connected()
        deployment.submit()
        yield deployment


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, since sockets are to lie under it."""
    with tempfile.TemporaryDirectory(prefix="fm-") as name:
        yield Path(name)


def check(deployment: Deployment, kills: Sequence[Kill]) -> None:
    """Hold what a run left behind to what it should be, whoever was killed."""
    rounds, lines = deployment.scenario.rounds, deployment.metrics()
    struck = Counter(kill.party for kill in kills)
    assert [line["round"] for line in lines] == list(range(1, rounds + 1))
    assert not any("failed" in line for line in lines) or set(struck) - {SERVER}
    dropped = {silo for line in lines for silo in line["dropouts"]}
    assert dropped <= set(struck), deployment.told()
    for silo in SILOS:
        charges = deployment.charges(silo)  # verifies the ledger
        summed = {line["round"] for line in lines if silo not in line["dropouts"] and "failed" not in line}
        assert sum(charges.values()) <= rounds, "a silo was charged more than the plan that it reserved"
        assert all(times <= 1 + struck[silo] for times in charges.values())
        assert summed <= set(charges), f"{silo} is in a sum that it was not charged for"
        if not struck[silo]:  # a round that failed closed may have done so before anybody trained
            assert set(charges.values()) == {1}, f"{silo}, which was never killed"
            assert {line["round"] for line in lines if "failed" not in line} <= set(charges)
    assert not (deployment.folder / "answers").exists()
    assert not (deployment.folder / "window.age").exists()
    assert leftovers(deployment.kits) == []


# Below: one run under a few kills, on real tables; what is on its disks.


@dataclass
class Survived:
    """A run that came through some kills, and what a thief would have found.

    Attributes:
        deployment: Ended.
        kills: Those that struck.
        stolen: A copy of all files, made when the server had just been killed in the middle of a round.
        secrets: What must be in no file in the clear, by what it is.
        records: The silos' data, likewise.
    """

    deployment: Deployment
    kills: list[Kill]
    stolen: Path
    secrets: dict[str, bytes] = field(default_factory=dict)
    records: dict[str, bytes] = field(default_factory=dict)


class Recorder(threading.Thread):
    """Keeps every model that a checkpoint holds while a run goes on."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(daemon=True)
        self._path = deployment.folder / "checkpoint.age"
        self._opener = opener_from_secret(deployment.opened(SERVER).age_secret)
        self._ending = threading.Event()
        self.models: dict[int, bytes] = {}

    def run(self) -> None:
        last = b""
        while not self._ending.wait(0.02):
            with suppress(FileNotFoundError):
                sealed = self._path.read_bytes()
                if sealed != last:
                    kept = Checkpoint.from_bytes(of_a_run(sealed, self._opener))
                    self.models[kept.round_number] = kept.model_P.astype("<f4").tobytes()
                    last = sealed

    def end(self) -> None:
        self._ending.set()
        self.join()


def deal_tables(deployment: Deployment) -> dict[str, bytes]:
    """Give every party a table of real tumours; return what of it must be found nowhere else."""
    tumours = datasets.load_breast_cancer()
    columns = [list(tumours.feature_names).index(name) for name in MEASURES]
    rows = [
        [*(repr(float(row[column])) for column in columns), str(tumours.target_names[label])]
        for row, label in zip(tumours.data, tumours.target, strict=True)
    ]
    needles: dict[str, bytes] = {}
    for number, (name, party) in enumerate(deployment.parties.items()):
        own = rows[number::5]
        with (party.kit / "tumours.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([[*MEASURES, "diagnosis"], *own])
        with (party.kit / (SERVER_LAW if name == SERVER else LAW)).open("a", encoding="utf-8") as law:
            law.write('\n[tables.tumours]\ncsv = "tumours.csv"\n')
        first = own[0]
        scaled = [2 * (float(value) - low) / (high - low) - 1 for value, (low, high) in zip(first, MEASURES.values())]  # noqa: B905
        needles |= {
            f"a row of {name}'s": ",".join(first[:4]).encode(),
            f"a value of {name}'s": first[3].encode(),
            f"a scaled row of {name}'s": np.array(scaled, "<f4").tobytes(),
        }
    return needles


@pytest.fixture(scope="module")
def survived() -> Iterator[Survived]:
    """One run: the server, two of its parts and a part of a silo killed, each in another stage.

    A stage that is over before it was looked at is waited for in the next round: rounds are many more than kills.
    """
    kills = [
        Kill("coordinator", "train"),
        Kill("server", "commit"),
        Kill("superlink", "share"),
        Kill("west/executor", "reveal"),
    ]
    with tempfile.TemporaryDirectory(prefix="fm-") as name, tempfile.TemporaryDirectory(prefix="fm-") as loot:
        folder, found = Path(name), {}
        scenario = scenario_of(folder, rounds=12, timeout_s=60.0, table=True)
        with up(scenario, folder, lambda deployment: found.update(deal_tables(deployment))) as deployment:
            recorder = Recorder(deployment)
            recorder.start()
            stolen = Path(loot) / "kits"
            Executioner(deployment, seed=1).carry_out(
                kills, then=lambda kill: steal(folder, stolen) if kill.target == "server" else None
            )
            assert deployment.outcome(600).completed, deployment.told()
            recorder.end()
        survived = Survived(deployment, kills, stolen, records=found)
        survived.secrets = secrets_of(deployment, recorder.models, stolen)
        yield survived


def steal(folder: Path, to: Path) -> None:
    """Copy all files while the silos go on writing theirs."""

    def copy(source: str, target: str) -> None:
        with suppress(FileNotFoundError):
            shutil.copy2(source, target)

    for _ in range(3):
        with suppress(shutil.Error):  # a file that was replaced meanwhile
            shutil.copytree(folder, to, copy_function=copy, dirs_exist_ok=True, ignore=_sockets)
            return


def _sockets(where: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(where) / name).is_socket()]


def secrets_of(deployment: Deployment, models: Mapping[int, bytes], stolen: Path) -> dict[str, bytes]:
    """Return what only holders of keys may read, by what it is."""
    found: dict[str, bytes] = {"a header of safetensors": b'"dtype"'}
    found |= {"a PEM key": b"-----BEGIN PRIVATE KEY", "an EC key": b"-----BEGIN EC PRIVATE KEY"}
    found |= {f"the model after round {number}": model for number, model in models.items()}
    opener = opener_from_secret(deployment.opened(SERVER).age_secret)
    for path in stolen.glob("kits/server/runs/*/checkpoint.age"):
        found["the stolen model"] = Checkpoint.from_bytes(of_a_run(path.read_bytes(), opener)).model_P.tobytes()
    for name in deployment.parties:
        own = deployment.opened(name)
        found |= {f"{name}'s seed": own.seed, f"{name}'s seed in hexadecimal": own.seed.hex().encode()}
        found |= {f"{name}'s password of TLS": own.tls_password.encode()}
        found |= {f"{name}'s password of its node": own.node_password.encode()}
        found |= {f"{name}'s age key": own.age_secret.encode()}
    for path in stolen.glob("kits/server/runs/*/answers/*.age"):
        with suppress(OSError):
            data = of_a_run(path.read_bytes(), opener)
            if b"\n" in data and (words := data.partition(b"\n")[2]):
                # Of a message of any kind, its last third: masked words, shares, signatures.
                found[f"answer {path.stem}"] = words[-len(words) // 3 :][:64]
    for name, tensor in load(final_model(deployment)).items():
        if tensor.nbytes >= 16:
            found[f"the final model's {name}"] = tensor.astype("<f4").tobytes()
    return found


def final_model(deployment: Deployment) -> bytes:
    """Open the model as this code opens it."""
    own = opener_from_secret(deployment.opened(SERVER).age_secret)
    return read_sealed(deployment.folder / SEALED_MODEL, own)


def found_in(root: Path, secrets: Mapping[str, bytes], *, but: Callable[[Path], bool] = lambda _: False) -> list[str]:
    """Return which of them stands in which file."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file() or but(path):
            continue
        data = path.read_bytes()
        found += [f"{what} in {path.relative_to(root)}" for what, secret in secrets.items() if secret in data]
    return found


def test_a_run_completes_whatever_is_killed(survived: Survived) -> None:
    check(survived.deployment, survived.kills)
    assert all(kill.struck for kill in survived.kills)


def test_no_disk_holds_plaintext_after_a_run(survived: Survived) -> None:
    deployment = survived.deployment
    assert "the stolen model" in survived.secrets
    assert found_in(deployment.root, survived.secrets) == []
    # What is looked for is what is there for those who may read it.
    assert found_in(deployment.kits / "keys", {"a key file": b"AGE-SECRET-KEY-1"}) == [
        f"a key file in {name}.key" for name in sorted([*deployment.parties, "authority"])
    ]
    assert found_in(deployment.root, {"": b"AGE-SECRET-KEY-"}, but=lambda path: path.parent.name == "keys") == []
    final = [secret for what, secret in survived.secrets.items() if what.startswith("the final model's")]
    assert final
    assert all(secret in final_model(deployment) for secret in final)


def test_no_disk_holds_plaintext_in_the_middle_of_a_round_under_a_kill(survived: Survived) -> None:
    assert list(survived.stolen.glob("kits/server/runs/*/checkpoint.age"))
    assert any(what.startswith("answer ") for what in survived.secrets)
    assert found_in(survived.stolen, survived.secrets) == []
    assert found_in(survived.stolen, {"": b"AGE-SECRET-KEY-"}, but=lambda path: path.parent.name == "keys") == []


@pytest.mark.parametrize("when", ["after a kill", "after the run"])
def test_a_silos_records_are_in_its_own_table_and_sealed_in_its_cache(when: str, survived: Survived) -> None:
    root = survived.stolen if when == "after a kill" else survived.deployment.root
    caches = list(root.glob("kits/silos/*/cache/tumours.age"))
    assert len(caches) == len(SILOS)
    assert found_in(root, survived.records, but=lambda path: path.name == "tumours.csv") == []
    assert len(found_in(root, survived.records)) >= 2 * len(SILOS)
    own = survived.deployment.opened("north")
    cached = read_sealed(root / "kits/silos/north/cache/tumours.age", opener_from_secret(own.age_secret))
    assert survived.records["a scaled row of north's"] in cached


def test_everything_on_a_disk_is_its_owners_alone(survived: Survived) -> None:
    """Whatever the umask was, and whoever died while writing."""
    open_to_others = [path for path in survived.deployment.kits.rglob("*") if path.stat().st_mode & 0o077]
    assert [path for path in open_to_others if path.suffix not in (".md", ".service", ".csv")] == []


@tools.needed("age")
def test_the_ordinary_age_tool_opens_the_model(survived: Survived, tmp_path: Path) -> None:
    deployment = survived.deployment
    key, identity = deployment.kits / "keys" / "server.key", deployment.kits / "server" / "identity.age"
    command = f"age -d -i {key} {identity} | age -d -i - {deployment.folder / SEALED_MODEL} > model.safetensors"
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602 - the line that is told to people
    opened = (tmp_path / "model.safetensors").read_bytes()
    assert opened == final_model(deployment)
    assert sum(tensor.size for tensor in load(opened).values()) == len(MEASURES) + 1


# Below: `make test-chaos`.

DONE: list[Kill] = []


def plan_of(kind: str) -> list[Kill]:
    """Return kills of one kind of target in every stage, in an order that a run comes by.

    A silo that is not there when a run begins is left out of it, so another is hit in the later stages.
    """
    early, late = ("", "") if kind in ("server", "superlink", "coordinator") else ("east", "west")
    of = {"silo": "{}", "supernode": "{}/supernode", "executor": "{}/executor"}.get(kind, kind)
    plan = [Kill(of.format(early), stage) for stage in ("before", "join")]
    stages = ("share", "again", "train", "commit", "reveal", "between", "again")
    return [*plan, *(Kill(of.format(late), stage) for stage in stages)]


def mixed(seed: int) -> list[Kill]:
    """Return kills of anybody, anywhere."""
    chance = np.random.default_rng(seed)
    targets = ["server", "superlink", "coordinator"]
    targets += [f"{silo}{part}" for silo in SILOS for part in ("", "/supernode", "/executor")]
    stages = ["share", "train", "commit", "reveal", "between"]
    return [Kill(targets[chance.integers(len(targets))], stages[chance.integers(len(stages))]) for _ in range(8)]


@pytest.mark.chaos
@pytest.mark.parametrize("kind", TARGETS)
def test_one_target_is_killed_in_every_stage(kind: str, folder: Path) -> None:
    """What is no silo's leaves no trace but time: that is why its run waits long for silos to come back."""
    kills = plan_of(kind)
    scenario = scenario_of(folder, rounds=14, timeout_s=60.0 if kills[0].party == SERVER else 30.0)
    with up(scenario, folder) as deployment:
        Executioner(deployment, seed=len(kind)).carry_out(kills)
        assert deployment.outcome(600).completed, deployment.told()
    check(deployment, kills)
    DONE.extend(kills)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(2))
def test_anybody_is_killed_anywhere(seed: int, folder: Path) -> None:
    kills = mixed(seed)
    with up(scenario_of(folder, rounds=16, timeout_s=30.0), folder) as deployment:
        Executioner(deployment, seed).carry_out(kills)
        assert deployment.outcome(600).completed, deployment.told()
    lines = deployment.metrics()
    assert [line["round"] for line in lines] == list(range(1, 17))
    for silo in SILOS:
        assert sum(deployment.charges(silo).values()) <= 16
    assert leftovers(deployment.kits) == []
    DONE.extend(kills)


@pytest.mark.chaos
def test_fifty_kills_and_more_struck_every_target_in_every_stage() -> None:
    """Counts what the tests before it did, so it is skipped where one of them is not run, or failed."""
    if len(DONE) < len(TARGETS) * 9 + 2 * 8:
        pytest.skip(f"counts the kills of the whole module, and not all of it ran: {len(DONE)}")
    assert len(DONE) >= 50
    assert {(kill.kind, kill.stage) for kill in DONE} >= set(product(TARGETS, STAGES))
    stages = Counter(f"{kill.kind} at {kill.struck.rpartition(' ')[2]}" for kill in DONE)
    logging.getLogger(__name__).info("%d kills: %s", len(DONE), dict(sorted(stages.items())))


@pytest.mark.chaos
def test_a_network_that_is_cut_for_a_while_costs_a_round_at_most(folder: Path) -> None:
    with namespaces([SERVER, *SILOS], required=False) as network:
        if network is None:
            tools.require("ip")
            pytest.skip("network namespaces cannot be made here; that takes Linux and root")
        deployment = Deployment(folder, scenario_of(folder, rounds=60, timeout_s=30.0), network)
        with stopped_at_last(deployment):
            deployment.start()
            deployment.connected()
            deployment.submit()
            watch = Watch(deployment)
            for stage, seconds in ((wire.TRAIN, 3.0), (wire.SHARE, 25.0)):
                past = len(deployment.metrics())
                deadline = time.monotonic() + 300
                while not any(number > past and kind == stage for number, kind in watch.answers()):
                    assert time.monotonic() < deadline, deployment.told()
                    time.sleep(0.004)
                cut(network.names["east"], "down")
                time.sleep(seconds)
                cut(network.names["east"], "up")
            assert deployment.outcome(600).completed, deployment.told()
    check(deployment, [Kill("east", "train"), Kill("east", "share")])
    assert max(line["round"] for line in deployment.metrics() if "east" in line["dropouts"]) < 60
    assert deployment.parties["east"].log("supernode").count("connected to the server") >= 1


def cut(namespace: str, way: str) -> None:
    """Take a silo's cable down or up."""
    subprocess.run(["ip", "-n", namespace, "link", "set", "server", way], check=True)
