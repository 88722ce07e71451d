"""Whose keys are known: by the rosters in a folder, and by what the reader was told from outside of it.

Guarantee: a key is called anchored only if it was given, or a roster names it that the authority signed that was given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedmodel.crypto import check_verification_key
from fedmodel.crypto.signed_roster import AUTHORITY, fingerprint, opened_roster, read_authority
from fedmodel.errors import ConfigError, CryptoError, FedmodelError, LedgerTampered
from fedmodel.secagg import Roster

_FOLDERS: Final = ("server", "kits/server")
_ROSTER_FILE: Final = "roster.json"
_ROSTER: Final = "roster"
_ADMINISTRATOR: Final = "administrator.pub"


@dataclass(frozen=True)
class Keys:
    """The keys that are known.

    Attributes:
        silos: By silo, of the roster in the folder, or given.
        server: The server's, of a federation's roster or given; None where nothing names it.
        anchored: Silos whose keys are known from outside.
        server_anchored: Whether the server's is.
    """

    silos: dict[str, bytes]
    server: bytes | None
    anchored: frozenset[str]
    server_anchored: bool


def keys_of(folder: Path, authority: str | None, silo_keys: Sequence[str], key: str | None) -> Keys:
    """Return the keys that are known.

    Raises:
        ConfigError: When something given is in no such form, or an authority is given and no roster is here.
        LedgerTampered: When a roster is not the authority's.
    """
    anchor = _anchor(authority)
    signer, silos, server = _roster(folder)
    if anchor and not signer:
        raise ConfigError(f"{folder}: holds no roster that --authority could vouch for; give --silo-key for each silo")
    if anchor and anchor not in signer:
        raise LedgerTampered(f"{folder}: its roster is not of the authority that --authority names")
    given = dict(map(_silo_key, silo_keys))
    told = None if key is None else _public("--key", key)
    if told is not None and server not in (None, told) and anchor:
        raise LedgerTampered(f"{folder}: the authority's roster names another server's key than --key")
    vouched = frozenset(silos) if anchor else frozenset[str]()
    return Keys({**silos, **given}, told or server, vouched | given.keys(), told is not None or bool(anchor and server))


def _roster(folder: Path) -> tuple[tuple[str, ...], dict[str, bytes], bytes | None]:
    """Return how the authority may be called that signed a roster here, the silos' keys, and the server's."""
    for place in (folder / one for one in _FOLDERS):
        try:
            if (place / _ROSTER_FILE).is_file():
                return _federation(place)
            if (place / _ROSTER).is_file():
                text = (place / _ADMINISTRATOR).read_text(encoding="ascii").strip()
                roster = Roster.open((place / _ROSTER).read_bytes(), bytes.fromhex(text))
                return (text,), {member.name: member.key for member in roster.members}, None
        except (FedmodelError, ValueError, KeyError, TypeError, OSError) as error:
            raise LedgerTampered(f"{place}: its roster is not as it was signed: {error}") from None
    return (), {}, None


def _federation(place: Path) -> tuple[tuple[str, ...], dict[str, bytes], bytes]:
    authority = read_authority(place)
    roster: dict[str, Any] = opened_roster((place / _ROSTER_FILE).read_bytes(), authority)
    post_quantum = (authority.post_quantum or b"").hex()
    digits = fingerprint(roster["federation"], "authority", "authority", authority.identity.hex(), post_quantum)
    keys = {one["name"]: _public(AUTHORITY, one["identity"]) for one in roster["members"]}
    if len(keys) != len(roster["members"]):
        raise LedgerTampered(f"{place}: its roster names a member twice")
    silos = {one["name"]: keys[one["name"]] for one in roster["members"] if one["role"] == "silo"}
    return (re.sub(r"\s", "", digits), authority.identity.hex()), silos, keys["server"]


def _anchor(authority: str | None) -> str:
    told = re.sub(r"[\s-]", "", authority or "").lower()
    if authority is not None and not re.fullmatch(r"[0-9]{60}|[0-9a-f]{64}", told):
        raise ConfigError(
            "--authority is the authority's fingerprint, 12 groups of 5 digits, or its public key, 64 digits in"
            " hexadecimal"
        )
    return told


def _silo_key(given: str) -> tuple[str, bytes]:
    silo, _, digits = given.partition("=")
    return silo.strip(), _public(f"--silo-key {given}", digits)


def _public(what: str, digits: str) -> bytes:
    try:
        key = bytes.fromhex(digits)
        check_verification_key(key)
    except (ValueError, CryptoError):
        raise ConfigError(f"{what}: is no public key of 64 hexadecimal digits") from None
    return key
