"""A real SuperLink and real SuperNodes, a process for every message: secure aggregation as a deployment runs it.

An exchange takes Flower six to eight seconds whatever it carries, so this is left out of the ordinary tests;
`make test-slow` runs it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import tomli_w

from fedmodel.config import read_scenario
from fedmodel.provision import provision
from scenarios.simulation.engines import flower
from tests.fakes import charged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SILOS = ("aurora", "borealis", "cascade", "dune")


def _wait_for(path: Path, words: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if path.exists() and words in path.read_text():
            return
        time.sleep(0.2)
    raise AssertionError(f"{words!r} did not appear in {path}")


@pytest.mark.parametrize("kill", [False, True], ids=["all stay", "one killed"])
def test_real_silos_aggregate_and_go_on_when_one_is_killed(kill: bool, tmp_path: Path) -> None:
    settings = ["rounds=3", "encryption.window=2", "federation.round_timeout_s=60.0"]
    scenario = read_scenario("hospitals", settings)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    provision(scenario, run_dir)
    flower.write_bundle(tmp_path / "fedmodel-app")
    port = flower.free_port()
    environment = flower.flower_environment(tmp_path / "flower-home", port)
    run_config = {"scenario": scenario.model_dump_json(exclude_none=True), "run-dir": str(run_dir), "device": "cpu"}
    (tmp_path / "run.toml").write_text(tomli_w.dumps(run_config), encoding="utf-8")
    with ExitStack() as stack:
        link = [flower.tool("flower-superlink"), "--insecure", "--isolation", "subprocess"]
        link += ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
        superlink = stack.enter_context(flower.running(link, tmp_path / "superlink", environment))
        flower.wait_healthy(superlink, port, tmp_path / "superlink" / "log")
        nodes = []
        for number, silo in enumerate(SILOS):
            node = [flower.tool("flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{port}"]
            node += ["--host", "127.0.0.1", "--port", str(flower.free_port())]
            node += ["--node-config", f'partition-id={number} num-partitions={len(SILOS)} home="{run_dir}"']
            nodes.append(stack.enter_context(flower.running(node, tmp_path / silo, environment)))
        asked = ["run", str(tmp_path / "fedmodel-app"), "here", "--run-config", str(tmp_path / "run.toml")]
        started = flower.flwr_json(asked, tmp_path / "superlink", environment)
        if kill:
            _wait_for(run_dir / "server.log", "round 1 of 3", timeout_s=300)
            family = [psutil.Process(nodes[3].pid), *psutil.Process(nodes[3].pid).children(recursive=True)]
            for one in family:
                os.kill(one.pid, signal.SIGKILL)
        status = flower.follow(str(started["run-id"]), tmp_path / "superlink", environment)
    assert status == "finished:completed", (run_dir / "server.log").read_text()
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert not any("failed" in line for line in lines)
    assert [line["threshold"] for line in lines] == [3] * 3
    gone = [set(line["dropouts"]) for line in lines]
    assert gone == [set(), {"dune"}, {"dune"}] if kill else gone == [set()] * 3
    for silo in SILOS:
        rounds = len(charged(run_dir / "ledgers" / f"{silo}.sqlite"))
        assert rounds == 3 or (kill and silo == "dune")
        # Nothing of it lies readable where the silo keeps its state.
        assert not list((run_dir / "silos" / silo).glob("*.partial"))
