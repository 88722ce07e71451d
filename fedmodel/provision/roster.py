"""The roster of a deployed federation, `roster.json`: everybody's public keys, signed by the authority.

    {"roster": {"version", "federation", "serial", "issued", "expires", "members", "revoked"},
     "signatures": {"ed25519", "mldsa65"}}

The file is canonical JSON (sorted keys, no spaces) and a newline. The signatures cover the same encoding of the inner
object. The file is public, so anybody can carry it, the server too.

Guarantee: the roster that `open_roster` returns was signed for this federation by the holder of the authority's key,
and of its ML-DSA key if the kit has one. It has not expired. It names one server, and no name or key twice; no key in
it is weak, or also revoked. `accept_roster` never goes back to an older roster.

Does NOT show that a newer one exists: whoever carries rosters can withhold one until the one in use expires.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from fedmodel.crypto import SigningKey, check_verification_key
from fedmodel.crypto.postquantum import PostQuantumKey
from fedmodel.crypto.signed_roster import ROSTER_LABEL, AuthorityKeys, canonical_roster, opened_roster
from fedmodel.errors import AggregationRefused, ConfigError, CryptoError, Rule
from fedmodel.kinds.section import Section, SiloName
from fedmodel.secagg import Member, Roster

_SKEW: Final = timedelta(minutes=5)  # clocks that nobody sets differ by seconds a day

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MlDsaKey = Annotated[str, Field(pattern=r"^[0-9a-f]{3904}$")]
Moment = Annotated[str, Field(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z$")]


class Party(Section):
    """A member and its public keys.

    Attributes:
        name: Its name; the server's is "server".
        role: What it is.
        identity: Its Ed25519 key.
        post_quantum: Its ML-DSA-65 key.
        node: Its P-256 key by which Flower knows it, in PEM; the server has none.
        age: The age recipient that its files at rest are sealed to.
        tls: SHA-256 of its TLS key (SubjectPublicKeyInfo).
        certificate: SHA-256 of its certificate, in DER.
    """

    name: SiloName
    role: Literal["server", "silo"]
    identity: Hex32
    post_quantum: MlDsaKey | None
    node: Annotated[str, Field(max_length=500)] | None
    age: Annotated[str, Field(max_length=100)]
    tls: Hex32
    certificate: Hex32


class Revocation(Section):
    """A key that no longer belongs to a member."""

    name: SiloName
    identity: Hex32
    when: Moment
    reason: Annotated[str, Field(min_length=1, max_length=200)]


class FederationRoster(Section):
    """All members of a federation; the module's docstring says what an opened roster guarantees."""

    version: Literal[1] = 1
    federation: SiloName
    serial: Annotated[int, Field(ge=1, lt=2**53)]
    issued: Moment
    expires: Moment
    members: Annotated[tuple[Party, ...], Field(strict=False, min_length=1, max_length=10_001)]
    revoked: Annotated[tuple[Revocation, ...], Field(strict=False, max_length=100_000)] = ()

    @property
    def server(self) -> Party:
        """The federation's server."""
        return next(member for member in self.members if member.role == "server")

    @property
    def silos(self) -> tuple[Party, ...]:
        """Its silos, by name."""
        return tuple(sorted((member for member in self.members if member.role == "silo"), key=lambda one: one.name))

    def member(self, name: str) -> Party:
        """Return the member of a name.

        Raises:
            ConfigError: When there is none.
        """
        for member in self.members:
            if member.name == name:
                return member
        gone = self.gone(name)
        why = f"; it was revoked on {gone.when}: {gone.reason}" if gone else ""
        raise ConfigError(f"{name!r} is no member of federation {self.federation!r}, serial {self.serial}{why}")

    def gone(self, name: str) -> Revocation | None:
        """Return the revocation of a former member, or None for a member and for a name that never was one."""
        if any(member.name == name for member in self.members):
            return None
        return next((one for one in reversed(self.revoked) if one.name == name), None)

    def aggregation(self) -> Roster:
        """Return the roster of secure aggregation: the silos by name."""
        return Roster(self.federation, tuple(Member(silo.name, bytes.fromhex(silo.identity)) for silo in self.silos))

    def sign(self, authority: SigningKey, post_quantum: PostQuantumKey | None) -> bytes:
        """Return the file: the roster with the authority's signatures."""
        inner = self.model_dump(mode="json")
        message = canonical_roster(inner)
        signatures = {
            "ed25519": authority.sign(ROSTER_LABEL, message).hex(),
            "mldsa65": post_quantum.sign(ROSTER_LABEL, message).hex() if post_quantum else None,
        }
        return canonical_roster({"roster": inner, "signatures": signatures}) + b"\n"


def open_roster(
    data: bytes,
    authority: AuthorityKeys,
    federation: str | None = None,
    now: datetime | None = None,
    *,
    expired_too: bool = False,
) -> FederationRoster:
    """Read a signed roster.

    Args:
        data: The file.
        authority: The keys that the administrator gave to the reader.
        federation: The federation that it has to be for, if the reader knows.
        now: The time; by default the machine's.
        expired_too: Whether to read also a roster that is not valid yet or has expired, to learn what it is for or what
            a newer one replaces.

    Raises:
        AggregationRefused: When the authority did not sign it, it is malformed, or it has a duplicate or a weak key.
        ConfigError: When it is another federation's, is not valid yet, or has expired.
    """
    inner = opened_roster(data, authority)
    try:
        roster = FederationRoster.model_validate(inner)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise AggregationRefused(Rule.MALFORMED, f"the roster's {where or 'form'} cannot be read") from error
    _check_members(roster, authority.post_quantum is not None)
    if federation is not None and roster.federation != federation:
        raise ConfigError(
            f"the roster is of federation {roster.federation!r}, and this is {federation!r}; take its own"
        )
    if not expired_too:
        _check_time(roster, datetime.now(UTC) if now is None else now)
    return roster


def moment(time: datetime) -> str:
    """Return a time as the roster writes it, to the second.

    >>> moment(datetime(2026, 3, 1, 12, tzinfo=UTC))
    '2026-03-01T12:00:00Z'
    """
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_members(roster: FederationRoster, post_quantum: bool) -> None:
    """Refuse a roster whose members could be confused with each other, or that has a missing, weak or revoked key."""
    if sum(member.role == "server" for member in roster.members) != 1 or not roster.silos:
        raise AggregationRefused(Rule.ROSTER, "a roster names one server, and a silo")
    gone = {one.identity for one in roster.revoked}
    for member in roster.members:
        if (member.role == "server") != (member.name == "server"):
            raise AggregationRefused(Rule.ROSTER, f"the roster's {member.role} is called {member.name!r}")
        if (member.node is None) != (member.role == "server"):
            raise AggregationRefused(Rule.ROSTER, f"{member.name!r} is a {member.role}; silos alone have a node key")
        if (member.post_quantum is not None) != post_quantum:
            raise AggregationRefused(Rule.ROSTER, f"{member.name!r} has an ML-DSA key where the authority has, or none")
        if member.identity in gone:
            raise AggregationRefused(Rule.ROSTER, f"the key of {member.name!r} is revoked in the same roster")
        try:
            check_verification_key(bytes.fromhex(member.identity))
        except CryptoError as error:
            raise AggregationRefused(Rule.WEAK_KEY, f"the roster's key of {member.name!r}: {error}") from error
    for what, values in _unique(roster):
        if len(set(values)) != len(values):
            raise AggregationRefused(Rule.DUPLICATE, f"two members of the roster have one {what}")


def _unique(roster: FederationRoster) -> Iterator[tuple[str, list[str]]]:
    """Yield each attribute that has to be unique, with the values of all members."""
    for what in ("name", "identity", "post_quantum", "node", "age", "tls", "certificate"):
        values = [getattr(member, what) for member in roster.members]
        yield what, [value for value in values if value is not None]


def _check_time(roster: FederationRoster, now: datetime) -> None:
    """Refuse a roster that is not valid yet, or no longer."""
    issued, expires = (datetime.fromisoformat(time) for time in (roster.issued, roster.expires))
    if now < issued - _SKEW:
        raise ConfigError(
            f"the roster was issued on {roster.issued}, and this machine's clock says {moment(now)}; set the clock"
        )
    if now >= expires:
        raise ConfigError(
            f"the roster expired on {roster.expires}, and this machine's clock says {moment(now)}; the administrator"
            " issues another with `fedmodel authority renew`"
        )
