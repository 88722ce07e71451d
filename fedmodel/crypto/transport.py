"""TLS between a federation's parties: version 1.3 alone, and each shows the other a certificate of the one authority.

| Who       | Refuses                                                                                              |
|-----------|------------------------------------------------------------------------------------------------------|
| a server  | a peer without a certificate; one of another authority, expired, revoked, or not for clients         |
| a client  | a certificate of another authority, expired, for another host, or not for servers                    |

The machine's own trust store is not used. No session is resumed, so every connection shows its certificate anew.

In TLS 1.3 a client's handshake ends before the server has checked the client's certificate. So a client learns that it
was refused from its first read, and not from connecting. To find out whether it is admitted, it must request something.

NOT protected: a client has no list of revocations. A caller that knows the server's key passes `recognising` a check of
the server's certificate, which runs before anything is sent. A server's list is read when its context is made: a newer
list needs a new context. The key exchange is what OpenSSL offers. Before version 3.5 that is not post-quantum, so
recorded traffic may be read one day.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fedmodel.crypto.certificates import check_issued, check_revocations
from fedmodel.errors import ConfigError, CryptoError, FedmodelError
from fedmodel.system.durable import naming

# OpenSSL's numbers for why a certificate fails (x509_vfy.h), when a client checks the server's.
_VERIFIED: Final = {
    9: "the server's certificate is not valid yet; set this machine's clock, or wait for its first day",
    10: "the server's certificate has expired; the administrator issues another, or this machine's clock is wrong",
    18: "the server's certificate is not of this federation's authority; check the address, and authority.pem",
    19: "the server's certificate is not of this federation's authority; check the address, and authority.pem",
    20: "the server's certificate is not of this federation's authority; check the address, and authority.pem",
    21: "the server's certificate is not of this federation's authority; check the address, and authority.pem",
    23: "the server's certificate was revoked; the administrator issues another",
    26: "the server's certificate is not for servers; it runs with another party's certificate",
    62: "the server's certificate is for another host; connect by a name in it, or have it issued for this one",
    64: "the server's certificate is for another address; connect by one in it, or have it issued for this one",
}
# What a server's alert means, by the end of OpenSSL's name for it: the beginnings differ between versions.
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": "the server requires our certificate, and none was shown; check tls.pem and tls.key",
    "UNKNOWN_CA": "the server does not know our certificate's authority: this kit is of another federation",
    "CERTIFICATE_EXPIRED": "the server says that our certificate has expired, or its own list of revocations; "
    "have tls.pem issued again, or the list",
    "CERTIFICATE_REVOKED": "the server says that our certificate was revoked; ask the federation's administrator",
    "UNSUPPORTED_CERTIFICATE": "the server says that our certificate is not for clients; tls.pem is another party's",
    "BAD_CERTIFICATE": "the server says that our certificate is not valid, or not yet; check the clocks on both sides",
    "CERTIFICATE_UNKNOWN": "the server refused our certificate without saying why; its log may",
    "DECRYPT_ERROR": "the server says that our certificate was changed; put tls.pem back from a backup",
    "PROTOCOL_VERSION": "the other side does not speak TLS 1.3; something between us and the server may not either",
    "HANDSHAKE_FAILURE": "the other side found no way to speak TLS with us; something between may stand for the server",
}
_LOG: Final = logging.getLogger(__name__)
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[address]:port".

    Raises:
        ConfigError: When it is neither.

    >>> split_address("[::1]:9443")
    ('::1', 9443)
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ConfigError(f'{address!r} is no address; write "host:port"')
    return host.removeprefix("[").removesuffix("]"), int(port)


def server_context(
    certificate: Path, key: Path, password: str, authority: Path, revoked: bytes | None = None
) -> ssl.SSLContext:
    """Return a server's TLS context.

    Guarantee: a peer that completes a handshake and reads or writes a byte holds the key of a certificate that this
    authority issued for clients, that is valid now, and that is not in the list of revocations if one is given.

    Args:
        certificate: The server's own, PEM.
        key: Its key, PEM, encrypted.
        password: Opens the key. Sensitive.
        authority: The authority's certificate, PEM.
        revoked: The bytes of the authority's list of revocations, PEM; bytes and not a path, so that what is checked is
            what is loaded. Without a list no certificate counts as revoked.

    Raises:
        ConfigError: When a file cannot be read, or the list of revocations has run out.
        CryptoError: When key, certificate, authority and list do not belong together, or the key does not open.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, password, authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.sslobject_class = _SaysWhy
    # A resumed session would show the certificate of the first session, whatever happened to it since.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    if revoked is not None:
        try:
            check_revocations(revoked, _read(authority))
        except (ConfigError, CryptoError) as error:
            raise type(error)(f"revoked.pem: {error}") from None
        _take_list(context, revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _take_list(context: ssl.SSLContext, revoked: bytes) -> None:
    """Load a list of revocations, by a file that passes: as bytes, ssl takes only certificates."""
    descriptor, name = tempfile.mkstemp()
    try:
        with naming(Path(name)), os.fdopen(descriptor, "wb") as copy:
            copy.write(revoked)
        context.load_verify_locations(cafile=name)
    finally:
        with suppress(OSError):  # what cannot be erased any more is public
            Path(name).unlink()


def client_context(certificate: Path, key: Path, password: str, authority: Path) -> ssl.SSLContext:
    """Return a client's TLS context; it shows its certificate, and checks the server's certificate and host.

    Args:
        certificate: The client's own, PEM.
        key: Its key, PEM, encrypted.
        password: Opens the key. Sensitive.
        authority: The authority's certificate, PEM.

    Raises:
        ConfigError: When a file cannot be read.
        CryptoError: When key, certificate and authority do not belong together, or the key does not open.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, password, authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    context.hostname_checks_common_name = False
    return context


class Unrecognised(ssl.SSLError):
    """Raised for a server that has a certificate of the authority, but is not the expected one. The text says why."""


def recognising(context: ssl.SSLContext, recognise: Callable[[bytes], None]) -> ssl.SSLContext:
    """Add a check of every server's verified certificate to a client's context; return that context.

    Guarantee: nothing is sent after the handshake to a server that is not recognised: `wrap_socket` raises
    `Unrecognised` and closes the connection. By then that server has seen this client's certificate.

    Args:
        context: A client's context. It is changed.
        recognise: Takes the certificate in DER; raises a FedmodelError, or an OSError, if it is not the expected one.
    """

    class Recognising(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            _recognised(self.getpeercert(binary_form=True), recognise)

    class RecognisingObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            _recognised(self.getpeercert(binary_form=True), recognise)

    context.sslsocket_class = Recognising
    context.sslobject_class = RecognisingObject
    return context


def _recognised(certificate: bytes | None, recognise: Callable[[bytes], None]) -> None:
    """Check a server's certificate; if it is not recognised, the handshake fails."""
    try:
        recognise(certificate or b"")
    except (FedmodelError, OSError) as error:
        raise Unrecognised(ssl.SSL_ERROR_SSL, str(error)) from error


def explain_tls(error: BaseException) -> str:
    """Return one line on why a connection failed, and what to do, from the error or from its causes."""
    for cause in _causes(error):
        line = _explained(cause)
        if line is not None:
            return line
    return f"the connection failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def unrecognised_in(error: BaseException) -> Unrecognised | None:
    """Return the refusal of a server that caused an error, or None if something else caused it."""
    return next((cause for cause in _causes(error) if isinstance(cause, Unrecognised)), None)


class _SaysWhy(ssl.SSLObject):
    """A server's end of a connection in an event loop; it tells the client and the log why a handshake failed.

    If a handshake fails, asyncio and uvloop close the connection without sending the alert that OpenSSL wrote. A client
    would then see nothing but an end of file. So this class first says once that more must be read, and they send what
    was written; the next call raises the failure. Nothing has been agreed by then, and their time limit for a handshake
    holds for this call too.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            if isinstance(error, ssl.SSLCertVerificationError):
                _LOG.warning("a client's certificate is refused: %s", error.verify_message)
            else:
                _LOG.info("a client's handshake failed: %s", error.reason)
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "an alert is to be sent") from error


def _explained(error: BaseException) -> str | None:
    """Return the line for one error, or None if a cause of it may say more."""
    if isinstance(error, Unrecognised):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFIED.get(error.verify_code, f"the server's certificate is refused: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or ""  # missing if Python raised it and not OpenSSL
        for alert, line in _ALERTS.items():
            if reason.endswith(f"ALERT_{alert}"):
                return line
        if reason in _NOT_TLS:
            return "what answers there does not speak TLS; check the port, and whether a proxy stands between"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused: no server listens there; check the address, and whether it runs"
    if isinstance(error, socket.gaierror):
        return "the server's name is not known here; check the address, and this machine's DNS"
    if isinstance(error, TimeoutError):
        return "the server did not answer in time; check the address, and firewalls between"
    # The last is a name of HTTP libraries, which are not imported here.
    closed = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
    if isinstance(error, closed) or type(error).__name__ == "RemoteProtocolError":
        return "the server closed the connection; it may have refused our certificate, and its log says why"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes: HTTP libraries wrap twice what the socket raised."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        current = current.__cause__ or current.__context__


def _context(protocol: int, certificate: Path, key: Path, password: str, authority: Path) -> ssl.SSLContext:
    """Return a context with the settings that both sides have in common."""
    try:
        check_issued(_read(certificate), _read(authority))
    except CryptoError as error:
        raise CryptoError(f"{certificate}, {authority}: {error}") from None
    _read(key)
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cafile=authority)
        # The password is always given, as bytes: without one OpenSSL would ask for it at the terminal.
        context.load_cert_chain(certificate, key, password.encode())
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CryptoError(f"{key}: the key of another certificate than {certificate}") from None
        raise CryptoError(f"{key}: does not open with this kit's identity") from None
    return context


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
