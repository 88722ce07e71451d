"""The authority's folder, opened for one change at a time.

    identity.age, authority.pem, authority.mldsa65   its keys, sealed, and what everybody knows of them
    federation.toml, scenarios/                      what the federation was made from, as it is now
    roster.json, revoked.pem                         the newest that were signed
    revoked.json                                     every certificate that was revoked, from which a list is made
    certificates/NAME/                               every certificate of a party, needed to renew and to revoke it
    change/                                          a change that was interrupted (`fedmodel.provision.changing`)

What a change writes goes into a draft first, and then into its place all at once.

Does NOT vouch for the unencrypted files there: whoever can write to this folder can make the next change sign a roster
of their own. That is why the folder is kept offline.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
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
from fedmodel.crypto.sealed import Opener
from fedmodel.crypto.signed_roster import AUTHORITY, AUTHORITY_POST_QUANTUM, AuthorityKeys, read_authority
from fedmodel.errors import ConfigError
from fedmodel.provision.changing import AUTHORITY_FOLDER, drafted, finish, kit_of, put_in_place
from fedmodel.provision.identity import open_identity
from fedmodel.provision.kits import CERTIFICATE, REVOKED, ROSTER_FILE, check_private, read_federation_roster
from fedmodel.provision.making import (
    Seals,
    make_identity,
    make_keys,
    private_folder,
    write_document,
    write_machine,
)
from fedmodel.provision.roster import FederationRoster, Party, Revocation, moment
from fedmodel.system.durable import MISSING, replace_file

_FEDERATION: Final = "federation.toml"
_GONE: Final = "revoked.json"


@dataclass(frozen=True)
class AuthorityFolder:
    """An opened authority. `seed`, `authority` and `post_quantum` are sensitive.

    Attributes:
        root: The federation's folder.
        seed: The authority's Ed25519 key.
        post_quantum: Its ML-DSA key, if the federation is post-quantum.
        authority: Issues certificates.
        keys: Its public keys.
        federation: The file that the federation is made from, as it is now.
        last: The newest roster; None before the first.
        now: When the change is made.
        new: The folder for new files, laid out as `root`; for a federation that is being made, `root` itself.
        finished: An interrupted change that was completed first: its verb and name.
    """

    root: Path
    seed: bytes
    post_quantum: PostQuantumKey | None
    authority: Authority
    keys: AuthorityKeys
    federation: FederationFile
    last: FederationRoster | None
    now: datetime
    new: Path
    finished: str | None = None

    @property
    def folder(self) -> Path:
        """The authority's own."""
        return self.root / AUTHORITY_FOLDER

    @property
    def new_folder(self) -> Path:
        """The folder for new files of the authority's folder."""
        return self.new / AUTHORITY_FOLDER

    @property
    def roster(self) -> FederationRoster:
        """The newest roster."""
        if self.last is None:
            raise ConfigError(f"{self.folder}: has issued no roster yet")
        return self.last

    @property
    def days(self) -> int:
        """For how many days a document issued now is valid: no longer than the authority itself."""
        left = (not_valid_after(self.authority.certificate) - self.now) // timedelta(days=1)
        if left < 1:
            raise ConfigError("the authority's certificate has expired; make a new federation: `fedmodel provision`")
        return min(self.federation.days, left)

    def kit(self, name: str) -> Path:
        """Return where a party's kit lies, if it is still here."""
        return kit_of(self.root, name)

    def new_kit(self, name: str) -> Path:
        """Make and return the folder for new files of a party's kit."""
        return private_folder(kit_of(self.new, name))

    def make_kit(self, name: str, passphrase: Callable[[str], str] | None) -> Party:
        """Make a party's keys and all of its kit except its law and the roster."""
        kit, seals = self.new_kit(name), Seals(self.new / "keys", passphrase)
        party = make_keys(kit, name, self.federation, self.authority, seals, self.days, self.now)
        write_machine(kit, name, self.federation)
        for public in (AUTHORITY, AUTHORITY_POST_QUANTUM):
            if (self.folder / public).exists():
                replace_file(kit / public, (self.folder / public).read_bytes())
        self.keep_certificate(name, (kit / CERTIFICATE).read_bytes())
        return party

    def sign(self, members: Sequence[Party], revoked: Sequence[Revocation]) -> FederationRoster:
        """Sign a newer roster, and a newer list of all revocations that were entered."""
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
        replace_file(self.new_folder / REVOKED, listed)
        replace_file(self.new_folder / ROSTER_FILE, roster.sign(SigningKey(self.seed), self.post_quantum))
        return roster

    def put_in_place(self, what: str) -> None:
        """Put all that was written into force and into its place, and hand out the roster and the list."""
        put_in_place(self.root, self.new, what)

    def certificates(self, name: str) -> list[bytes]:
        """Return every certificate that was issued to a party before this change."""
        folder = self.folder / "certificates" / name
        return [path.read_bytes() for path in _listed(folder, ".pem")]

    def keep_certificate(self, name: str, certificate: bytes) -> None:
        """Keep an issued certificate, so that it can be renewed and revoked."""
        folder = private_folder(self.new_folder / "certificates" / name)
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
        """Enter certificates as revoked; entering expired ones too does no harm."""
        entries = self._gone()
        known = {entry["serial"] for entry in entries}
        for certificate in certificates:
            serial = f"{serial_number(certificate):x}"
            if serial not in known:
                entries.append({"name": name, "serial": serial, "when": moment(self.now), "reason": reason})
        replace_file(self.new_folder / _GONE, json.dumps(entries, indent=1).encode("ascii") + b"\n")

    def scenarios(self) -> list[Scenario]:
        """Return the scenarios that silos' laws are written from."""
        return [read_scenario(str(path)) for path in _listed(self.folder / "scenarios", ".toml")]

    def keep_scenario(self, scenario: Scenario) -> None:
        """Keep a scenario, replacing the one of the same name."""
        write_document(private_folder(self.new_folder / "scenarios") / f"{scenario.name}.toml", scenario)

    def keep_federation(self, federation: FederationFile) -> None:
        """Keep the file that the federation is made from now."""
        write_document(self.new_folder / _FEDERATION, federation)

    def _gone(self) -> list[dict[str, str]]:
        """Return the certificates that were revoked, also by this change."""
        path = self.new_folder / _GONE
        path = path if path.exists() else self.folder / _GONE
        try:
            entries: list[dict[str, str]] = json.loads(path.read_bytes())
        except (*MISSING, ValueError) as error:
            raise ConfigError(
                f"{path}: is not as it was written, and without it what was revoked would come back"
            ) from error
        return entries


def _listed(folder: Path, suffix: str) -> list[Path]:
    """Return a folder's files of a kind, none if the folder is missing; an unreadable folder raises, unlike `glob`."""
    return sorted(path for path in folder.iterdir() if path.suffix == suffix) if folder.is_dir() else []


@contextmanager
def opened(root: Path, opener: Opener, now: datetime | None = None) -> Iterator[AuthorityFolder]:
    """Open the authority for one change; another change waits until this one ends.

    An interrupted change is completed first. What is written of a new change comes into force with
    `AuthorityFolder.put_in_place`, and is erased without it.

    Raises:
        ConfigError: When there is no authority, or other accounts can access it.
        CryptoError: When the opener does not open it.
    """
    folder = root / AUTHORITY_FOLDER
    if not folder.is_dir():
        raise ConfigError(f"{root}: holds no authority/; name the folder that `fedmodel provision` made")
    check_private(folder)
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        own = open_identity(folder, opener)
        finished = finish(root)
        with drafted(root) as draft:
            yield AuthorityFolder(
                root,
                own.seed,
                own.post_quantum,
                Authority(own.seed, (folder / AUTHORITY).read_bytes()),
                read_authority(folder),
                read_federation_file(folder / _FEDERATION),
                read_federation_roster(folder, expired_too=True),
                datetime.now(UTC) if now is None else now,
                draft,
                finished,
            )
    finally:
        os.close(place)


def found(
    root: Path, federation: FederationFile, passphrase: Callable[[str], str] | None, now: datetime
) -> AuthorityFolder:
    """Make the authority's folder and keys, under a new federation's."""
    folder = private_folder(root / AUTHORITY_FOLDER)
    seed, lattice, _ = make_identity(folder, AUTHORITY_FOLDER, federation, Seals(root / "keys", passphrase))
    authority = Authority.make(seed, f"{federation.name} authority", now=now)
    post_quantum = None if lattice is None else PostQuantumKey(lattice)
    keys = AuthorityKeys(SigningKey(seed).public, None if post_quantum is None else post_quantum.public)
    replace_file(folder / AUTHORITY, authority.certificate)
    if keys.post_quantum is not None:
        replace_file(folder / AUTHORITY_POST_QUANTUM, f"{keys.post_quantum.hex()}\n".encode("ascii"))
    authority_folder = AuthorityFolder(root, seed, post_quantum, authority, keys, federation, None, now, root)
    authority_folder.keep_federation(federation)
    replace_file(folder / _GONE, b"[]\n")
    return authority_folder
