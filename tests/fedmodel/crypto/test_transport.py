"""TLS over real sockets: who gets in, who is refused, and what each is told."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedmodel import crypto
from fedmodel.crypto import Purpose, client_context, explain_tls, server_context
from fedmodel.crypto.transport import split_address
from fedmodel.errors import ConfigError, CryptoError
from tests.tls_kits import DAY, HOSTS, NOW, OWN, PASSWORD, STRANGER, Kit, kit, revocations


@pytest.fixture
def server(tmp_path: Path) -> Kit:
    return kit(tmp_path / "server", Purpose.SERVER)


@pytest.fixture
def silo(tmp_path: Path) -> Kit:
    return kit(tmp_path / "north")


@contextmanager
def listening(context: ssl.SSLContext) -> Iterator[tuple[int, list[BaseException]]]:
    """A server of one connection, which says hello to whoever gets through; and what it thought of it."""
    failures: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(120)

        def serve() -> None:
            try:
                accepted, _ = plain.accept()
                with accepted:
                    accepted.settimeout(120)
                    with context.wrap_socket(accepted, server_side=True) as connection:
                        connection.sendall(b"hello")
                        connection.recv(1)
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield plain.getsockname()[1], failures
        finally:
            thread.join(120)
    assert not thread.is_alive()


@dataclass
class Told:
    """What a client saw: when it was refused, by what, and in which line of ours."""

    stage: str
    error: ssl.SSLError
    line: str


def greet(client: ssl.SSLContext, port: int, host: str = "127.0.0.1") -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=120) as plain,
        client.wrap_socket(plain, server_hostname=host) as connection,
    ):
        assert connection.version() == "TLSv1.3"
        return connection.recv(5)


def refused(client: ssl.SSLContext, server: ssl.SSLContext, host: str = "127.0.0.1") -> Told:
    """Connect, be refused by one side or the other, and tell how."""
    with listening(server) as (port, failures), socket.create_connection(("127.0.0.1", port), timeout=120) as plain:
        stage = "handshake"
        with pytest.raises(ssl.SSLError) as raised:  # noqa: PT012, SIM117  # which of the two it is, is the question
            with client.wrap_socket(plain, server_hostname=host) as connection:
                stage = "first read"
                connection.recv(5)
    assert failures, "the server let it in"
    return Told(stage, raised.value, explain_tls(raised.value))


# --- Who gets in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
def test_both_sides_show_a_certificate_and_get_through(server: Kit, silo: Kit, tmp_path: Path, host: str) -> None:
    seen: list[str] = []
    other = kit(tmp_path / "south")
    for revoked in (None, revocations(tmp_path / "none.pem"), revocations(tmp_path / "revoked.pem", other)):
        with listening(server.server(revoked)) as (port, failures):
            assert greet(silo.client(), port, host) == b"hello"
        assert failures == []
        seen.append(host)
    assert len(seen) == 3


def test_no_session_is_resumed(server: Kit, silo: Kit) -> None:
    """A ticket would carry the first connection's certificate past whatever happened to it since."""
    context = silo.client()
    with (
        listening(server.server()) as (port, _),
        socket.create_connection(("127.0.0.1", port), timeout=120) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        assert connection.recv(5) == b"hello"
        assert connection.session is None or not connection.session.has_ticket
        assert not connection.session_reused


# --- Clients that the server refuses: told at their first read --------------------------------------------------------


def test_a_client_without_a_certificate_is_refused(server: Kit) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(cafile=server.authority)
    told = refused(bare, server.server())
    assert (told.stage, told.error.reason) == ("first read", "TLSV13_ALERT_CERTIFICATE_REQUIRED")
    assert told.line.startswith("the server requires our certificate, and none was shown")


def test_a_client_of_another_authority_is_refused(server: Kit, tmp_path: Path) -> None:
    stranger = kit(tmp_path / "stranger", authority=STRANGER)
    context = stranger.client()
    context.load_verify_locations(cafile=server.authority)  # so that it takes the server's, and is looked at itself
    told = refused(context, server.server())
    assert (told.stage, told.error.reason) == ("first read", "TLSV1_ALERT_UNKNOWN_CA")
    assert told.line.startswith("the server does not know our certificate's authority")


def test_an_expired_client_is_refused(server: Kit, tmp_path: Path) -> None:
    told = refused(kit(tmp_path / "old", now=NOW - 31 * DAY).client(), server.server())
    assert (told.stage, told.error.reason) == ("first read", "SSLV3_ALERT_CERTIFICATE_EXPIRED")
    assert told.line.startswith("the server says that our certificate has expired")


def test_a_client_that_is_not_valid_yet_is_refused(server: Kit, tmp_path: Path) -> None:
    told = refused(kit(tmp_path / "new", now=NOW + 2 * DAY).client(), server.server())
    assert (told.stage, told.error.reason) == ("first read", "SSLV3_ALERT_BAD_CERTIFICATE")
    assert "not valid, or not yet; check the clocks" in told.line


def test_a_revoked_client_is_refused(server: Kit, silo: Kit, tmp_path: Path) -> None:
    told = refused(silo.client(), server.server(revocations(tmp_path / "revoked.pem", silo)))
    assert (told.stage, told.error.reason) == ("first read", "SSLV3_ALERT_CERTIFICATE_REVOKED")
    assert told.line.startswith("the server says that our certificate was revoked")


def test_a_servers_certificate_is_refused_as_a_clients(server: Kit) -> None:
    told = refused(server.client(), server.server())
    assert (told.stage, told.error.reason) == ("first read", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE")
    assert told.line.startswith("the server says that our certificate is not for clients")


def test_a_client_that_issues_is_refused(server: Kit, silo: Kit, tmp_path: Path) -> None:
    """A silo's certificate is no authority: what its key signs is nobody's."""
    key = load_pem_private_key(silo.key.read_bytes(), PASSWORD.encode())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = x509.load_pem_x509_certificate(silo.certificate)
    own = ec.generate_private_key(ec.SECP256R1())
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "south")]))
        .issuer_name(leaf.subject)
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .public_key(own.public_key())
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, crypto.primitives.hashes.SHA256())
    )
    chain, secret = tmp_path / "chain.pem", tmp_path / "own.key"
    chain.write_bytes(forged.public_bytes(Encoding.PEM) + silo.certificate)
    secret.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=server.authority)
    context.load_cert_chain(chain, secret)
    told = refused(context, server.server())
    assert told.stage == "first read"
    assert "ALERT" in str(told.error.reason)


def test_an_older_version_of_tls_is_refused(server: Kit, silo: Kit) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=silo.authority)
    context.load_cert_chain(silo.cert, silo.key, PASSWORD)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    told = refused(context, server.server())
    assert (told.stage, told.error.reason) == ("handshake", "TLSV1_ALERT_PROTOCOL_VERSION")
    assert told.line.startswith("the other side does not speak TLS 1.3")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(server.cert, server.key, PASSWORD)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert refused(silo.client(), old).stage == "handshake"


# --- Servers that the client refuses: in the handshake ----------------------------------------------------------------


def refused_server(client: Kit, server: Kit, host: str = "127.0.0.1") -> tuple[int, str]:
    told = refused(client.client(), server.server(), host)
    assert told.stage == "handshake"
    assert isinstance(told.error, ssl.SSLCertVerificationError)
    return told.error.verify_code, told.line


def test_a_server_of_another_authority_is_refused(silo: Kit, tmp_path: Path) -> None:
    other = kit(tmp_path / "server", Purpose.SERVER, authority=STRANGER)
    code, line = refused_server(silo, other)
    # 19 since the server shows its authority too.
    assert code in (19, 20)
    assert line.startswith("the server's certificate is not of this federation's authority")


def test_an_expired_server_is_refused(silo: Kit, tmp_path: Path) -> None:
    code, line = refused_server(silo, kit(tmp_path / "server", Purpose.SERVER, now=NOW - 31 * DAY))
    assert code == 10
    assert line.startswith("the server's certificate has expired")


def test_a_server_that_is_not_valid_yet_is_refused(silo: Kit, tmp_path: Path) -> None:
    code, line = refused_server(silo, kit(tmp_path / "server", Purpose.SERVER, now=NOW + 2 * DAY))
    assert code == 9
    assert line.startswith("the server's certificate is not valid yet")


@pytest.mark.parametrize(("host", "code", "what"), [("evil.example", 62, "host"), ("127.0.0.2", 64, "address")])
def test_a_server_of_another_host_is_refused(silo: Kit, server: Kit, host: str, code: int, what: str) -> None:
    found, line = refused_server(silo, server, host)
    assert found == code
    assert line.startswith(f"the server's certificate is for another {what}")


@pytest.mark.parametrize("hosts", [["server.example"], ["10.0.0.5"]])
def test_a_servers_common_name_is_no_host(silo: Kit, tmp_path: Path, hosts: list[str]) -> None:
    """With an address alone in it, OpenSSL would fall back on the name."""
    named = kit(tmp_path / "localhost", Purpose.SERVER, hosts=hosts)
    assert refused_server(silo, named, "localhost")[0] == 62


def test_a_certificate_that_is_not_as_rfc_5280_asks_is_refused(silo: Kit, server: Kit) -> None:
    """Of our authority, but without its key's identifier: only strict checking minds."""
    read = x509.load_pem_x509_certificate(server.certificate)
    builder = x509.CertificateBuilder(
        read.issuer, read.subject, read.public_key(), 1, read.not_valid_before_utc, read.not_valid_after_utc
    )
    for extension in read.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    server.cert.write_bytes(builder.sign(OWN._key, None).public_bytes(Encoding.PEM))
    code, line = refused_server(silo, server)
    assert code == 85
    assert line == "the server's certificate is refused: Missing Authority Key Identifier"


def test_a_clients_certificate_is_refused_as_a_servers(silo: Kit, tmp_path: Path) -> None:
    """The silo next door cannot stand for the server, even with a certificate of the same authority."""
    other = kit(tmp_path / "south")
    code, line = refused_server(silo, other)
    assert code == 26
    assert line.startswith("the server's certificate is not for servers")


# --- In an event loop, as the server runs it --------------------------------------------------------------------------


@contextmanager
def serving(context: ssl.SSLContext, loop: str) -> Iterator[int]:
    """A real uvicorn with one page, on one of its two event loops."""

    async def page(scope: object, receive: object, send: Callable[..., object]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]
        await send({"type": "http.response.body", "body": b"hello"})  # type: ignore[misc]

    config = uvicorn.Config(page, host="127.0.0.1", port=0, lifespan="off", ws="none", log_config=None, loop=loop)  # type: ignore[arg-type]
    config.load()
    config.ssl = context
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        yield running.servers[0].sockets[0].getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(120)
    assert not thread.is_alive()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_event_loop_tells_clients_why(
    server: Kit, silo: Kit, tmp_path: Path, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio and uvloop drop the alert of a failed handshake; over HTTP the client still learns the reason."""
    pytest.importorskip(loop)
    gone, old = kit(tmp_path / "gone"), kit(tmp_path / "old", now=NOW - 31 * DAY)
    with (
        caplog.at_level(logging.WARNING),
        serving(server.server(revocations(tmp_path / "crl.pem", gone)), loop) as port,
    ):
        url = f"https://127.0.0.1:{port}/"
        for _ in range(5):
            assert httpx.get(url, verify=silo.client(), trust_env=False).text == "hello"
            for one, words in [(gone, "was revoked"), (old, "has expired"), (server, "is not for clients")]:
                with pytest.raises(httpx.TransportError) as raised:
                    httpx.get(url, verify=one.client(), trust_env=False)
                assert f"the server says that our certificate {words}" in explain_tls(raised.value)
    assert "a client's certificate is refused: certificate revoked" in caplog.text


def test_a_refused_client_that_stays_is_put_off_by_the_next_byte(server: Kit, tmp_path: Path) -> None:
    """Having sent its alert, the server does not start over, whatever comes."""
    old = kit(tmp_path / "old", now=NOW - 31 * DAY)

    async def run() -> bytes:
        got: list[bytes] = []

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.read(1))

        running = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=server.server())
        port = running.sockets[0].getsockname()[1]

        def client() -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=120) as plain:
                connection = old.client().wrap_socket(plain, server_hostname="127.0.0.1")
                with pytest.raises(ssl.SSLError, match="EXPIRED"):
                    connection.recv(1)
                # Under TLS, as whoever ignores the alert would: the server closes, and never reads it.
                raw = socket.socket(fileno=connection.detach())
                with raw:
                    raw.settimeout(120)
                    raw.sendall(b"x" * 100)
                    with suppress(ConnectionResetError):
                        assert raw.recv(1) == b""

        await asyncio.to_thread(client)
        running.close()
        await running.wait_closed()
        return b"".join(got)

    assert asyncio.run(run()) == b""


# --- What failed, in one line -----------------------------------------------------------------------------------------


def test_a_line_for_what_is_not_tls(silo: Kit, server: Kit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(httpx.ConnectError) as unreached:
        httpx.get(f"https://127.0.0.1:{port}/", verify=silo.client(), trust_env=False)
    assert explain_tls(unreached.value).startswith("the connection was refused: no server listens there")
    with pytest.raises(OSError, match="refused") as plain:
        socket.create_connection(("127.0.0.1", port))
    assert explain_tls(plain.value).startswith("the connection was refused")
    with serving(server.server(), "asyncio") as running, pytest.raises(httpx.ConnectError) as elsewhere:
        httpx.get(f"https://localhost.localdomain:{running}/", verify=silo.client(), trust_env=False, timeout=120)
    assert explain_tls(elsewhere.value).startswith(
        ("the server's certificate is for another host", "the server's name")
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the server's name is not known here"),
        (TimeoutError("timed out"), "the server did not answer in time"),
        (ConnectionResetError(104, "reset"), "the server closed the connection"),
        (ssl.SSLEOFError(8, "EOF occurred"), "the server closed the connection"),
        (
            httpx.RemoteProtocolError("Server disconnected without sending a response."),
            "the server closed the connecti",
        ),
        (RuntimeError("one\n  two"), "the connection failed: RuntimeError: one two"),
    ],
)
def test_a_line_for_each_other_failure(error: Exception, line: str) -> None:
    assert explain_tls(error).startswith(line)
    wrapped = httpx.ConnectError("all attempts failed")
    wrapped.__cause__ = error
    if not isinstance(error, RuntimeError):
        assert explain_tls(wrapped) == explain_tls(error)
    assert "\n" not in explain_tls(wrapped)


def test_a_server_that_speaks_plain_http_is_told_apart(silo: Kit) -> None:
    def answer() -> None:
        accepted, _ = plain.accept()
        with accepted:
            accepted.recv(1024)
            accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ssl.SSLError) as raised:
            greet(silo.client(), plain.getsockname()[1])
        thread.join(120)
    assert explain_tls(raised.value).startswith("what answers there does not speak TLS")


def test_causes_in_a_circle_end() -> None:
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert explain_tls(one) == "the connection failed: RuntimeError: one"


# --- Files that do not belong together --------------------------------------------------------------------------------


def test_files_that_do_not_belong_together_are_refused(server: Kit, silo: Kit, tmp_path: Path) -> None:
    foreign = kit(tmp_path / "foreign", authority=STRANGER)
    broken = tmp_path / "broken.key"
    broken.write_bytes(silo.key.read_bytes()[:100])
    cases: list[tuple[Path, Path, str, Path, str]] = [
        (silo.cert, server.key, PASSWORD, silo.authority, "the key of another certificate"),
        (silo.cert, silo.key, "another password", silo.authority, "does not open with this kit's identity"),
        (silo.cert, silo.key, "", silo.authority, "does not open with this kit's identity"),
        (silo.cert, broken, PASSWORD, silo.authority, "does not open with this kit's identity"),
        (silo.cert, silo.key, PASSWORD, foreign.authority, "'north' was not issued by the authority 'ward'"),
        (silo.key, silo.key, PASSWORD, silo.authority, "no certificate in PEM"),
        (silo.cert, silo.key, PASSWORD, silo.cert, "no authority's"),
    ]
    for certificate, key, password, authority, words in cases:
        for make in (client_context, server_context):
            with pytest.raises(CryptoError, match=words) as raised:
                make(certificate, key, password, authority)
            assert str(tmp_path) in str(raised.value)
    for missing in range(3):
        paths = [silo.cert, silo.key, silo.authority]
        paths[missing] = tmp_path / "none.pem"
        with pytest.raises(ConfigError, match=r"none\.pem: cannot be read: No such file"):
            client_context(paths[0], paths[1], PASSWORD, paths[2])


def test_an_authoritys_file_with_a_second_in_it_is_refused(silo: Kit) -> None:
    """OpenSSL would trust both."""
    silo.authority.write_bytes(OWN.certificate + STRANGER.certificate)
    with pytest.raises(CryptoError, match="one certificate in PEM is needed, and there is more"):
        silo.client()


def test_a_list_of_revocations_is_the_authoritys_and_in_time(server: Kit, silo: Kit, tmp_path: Path) -> None:
    path = tmp_path / "revoked.pem"
    path.write_bytes(STRANGER.revoke({}))
    with pytest.raises(CryptoError, match=r"revoked\.pem: the list of revocations was not signed by the authority"):
        server.server(path)
    path.write_bytes(OWN.revoke({}) + STRANGER.certificate)
    with pytest.raises(CryptoError, match="one block of PEM"):
        server.server(path)
    for junk in (b"", b"junk", OWN.certificate):
        path.write_bytes(junk)
        with pytest.raises(CryptoError):
            server.server(path)
    with pytest.raises(ConfigError, match="a newer list of revocations was due at"):
        server.server(revocations(path, days=30, now=NOW - 31 * DAY))


def test_a_list_that_runs_out_while_the_server_runs_refuses_everybody(
    server: Kit, silo: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = revocations(tmp_path / "stale.pem", days=30, now=NOW - 31 * DAY)
    monkeypatch.setattr("fedmodel.crypto.transport.check_revocations", lambda *_: None)
    told = refused(silo.client(), server.server(stale))
    assert told.error.reason == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
    assert "or its own list of revocations" in told.line


def test_no_error_shows_a_password(silo: Kit) -> None:
    with pytest.raises(CryptoError) as raised:
        client_context(silo.cert, silo.key, "a secret word of somebody", silo.authority)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("server.example:9443", ("server.example", 9443)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:9443", ("::1", 9443)),
    ],
)
def test_an_address_is_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["server", "server:", ":9443", "server:https", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        split_address(address)
