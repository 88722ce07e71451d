"""How a party reads its own kit: a simulated party's folder, or a deployed party's, whose keys are sealed.

A deployed kit:

    silo.toml or server.toml       its settings
    scenarios/                     at a silo: copies of the scenarios whose hashes its law names, to be read by people
    identity.age                   its keys, sealed in the age format (0600)
    tls.key, node.key              encrypted PKCS8 (0600), passwords derived from the identity; a server has no node.key
    tls.pem, authority.pem         its certificate, the authority's
    authority.mldsa65              the authority's ML-DSA key in hexadecimal, if the federation is post-quantum
    roster.json                    everybody's public keys, signed by the authority
    revoked.pem                    at the server only: the certificates that are revoked
    revoked.number                 the number of the newest list of revocations that this kit had

`unlock` opens `identity.age` once, for this process and those that it forks; after that the folder is read like a
simulated one. A silo reads nothing but its own folder, so what its `silo.toml` says holds whatever a server sends.

Guarantee: this process's account owns the kit and alone can access it, or the kit is refused with the path, its owner
or mode, and the command to run. Its keys are those of the roster. The roster is as `fedmodel.provision.roster` says.

Does NOT protect keys in the memory of an unlocked process. Does NOT protect against root on the machine. Owner and mode
are checked; access lists are not.
"""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

from fedmodel.config import EncryptionConfig, ServerFile, SiloFile, read_server_file, read_silo_file
from fedmodel.crypto import SigningKey, Suite
from fedmodel.crypto.certificates import not_valid_after
from fedmodel.crypto.postquantum import PostQuantumKey
from fedmodel.crypto.renewing import revocations_due, revocations_number
from fedmodel.crypto.sealed import Opener, check_owner
from fedmodel.crypto.signed_roster import AUTHORITY, read_authority
from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.provision.identity import SEALED_IDENTITY, Unlocked, open_identity
from fedmodel.provision.roster import FederationRoster, Party, moment, open_roster
from fedmodel.secagg import Policy, Roster
from fedmodel.system.durable import MISSING, replace_file

SIMULATED: Final = "silos/.simulated"
IDENTITY: Final = "identity.key"
ROSTER: Final = "roster"
ADMINISTRATOR: Final = "administrator.pub"
LAW: Final = "silo.toml"
SCENARIOS: Final = "scenarios"

SERVER_LAW: Final = "server.toml"
ROSTER_FILE: Final = "roster.json"
CERTIFICATE: Final = "tls.pem"
TLS_KEY: Final = "tls.key"
NODE_KEY: Final = "node.key"
REVOKED: Final = "revoked.pem"
NEWEST_REVOKED: Final = "revoked.number"
WARN_DAYS: Final = 30

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Kit:
    """What one silo holds. `identity` and `post_quantum` are sensitive."""

    law: SiloFile
    identity: SigningKey
    roster: Roster
    post_quantum: PostQuantumKey | None = None

    @property
    def policy(self) -> Policy:
        """What this silo requires in secure aggregation."""
        return policy_of(self.law.encryption, self.law.min_silos, self.law.largest_roster)


_unlocked: Final[dict[Path, Unlocked]] = {}


def policy_of(encryption: EncryptionConfig, min_silos: int, largest_roster: int) -> Policy:
    """Return the policy of secure aggregation that a configuration describes.

    Without numbers of its own, a third of the silos may collude and another third drop out.

    Raises:
        ConfigError: When it could protect nobody.
    """
    third = (largest_roster - 1) // 3
    return Policy(
        n_min=min_silos,
        colluding=third if encryption.colluding is None else encryption.colluding,
        dropping=third if encryption.dropping is None else encryption.dropping,
        bound=encryption.bound or 0.0,
        largest_roster=largest_roster,
        secrecy_bits=encryption.secrecy_bits,
        ring_bits=encryption.ring_bits,
        window=encryption.window,
        suite=Suite.POST_QUANTUM if encryption.post_quantum else Suite.CLASSIC,
        consistency=encryption.consistency,
    )


@lru_cache(maxsize=4096)
def _key(secret: bytes) -> SigningKey:
    """Return the key of a simulated party, made once a process. Sensitive."""
    return SigningKey(secret)


@lru_cache(maxsize=8)
def _roster(signed: bytes, administrator: bytes) -> Roster:
    """Open a simulation's roster, of which every party has the same."""
    return Roster.open(signed, administrator)


def is_kit(folder: Path) -> bool:
    """Return whether a folder is a silo's kit."""
    return (folder / LAW).is_file()


def is_sealed(folder: Path) -> bool:
    """Return whether a folder is a deployed party's kit, whose keys have to be unlocked."""
    return any((folder / name).is_file() for name in (SEALED_IDENTITY, ROSTER_FILE))


def read_law(folder: Path) -> SiloFile:
    """Read the law of a silo's kit, which needs no unlocking.

    Raises:
        ConfigError: When there is none or it is not acceptable.
    """
    return read_silo_file(folder / LAW)


def read_server_law(folder: Path) -> ServerFile:
    """Read a server's settings, which needs no unlocking.

    Raises:
        ConfigError: When there is none or it is not acceptable.
    """
    return read_server_file(folder / SERVER_LAW)


def read_kit(folder: Path) -> Kit:
    """Read a silo's kit; a deployed one has to be unlocked first.

    Raises:
        ConfigError: When the kit is incomplete, is locked, other accounts can access it, or the silo is no longer a
            member.
        AggregationRefused: When the administrator did not sign the roster.
    """
    law = read_law(folder)
    if not is_sealed(folder):
        return Kit(law, read_identity(folder), read_roster(folder))
    check_private(folder)
    own, roster = unlocked(folder), read_federation_roster(folder)
    check_member(folder, own, roster)
    if law.name != own.name:
        raise ConfigError(f"{folder / LAW}: says silo {law.name!r}, and the keys beside it are {own.name!r}'s")
    return Kit(law, own.identity, roster.aggregation(), own.post_quantum)


def read_identity(folder: Path) -> SigningKey:
    """Read the key of a kit, a silo's or the server's. Sensitive.

    Raises:
        ConfigError: When there is none, or it is locked.
    """
    if is_sealed(folder):
        return unlocked(folder).identity
    try:
        return _key(bytes.fromhex((folder / IDENTITY).read_text(encoding="ascii").strip()))
    except (*MISSING, ValueError) as error:
        raise ConfigError(f"{folder}: holds no {IDENTITY} of 32 bytes in hexadecimal") from error


def read_roster(folder: Path) -> Roster:
    """Read the roster of secure aggregation of a kit, under the administrator's key beside it.

    Raises:
        ConfigError: When one of the two is missing, or a deployed federation's roster has expired.
        AggregationRefused: When the administrator did not sign the roster.
    """
    if (folder / ROSTER_FILE).is_file():
        return read_federation_roster(folder).aggregation()
    try:
        administrator = bytes.fromhex((folder / ADMINISTRATOR).read_text(encoding="ascii").strip())
        return _roster((folder / ROSTER).read_bytes(), administrator)
    except (*MISSING, ValueError) as error:
        raise ConfigError(f"{folder}: holds no roster with the administrator's key beside it") from error


def read_federation_roster(folder: Path, now: datetime | None = None, *, expired_too: bool = False) -> FederationRoster:
    """Read the signed roster of a deployed kit.

    Raises:
        ConfigError: When it is missing or has expired.
        AggregationRefused: When it is not the authority's.
    """
    try:
        data = (folder / ROSTER_FILE).read_bytes()
    except MISSING as error:
        raise ConfigError(f"{folder}: holds no {ROSTER_FILE}; take the newest from the administrator") from error
    return open_roster(data, read_authority(folder), now=now, expired_too=expired_too)


def accept_roster(folder: Path, data: bytes, now: datetime | None = None) -> bool:
    """Replace the kit's roster by a newer one, whoever brought it.

    Returns:
        Whether it was newer; False if it is the same roster.

    Raises:
        AggregationRefused: When the authority did not sign it.
        ConfigError: When it is another federation's, is not valid yet, or has expired.
        ProtocolError: When the kit has a newer one, or a different one of the same serial.
    """
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)  # two processes that accept at once would write to the same partial file
        known = read_federation_roster(folder, now, expired_too=True)
        found = open_roster(data, read_authority(folder), known.federation, now)
        if found == known:
            return False
        if found.serial <= known.serial:
            raise ProtocolError(
                f"a roster of serial {found.serial} was offered, where this kit has {known.serial}: a roster is never"
                " replaced by an older one, nor by another of its serial"
            )
        replace_file(folder / ROSTER_FILE, data)
    finally:
        os.close(place)
    return True


def read_revocations(folder: Path) -> bytes:
    """Return a kit's list of revocations. It is read only once, because it may be replaced at any time.

    Raises:
        ConfigError: When it cannot be read.
    """
    try:
        return (folder / REVOKED).read_bytes()
    except OSError as error:
        raise ConfigError(f"{folder / REVOKED}: cannot be read: {error.strerror}") from None


def accept_revocations(folder: Path, revoked: bytes) -> None:
    """Accept a list of revocations, unless the kit had a newer one before.

    Args:
        folder: The kit's.
        revoked: The very bytes that were checked to be signed by the authority.

    Raises:
        ConfigError: When an older list was restored, under which revoked certificates would be valid again.
        CryptoError: When the list does not state its number.
    """
    newest = folder / NEWEST_REVOKED
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        found = revocations_number(revoked)
        known = int(newest.read_text(encoding="ascii")) if newest.exists() else 0
        if found < known:
            raise ConfigError(
                f"{folder / REVOKED}: is list {found} of the authority's, and this kit had list {known}: a list of"
                " revocations is never replaced by an older one; take the newest from the administrator"
            )
        if found > known:
            replace_file(newest, f"{found}\n".encode())
    except ValueError as error:
        raise ConfigError(f"{newest}: does not say the number of the newest list of revocations") from error
    finally:
        os.close(place)


def unlock(folder: Path, opener: Opener) -> Unlocked:
    """Open a deployed kit's keys, and remember them for this process.

    Raises:
        ConfigError: When other accounts can access the kit, or its keys are not those of its roster.
        CryptoError: When the opener does not open them.
    """
    check_private(folder)
    own = open_identity(folder, opener)
    check_member(folder, own, read_federation_roster(folder, expired_too=True))
    _unlocked[folder.resolve()] = own
    return own


def unlocked(folder: Path) -> Unlocked:
    """Return the keys of a kit that this process has unlocked. Sensitive.

    Raises:
        ConfigError: When it has not unlocked the kit.
    """
    found = _unlocked.get(folder.resolve())
    if found is None:
        raise ConfigError(f"{folder}: is sealed; unlock it with --key-file or a passphrase")
    return found


def check_private(folder: Path) -> None:
    """Refuse a deployed kit that anybody but this process's account can access.

    The owner and the mode of its folder, its sealed identity and its encrypted keys are checked. Nobody else can reach
    the other files in the folder.

    Raises:
        ConfigError: With the path, its owner or mode, and the command that repairs it.
    """
    for path, allowed in ((folder, 0o700), *((folder / name, 0o600) for name in (SEALED_IDENTITY, TLS_KEY, NODE_KEY))):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue  # a file that has to be there is reported by the code that reads it
        except OSError as error:
            raise ConfigError(f"{path}: cannot be looked at: {error.strerror}") from error
        check_owner(path, found)
        mode = stat.S_IMODE(found.st_mode)
        if mode & _OTHERS:
            raise ConfigError(
                f"{path}: has mode {mode:04o}, which lets others at a kit's keys; run: chmod {allowed:o} '{path}'"
            )


def check_member(folder: Path, own: Unlocked, roster: FederationRoster) -> Party:
    """Refuse keys that are not those of the roster, and return their entry in the roster.

    Raises:
        ConfigError: When they belong to no current member.
    """
    if own.federation != roster.federation:
        raise ConfigError(f"{folder}: keys of federation {own.federation!r} beside a roster of {roster.federation!r}")
    party = roster.member(own.name)
    post_quantum = own.post_quantum.public.hex() if own.post_quantum else None
    if (party.identity, party.post_quantum, party.age) != (own.identity.public.hex(), post_quantum, own.recipient):
        raise ConfigError(
            f"{folder}: the keys are not those that the roster, serial {roster.serial}, has for {own.name!r}: they were"
            " rotated, and the kit is the old one; take the new from the administrator"
        )
    return party


def expiring(folder: Path, now: datetime | None = None) -> list[str]:
    """Return a line for everything in a deployed kit that expires within 30 days, or has expired."""
    now = datetime.now(UTC) if now is None else now
    roster = read_federation_roster(folder, now, expired_too=True)
    ends = [("the roster", datetime.fromisoformat(roster.expires))]
    for what, name in (("the certificate", CERTIFICATE), ("the authority's certificate", AUTHORITY)):
        if (folder / name).is_file():
            ends.append((what, not_valid_after((folder / name).read_bytes())))
    if (folder / REVOKED).is_file():
        ends.append(("the list of revoked certificates", revocations_due((folder / REVOKED).read_bytes())))
    lines = []
    for what, end in ends:
        if end - now <= timedelta(days=WARN_DAYS):
            days = (end - now) // timedelta(days=1)
            when = f"expired on {moment(end)}" if end <= now else f"expires on {moment(end)}, in {days} days"
            lines.append(f"{folder}: {what} {when}; the administrator renews it with `fedmodel authority renew`")
    return lines
