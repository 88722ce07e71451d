"""Whether the server can be reached, and if not, why: in one line that says what to do.

Flower's node says "connection error" to most of what can be wrong. So before it is started, the server is asked how it
does, over the very TLS that the node will use, and what comes of it is turned into a line.

    what is found                                                           is tried again
    nobody answers at that address, or too late                             yes
    the host's name is not known                                            no
    the server's certificate: another authority's, expired, another host's  no
    this silo's certificate: revoked, expired, another authority's, none    no
    this silo's clock and the server's differ                               no
    the server is not the roster's, or its roster does not have this silo   no

"No" means that a person has to do something; a silo that was connected before goes on trying all the same, since that
person may be at the server.

Of an answer no more is read than one of its kind can have, whoever gives it.

The connection is direct: proxies of the environment are not used, neither here nor by the node.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, BinaryIO, Final

from fedmodel.crypto.transport import explain_tls, split_address
from fedmodel.errors import ConfigError, FedmodelError

_TIMEOUT_S: Final = 10.0
_ALERT_S: Final = 0.5  # TLS 1.3 lets a client go on before the server has looked at its certificate
# Flower refuses a signature from more than 5 s ahead, and from more than 305 s ago. A Date is of whole seconds.
_AHEAD_S: Final = 4.0
_BEHIND_S: Final = 60.0
_LARGEST_ROSTER_BYTES: Final = 64 * 2**20
_LARGEST_HEALTH_BYTES: Final = 64 * 2**10
# Of what stands around contents: status lines and headers, for which Python's limits are per line, and chunks' sizes.
_AROUND_BYTES: Final = 2**20
_HEALTH: Final = "/health"
_ROSTER: Final = "/v1/fedmodel/roster"

Look = Callable[[bytes, bytes], None]
"""Looks at a server's certificate, in DER, and at the roster that it shows; raises what a silo has against them."""


@dataclass(frozen=True)
class Obstacle:
    """Why the server cannot be worked with.

    Attributes:
        line: What was found, and what to do.
        lasting: Whether trying again would find the same until a person did something.
    """

    line: str
    lasting: bool


def find_obstacle(address: str, tls: ssl.SSLContext, look: Look) -> Obstacle | None:
    """Ask the server how it does; return why it cannot be worked with, or None.

    Args:
        address: The server's, "host:port".
        tls: The context that the node will use.
        look: Called with the server's certificate and roster.
    """
    host, port = split_address(address)
    try:
        with socket.create_connection((host, port), _TIMEOUT_S) as plain:
            return _talk(plain, host, port, tls, look)
    except FedmodelError as error:
        return Obstacle(str(error), lasting=True)
    except (OSError, http.client.HTTPException) as error:
        # Who hangs up in the middle of TLS may be a server that is just being started again.
        cut = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        unknown = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
        lasting = unknown or (isinstance(error, ssl.SSLError) and not cut)
        return Obstacle(f"{host}:{port}: {explain_tls(error)}", lasting)


def _talk(plain: socket.socket, host: str, port: int, tls: ssl.SSLContext, look: Look) -> Obstacle | None:
    """Go through the handshake, and ask for health and roster."""
    with tls.wrap_socket(plain, server_hostname=host) as secure:
        secure.settimeout(_ALERT_S)
        try:
            if secure.recv(1) == b"":
                return Obstacle(f"{host}:{port}: the server closed the connection at once", lasting=False)
        except TimeoutError:
            pass  # no alert: this silo's certificate is taken
        secure.settimeout(_TIMEOUT_S)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = secure
        before = time.time()
        answer, _ = _get(connection, _HEALTH, _LARGEST_HEALTH_BYTES)
        if answer.status != http.HTTPStatus.OK:
            return Obstacle(f"{host}:{port}: what answers is no server of a federation ({answer.status})", True)
        if found := _about_clock(answer.getheader("Date"), before, time.time()):
            return found
        answer, roster = _get(connection, _ROSTER, _LARGEST_ROSTER_BYTES)
        if answer.status != http.HTTPStatus.OK:
            return Obstacle(f"{host}:{port}: the server shows no roster; its kit is not whole", lasting=False)
        look(secure.getpeercert(binary_form=True) or b"", roster)
    return None


def _get(connection: http.client.HTTPConnection, path: str, most: int) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask for something, and return the answer and what is in it.

    Guarantee: no more is read than `most` bytes of content and `_AROUND_BYTES` around them.

    Raises:
        ConfigError: When its content is longer.
        HTTPException: When what stands around it is.
    """
    connection.response_class = partial(_Bounded, most=most)  # type: ignore[assignment]
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read(most + 1)
    if len(content) > most:
        raise ConfigError(f"what answers there is no server of a federation: {path} is over {most} bytes")
    return answer, content


class _Few:
    """A stream of which no more than a number of bytes is read. It has what http.client needs, and nothing besides."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream, self._left = stream, most
        self.flush, self.close = stream.flush, stream.close

    def read(self, size: int = -1) -> bytes:
        return self._taken(self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1))

    def readline(self, size: int = -1) -> bytes:
        return self._taken(self._stream.readline(size))

    def _taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise http.client.HTTPException("the answer does not end")
        return data


class _Bounded(http.client.HTTPResponse):
    """An answer that ends: http.client bounds a header's lines, but neither how often a server says 100, nor chunks."""

    def __init__(self, *given: Any, most: int, **options: Any) -> None:
        super().__init__(*given, **options)
        self.fp: Any = _Few(self.fp, most + _AROUND_BYTES)


def _about_clock(date: str | None, before: float, after: float) -> Obstacle | None:
    """Compare this silo's clock with the server's, which tells whole seconds."""
    try:
        server = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    ahead = before - (server + 1) if before > server + 1 else after - server
    if -_BEHIND_S <= ahead <= _AHEAD_S:
        return None
    way = "ahead of" if ahead > 0 else "behind"
    return Obstacle(f"this silo's clock is {abs(ahead):.0f} s {way} the server's; set it right", lasting=True)


class Approach:
    """Waits until the server can be worked with, with a pause that doubles, and says why not whenever that changes.

    Args:
        find: Finds what is in the way.
        say: Shows a line.
        give_up: Ends for good, with a line. Called for what is lasting, unless `patient`.
        patient: Whether to go on trying whatever it is.
    """

    def __init__(
        self,
        find: Callable[[], Obstacle | None],
        say: Callable[[str], None],
        give_up: Callable[[str], None],
        *,
        patient: bool,
    ) -> None:
        self._find, self._say, self._give_up, self._patient = find, say, give_up, patient

    def wait(self, first_s: float = 0.5, longest_s: float = 30.0) -> None:
        """Return when nothing is in the way."""
        told, pause_s = "", first_s
        while (found := self._find()) is not None:
            if found.lasting and not self._patient:
                self._give_up(found.line)
            if found.line != told:
                self._say(f"{found.line}; trying again")
                told = found.line
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, longest_s)
        if told:
            self._say("the server can be reached again")
