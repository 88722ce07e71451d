"""A real server and real silos with small apps: messages, refusals, and what comes back after a kill."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from clients.connecting import find_obstacle
from fedmodel.wire.runtime import SocketControl
from tests.integration import authority
from tests.integration.deployed import free_port, outcome, started, submit, wait_until


@dataclass(frozen=True)
class Federation:
    """A folder with all keys, and a server that is up."""

    folder: Path
    issuer: authority.Authority
    port: int
    server: subprocess.Popen[bytes]

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def log(self, name: str) -> str:
        path = self.logs / name
        return path.read_text() if path.exists() else ""

    @contextmanager
    def silo(self, name: str = "north", *, certificate: str = "", code: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Start a silo; its certificate's name tells two of one name apart."""
        words = ("silo", str(self.folder), str(self.port), name, certificate or name, code)
        with started(*words, log=self.logs / f"{certificate or name}.out") as process:
            yield process

    def connected(self, name: str = "north", times: int = 1) -> None:
        wait_until(
            lambda: self.log(f"{name}.out").count("connected to the server") >= times,
            60,
            lambda: self.log(f"{name}.out"),
        )

    def nodes(self) -> dict[str, tuple[int, str]]:
        """Return number and status of every node, by silo."""
        with SocketControl(Path((self.folder / "server.socket").read_text())) as control:
            found = control.ListNodes(ListNodesRequest()).nodes_info
        return {node.name: (node.node_id, node.status) for node in found}


@pytest.fixture
def federation() -> Iterator[Federation]:
    with tempfile.TemporaryDirectory(prefix="fm-") as name:
        folder = Path(name)
        issuer = authority.Authority(folder)
        issuer.issue("server", host="127.0.0.1")
        for silo in ("north", "south", "stranger", "twin"):
            issuer.issue(silo)
            authority.new_node(folder, silo)
        authority.write_roster(folder, ("north", "south"))
        (folder / "logs").mkdir()
        (folder / "home" / "runs").mkdir(parents=True)
        port = free_port()
        with started("server", str(folder), str(port), log=folder / "logs" / "server.out") as process:
            found = Federation(folder, issuer, port, process)
            wait_until(lambda: "nodes are registered" in found.log("coordinator.log"))
            yield found


def answers(run: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((run / "answers.json").read_text())
    return found


def child(process: subprocess.Popen[bytes], log: str) -> int:
    """Return the process that writes to a log now."""
    found: list[int] = []

    def look() -> bool:
        for one in psutil.Process(process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(Path(file.path).name == log for file in one.open_files()):
                    found.append(one.pid)
        return bool(found)

    wait_until(look)
    return found[-1]


def test_messages_go_round_through_one_warm_process_of_installed_code(federation: Federation) -> None:
    with federation.silo("north") as north, federation.silo("south"):
        run = submit(federation.folder, "first", silos=2, times=5)
        assert outcome(run) == {"completed": True}
        said = answers(run)
        assert sorted(int(str(one["said"])) for one in said) == sorted([*range(5)] * 2)
        homes = {str(federation.folder / name) for name in ("north", "south")}
        assert {one["home"] for one in said} == homes
        pids = {one["home"]: {other["pid"] for other in said if other["home"] == one["home"]} for one in said}
        assert pids[str(federation.folder / "north")] == {child(north, "north-executor.log")}
        # Nothing of a silo listens on a network.
        family = psutil.Process(north.pid).children(recursive=True)
        assert [one for member in family for one in member.net_connections("inet") if one.status == "LISTEN"] == []
        # Nothing that came was unpacked.
        assert list((federation.folder / "flower").iterdir()) == []
        second = submit(federation.folder, "second", silos=2)
        assert outcome(second) == {"completed": True}


@pytest.mark.slow
def test_a_run_that_fails_by_our_rules_is_over_and_another_begins(federation: Federation) -> None:
    with federation.silo():
        failing = submit(federation.folder, "failing", fails=True)
        assert outcome(failing) == {
            "completed": False,
            "error": "this run fails, as asked",
            "code": "protocol-violated",
        }
        assert outcome(submit(federation.folder, "next")) == {"completed": True}


@pytest.mark.slow
def test_what_cannot_be_read_is_refused_with_its_reason(federation: Federation) -> None:
    run = federation.folder / "home" / "runs" / "broken"
    run.mkdir()
    (run / "run.json").write_text("{}")
    found = outcome(run)
    assert (found["completed"], found["code"]) == (False, "config-refused")


def test_a_bundle_of_other_code_is_refused_and_not_run(federation: Federation) -> None:
    with federation.silo("north", code="0" * 64):
        run = submit(federation.folder, "other", times=2)
        assert outcome(run) == {"completed": True}
        assert [one["error"] for one in answers(run)] == ["policy-refused"] * 2
        assert federation.log("north-executor.log").count("is refused: its code is") == 2


@pytest.mark.slow
def test_an_exception_of_the_app_is_a_code_for_the_server(federation: Federation) -> None:
    with federation.silo():
        run = submit(federation.folder, "unknown", kind="query.nothing_of_this_name")
        assert outcome(run) == {"completed": True}
        assert [one["error"] for one in answers(run)] == ["internal"]


@pytest.mark.slow
@pytest.mark.parametrize("log", ["north-supernode.log", "north-executor.log"])
def test_a_killed_part_of_a_silo_is_back_at_once(log: str, federation: Federation) -> None:
    """Flower takes a killed node for connected for a while, and refuses it; so it signs off before it signs in."""
    with federation.silo() as north:
        federation.connected()
        for life in range(2, 4):
            before = child(north, log)
            os.kill(before, signal.SIGKILL)
            federation.connected(times=life)
            assert outcome(submit(federation.folder, f"after-{life}")) == {"completed": True}
            assert child(north, log) != before
        assert "for it this silo is connected already" not in federation.log("north.out")
        assert federation.log("superlink.log").count("Deactivated node_id") >= 2


@pytest.mark.slow
def test_a_killed_superlink_is_back_and_the_run_is_taken_up_again(federation: Federation) -> None:
    with federation.silo():
        federation.connected()
        run = submit(federation.folder, "long", times=60)
        for _ in range(2):
            wait_until(lambda: (run / "answers.json").exists() and len(answers(run)) >= 3)
            (run / "answers.json").unlink()
            os.kill(child(federation.server, "superlink.log"), signal.SIGKILL)
        assert outcome(run) == {"completed": True}
        assert len(answers(run)) == 60


@pytest.mark.slow
def test_a_killed_coordinator_leaves_silos_connected_and_takes_the_run_up_again(federation: Federation) -> None:
    with federation.silo():
        federation.connected()
        run = submit(federation.folder, "long", times=40)
        wait_until(lambda: (run / "answers.json").exists() and len(answers(run)) >= 3)
        os.kill(child(federation.server, "coordinator.log"), signal.SIGKILL)
        assert outcome(run) == {"completed": True}
        assert federation.log("north.out").count("connected to the server") == 1


@pytest.mark.slow
def test_a_silo_waits_for_its_server(federation: Federation, tmp_path: Path) -> None:
    shutil.copytree(federation.folder, tmp_path / "later", dirs_exist_ok=True)
    later = Federation(tmp_path / "later", federation.issuer, free_port(), federation.server)
    with later.silo() as north:
        wait_until(lambda: "no server listens there" in later.log("north.out"))
        assert north.poll() is None
        with started("server", str(later.folder), str(later.port), log=later.logs / "server.out"):
            later.connected()


@pytest.mark.slow
def test_the_second_of_one_key_is_refused_while_the_first_is_up(federation: Federation) -> None:
    with federation.silo("north") as north:
        federation.connected()
        first = federation.nodes()["north"]
        with federation.silo("north", certificate="twin") as twin:
            wait_until(lambda: "connected already" in federation.log("twin.out"))
            assert federation.nodes()["north"] == first
            assert outcome(submit(federation.folder, "meanwhile", times=3)) == {"completed": True}
            assert "connected to the server" not in federation.log("twin.out")
            assert (north.poll(), twin.poll()) == (None, None)
            north.send_signal(signal.SIGTERM)
            federation.connected("twin")


def test_a_node_that_is_not_registered_is_told_so_and_ends(federation: Federation) -> None:
    with federation.silo("stranger") as stranger:
        assert stranger.wait(300) == 2
    assert "error: this silo is not registered" in federation.log("stranger.out")
    assert "Traceback" not in federation.log("stranger.out")
    assert "stranger" not in federation.nodes()


@pytest.mark.slow
def test_a_silo_that_is_added_to_the_roster_comes_in(federation: Federation) -> None:
    with federation.silo("north"):
        federation.connected()
        authority.write_roster(federation.folder, ("north", "south", "stranger"))
        wait_until(lambda: "3 nodes are registered" in federation.log("coordinator.log"))
        with federation.silo("stranger"):
            federation.connected("stranger")
            federation.connected("north", times=2)
            assert outcome(submit(federation.folder, "three", silos=2)) == {"completed": True}


@pytest.mark.slow
def test_a_silo_that_is_revoked_while_it_is_connected_is_told_so_and_is_heard_no_more(federation: Federation) -> None:
    with federation.silo("north"), federation.silo("south"):
        federation.connected("north")
        federation.connected("south")
        federation.issuer.revoke("south")
        wait_until(lambda: "our certificate was revoked" in federation.log("south.out"))
        federation.connected("north", times=2)
        assert federation.nodes()["south"][1] != "online"


def test_every_refusal_has_its_own_line(federation: Federation, tmp_path: Path) -> None:
    look = authority.looked(federation.folder, "north")
    here = f"127.0.0.1:{federation.port}"

    def line(address: str, tls: ssl.SSLContext, *, lasting: bool = True) -> str:
        found = find_obstacle(address, tls, look)
        assert found is not None
        assert found.lasting is lasting
        return found.line

    good = authority.silo_tls(federation.folder, "north")
    assert find_obstacle(here, good, look) is None
    other = authority.Authority(tmp_path / "other", "other")
    other.issue("north")
    assert "certificate is not of this federation's authority" in line(here, authority.silo_tls(other.folder, "north"))
    foreign = authority.silo_tls(federation.folder, None)
    assert "none was shown" in line(here, foreign)
    foreign.load_cert_chain(other.folder / "north.pem", other.folder / "north.key", authority.PASSWORD)
    assert "does not know our certificate's authority" in line(here, foreign)
    federation.issuer.issue("late", days=(-60, -1))
    assert "our certificate has expired" in line(here, authority.silo_tls(federation.folder, "late"))
    assert "certificate is for another host" in line(f"localhost:{federation.port}", good)
    assert "is not known here" in line("no-such-host.invalid:1", good)
    assert "no server listens there" in line(f"127.0.0.1:{free_port()}", good, lasting=False)


def test_a_request_that_was_signed_with_a_clock_off_by_an_hour_is_refused(federation: Federation) -> None:
    node_id = federation.nodes()["north"][0]
    private, public = (read(federation.folder, "north") for read in (authority.read_node, authority.public_node))
    request = SendNodeHeartbeatRequest(node=Node(node_id=node_id), heartbeat_interval=10).SerializeToString()

    def status(off: timedelta) -> int:
        timestamp = (datetime.now(UTC) + off).isoformat()
        signature = private.sign(timestamp.encode(), ec.ECDSA(hashes.SHA256()))
        headers = {
            "content-type": PROTOBUF_MEDIA_TYPE,
            "accept": PROTOBUF_MEDIA_TYPE,
            TIMESTAMP_HEADER: timestamp,
            FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(public.encode()).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        }
        tls = authority.silo_tls(federation.folder, "north")
        with httpx.Client(verify=tls, trust_env=False) as client:
            url = f"https://127.0.0.1:{federation.port}/v1/fleet/send-node-heartbeat"
            return client.post(url, content=request, headers=headers).status_code

    hour = timedelta(hours=1)
    assert [status(off) for off in (timedelta(), hour, -hour)] == [200, 401, 401]


def test_all_ends_on_an_interrupt(federation: Federation) -> None:
    with federation.silo() as north:
        federation.connected()
        family = [*psutil.Process(north.pid).children(True), *psutil.Process(federation.server.pid).children(True)]
        assert len(family) == 4
        for process in (north, federation.server):
            process.send_signal(signal.SIGINT)
        for process in (north, federation.server):
            process.wait(300)
        assert [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
