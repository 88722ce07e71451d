"""Silos over the nodes of a Ray cluster: the run that one process makes, also where a node is killed in a round."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import ray.exceptions

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, DataError, FedmodelError
from fedmodel.learning.models import parameters_of
from fedmodel.secagg import FRESH
from fedmodel.system.packages import PACKAGES, package_folder
from scenarios.runs.event_book import BOOK, read_book
from scenarios.simulation import on_a_node, over_nodes
from scenarios.simulation.engines import Simulation, engine_of
from scenarios.simulation.on_a_node import Worker, installed
from scenarios.simulation.over_nodes import ADDRESS, OverNodes
from scenarios.simulation.prepared import prepare
from tests.rays import Node, node

SETTINGS = ["federation.silos=9", "data.records=400", "data.partition.min_records=10", "privacy.noise=seeded-unsafe"]
ONE_BY_ONE = [*SETTINGS, 'model={kind="mlp",hidden=[3],dropout=0.5}']
GONE = ray.exceptions.ActorDiedError


@pytest.fixture(params=[SETTINGS, ONE_BY_ONE], ids=["stacked", "one by one"])
def scenario(request: pytest.FixtureRequest, tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), request.param)


@dataclass(frozen=True, eq=False)
class Call:
    """What stands for what a worker will return."""

    place: int
    worker: Any
    name: str
    given: tuple[Any, ...]


class Cluster:
    """What `ray` is to `over_nodes`, in this process: calls that run when they are waited for, in the order of asking.

    Attributes:
        dies: Whether a node is gone, once a worker of it was asked to train some silos.
        ended: Workers that were killed, by their place.
    """

    exceptions = ray.exceptions

    def __init__(self, nodes: Sequence[int], dies: Callable[[int, Sequence[str]], bool] = lambda *_: False) -> None:
        self._cores, self.dies, self.ended, self.trained = nodes, dies, list[int](), list[tuple[int, str]]()
        self.workers: list[SimpleNamespace] = []
        self._dead: set[int] = set()
        self.change: Callable[[int, str, Any], Any] = lambda place, method, found: found

    def is_initialized(self) -> bool:
        return False

    def init(self, *_: object, **__: object) -> None:
        """Connect."""

    def shutdown(self) -> None:
        """Leave."""

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": f"{place + 1:056x}",
                "NodeManagerAddress": f"node-{place}",
                "Alive": True,
                "Resources": {"CPU": float(cores)},
            }
            for place, cores in enumerate(self._cores)
        ]

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **options: Any) -> Callable[[type], Any]:
        assert options == {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
        return lambda kind: SimpleNamespace(options=lambda scheduling_strategy: self._make(kind, scheduling_strategy))

    def _make(self, kind: type, there: Any) -> Any:
        assert there.soft is False
        place, worker = int(there.node_id, 16) - 1, kind()

        def method(name: str) -> Any:
            return SimpleNamespace(remote=lambda *given: Call(place, worker, name, given))

        actor = SimpleNamespace(place=place, **{one: method(one) for one in ("installed", "told", "built", "round")})
        self.workers.append(actor)
        return SimpleNamespace(remote=lambda: actor)

    def wait(self, asked: list[Any], num_returns: int, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
        return asked[:num_returns], []

    def get(self, ref: Any) -> Any:
        place, worker, name, given = ref.place, ref.worker, ref.name, ref.given
        if name == "round":
            self.trained += [(place, silo) for silo in given[1]]
            if place in self._dead or self.dies(place, given[1]):
                self._dead.add(place)
                raise GONE
        return self.change(place, name, getattr(worker, name)(*given))

    def kill(self, actor: Any) -> None:
        self.ended.append(actor.place)


@contextmanager
def over(scenario: Scenario, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[OverNodes]:
    """Train a scenario's silos on a cluster in this process."""
    monkeypatch.setattr(over_nodes, "ray", cluster)
    told = Simulation(scenario, Path("r"), "cpu", "").run_config
    trainer = OverNodes(scenario, told, parameters_of(scenario.model, scenario.data.shape))
    try:
        yield trainer
    finally:
        trainer.close()
        assert sorted(cluster.ended) == sorted(one.place for one in cluster.workers)


def rounds(trainer: Any, scenario: Scenario, cohorts: Sequence[Sequence[str]]) -> list[dict[str, bytes]]:
    """Return the updates of some rounds, each from another model."""
    model_P = np.zeros(parameters_of(scenario.model, scenario.data.shape), dtype=np.float32)
    found = []
    for number, cohort in enumerate(cohorts, start=1):
        trained = trainer.round(number, cohort, model_P + np.float32(number), FRESH)
        assert list(trained.updates) == list(cohort)
        found.append({silo: update.tobytes() for silo, update in trained.updates.items()})
    return found


def here(scenario: Scenario) -> Worker:
    """Return a worker that trains in this process."""
    worker = Worker()
    worker.told(Simulation(scenario, Path("r"), "cpu", "").run_config)
    worker.built()
    return worker


def test_updates_are_those_of_one_process_also_of_a_node_that_is_lost(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The lost node has trained when it is lost: noise is seeded, so that what is trained anew is the same."""
    silos = scenario.federation.silos
    cohorts, cluster, hit = [silos, silos[2:7], silos], Cluster([1, 1]), list[int]()

    def dies(place: int, asked: Sequence[str]) -> bool:
        """Return whether a node is the first that is asked in the second round."""
        if len(cluster.trained) == len(silos) + len(asked):
            hit.append(place)
        return place in hit

    cluster.dies = dies
    with caplog.at_level(logging.WARNING), over(scenario, cluster, monkeypatch) as trainer:
        assert rounds(trainer, scenario, cohorts) == rounds(here(scenario), scenario, cohorts)
    (lost,) = hit
    assert len(cluster.trained) > sum(map(len, cohorts))
    assert {place for place, _ in cluster.trained[-len(silos) :]} == {1 - lost}
    assert f"node node-{lost} is lost (ActorDiedError); what its workers had is trained anew, by the" in caplog.text
    assert not any(silo in caplog.text for silo in silos)


def test_a_run_whose_last_node_is_lost_fails_in_a_sentence(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = read_scenario(str(tiny_file), SETTINGS)
    with (
        over(scenario, Cluster([1, 1], lambda *_: True), monkeypatch) as trainer,
        pytest.raises(FedmodelError, match=r"^the last node of the Ray cluster is lost; the run goes on from its last"),
    ):
        rounds(trainer, scenario, [scenario.federation.silos])


@pytest.mark.parametrize(
    ("method", "found", "told"),
    [
        (
            "installed",
            lambda found: {**found, "code": "0" * 64},
            "node node-1 has code 0000000000000000, and this",
        ),
        ("installed", lambda found: {**found, "torch": "1.0"}, "node node-1 has torch 1.0, and this process"),
        ("installed", lambda found: {"code": found["code"]}, "node node-1 has python None, and this process"),
        ("told", lambda found: ("0" * 64, found[1]), "node node-1 has other code of a user's own than this process"),
        ("told", lambda found: (found[0], "0" * 64), "node node-1 has other records than this process"),
    ],
)
def test_a_node_with_other_code_packages_or_records_is_refused_and_all_workers_end(
    method: str,
    found: Callable[[Any], Any],
    told: str,
    tiny_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster([1, 1])
    cluster.change = lambda place, name, value: found(value) if (place, name) == (1, method) else value
    monkeypatch.setattr(over_nodes, "ray", cluster)
    monkeypatch.setenv(ADDRESS, "")
    monkeypatch.setattr(over_nodes, "check_answers", lambda: None)
    prepared = prepare(tiny_file, SETTINGS, "ray", "cpu", tmp_path / "r")
    with pytest.raises(ConfigError, match=rf"^{told}"), prepared.held() as run_dir:
        prepared.run(run_dir, nullcontext())
    assert read_book(tmp_path / "r" / BOOK).rounds == ()
    assert sorted(cluster.ended) == [0, 1]
    assert cluster.trained == []


def test_what_a_workers_code_refuses_is_told_as_it_is(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, cluster = read_scenario(str(tiny_file), SETTINGS), Cluster([1])
    refused = ray.exceptions.RayTaskError("built", "a trace\nof many lines", DataError("silo north has too many"))

    def change(_: int, name: str, value: Any) -> Any:
        if name == "built":
            raise refused
        return value

    cluster.change = change
    with pytest.raises(DataError, match=r"^silo north has too many$"), over(scenario, cluster, monkeypatch):
        pass


def test_a_worker_is_there_for_each_core_nodes_in_turn_and_for_four_silos_at_least(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "built", lambda self: None)
    for silos, cores, places in ((9, [1, 4], [0, 1]), (3, [2, 2], [0]), (40, [1, 3], [0, 1, 1, 1])):
        scenario = read_scenario(str(tiny_file), [*SETTINGS, f"federation.silos={silos}", "data.records=2000"])
        cluster = Cluster(cores)
        with over(scenario, cluster, monkeypatch):
            assert [one.place for one in cluster.workers] == places
    with (
        pytest.raises(ConfigError, match=r"^no node of the Ray cluster has 1 cores for a worker"),
        over(scenario, Cluster([0, 0]), monkeypatch),
    ):
        pass


def test_a_worker_hashes_what_it_was_dealt_and_its_code(tiny: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(scenario: Scenario) -> tuple[str, str]:
        return Worker().told(Simulation(scenario, Path("r"), "cpu", "").run_config)

    code, records = told(tiny)
    other = tiny.model_copy(update={"seed": 6})
    assert told(tiny) == (code, records)
    assert told(other)[0] == code
    assert told(other)[1] != records
    monkeypatch.setattr(on_a_node, "code_of", lambda _: "another")
    assert told(tiny) == ("another", records)
    assert installed()["torch"]
    assert "pytest" not in installed()


@contextmanager
def answering(words: bytes) -> Iterator[str]:
    """Answer one caller, and return where."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            caller, _ = server.accept()
            with caller:
                caller.recv(64)
                caller.sendall(words)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_an_address_where_no_cluster_answers_is_refused_before_anything_is_written(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(address: str) -> str:
        monkeypatch.setenv(ADDRESS, address)
        with pytest.raises(ConfigError) as found:
            prepare(tiny_file, SETTINGS, "ray", "cpu", tmp_path / "r")
        assert not (tmp_path / "r").exists()
        return str(found.value)

    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    assert refused(address).startswith(f"{ADDRESS}={address}: nothing answers there (")
    for address in ("nonsense", ":6379", "127.0.0.1:", "127.0.0.1:six"):
        assert refused(address) == f"{ADDRESS}={address}: is no address; write the head's, as in 10.0.0.1:6379"
    assert "nothing answers there" in refused("127.0.0.1:65536")
    for words in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        with answering(words) as address:
            assert "what answers there is no head of a Ray cluster" in refused(address)
    with answering(bytes((0, 0, 18, 4, 0, 0, 0, 0, 0))) as address:
        monkeypatch.setenv(ADDRESS, address)
        over_nodes.check_answers()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["training.keep_optimizer_state=true", "training.momentum=0.9"],
            "training.keep_optimizer_state: --engine ray",
        ),
        (["budgets.silo-0001=9.0"], "budgets: --engine ray does not take it"),
    ],
)
def test_what_it_does_not_take_is_refused_by_name(
    settings: list[str], told: str, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    with pytest.raises(ConfigError, match=rf"^{told}"):
        prepare(tiny_file, [*SETTINGS, *settings], "ray", "cpu", tmp_path / "r")
    scenario = read_scenario(str(tiny_file), SETTINGS)
    with pytest.raises(ConfigError, match=r"^--device cuda:1: --engine ray trains on processors; take --device cpu$"):
        engine_of("ray").carry(Simulation(scenario, tmp_path / "r", "cuda:1", ""))
    assert not (tmp_path / "r").exists()


DOOMED = """
import os, sys, psutil
from contextlib import nullcontext
from pathlib import Path
import ray
from scenarios.simulation.over_nodes import OverNodes
from scenarios.simulation.prepared import prepare

file, out, node, *settings = sys.argv[1:]
top = psutil.Process(int(node))
waiting, real = [], OverNodes.round


def wait(*given, **named):
    if waiting:
        waiting.pop()
        for one in [top, *top.children(recursive=True)]:
            one.kill()
    return ray_wait(*given, **named)


def round(self, number, *given):
    if number == 2:
        for one in [top, *top.children(recursive=True)]:
            one.suspend()  # what it is asked now it never answers
        waiting.append(number)
    return real(self, number, *given)


ray_wait, ray.wait, OverNodes.round = ray.wait, wait, round
prepared = prepare(file, settings, "ray", "cpu", Path(out))
with prepared.held() as run_dir:
    prepared.run(run_dir, nullcontext())
"""


@pytest.fixture
def head() -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # of a short name: sockets lie in it
    with node(folder) as began:
        yield began
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SETTINGS, ONE_BY_ONE], ids=["stacked", "one by one"])
def test_a_run_goes_on_without_a_node_that_was_killed_in_a_round_and_ends_as_one_without(
    settings: list[str], head: Node, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS, head.address)
    three = [*settings, "rounds=3"]
    with node(tmp_path, head.address) as second:
        done = subprocess.run(
            [sys.executable, "-c", DOOMED, str(tiny_file), str(tmp_path / "ray"), str(second.process.pid), *three],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert second.process.wait(60) == -signal.SIGKILL
    prepared = prepare(tiny_file, three, "vectorised", "cpu", tmp_path / "one")
    with prepared.held() as run_dir:
        prepared.run(run_dir, nullcontext())
    one, other = tmp_path / "one", tmp_path / "ray"
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert read_book(one / BOOK).rounds == read_book(other / BOOK).rounds
    rows = [json.loads((folder / "summary.json").read_bytes())["privacy"] for folder in (one, other)]
    assert rows[0] == rows[1]
    assert " is lost (" in (other / "server.log").read_text(encoding="utf-8")
    left = [process for process in head.processes() if "ray::Worker" in " ".join(process.cmdline())]
    psutil.wait_procs(left, timeout=60)
    assert not [process for process in left if process.is_running()]


@pytest.mark.slow
def test_a_node_with_another_file_is_refused_by_a_real_cluster_and_nothing_is_charged(
    head: Node, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS, head.address)
    for package in PACKAGES:
        shutil.copytree(
            package_folder(package), tmp_path / "other" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    with (tmp_path / "other" / "fedmodel" / "seeds.py").open("a", encoding="utf-8") as file:
        file.write("# another line\n")
    with node(tmp_path, head.address, {"PYTHONPATH": str(tmp_path / "other")}):
        done = subprocess.run(
            [str(Path(sys.executable).parent / "fedmodel"), "simulate", str(tiny_file), "--engine", "ray", "--out", "r",
             *(word for one in SETTINGS for word in ("--set", one))],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == ConfigError.exit_status, done.stderr
    assert " has code " in done.stderr
    assert read_book(tmp_path / "r" / BOOK).rounds == ()
