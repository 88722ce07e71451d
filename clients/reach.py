"""Whether the server can be reached, and if not, why: in one line that says what to do.

Flower's node says "connection error" to most of what can be wrong. So before it is started, the server is asked how it
does, over the very TLS that the node will use, and what comes of it is turned into a line.

    what is found                                         is tried again
    nobody answers at that address, or too late           yes
    the host's name is not known                          no
    the server's certificate: another authority, expired, another host       no
    this silo's certificate: revoked, expired, another authority, none       no
    this silo's clock and the server's differ             no
    the roster of the server does not have this silo      no

"No" means that a person has to do something; a silo that was connected before goes on trying all the same, since that
person may be at the server.

The connection is direct: proxies of the environment are not used, neither here nor by the node.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from fedmodel.errors import ConfigError

_TIMEOUT_S: Final = 10.0
_ALERT_S: Final = 0.5  # TLS 1.3 lets a client go on before the server has looked at its certificate
# Flower refuses a signature from more than 5 s ahead, and from more than 305 s ago. A Date is of whole seconds.
_AHEAD_S: Final = 4.0
_BEHIND_S: Final = 60.0
_LARGEST_ROSTER_BYTES: Final = 64 * 2**20
_HEALTH: Final = "/health"
_ROSTER: Final = "/v1/fedmodel/roster"

# OpenSSL's X509_V_ERR_*, which its interface promises not to change.
_OTHER_AUTHORITY: Final = (2, 18, 19, 20, 21, 24)


@dataclass(frozen=True)
class Obstacle:
    """Why the server cannot be worked with.

    Attributes:
        line: What was found, and what to do.
        lasting: Whether trying again would find the same until a person did something.
    """

    line: str
    lasting: bool


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


def find_obstacle(address: str, tls: ssl.SSLContext, node_key: str) -> Obstacle | None:
    """Ask the server how it does; return why it cannot be worked with, or None.

    Args:
        address: The server's, "host:port".
        tls: The context that the node will use.
        node_key: The public key of this silo's node, in PEM.
    """
    host, port = split_address(address)
    try:
        with socket.create_connection((host, port), _TIMEOUT_S) as plain:
            return _talk(plain, host, port, tls, node_key)
    except socket.gaierror as error:
        lasting = error.errno != socket.EAI_AGAIN
        return Obstacle(f"the server's name {host!r} is not known here ({error.strerror}); see [connection]", lasting)
    except ssl.SSLCertVerificationError as error:
        return Obstacle(_about_server(error, host, port), lasting=True)
    except ssl.SSLError as error:
        return Obstacle(_about_silo(error, host, port), lasting=True)
    except (OSError, http.client.HTTPException) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return Obstacle(f"no server answers at {host}:{port} ({why})", lasting=False)


def _talk(plain: socket.socket, host: str, port: int, tls: ssl.SSLContext, node_key: str) -> Obstacle | None:
    """Go through the handshake, and ask for health and roster."""
    with tls.wrap_socket(plain, server_hostname=host) as secure:
        secure.settimeout(_ALERT_S)
        try:
            if secure.recv(1) == b"":
                return Obstacle(f"the server at {host}:{port} hung up at once", lasting=False)
        except TimeoutError:
            pass  # no alert: this silo's certificate is taken
        secure.settimeout(_TIMEOUT_S)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = secure
        before = time.time()
        connection.request("GET", _HEALTH)
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.HTTPStatus.OK:
            return Obstacle(f"what answers at {host}:{port} is no server of a federation ({answer.status})", True)
        if found := _about_clock(answer.getheader("Date"), before, time.time()):
            return found
        connection.request("GET", _ROSTER)
        answer = connection.getresponse()
        return _about_roster(answer.status, answer.read(_LARGEST_ROSTER_BYTES), node_key)


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


def _about_roster(status: int, body: bytes, node_key: str) -> Obstacle | None:
    """Look whether this silo is in the roster that the server shows; what it proves is not asked here."""
    if status != http.HTTPStatus.OK:
        return Obstacle("the server shows no roster; its administrator looks whether its kit is whole", lasting=False)
    try:
        members = json.loads(body)["roster"]["members"]
        keys = {str(member.get("node") or "").strip() for member in members}
    except (ValueError, KeyError, TypeError, AttributeError):
        return Obstacle("the server's roster cannot be read; its administrator looks whether its kit is whole", True)
    if node_key.strip() not in keys:
        return Obstacle(
            "this silo is not registered: the server's roster does not have the key of its node; the server's"
            " administrator puts the newest roster into its kit",
            lasting=True,
        )
    return None


def _about_server(error: ssl.SSLCertVerificationError, host: str, port: int) -> str:
    """Say what is wrong with the server's certificate."""
    match error.verify_code:
        case code if code in _OTHER_AUTHORITY:
            return (
                f"the server at {host}:{port} has no certificate of this federation's authority; either it is another"
                " server, or authority.pem is another federation's"
            )
        case 10:
            return (
                f"the certificate of the server at {host}:{port} has expired; its administrator renews it, unless this"
                f" silo's clock is wrong: it says {_now()}"
            )
        case 9:
            return (
                f"the certificate of the server at {host}:{port} is not valid yet; set this silo's clock right: it says"
                f" {_now()}"
            )
        case 62 | 64:
            return (
                f"the certificate of the server at {host}:{port} is not for {host!r}; [connection] in silo.toml names"
                " the server as its certificate does"
            )
        case 23:
            return f"the certificate of the server at {host}:{port} was revoked; do not use this server"
        case _:
            return f"the certificate of the server at {host}:{port} is not acceptable: {error.verify_message}"


def _about_silo(error: ssl.SSLError, host: str, port: int) -> str:
    """Say what the server had against this silo's certificate, from the alert that it sent."""
    reason = error.reason or str(error)
    ask = "ask the federation's administrator for a new kit"
    told: dict[str, str] = {
        "CERTIFICATE_REVOKED": f"this silo's certificate was revoked; {ask}",
        "CERTIFICATE_EXPIRED": f"the server takes this silo's certificate for expired; if it is, {ask}; if it is not,"
        " look at both clocks",
        "UNKNOWN_CA": f"this silo's certificate is from another authority than the server's; {ask}",
        "CERTIFICATE_REQUIRED": "the server wants a certificate and got none; this silo's kit is not whole",
        "BAD_CERTIFICATE": f"the server does not accept this silo's certificate; {ask}, and look at both clocks",
        "CERTIFICATE_UNKNOWN": f"the server does not accept this silo's certificate; {ask}",
        "HANDSHAKE_FAILURE": f"the server does not accept this silo's certificate; {ask}",
        "PROTOCOL_VERSION": "the server and this silo have no version of TLS in common; TLS 1.3 is asked for",
        "WRONG_VERSION_NUMBER": f"what answers at {host}:{port} does not speak TLS; it is no server of a federation",
    }
    for words, line in told.items():
        if reason.endswith(words):
            return line
    return f"no secure connection to the server at {host}:{port}: {reason}"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


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
