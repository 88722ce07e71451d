"""What holds a report to somebody outside its folder: an authority, or the silos' own keys.

Whoever makes up a folder as a whole makes up the roster in it too. What is given here does not come from the folder:

    --authority   the fingerprint of the federation's authority, as `fedmodel authority show` prints it, or its public
                  key in hexadecimal; of a simulation, the key in `administrator.pub`. It vouches for the roster, and
                  the roster for every silo's key, and a deployed server's. The fingerprint is of the authority's
                  ML-DSA key too, where it has one; a key in hexadecimal is the Ed25519 key alone.
    --silo-key    a silo's public key; it stands before the roster's.

Guarantee: `hold` passes only ledgers whose keys are those that were given, or that a roster names which the authority
signed that was given.

Does NOT notice an older roster of the same authority: one that names a key which was stolen and revoked since is as
well signed. Give `--silo-key` where that matters.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto import check_verification_key
from fedmodel.errors import ConfigError, CryptoError, FedmodelError, LedgerTampered
from fedmodel.kinds.bases import folder_of_base
from fedmodel.provision import authority_fingerprint, bases_of, read_authority, read_federation_roster, read_roster
from fedmodel.provision.kits import ADMINISTRATOR, ROSTER, ROSTER_FILE
from fedmodel.system.durable import MISSING
from scenarios.runs.audit_entries import AUDIT_FILE
from scenarios.runs.event_book import is_booked, signer_of
from scenarios.runs.ledgers import SiloLedger

_DIGITS = 60  # of a fingerprint
_SCENARIO: Final = "scenario.toml"


@dataclass(frozen=True)
class Anchors:
    """What is known from outside a folder.

    Attributes:
        authority: A fingerprint's 60 digits, or 64 hexadecimal digits of a public key; empty where none is given.
        silos: Public keys by silo.
    """

    authority: str = ""
    silos: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, authority: str | None, silo_keys: Sequence[str]) -> Anchors:
        """Read what a person gave.

        Raises:
            ConfigError: When one of them is in no such form.
        """
        told = re.sub(r"[\s-]", "", authority or "").lower()
        if authority is not None and not re.fullmatch(rf"[0-9]{{{_DIGITS}}}|[0-9a-f]{{64}}", told):
            raise ConfigError(
                "--authority is the authority's fingerprint, 12 groups of 5 digits as `fedmodel authority show` prints"
                " it, or its public key, 64 hexadecimal digits"
            )
        return cls(told, dict(map(_silo_key, silo_keys)))


@dataclass(frozen=True)
class Held:
    """What was found to be held from outside.

    Attributes:
        silos: Those whose keys are.
        server: The server's key, where the authority's roster names it.
    """

    silos: tuple[str, ...]
    server: bytes | None


def hold(run_dir: Path, scenario: Scenario, ledgers: Mapping[str, SiloLedger], anchors: Anchors) -> Held:
    """Hold a folder's ledgers to what is known from outside.

    Raises:
        ConfigError: When an authority is given and no roster is here, or a key is of no silo of the run.
        LedgerTampered: When a roster is not the authority's, or a ledger is of another key.
    """
    keys: dict[str, bytes] = {}
    server = None
    if anchors.authority:
        keys, server = _roster(run_dir, anchors.authority)
    for silo, key in anchors.silos.items():
        if silo not in scenario.federation.silos:
            raise ConfigError(
                f"--silo-key {silo}: is no silo of the run; its are {', '.join(scenario.federation.silos)}"
            )
        keys[silo] = key
    for silo, ledger in ledgers.items():
        if silo in keys and ledger.standing.key != keys[silo]:
            raise LedgerTampered(
                f"silo {silo}: its ledger is of key {ledger.standing.key.hex()[:16]}..., and the key that is known from"
                f" outside is {keys[silo].hex()[:16]}...: it is not this silo's"
            )
    return Held(tuple(silo for silo in scenario.federation.silos if silo in keys), server)


def verify_command(run_dir: Path) -> str:
    """Return the command that verifies a run's report, with the anchor that lies in the folder of whoever ran it.

    Whoever is handed the folder has to get the anchor another way: this one came with it. Of an audit on a base the
    command names its folder, where this process knows it.
    """
    if is_booked(run_dir):
        return f"fedmodel report verify {shlex.quote(str(run_dir))} --key {signer_of(run_dir).hex()}"
    folders, authority = (run_dir / "kits" / "server", run_dir / "server"), ""
    folder = next((one for one in folders if (one / ROSTER_FILE).is_file()), None)
    if folder is not None:
        federation = read_federation_roster(folder, expired_too=True).federation
        authority = authority_fingerprint(federation, read_authority(folder)).replace(" ", "-")
    elif (run_dir / "server" / ADMINISTRATOR).is_file():
        authority = (run_dir / "server" / ADMINISTRATOR).read_text(encoding="ascii").strip()
    anchor = f"--authority {authority}" if authority else "--authority FINGERPRINT"
    return f"fedmodel report verify {shlex.quote(str(run_dir))} {anchor}{_base_option(run_dir)}"


def _base_option(run_dir: Path) -> str:
    """Return the option that names a copy of the base, without which an audit is not evaluated again."""
    if not (run_dir / AUDIT_FILE).is_file():
        return ""
    for sha256 in bases_of(read_scenario(str(run_dir / _SCENARIO))):
        return f" --base {shlex.quote(str(folder_of_base(sha256) or 'FOLDER'))}"
    return ""


def _roster(run_dir: Path, authority: str) -> tuple[dict[str, bytes], bytes | None]:
    """Return the silos' keys, and a deployed server's, by a roster in the folder that this authority signed."""
    folders = (run_dir / "server", run_dir / "kits" / "server")
    folder = next((one for one in folders if (one / ROSTER_FILE).is_file() or (one / ROSTER).is_file()), None)
    if folder is None:
        raise ConfigError(
            f"{run_dir}: holds no roster that --authority could vouch for; ask for server/{ROSTER} with"
            f" {ADMINISTRATOR} beside it, or server/{ROSTER_FILE} with authority.pem, or give --silo-key for each silo"
        )
    try:
        if (folder / ROSTER_FILE).is_file():
            found = read_federation_roster(folder, expired_too=True)
            signer = read_authority(folder)
            told = {authority_fingerprint(found.federation, signer).replace(" ", ""), signer.identity.hex()}
            members, server = found.aggregation().members, bytes.fromhex(found.server.identity)
        else:
            told = {(folder / ADMINISTRATOR).read_text(encoding="ascii").strip()}
            members, server = read_roster(folder).members, None
    except (FedmodelError, *MISSING, ValueError) as error:
        raise LedgerTampered(f"{folder}: its roster is not as an authority signed it: {error}") from error
    if authority not in told:
        raise LedgerTampered(f"{folder}: its roster is signed by another authority than the one that --authority gives")
    return {member.name: member.key for member in members}, server


def _silo_key(given: str) -> tuple[str, bytes]:
    """Return the silo and the key of one `NAME=HEX`."""
    silo, _, digits = given.partition("=")
    try:
        key = bytes.fromhex(digits)
        check_verification_key(key)
    except (ValueError, CryptoError):
        raise ConfigError(f"--silo-key {given}: is NAME=HEX, a silo and its public key of 64 digits") from None
    return silo.strip(), key
