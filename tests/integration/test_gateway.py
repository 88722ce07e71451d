"""What can be reached of a real server from outside: a real SuperLink, TLS, and every trick with paths that we know."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from flwr.proto.control_pb2 import ListRunsRequest
from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from fedmodel.wire.runtime import SocketControl, SocketRuntime
from tests.integration import authority
from tests.integration.deployed import wait_until
from tests.integration.served import Served, serving


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("north") as served:
        yield served


PROTOBUF = f"Content-Type: {PROTOBUF_MEDIA_TYPE}"
SECRET_PATHS = [
    "/v1/control/list-runs",
    "/v1/control/start-run",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/runtime/push-task-output",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/docs",
    "/openapi.json",
    "/",
]
TRICKS = [
    "//v1/control/list-runs",
    "/v1//control/list-runs",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/control%2flist-runs",
    "/%76%31/control/list-runs",
    "/v1/fleet/pull%2dmessages",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages?x=/v1/control/list-runs",
    "/v1/fleet/pull-messages;/../../control/list-runs",
    "/V1/CONTROL/LIST-RUNS",
    "/v1/Control/list-runs",
    "/v1/control/list-runs/",
    "/v1/fleet/pull-messages/../../control/list-runs",
    "\\v1\\control\\list-runs",
    "/health/../v1/control/list-runs",
    "http://127.0.0.1/v1/control/list-runs",
    "https://x/v1/fleet/../control/list-runs",
    "http://health@x/v1/control/list-runs",
    "/v1/fedmodel/roster/../../control/list-runs",
]


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
@pytest.mark.parametrize("path", SECRET_PATHS)
def test_only_what_nodes_call_is_there(served: Served, path: str, method: str) -> None:
    status, body = served.ask(f"{method} {path}", ListRunsRequest().SerializeToString(), PROTOBUF)
    assert (status, body) == (404, b"")


@pytest.mark.parametrize("path", TRICKS)
def test_no_way_of_writing_a_path_leads_round(served: Served, path: str) -> None:
    status, _ = served.ask(f"POST {path}", ListRunsRequest().SerializeToString(), PROTOBUF)
    assert status in (400, 404)


@pytest.mark.parametrize(
    "headers",
    [
        ("X-Original-URL: /v1/control/list-runs", "X-Rewrite-URL: /v1/control/list-runs"),
        ("X-Forwarded-Prefix: /v1/control", "X-Forwarded-Host: localhost", "X-Forwarded-For: 127.0.0.1"),
        ("X-HTTP-Method-Override: POST",),
    ],
)
def test_no_header_leads_round(served: Served, headers: tuple[str, ...]) -> None:
    status, body = served.ask("GET /health", b"", *headers)
    assert (status, body) == (200, b"")


def test_no_upgrade_leads_round(served: Served) -> None:
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
    for path in ("/v1/control/list-runs", "/v1/fleet/pull-messages", "/docs"):
        status, _ = served.ask(f"GET {path}", b"", *upgrade)
        assert status == 404


def test_what_is_open_is_open(served: Served) -> None:
    assert served.ask("GET /health")[0] == 200
    status, body = served.ask("GET /v1/fedmodel/roster")
    assert (status, json.loads(body)) == (200, json.loads((served.folder / "roster.json").read_text()))
    # It comes as far as Flower, which misses the node's signature.
    assert served.ask("POST /v1/fleet/pull-messages", b"", PROTOBUF)[0] == 401


def test_a_node_cannot_register_itself_even_with_its_key(served: Served) -> None:
    public = authority.public_node(served.folder, "south")
    request = RegisterNodeFleetRequest(public_key=public.encode()).SerializeToString()
    assert served.ask("POST /v1/fleet/register-node", request, PROTOBUF) == (404, b"")


def refused(served: Served, tls: ssl.SSLContext) -> str:
    """Return what a client that is not let in is told."""
    plain = socket.create_connection(("127.0.0.1", served.port), 120)
    with pytest.raises(ssl.SSLError) as told, tls.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        secure.recv(1)
    plain.close()
    return told.value.reason


def test_nobody_comes_in_without_a_certificate_of_the_authority(served: Served, tmp_path: Path) -> None:
    assert "CERTIFICATE_REQUIRED" in refused(served, authority.silo_tls(served.folder, None))
    other = authority.Authority(tmp_path, "another")
    other.issue("north")
    tls = authority.silo_tls(served.folder, None)
    tls.load_cert_chain(tmp_path / "north.pem", tmp_path / "north.key", authority.PASSWORD)
    assert "UNKNOWN_CA" in refused(served, tls)
    wait_until(lambda: "a client's certificate is refused" in served.log)


def test_no_older_tls_is_spoken(served: Served) -> None:
    tls = authority.silo_tls(served.folder, "north")
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "PROTOCOL_VERSION" in refused(served, tls)


def test_the_server_certificate_is_no_key_to_the_server(served: Served) -> None:
    """It is for servers; a thief of it is no silo."""
    tls = authority.silo_tls(served.folder, "server")
    assert refused(served, tls)


def test_refusals_are_logged(served: Served) -> None:
    served.ask("POST /v1/control/list-runs-of-others")
    wait_until(lambda: "refused at the gateway: POST '/v1/control/list-runs-of-others'" in served.log)


def test_the_socket_is_its_owners_alone_and_serves_all_of_it(served: Served) -> None:
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.socket.parent.stat().st_mode) == 0o700
    with SocketControl(served.socket) as control:
        assert len(control.ListRuns(ListRunsRequest()).run_dict) == 0


def test_no_task_without_the_secret(served: Served) -> None:
    runtime = SocketRuntime(served.socket, "flwr-serverapp", os.urandom(32))
    with runtime, pytest.raises(httpx.HTTPStatusError, match="401"):
        runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))


def test_nothing_else_listens(served: Served) -> None:
    ours = {one.pid for one in (psutil.Process(served.process.pid), *psutil.Process(served.process.pid).children(True))}
    listening = [
        connection.laddr
        for pid in ours
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    ]
    assert [tuple(address) for address in listening] == [("127.0.0.1", served.port)]


def test_a_certificate_that_is_revoked_while_the_server_runs_is_refused_and_others_are_not(served: Served) -> None:
    """Last in this file: it starts the server again."""
    wait_until(lambda: _comes_in(served, "south"))
    served.issuer.revoke("south")
    wait_until(lambda: not _comes_in(served, "south") and _comes_in(served, "north"))
    assert "CERTIFICATE_REVOKED" in refused(served, authority.silo_tls(served.folder, "south"))
    assert "is refused: certificate revoked" in served.log


def _comes_in(served: Served, silo: str) -> bool:
    try:
        with served.connect(silo) as secure:
            secure.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            return secure.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False
