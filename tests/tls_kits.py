"""An authority, another of the same name, and the files of parties that they issue for."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedmodel import crypto
from fedmodel.crypto import Authority, Purpose, client_context, server_context

SEED, PASSWORD = bytes([5]) * 32, "5a" * 32
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
HOSTS = ("127.0.0.1", "localhost")
OWN = Authority.make(SEED, "ward", now=NOW - 100 * DAY)
# Of the same name, so that its key alone tells it apart.
STRANGER = Authority.make(bytes([6]) * 32, "ward", now=NOW - 100 * DAY)


@dataclass
class Kit:
    """A party's files, and the folder that they are in."""

    folder: Path
    certificate: bytes
    cert: Path = field(init=False)
    key: Path = field(init=False)
    authority: Path = field(init=False)

    def __post_init__(self) -> None:
        self.cert, self.key = self.folder / "tls.pem", self.folder / "tls.key"
        self.authority = self.folder / "authority.pem"

    def client(self) -> ssl.SSLContext:
        return client_context(self.cert, self.key, PASSWORD, self.authority)

    def server(self, revoked: Path | None = None) -> ssl.SSLContext:
        return server_context(
            self.cert, self.key, PASSWORD, self.authority, None if revoked is None else revoked.read_bytes()
        )


def kit(
    folder: Path,
    purpose: Purpose = Purpose.CLIENT,
    *,
    authority: Authority = OWN,
    hosts: Sequence[str] | None = None,
    now: datetime | None = None,
    days: int = 30,
) -> Kit:
    """A party's kit as provisioning writes it."""
    folder.mkdir()
    named = (HOSTS if purpose is Purpose.SERVER else ()) if hosts is None else hosts
    issued = authority.issue(folder.name, purpose, password=PASSWORD, hosts=named, days=days, now=now)
    (folder / "tls.pem").write_bytes(issued.certificate)
    (folder / "tls.key").write_bytes(issued.key)
    (folder / "authority.pem").write_bytes(authority.certificate)
    return Kit(folder, issued.certificate)


def revocations(path: Path, *revoked: Kit, **more: object) -> Path:
    serials = {crypto.serial_number(one.certificate): NOW - DAY for one in revoked}
    path.write_bytes(OWN.revoke(serials, **more))  # type: ignore[arg-type]
    return path
