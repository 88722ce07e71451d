"""One silo that takes all it can get, at a real server's port, while another is served as ever.

`south` is hostile, and has a certificate and a node of the federation; `north` is honest. Deadlines are a few seconds
here, and all else as it is deployed. What is asserted holds however slow the machine is: that north is answered, that
south is closed or refused, and by which rule, and that memory stays below a bound.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from server.share import Limits
from tests.integration import authority
from tests.integration.deployed import hasty, outcome, started, submit, wait_until
from tests.integration.served import Served, answered, serving

MIB = 2**20
# One share: 32 MiB on their way, of which Flower makes up to four copies; 16 connections with all their buffers full.
MOST_GROWTH = (32 * 4 + 16 * 2 + 96) * MIB
HALF = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nX-Slow: "
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
ROSTER = b"GET /v1/fedmodel/roster HTTP/1.1\r\nHost: x\r\n\r\n"
PUSH = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (32 * MIB)
ENOUGH_S = 120.0  # for what takes a deadline of two or three seconds, on however busy a machine


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("north", "south", role="hasty-server", padding_bytes=24 * MIB) as served:
        yield served


def superlink(served: Served) -> psutil.Process:
    """Return the process that has the port."""
    parent = psutil.Process(served.process.pid)
    listening = (
        one
        for one in (parent, *parent.children(recursive=True))
        if any(connection.status == psutil.CONN_LISTEN for connection in one.net_connections("inet"))
    )
    return next(listening)


@pytest.fixture(autouse=True)
def memory(served: Served) -> Iterator[None]:
    """Whatever is tried, the server's memory grows by no more than one share."""
    process = superlink(served)
    before = process.memory_info().rss
    yield
    assert superlink(served) == process, "the server was started again"
    assert process.memory_info().rss - before < MOST_GROWTH


class NodeOf:
    """A silo's node, which asks what it is told to ask."""

    def __init__(self, served: Served, silo: str) -> None:
        self._served, self._silo = served, silo
        self._key = authority.read_node(served.folder, silo)
        self.node = Node()

    def call(self, path: str, body: bytes) -> tuple[int, bytes]:
        moment = now().isoformat()
        signature = sign_message(self._key, moment.encode())
        headers = {
            **dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()),
            "Content-Type": PROTOBUF_MEDIA_TYPE,
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(self._key.public_key())).decode(),
            TIMESTAMP_HEADER: moment,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
        }
        fields = (f"{name}: {value}" for name, value in headers.items())
        return self._served.ask(f"POST /v1/fleet/{path}", body, *fields, silo=self._silo)

    def activate(self) -> None:
        request = ActivateNodeRequest(public_key=public_key_to_bytes(self._key.public_key()), heartbeat_interval=60)
        status, body = self.call("activate-node", request.SerializeToString())
        assert status == 200, body
        self.node = Node(node_id=ActivateNodeResponse.FromString(body).node_id)

    def pull(self) -> PullMessagesResponse:
        status, body = self.call("pull-messages", PullMessagesRequest(node=self.node).SerializeToString())
        assert status == 200, body
        return PullMessagesResponse.FromString(body)


@pytest.fixture(scope="module")
def north(served: Served) -> NodeOf:
    node = NodeOf(served, "north")
    node.activate()
    return node


def served_as_ever(north: NodeOf, served: Served, times: int = 5) -> None:
    """North gets all that it asks for, each time from a new connection."""
    for _ in range(times):
        north.pull()
        assert served.ask("GET /health")[0] == 200


def is_closed(connection: ssl.SSLSocket | socket.socket) -> bool:
    """Return whether the server ended a connection; what it said before is passed over."""
    connection.settimeout(ENOUGH_S)
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def trickle(slow: ssl.SSLSocket) -> None:
    """Send a byte every now and then, until the server ends the connection."""
    deadline = time.monotonic() + ENOUGH_S
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            slow.sendall(b"x")
            time.sleep(0.1)
        pytest.fail("the server waits for ever")


@contextmanager
def many(
    served: Served, count: int, says: bytes = b"", source: str = "", receive_bytes: int = 0
) -> Iterator[list[ssl.SSLSocket]]:
    """Hold so many of south's connections, as far as they are let in, each after it has said something."""
    with ExitStack() as held:
        opened = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                opened.append(held.enter_context(served.connect("south", source, receive_bytes)))
                opened[-1].sendall(says)
        yield opened


def refused_for(served: Served, rule: str) -> None:
    """The log names south and the rule."""
    wait_until(lambda: f"refused: silo 'south': {rule}" in served.log, why=lambda: served.log[-2_000:])


def test_half_headers_keep_nobody_out(served: Served, north: NodeOf) -> None:
    """The successor of sixty half headers that used to count against everybody for as long as it liked."""
    with many(served, 60, HALF, source="127.0.0.2") as held:
        served_as_ever(north, served)
        refused_for(served, f"more than {Limits.connections} connections")
        assert all(is_closed(connection) for connection in held)


def test_a_connection_past_the_share_is_told_so(served: Served, north: NodeOf) -> None:
    with many(served, Limits.connections) as held:
        assert len(held) == Limits.connections
        with served.connect("south") as one_more:
            status, body = answered(one_more)
        assert (status, body) == (429, b'{"detail":"more than %d connections"}' % Limits.connections)
        served_as_ever(north, served)
    wait_until(lambda: served.ask("GET /health", silo="south")[0] == 200)  # as soon as it has fewer


def test_connections_far_past_the_share_are_not_even_told(served: Served, north: NodeOf) -> None:
    """Who is told stays until it has read that, or until a deadline: so few are, and the rest are closed at once."""
    limits, begun = hasty(2, 1_024), time.monotonic()
    with many(served, limits.connections + 40, source="127.0.0.7") as held:
        took_s = time.monotonic() - begun
        told = sum(reads(connection).startswith(b"HTTP/1.1 429") for connection in held[limits.connections :])
        served_as_ever(north, served)
    assert told <= limits.turned_away * (1 + took_s / limits.closing_s)


def reads(connection: ssl.SSLSocket) -> bytes:
    """Return what the server said on a connection that it closes."""
    try:
        return connection.recv(65_536)
    except OSError:
        return b""


def test_a_header_that_trickles_is_not_waited_for(served: Served, north: NodeOf) -> None:
    with served.connect("south") as slow:
        slow.sendall(HALF)
        trickle(slow)
    served_as_ever(north, served)


def test_an_idle_connection_is_closed(served: Served) -> None:
    with served.connect("south") as idle:
        assert is_closed(idle)
    with served.connect("south") as idle:
        idle.sendall(HEALTH)
        assert is_closed(idle)


def test_a_body_that_trickles_is_not_waited_for(served: Served, north: NodeOf) -> None:
    with served.connect("south") as slow:
        slow.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n")
        trickle(slow)
    refused_for(served, "a request's body that comes too slowly")
    served_as_ever(north, served)


def test_bodies_that_were_announced_and_do_not_come_take_one_share_alone(served: Served, north: NodeOf) -> None:
    """Each tells of 32 MiB: the second waits for the first, and nobody waits for south."""
    with many(served, 8, PUSH + bytes(8_192)):
        served_as_ever(north, served)


def test_who_does_not_read_is_left(served: Served, north: NodeOf) -> None:
    """The answer is larger than all that the kernel keeps for a connection, on both sides."""
    with many(served, 8, ROSTER, receive_bytes=4_096):
        served_as_ever(north, served)
        refused_for(served, "an answer that is read too slowly")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /v1/fleet/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 404),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", 400),
        (b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % 2**62, 413),
        (b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (33 * MIB), 413),
        (b"POST /v1/fleet/push-messages HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % MIB, 413),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", 413),
        (b"GET /v1/fedmodel/roster HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (
            b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Encoding: gzip\r\n\r\n",
            415,
        ),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100_000 + b"\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 15_000 + b"\r\nY: " + b"b" * 15_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * MIB + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 404),
        (b"GET /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 404),
        (b"HEAD /anything HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /unknown HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", 404),
    ],
)
def test_what_no_silo_sends_is_refused_and_the_connection_closed(
    served: Served, north: NodeOf, head: bytes, status: int
) -> None:
    with served.connect("south") as odd:
        with contextlib.suppress(OSError):  # closed before all of it was sent
            odd.sendall(head)
        told = odd.recv(12)
        assert told == b"HTTP/1.1 %d" % status
        assert is_closed(odd)
    served_as_ever(north, served, 1)


def test_requests_that_do_not_wait_for_answers_end_the_connection(served: Served, north: NodeOf) -> None:
    with served.connect("south") as ahead, contextlib.suppress(OSError):
        ahead.sendall(HEALTH * 1_000)
        assert is_closed(ahead)
    refused_for(served, "a request before the last one was answered")
    served_as_ever(north, served)


def test_a_request_after_an_answer_whose_end_is_still_to_come_is_answered(served: Served) -> None:
    """An answer's length tells a client that it has all of it, before the server has done with it."""
    with served.connect("north") as quick:
        for _ in range(100):
            quick.sendall(HEALTH)
            assert answered(quick)[0] == 200


def test_a_flood_of_requests_gets_its_share_and_no_more(served: Served, north: NodeOf) -> None:
    begun, statuses, stopped = time.monotonic(), [], threading.Event()

    def flood() -> None:
        while not stopped.is_set():
            with contextlib.suppress(OSError, ValueError), served.connect("south", source="127.0.0.3") as busy:
                while not stopped.is_set():
                    busy.sendall(HEALTH)
                    statuses.append(int(busy.recv(65_536)[9:12]))

    threads = [threading.Thread(target=flood) for _ in range(Limits.connections)]
    for thread in threads:
        thread.start()
    try:
        served_as_ever(north, served, 20)
        wait_until(lambda: 429 in statuses)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    took_s = time.monotonic() - begun
    assert statuses.count(200) <= Limits.requests_burst + Limits.requests_rate * took_s + Limits.requests
    refused_for(served, f"more than {Limits.requests} requests at once")


def test_who_shows_no_certificate_takes_nobodys_place(served: Served, north: NodeOf) -> None:
    """Half a handshake, or none: the oldest of an address give way, and all of them to a deadline."""
    with ExitStack() as held:
        opened = []
        for number in range(40):
            plain = held.enter_context(socket.socket())
            plain.bind(("127.0.0.4", 0))
            plain.connect(("127.0.0.1", served.port))
            with contextlib.suppress(OSError):
                plain.sendall(
                    (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.0\r\n\r\n")[number % 3]
                )
            opened.append(plain)
        served_as_ever(north, served)
        wait_until(lambda: "refused at the port: 127.0.0.4 leaves many handshakes open" in served.log)
        assert all(is_closed(plain) for plain in opened)


def test_a_flood_of_connections_is_refused_at_its_address(served: Served, north: NodeOf) -> None:
    """Each is closed with a reset, so that no port of this machine is used up."""
    for number in range(1_000):
        with socket.socket() as plain:
            plain.bind(("127.0.0.5", 0))
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            plain.connect(("127.0.0.1", served.port))
        if number % 100 == 0:
            served_as_ever(north, served, 1)
    wait_until(lambda: "refused at the port: 127.0.0.5 opens connections too fast" in served.log)
    served_as_ever(north, served)


def tree(name: str, *children: ObjectTree) -> ObjectTree:
    """Return an object's announcement."""
    return ObjectTree(object_id=get_object_id(name.encode()), children=children)


def doubling(depth: int) -> ObjectTree:
    """Return a tree of `depth` objects that is read back as one of two to that power."""
    part = tree("0")
    for level in range(1, depth):
        part = tree(str(level), part, ObjectTree(object_id=part.object_id))
    return part


@pytest.fixture(scope="module")
def question(served: Served, north: NodeOf) -> tuple[NodeOf, ProtoMessage]:
    """South's node, and a question that it was asked; north is asked as well, and does not answer."""
    south = NodeOf(served, "south")
    south.activate()
    submit(served.folder, "talk", silos=2, times=1)
    found: list[ProtoMessage] = []
    wait_until(lambda: found.extend(south.pull().messages_list) or found)
    return south, found[0]


def announce(south: NodeOf, asked: ProtoMessage, announced: ObjectTree) -> tuple[int, bytes]:
    told = ProtoMessage()
    told.CopyFrom(asked)
    told.metadata.message_id = announced.object_id
    told.metadata.src_node_id, told.metadata.dst_node_id = south.node.node_id, asked.metadata.src_node_id
    told.metadata.reply_to_message_id = asked.metadata.message_id
    told.metadata.ttl = asked.metadata.ttl
    request = PushMessagesRequest(node=south.node, messages_list=[told], message_object_trees=[announced])
    return south.call("push-messages", request.SerializeToString())


@pytest.mark.parametrize(
    ("announced", "rule"),
    [
        (tree("m", *(tree(f"leaf {number}") for number in range(55_000))), "a body of more than"),
        (tree("m", *(tree(f"leaf {number}") for number in range(500))), "an answer of more than"),
        (tree("m", tree("1", tree("2", tree("3", tree("4", tree("5")))))), "an answer of more than"),
        (doubling(5), "an answer that has one object in two ways"),
    ],
)
def test_an_announcement_of_more_than_an_answer_needs_is_refused(
    served: Served, north: NodeOf, question: tuple[NodeOf, ProtoMessage], announced: ObjectTree, rule: str
) -> None:
    status, body = announce(*question, announced)
    assert (status, rule in body.decode()) == (413, True)
    refused_for(served, rule)
    served_as_ever(north, served, 1)


def test_an_answer_of_more_bytes_than_it_can_have_is_refused(
    served: Served, north: NodeOf, question: tuple[NodeOf, ProtoMessage]
) -> None:
    """Last of its kind: the question is answered by it."""
    south, asked = question
    content = bytes(4 * MIB)
    announced = tree("a message", ObjectTree(object_id=get_object_id(content)))
    status, body = announce(south, asked, announced)
    assert status == 200, body
    told = PushMessagesResponse.FromString(body)
    assert len(told.objects_to_push) == 2
    pushed = PushObjectRequest(
        node=south.node,
        run_id=asked.metadata.run_id,
        session_id=told.session_id,
        object_id=get_object_id(content),
        object_content=content,
    )
    status, body = south.call("push-object", pushed.SerializeToString())
    assert (status, b"bytes, where its answer has" in body) == (413, True)
    pushed.session_id = ""
    assert south.call("push-object", pushed.SerializeToString())[0] == 400
    refused_for(served, "an object of")
    served_as_ever(north, served)


def test_none_of_it_fills_the_log(served: Served) -> None:
    assert len(served.log.splitlines()) < 2_000
    assert "Traceback" not in served.log


@pytest.mark.slow
def test_a_run_goes_on_whatever_one_silo_does_meanwhile() -> None:
    """All of it at once, under the deadlines of a deployment, while a real silo answers a real run."""
    with serving("north", "south", padding_bytes=24 * MIB) as served:
        process = superlink(served)
        before = process.memory_info().rss
        words = ("silo", str(served.folder), str(served.port), "north", "north", "")
        with started(*words, log=served.folder / "logs" / "north.out") as north, ExitStack() as attacks:
            wait_until(lambda: "connected to the server" in (served.folder / "logs" / "north.out").read_text())
            for said in (HALF, b"", PUSH + b"x", ROSTER):
                attacks.enter_context(many(served, 10, said, source="127.0.0.2", receive_bytes=4_096))
            stopped = threading.Event()
            threads = [threading.Thread(target=again_and_again, args=(served, stopped)) for _ in range(4)]
            for thread in threads:
                thread.start()
            try:
                run = submit(served.folder, "through", times=100)
                assert outcome(run, 240) == {"completed": True}
                assert served.log.count("refused: silo 'north'") == 0
                assert superlink(served) == process
                assert process.memory_info().rss - before < MOST_GROWTH
            finally:
                stopped.set()
                for thread in threads:
                    thread.join()
            assert north.poll() is None
        refused_for(served, f"more than {Limits.connections} connections")


def again_and_again(served: Served, stopped: threading.Event) -> None:
    """Connect and ask as fast as it goes, from new connections and from old ones."""
    while not stopped.is_set():
        with contextlib.suppress(OSError), served.connect("south", source="127.0.0.3") as busy:
            for _ in range(50):
                busy.sendall(HEALTH)
                if not busy.recv(65_536):
                    break
