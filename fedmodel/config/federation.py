"""The frozen models behind a deployed federation's two other files: what it is made from, and what its server runs by.

`federation.toml` is the administrator's: who takes part, where the server is, which scenarios the silos' laws are
written for. `server.toml` is the server's own, in its kit. Neither holds a secret.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from fedmodel.config.own_bases import Bases
from fedmodel.config.own_packages import PackageName, Packages, StrategyPackage
from fedmodel.config.tables import TableSource
from fedmodel.kinds.section import Address, AgeRecipient, DataName, Device, Section, SiloName

MOST_DAYS = 1_095
"""Three years: a key that is never replaced is one whose loss nobody notices."""

FederationName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
# The names of the other parties' folders and certificates.
_TAKEN = ("server", "authority")


def _is_host(value: str) -> str:
    """Refuse what is neither an address nor a name of hosts."""
    try:
        ip_address(value)
    except ValueError:
        label = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
        # A last label of digits alone is a mistyped address.
        if len(value) > 253 or not re.fullmatch(rf"(?:{label}\.)*(?![0-9]+$){label}", value):
            raise ValueError(
                f"{value!r} is neither a host's name, in lower case, nor an address; the port stands under server.port"
            ) from None
    return value


Host = Annotated[str, AfterValidator(_is_host)]
Hosts = Annotated[tuple[Host, ...], Field(strict=False, min_length=1, max_length=100)]
Recipients = Annotated[tuple[AgeRecipient, ...], Field(strict=False)]


class ServerPlace(Section):
    """Where the server is.

    Attributes:
        hosts: Names and addresses by which silos reach it; its certificate holds them, and silos take the first.
        port: Of TCP, the only one that is opened.
        listen: The server's own address to listen on; by default all that it has.
    """

    hosts: Hosts
    port: int = Field(default=9443, ge=1, le=65_535)
    listen: Host = "0.0.0.0"  # noqa: S104 - the fleet's port is for the silos, and answers holders of a certificate only

    @property
    def address(self) -> str:
        """Where silos reach it."""
        return joined(self.hosts[0], self.port)


class SiloEntry(Section):
    """A silo that takes part."""

    name: SiloName

    @field_validator("name")
    @classmethod
    def _is_free(cls, value: str) -> str:
        if value in _TAKEN:
            raise ValueError(f"a silo cannot be called {value!r}, which is another party's name")
        return value


class FederationFile(Section):
    """What a federation is made from, `federation.toml`.

    Attributes:
        name: The federation's. Its roster and certificates bear it.
        post_quantum: Whether every party has an ML-DSA-65 key beside its Ed25519 key.
        days: How long certificates and the roster are good for.
        seal: What opens a kit's keys: a key file for each party, or a passphrase for each.
        scenarios: Files, beside this one, or names of built-in ones: what the silos' laws admit, and nothing more.
        escrow: Recipients of age that can open models, besides the server; no party's keys, and nothing of a silo's.
        packages: Installed packages of others, by name and version, whose code its scenarios may name. `provision`
            writes them into every party's file, with the hash of their files.
        strategy_packages: Those of which a strategy may be, at the server alone; `provision` writes them into its file,
            with the hash of the files of each.
        server: Where the server is.
        silos: Who takes part.
    """

    name: FederationName
    post_quantum: bool = False
    days: int = Field(default=397, ge=1, le=MOST_DAYS)
    seal: Literal["key-file", "passphrase"] = "key-file"
    scenarios: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    escrow: Recipients = ()
    packages: Packages = Field(default={}, exclude_if=lambda listed: not listed)
    strategy_packages: Packages = Field(default={}, exclude_if=lambda listed: not listed)
    server: ServerPlace
    silos: Annotated[tuple[SiloEntry, ...], Field(strict=False, min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _names_differ(self) -> FederationFile:
        names = [silo.name for silo in self.silos]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"silo {repeated[0]!r} is named twice; every silo needs its own name")
        return self


class ServerFile(Section):
    """What a server runs by, `server.toml`.

    Attributes:
        federation: The federation's name, as the roster says it.
        listen: Where the fleet's port is opened, "host:port".
        hosts: Names and addresses in its certificate.
        device: Where it evaluates.
        escrow: Recipients of age that can open what it keeps at rest, besides itself.
        tables: Where its own held-out records lie, by the names that scenarios call the data sets.
        packages: Those whose files are in the hash of the silos' code; they are installed here too.
        strategy_packages: Those of which a strategy of a user's own may be, each by the hash of its files.
        bases: Models that scenarios are built on: by the hash of each, its folder here.
    """

    federation: FederationName
    listen: Address
    hosts: Hosts
    device: Device = "auto"
    escrow: Recipients = ()
    tables: dict[DataName, TableSource] = Field(default={})
    packages: Packages = Field(default={}, exclude_if=lambda listed: not listed)
    strategy_packages: dict[PackageName, StrategyPackage] = Field(default={}, exclude_if=lambda listed: not listed)
    bases: Bases = Field(default={}, exclude_if=lambda listed: not listed)

    @field_validator("tables")
    @classmethod
    def _measures_on_all(cls, value: dict[str, TableSource]) -> dict[str, TableSource]:
        for name, source in value.items():
            if source.held_out is not None:
                raise ValueError(f"{name}.held_out is said by a silo alone; the server measures on all of its table")
        return value


def joined(host: str, port: int) -> str:
    """Return "host:port", an address of IPv6 in brackets.

    >>> joined("::1", 9443)
    '[::1]:9443'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
