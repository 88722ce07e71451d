"""The authority's folder, opened for one change at a time.

    identity.age, authority.pem, authority.mldsa65   its keys, sealed, and what everybody knows of them
    federation.toml, scenarios/                      what the federation was made from, as it is now
    roster.json, revoked.pem                         the newest that were signed
    revoked.json                                     every certificate that was revoked, from which a list is made
    certificates/NAME/                               every certificate of a party, by which it is renewed and revoked

Does NOT vouch for what lies there in the clear: whoever writes to this folder can have the next change sign a roster of
their own. That is why it is kept offline.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from fedmodel.config import FederationFile, Scenario, read_federation_file, read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.crypto.certificates import Authority, fingerprint, not_valid_after, serial_number
from fedmodel.crypto.postquantum import PostQuantumKey
from fedmodel.crypto.renewing import renew, revocations_number
from fedmodel.durable import MISSING, replace_file
from fedmodel.errors import ConfigError
from fedmodel.provision.identity import open_identity
from fedmodel.provision.kits import (
    AUTHORITY,
    AUTHORITY_POST_QUANTUM,
    CERTIFICATE,
    REVOKED,
    ROSTER_FILE,
    check_private,
    read_authority,
    read_federation_roster,
)
from fedmodel.provision.making import (
    SERVER,
    Seals,
    make_identity,
    make_keys,
    private_folder,
    write_document,
    write_machine,
)
from fedmodel.provision.roster import AuthorityKeys, FederationRoster, Party, Revocation, moment
from fedmodel.sealed import Opener

_FEDERATION: Final = "federation.toml"
_GONE: Final = "revoked.json"


@dataclass(frozen=True)
class Office:
    """An opened authority. `seed`, `authority` and `post_quantum` are sensitive.

    Attributes:
        root: The federation's folder.
        seed: The authority's Ed25519 key.
        post_quantum: Its ML-DSA key, where the federation has such.
        authority: What issues certificates.
        keys: What everybody knows of its keys.
        federation: What the federation is made from, as it is now.
        last: The newest roster; None before the first.
        now: When the change is made.
    """

    root: Path
    seed: bytes
    post_quantum: PostQuantumKey | None
    authority: Authority
    keys: AuthorityKeys
    federation: FederationFile
    last: FederationRoster | None
    now: datetime

    @property
    def folder(self) -> Path:
        """The authority's own."""
        return self.root / "authority"

    @property
    def roster(self) -> FederationRoster:
        """The newest roster."""
        if self.last is None:
            raise ConfigError(f"{self.folder}: has issued no roster yet")
        return self.last

    @property
    def days(self) -> int:
        """How long what is issued now is good for: no longer than the authority itself."""
        left = (not_valid_after(self.authority.certificate) - self.now) // timedelta(days=1)
        if left < 1:
            raise ConfigError("the authority's certificate has expired; make a new federation: `fedmodel provision`")
        return min(self.federation.days, left)

    def kit(self, name: str) -> Path:
        """Return where a party's kit lies, as long as it is here."""
        return self.root / SERVER if name == SERVER else self.root / "silos" / name

    def make_kit(self, kit: Path, name: str, seals: Seals) -> Party:
        """Make a party's keys and all of its kit but its law and the roster."""
        private_folder(kit)
        party = make_keys(kit, name, self.federation, self.authority, seals, self.days, self.now)
        write_machine(kit, name, self.federation)
        for public in (AUTHORITY, AUTHORITY_POST_QUANTUM):
            if (self.folder / public).exists():
                replace_file(kit / public, (self.folder / public).read_bytes())
        self.keep_certificate(name, (kit / CERTIFICATE).read_bytes())
        return party

    def publish(self, members: Sequence[Party], revoked: Sequence[Revocation]) -> FederationRoster:
        """Sign a newer roster and a newer list of revocations, and put them where they belong."""
        roster = FederationRoster(
            federation=self.federation.name,
            serial=1 if self.last is None else self.last.serial + 1,
            issued=moment(self.now),
            expires=moment(self.now + timedelta(days=self.days)),
            members=tuple(sorted(members, key=lambda one: (one.role, one.name))),
            revoked=tuple(revoked),
        )
        gone = {int(entry["serial"], 16): datetime.fromisoformat(entry["when"]) for entry in self._gone()}
        last = self.folder / REVOKED
        after = revocations_number(last.read_bytes()) if last.exists() else 0
        listed = self.authority.revoke(gone, days=self.days, now=self.now, after=after)
        signed = roster.sign(SigningKey(self.seed), self.post_quantum)
        for folder in (self.folder, self.kit(SERVER)):
            if folder.is_dir():
                replace_file(folder / REVOKED, listed)
        kits = [self.kit(member.name) for member in roster.members]
        for folder in (self.folder, *(kit for kit in kits if kit.is_dir())):
            replace_file(folder / ROSTER_FILE, signed)
        return roster

    def certificates(self, name: str) -> list[bytes]:
        """Return every certificate that a party was ever issued."""
        folder = self.folder / "certificates" / name
        return [path.read_bytes() for path in sorted(folder.glob("*.pem"))]

    def keep_certificate(self, name: str, certificate: bytes) -> None:
        """Keep what was issued, by which it is renewed and revoked."""
        private_folder(self.folder / "certificates")
        folder = private_folder(self.folder / "certificates" / name)
        replace_file(folder / f"{serial_number(certificate):x}.pem", certificate)

    def renewed(self, party: Party) -> bytes:
        """Return a party's certificate with new dates, and keep it."""
        for old in self.certificates(party.name):
            if fingerprint(old) == party.certificate:
                new = renew(self.seed, self.authority.certificate, old, days=self.days, now=self.now)
                self.keep_certificate(party.name, new)
                return new
        raise ConfigError(f"{self.folder}: the certificate of {party.name!r} is not kept there; rotate its keys")

    def enter_revoked(self, name: str, certificates: Sequence[bytes], reason: str) -> None:
        """Enter certificates that are good no more; expired ones too, which does no harm."""
        entries = self._gone()
        known = {entry["serial"] for entry in entries}
        for certificate in certificates:
            serial = f"{serial_number(certificate):x}"
            if serial not in known:
                entries.append({"name": name, "serial": serial, "when": moment(self.now), "reason": reason})
        replace_file(self.folder / _GONE, json.dumps(entries, indent=1).encode("ascii") + b"\n")

    def scenarios(self) -> list[Scenario]:
        """Return the scenarios that silos' laws are written from."""
        return [read_scenario(str(path)) for path in sorted((self.folder / "scenarios").glob("*.toml"))]

    def keep_scenario(self, scenario: Scenario) -> None:
        """Keep a scenario, in place of the one of its name."""
        write_document(private_folder(self.folder / "scenarios") / f"{scenario.name}.toml", scenario)

    def keep_federation(self, federation: FederationFile) -> None:
        """Keep what the federation is made from now."""
        write_document(self.folder / _FEDERATION, federation)

    def _gone(self) -> list[dict[str, str]]:
        """Return the certificates that were revoked."""
        path = self.folder / _GONE
        try:
            entries: list[dict[str, str]] = json.loads(path.read_bytes())
        except (*MISSING, ValueError) as error:
            raise ConfigError(
                f"{path}: is not as it was written, and without it what was revoked would come back"
            ) from error
        return entries


@contextmanager
def opened(root: Path, opener: Opener, now: datetime | None = None) -> Iterator[Office]:
    """Open the authority for one change; whoever else would change something, waits.

    Raises:
        ConfigError: When there is none, or others can get at it.
        CryptoError: When the opener does not open it.
    """
    folder = root / "authority"
    if not folder.is_dir():
        raise ConfigError(f"{root}: holds no authority/; name the folder that `fedmodel provision` made")
    check_private(folder)
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        own = open_identity(folder, opener)
        yield Office(
            root,
            own.seed,
            own.post_quantum,
            Authority(own.seed, (folder / AUTHORITY).read_bytes()),
            read_authority(folder),
            read_federation_file(folder / _FEDERATION),
            read_federation_roster(folder, expired_too=True),
            datetime.now(UTC) if now is None else now,
        )
    finally:
        os.close(place)


def found(root: Path, federation: FederationFile, seals: Seals, now: datetime) -> Office:
    """Make the authority's folder and keys, under a new federation's."""
    folder = private_folder(root / "authority")
    seed, lattice, _ = make_identity(folder, "authority", federation, seals)
    authority = Authority.make(seed, f"{federation.name} authority", now=now)
    post_quantum = None if lattice is None else PostQuantumKey(lattice)
    keys = AuthorityKeys(SigningKey(seed).public, None if post_quantum is None else post_quantum.public)
    replace_file(folder / AUTHORITY, authority.certificate)
    if keys.post_quantum is not None:
        replace_file(folder / AUTHORITY_POST_QUANTUM, f"{keys.post_quantum.hex()}\n".encode("ascii"))
    office = Office(root, seed, post_quantum, authority, keys, federation, None, now)
    office.keep_federation(federation)
    replace_file(folder / _GONE, b"[]\n")
    return office
