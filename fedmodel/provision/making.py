"""One party's kit, as the administrator makes it: new keys, a certificate, its law, and what its machine needs.

Guarantee: only the owner can access a file, from its first byte (mode 0600, folders 0700). Keys are new, from the
operating system's CSPRNG, and reach a disk only sealed or encrypted. What opens them is in no kit.

Does NOT erase an old kit's blocks from the disk when a party's keys are rotated.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel

from fedmodel.config import FederationFile, Scenario, ServerFile, SiloFile, to_toml
from fedmodel.config.federation import joined
from fedmodel.config.law import ConnectionConfig
from fedmodel.config.own_packages import StrategyPackage
from fedmodel.crypto import SigningKey, random_bytes
from fedmodel.crypto.certificates import Authority, Purpose, fingerprint, make_node_key
from fedmodel.crypto.postquantum import PostQuantumKey, post_quantum_hash
from fedmodel.crypto.renewing import tls_key_hash
from fedmodel.crypto.sealed import new_age_key, seal_bytes, seal_bytes_under
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.provision.identity import SEALED_IDENTITY, identity_text, pem_password
from fedmodel.provision.kits import CERTIFICATE, LAW, NODE_KEY, SCENARIOS, SERVER_LAW, TLS_KEY
from fedmodel.provision.laws import bases_of
from fedmodel.provision.roster import Party
from fedmodel.provision.units import Installation, readme_text, unit_text
from fedmodel.system.durable import erase_folder, failed, replace_file, sync_folder
from fedmodel.system.packages import package_hash

_SEED_SIZE: Final = 32
SERVER: Final = "server"


@dataclass(frozen=True)
class Seals:
    """How kits' keys are sealed.

    Attributes:
        keys: The folder for key files, one per party.
        passphrase: Returns a party's passphrase by its name; None if key files are used.
    """

    keys: Path
    passphrase: Callable[[str], str] | None

    @property
    def kind(self) -> Literal["key-file", "passphrase"]:
        """What opens a kit."""
        return "key-file" if self.passphrase is None else "passphrase"

    def seal(self, name: str, federation: str, text: str) -> bytes:
        """Return a party's identity, sealed; its key file is on disk when this returns."""
        if self.passphrase is not None:
            return seal_bytes_under(text.encode("ascii"), self.passphrase(name))
        secret, recipient = new_age_key()
        lines = (f"# opens the kit of {name} in {federation}; keep it apart from that", f"# public key: {recipient}")
        private_folder(self.keys)
        replace_file(self.keys / f"{name}.key", "\n".join([*lines, secret, ""]).encode("ascii"))
        return seal_bytes(text.encode("ascii"), [recipient])


def make_identity(folder: Path, name: str, federation: FederationFile, seals: Seals) -> tuple[bytes, bytes | None, str]:
    """Make a party's own keys, and put them, sealed, into a folder.

    Returns:
        The Ed25519 seed and the ML-DSA seed, which are sensitive, and the age recipient.
    """
    seed = random_bytes(_SEED_SIZE)
    lattice = random_bytes(_SEED_SIZE) if federation.post_quantum else None
    secret, recipient = new_age_key()
    text = identity_text(name, federation.name, seed, lattice, secret)
    replace_file(folder / SEALED_IDENTITY, seals.seal(name, federation.name, text))
    return seed, lattice, recipient


def make_keys(
    folder: Path, name: str, federation: FederationFile, authority: Authority, seals: Seals, days: int, now: datetime
) -> Party:
    """Put a party's keys and its certificate into its kit, replacing any that are there.

    Returns:
        The party's entry for the roster.
    """
    server = name == SERVER
    seed, lattice, recipient = make_identity(folder, name, federation, seals)
    identity = SigningKey(seed)
    issued = authority.issue(
        name,
        Purpose.SERVER if server else Purpose.CLIENT,
        password=pem_password(identity, b"tls"),
        hosts=federation.server.hosts if server else (),
        days=days,
        now=now,
    )
    node = None if server else make_node_key(pem_password(identity, b"node"))
    replace_file(folder / TLS_KEY, issued.key)
    if node is not None:
        replace_file(folder / NODE_KEY, node.key)
    replace_file(folder / CERTIFICATE, issued.certificate)
    return Party(
        name=name,
        role="server" if server else "silo",
        identity=identity.public.hex(),
        post_quantum=None if lattice is None else PostQuantumKey(lattice).public.hex(),
        node=None if node is None else node.public.decode("ascii"),
        age=recipient,
        tls=tls_key_hash(issued.certificate),
        certificate=fingerprint(issued.certificate),
    )


def write_server_law(folder: Path, federation: FederationFile, scenarios: Iterable[Scenario]) -> None:
    """Put `server.toml` into the server's kit, with the bases that its scenarios are built on.

    Raises:
        ConfigError: When a package of a strategy cannot be had here as it is listed.
    """
    place = federation.server
    strategies = {
        name: StrategyPackage(version=version, sha256=package_hash(name, version))
        for name, version in federation.strategy_packages.items()
    }
    law = ServerFile(
        federation=federation.name,
        listen=joined(place.listen, place.port),
        hosts=place.hosts,
        escrow=federation.escrow,
        packages=federation.packages,
        strategy_packages=strategies,
        bases={sha256: place for scenario in scenarios for sha256, place in bases_of(scenario).items()},
    )
    write_document(folder / SERVER_LAW, law)


def write_silo_law(
    folder: Path, law: SiloFile, federation: FederationFile, server: Party, scenarios: Iterable[Scenario]
) -> None:
    """Put `silo.toml` into a silo's kit: the law that its scenarios ask for, and where its server is.

    The scenarios lie beside it, so that its people can read what they approve of, and look at a table before a run.
    Nothing is ever done by these copies: a law names scenarios by their hashes.
    """
    lattice = () if server.post_quantum is None else (post_quantum_hash(bytes.fromhex(server.post_quantum)),)
    deployed = law.model_copy(
        update={
            "post_quantum_servers": lattice,
            "connection": ConnectionConfig(address=federation.server.address),
        }
    )
    write_document(folder / LAW, deployed)
    for scenario in scenarios:
        if law.name in scenario.federation.silos:
            write_document(private_folder(folder / SCENARIOS) / f"{scenario.name}.toml", scenario)


def write_machine(folder: Path, name: str, federation: FederationFile) -> None:
    """Put the systemd unit and the README into a kit."""
    place = Installation("server" if name == SERVER else "silo", name, federation.name, federation.seal)
    replace_file(folder / place.unit, unit_text(place).encode())
    replace_file(folder / "README.md", readme_text(place).encode())


def write_document(path: Path, document: BaseModel) -> None:
    """Write one of our files in TOML."""
    replace_file(path, to_toml(document).encode())


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter, with any missing folders above it, and return it."""
    if not path.parent.is_dir():
        private_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    return path


@contextmanager
def made_whole(out: Path) -> Iterator[Path]:
    """Give a new folder beside `out`, and rename it to `out` when the block has ended; erase it if the block raises.

    Raises:
        ConfigError: When something is at `out` already, or nothing can be put there.
    """
    out = out.absolute()
    try:
        if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise ConfigError(f"{out}: is there already; name a new folder, or an empty one")
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made: {error.strerror}") from error
    with erased_if_it_fails(beside):
        yield beside
        beside.rename(out)
    sync_folder(out.parent)


@contextmanager
def erased_if_it_fails(folder: Path) -> Iterator[None]:
    """Erase a folder of unfinished kits if the block raises; if erasing fails too, the error says so."""
    try:
        yield
    except BaseException as error:
        try:
            erase_folder(folder)
        except OSError as left:
            if isinstance(error, FedmodelError | OSError):
                why = failed(error) if isinstance(error, OSError) else str(error)
                raise ConfigError(f"{why}; erase {folder} yourself, it may hold keys: {left.strerror}") from error
        raise
