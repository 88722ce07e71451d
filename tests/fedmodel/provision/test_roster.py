"""The roster: what is signed, what is refused, and that none goes back to an older one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedmodel.crypto import SigningKey
from fedmodel.crypto.postquantum import PostQuantumKey
from fedmodel.errors import AggregationRefused, ConfigError, FedmodelError, ProtocolError, Rule
from fedmodel.provision import (
    AuthorityKeys,
    FederationRoster,
    Party,
    Revocation,
    accept_roster,
    open_roster,
    read_federation_roster,
    read_kit,
)
from fedmodel.provision.roster import moment
from fedmodel.secagg import Member
from tests.federations import Federation, federation, pristine

__all__ = ["federation", "pristine"]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADMINISTRATOR, LATTICE = SigningKey(bytes(range(32))), PostQuantumKey(bytes(range(1, 33)))
CLASSIC = AuthorityKeys(ADMINISTRATOR.public, None)
HYBRID = AuthorityKeys(ADMINISTRATOR.public, LATTICE.public)


def party(number: int, name: str, lattice: bool = False) -> Party:
    seed = bytes([number]) * 32
    return Party(
        name=name,
        role="server" if name == "server" else "silo",
        identity=SigningKey(seed).public.hex(),
        post_quantum=PostQuantumKey(seed).public.hex() if lattice else None,
        node=None if name == "server" else f"node {number}",
        age=f"age1{number}",
        tls=f"{number:064x}",
        certificate=f"{number + 100:064x}",
    )


def roster(lattice: bool = False, **changed: Any) -> FederationRoster:
    names = ("server", "west", "north", "south")
    return FederationRoster(
        **{
            "federation": "northern",
            "serial": 7,
            "issued": moment(NOW),
            "expires": moment(NOW + timedelta(days=397)),
            "members": tuple(party(number, name, lattice) for number, name in enumerate(names, start=1)),
            **changed,
        }
    )


def signed(found: FederationRoster) -> bytes:
    return found.sign(ADMINISTRATOR, None)


def replaced(found: FederationRoster, name: str, **changed: Any) -> tuple[Party, ...]:
    return tuple(one.model_copy(update=changed) if one.name == name else one for one in found.members)


@pytest.mark.parametrize("lattice", [False, True])
def test_a_signed_roster_reads_back_the_same(lattice: bool) -> None:
    found = roster(lattice, revoked=(Revocation(name="east", identity="ab" * 32, when=moment(NOW), reason="left"),))
    data = found.sign(ADMINISTRATOR, LATTICE if lattice else None)
    assert open_roster(data, HYBRID if lattice else CLASSIC, "northern", NOW) == found
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def test_secure_aggregation_sees_the_silos_by_name() -> None:
    found = roster().aggregation()
    keys = {one.name: bytes.fromhex(one.identity) for one in roster().members}
    assert found.federation == "northern"
    assert found.members == tuple(Member(name, keys[name]) for name in ("north", "south", "west"))


def test_every_flipped_bit_is_refused() -> None:
    data = signed(roster())
    for place in range(0, len(data), 7):
        for bit in (1, 4):
            with pytest.raises(FedmodelError):
                open_roster(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :], CLASSIC, "northern", NOW)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda data: data.replace(b'"serial":7', b'"serial":8'), Rule.BAD_SIGNATURE),
        (lambda data: data.replace(b"northern", b"southern"), Rule.BAD_SIGNATURE),
        (lambda data: data.replace(b'"serial":7', b'"serial":7,"serial":7'), Rule.MALFORMED),
        (lambda data: data.rstrip(), Rule.MALFORMED),
        (lambda data: b" " + data, Rule.MALFORMED),
        (lambda data: b"[]\n", Rule.MALFORMED),
        (lambda data: b"{}\n", Rule.MALFORMED),
        (lambda data: b"\xff\n", Rule.MALFORMED),
        (lambda data: b"[" * 100_000 + b"\n", Rule.MALFORMED),
    ],
)
def test_a_tampered_roster_is_refused(change: Callable[[bytes], bytes], rule: Rule) -> None:
    with pytest.raises(AggregationRefused) as refused:
        open_roster(change(signed(roster())), CLASSIC, "northern", NOW)
    assert refused.value.rule is rule


def test_another_authoritys_roster_is_refused() -> None:
    with pytest.raises(AggregationRefused) as refused:
        open_roster(roster().sign(SigningKey.generate(), None), CLASSIC, "northern", NOW)
    assert refused.value.rule is Rule.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (roster(lattice=True).sign(ADMINISTRATOR, None), HYBRID),  # Ed25519 alone, where both are asked for
        (roster(lattice=True).sign(ADMINISTRATOR, PostQuantumKey.generate()), HYBRID),
        (roster(lattice=True).sign(SigningKey.generate(), LATTICE), HYBRID),  # ML-DSA alone
        (roster().sign(ADMINISTRATOR, LATTICE), CLASSIC),  # a signature that nobody here can check
    ],
)
def test_where_there_are_two_signatures_both_are_checked(data: bytes, keys: AuthorityKeys) -> None:
    with pytest.raises(AggregationRefused) as refused:
        open_roster(data, keys, "northern", NOW)
    assert refused.value.rule is Rule.BAD_SIGNATURE


ROSTER = roster()
NORTH = ROSTER.member("north")


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"members": (*ROSTER.members, party(9, "north"))}, Rule.DUPLICATE),
        ({"members": replaced(ROSTER, "west", identity=NORTH.identity)}, Rule.DUPLICATE),
        ({"members": replaced(ROSTER, "west", node=NORTH.node)}, Rule.DUPLICATE),
        ({"members": replaced(ROSTER, "west", age=NORTH.age)}, Rule.DUPLICATE),
        ({"members": replaced(ROSTER, "west", tls=NORTH.tls)}, Rule.DUPLICATE),
        ({"members": replaced(ROSTER, "west", certificate=NORTH.certificate)}, Rule.DUPLICATE),
        ({"members": replaced(ROSTER, "server", identity=NORTH.identity)}, Rule.DUPLICATE),
        ({"members": replaced(ROSTER, "west", identity="00" * 32)}, Rule.WEAK_KEY),
        ({"members": ROSTER.members[:1]}, Rule.ROSTER),
        ({"members": ROSTER.members[1:]}, Rule.ROSTER),
        ({"members": (*ROSTER.members, party(9, "server"))}, Rule.ROSTER),
        ({"members": replaced(ROSTER, "west", node=None)}, Rule.ROSTER),
        ({"members": replaced(ROSTER, "west", role="server")}, Rule.ROSTER),
        ({"members": replaced(ROSTER, "west", post_quantum="00" * 1952)}, Rule.ROSTER),
        (
            {"revoked": (Revocation(name="x", identity=NORTH.identity, when=moment(NOW), reason="theft"),)},
            Rule.ROSTER,
        ),
        ({"version": 2}, Rule.MALFORMED),
        ({"serial": 0}, Rule.MALFORMED),
        ({"extra": 1}, Rule.MALFORMED),
        ({"issued": "yesterday"}, Rule.MALFORMED),
    ],
)
def test_a_roster_that_is_signed_and_wrong_is_refused(changed: dict[str, Any], rule: Rule) -> None:
    with pytest.raises(AggregationRefused) as refused:
        open_roster(signed(_Unchecked(changed)), CLASSIC, "northern", NOW)  # type: ignore[arg-type]
    assert refused.value.rule is rule


class _Unchecked:
    """A roster with fields that the model would not take, signed as one is."""

    sign = FederationRoster.sign

    def __init__(self, changed: dict[str, Any]) -> None:
        self._document = ROSTER.model_copy(update=changed).model_dump(mode="json", warnings=False) | {
            key: value for key, value in changed.items() if isinstance(value, int | str)
        }

    def model_dump(self, **_: str) -> dict[str, Any]:
        return self._document


def test_another_federations_roster_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"of federation 'northern', and this is 'southern'"):
        open_roster(signed(roster()), CLASSIC, "southern", NOW)


def test_a_roster_is_good_from_its_date_to_its_end() -> None:
    data = signed(roster())
    end = NOW + timedelta(days=397)
    for now in (NOW - timedelta(minutes=5), NOW, end - timedelta(seconds=1)):
        open_roster(data, CLASSIC, "northern", now)
    with pytest.raises(ConfigError, match=r"expired on 2027-04-02T12:00:00Z.*fedmodel authority renew"):
        open_roster(data, CLASSIC, "northern", end)
    with pytest.raises(ConfigError, match=r"this machine's clock says 2026-03-01T11:00:00Z; set the clock"):
        open_roster(data, CLASSIC, "northern", NOW - timedelta(hours=1))
    assert open_roster(data, CLASSIC, "northern", end, expired_too=True).serial == 7


def test_a_revoked_party_is_missed_with_the_reason() -> None:
    gone = Revocation(name="east", identity="ab" * 32, when=moment(NOW), reason="laptop stolen")
    with pytest.raises(ConfigError, match=r"'east' is no member.*revoked on 2026-03-01T12:00:00Z: laptop stolen"):
        roster(revoked=(gone,)).member("east")


def resigned(one: Federation, **changed: Any) -> bytes:
    """Return the federation's roster with something else in it, signed by its authority."""
    from fedmodel.provision.identity import open_identity

    own = open_identity(one.kit("authority"), one.opener())
    return one.roster.model_copy(update=changed).sign(own.identity, own.post_quantum)


def test_a_kit_takes_a_newer_roster_and_never_an_older(federation: Federation) -> None:
    kit = federation.kit("north")
    federation.unlock("north")
    first = (kit / "roster.json").read_bytes()
    left = tuple(one for one in federation.roster.members if one.name != "west")
    newer = resigned(federation, serial=5, members=left)
    assert not accept_roster(kit, first)
    assert accept_roster(kit, newer)
    assert (kit / "roster.json").read_bytes() == newer
    assert (kit / "roster.json").stat().st_mode & 0o777 == 0o600
    assert [member.name for member in read_kit(kit).roster.members] == ["north", "south"]
    assert not accept_roster(kit, newer)
    for older in (first, resigned(federation, serial=4), resigned(federation, serial=5)):
        with pytest.raises(ProtocolError, match=r"never replaced by an older one, nor by another of its serial"):
            accept_roster(kit, older)
    assert (kit / "roster.json").read_bytes() == newer


def test_a_kit_takes_no_roster_of_others(federation: Federation) -> None:
    kit = federation.kit("north")
    first = (kit / "roster.json").read_bytes()
    stranger = federation.roster.model_copy(update={"serial": 9}).sign(SigningKey.generate(), PostQuantumKey.generate())
    with pytest.raises(AggregationRefused):
        accept_roster(kit, stranger)
    with pytest.raises(ConfigError, match="of federation 'southern'"):
        accept_roster(kit, resigned(federation, serial=9, federation="southern"))
    with pytest.raises(ConfigError, match="expired"):
        accept_roster(kit, resigned(federation, serial=9, expires="2026-01-01T00:00:00Z"))
    assert (kit / "roster.json").read_bytes() == first


def test_an_expired_roster_is_replaced_all_the_same(federation: Federation) -> None:
    kit = federation.kit("north")
    late = datetime.now(UTC) + timedelta(days=400)
    with pytest.raises(ConfigError, match="expired"):
        read_federation_roster(kit, late)
    assert accept_roster(kit, resigned(federation, serial=2, expires=moment(late + timedelta(days=9))), late)
    assert read_federation_roster(kit, late).serial == 2
