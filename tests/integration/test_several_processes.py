"""A deployed silo that trains in several processes, as a service: it is in the masked sum, and loses no more by a kill.

Server, TLS, supervisors, secure aggregation and noise are real. The process that is killed is held in the middle of a
step first, by what Python runs as it starts: so the kill comes after the charge and before the end of the sum, however
fast the machine is. It is killed from outside, with SIGKILL.

That several processes release to the bit what one does: `tests/fedmodel/learning/test_ranks.py`. A whole run with
such a silo is among the ordinary tests: `test_refusals`.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from fedmodel.config import read_scenario
from fedmodel.errors import FedmodelError
from fedmodel.provision.kits import LAW
from tests.conftest import TINY
from tests.integration.chaos import Deployment, stopped_at_last
from tests.integration.deployed import wait_until

SETTINGS = [
    "rounds=3", "federation.tolerated_failures=0", "federation.round_timeout_s=120.0", "encryption.colluding=0",
    "encryption.secure_aggregation=on", "encryption.bound=50.0", "data.partition.min_records=10",
    "privacy.sample_rate=1.0", "training.max_physical_batch=4",
]  # fmt: skip
# A process is asked to begin when it is compared with the first one, and then for each round: the third is round 2.
_HOLD = """
import os, signal, sys

class Holding:
    def find_spec(self, name, path=None, target=None):
        if name != "fedmodel.learning.jobs._rank":
            return None
        sys.meta_path.remove(self)
        import importlib.util
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def then(module):
            execute(module)
            hold(module._Rank)
        spec.loader.exec_module = then
        return spec

def hold(rank):
    does, asked_for = rank.do, []
    def do(self, asked, values):
        asked_for.append(asked["do"])
        if asked["do"] == "batch" and asked_for.count("begin") == 3 and asked_for[-3:-1] == ["batch", "step"]:
            with open(HELD + ".partial", "w") as file:
                file.write(str(os.getpid()))
            os.replace(HELD + ".partial", HELD)
            signal.pause()
        return does(self, asked, values)
    rank.do = do

if "clients.start" in sys.orig_argv:
    sys.meta_path.insert(0, Holding())
"""


@pytest.mark.slow
def test_a_process_that_is_killed_in_mid_step_costs_its_silo_that_round_and_one_charge() -> None:
    with tempfile.TemporaryDirectory(prefix="fm-") as name:
        folder = Path(name)
        held, site = folder / "held", folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(f"HELD = {str(held)!r}\n{_HOLD}", encoding="utf-8")
        (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
        deployment = Deployment(folder, read_scenario(str(folder / "tiny.toml"), SETTINGS), beside=site)
        law = deployment.parties["north"].kit / LAW
        law.write_text(f"processes = 2\n{law.read_text(encoding='utf-8')}", encoding="utf-8")
        with stopped_at_last(deployment):
            deployment.start()
            for silo in ("north", "south", "west"):
                party = deployment.parties[silo]
                wait_until(lambda party=party: "connected to the server" in party.log("supernode"), 300)  # type: ignore[misc]
            deployment.submit()
            wait_until(held.exists, 300, deployment.told)
            assert deployment.charges("north") == {1: 1, 2: 1}
            os.kill(int(held.read_text()), signal.SIGKILL)
            assert deployment.outcome(300).completed, deployment.told()
            assert [(line["round"], line["dropouts"]) for line in deployment.metrics()] == [
                (1, {}),
                (2, {"north": FedmodelError.code}),
                (3, {}),
            ]
            for silo in ("north", "south", "west"):
                assert deployment.charges(silo) == {1: 1, 2: 1, 3: 1}, silo
            said = deployment.parties["north"].kit / "logs" / "north.log"
            assert said.read_text(encoding="utf-8").count("process 1 ended, of the 2 that train for this silo") == 1
