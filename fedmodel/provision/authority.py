"""The administrator's side of a deployed federation: its authority, and every party's kit.

    OUT/authority/   the authority's sealed keys, its certificate, the roster, what was revoked; to be kept offline
    OUT/server/      the server's kit
    OUT/silos/NAME/  a silo's kit
    OUT/keys/        if kits are sealed by key files: one for each kit, and one for the authority; carried another way

A person carries the kits to their parties. When a party is added, rotated, renewed or revoked, only `roster.json` and
`revoked.pem`, which are public and signed, change for everybody. If OUT still holds copies of the other kits, those two
files are replaced in them, and nothing else is.

Guarantee: `issue` leaves a whole federation or nothing. A change may be interrupted for any reason and at any step. It
then has changed nothing, or the next change, of any kind, completes it first (`fedmodel.provision.changing`). After
that every kit that is here has the same roster, and the server's kit has the list of revocations that was signed with
it. If the same command is run again, it

| Verb     | if interrupted before the change was in force | if interrupted after that                               |
|----------|-----------------------------------------------|---------------------------------------------------------|
| `add`    | adds the silo                                 | completes the change, and says so                       |
| `rotate` | gives new keys                                | completes the change; gives new keys once more, and     |
|          |                                               | revokes those of the first change                       |
| `renew`  | gives new dates                               | completes the change; gives new dates once more         |
| `revoke` | removes the silo                              | completes the change, and says so                       |

Does NOT reach kits that were handed over: the new `roster.json` and `revoked.pem` have to go to the server, which hands
the roster on. Until then, revoked keys are still accepted. Does NOT replace the authority itself: if its key is lost, a
new federation has to be made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from fedmodel.config import FederationFile, Scenario, SiloEntry, SiloFile, builtin_scenarios, read_scenario
from fedmodel.crypto.certificates import fingerprint
from fedmodel.crypto.postquantum import post_quantum_hash
from fedmodel.crypto.sealed import Opener
from fedmodel.crypto.signed_roster import AuthorityKeys, read_authority
from fedmodel.errors import ConfigError
from fedmodel.learning.starts import resolved
from fedmodel.provision.authority_folder import AuthorityFolder, found, opened
from fedmodel.provision.changing import hand_out, pending
from fedmodel.provision.fingerprints import fingerprints
from fedmodel.provision.kits import CERTIFICATE, LAW, REVOKED, ROSTER_FILE, read_federation_roster, read_law
from fedmodel.provision.laws import joint_law, scenario_hash
from fedmodel.provision.making import SERVER, made_whole, write_server_law, write_silo_law
from fedmodel.provision.roster import FederationRoster, Party, Revocation, moment
from fedmodel.system.durable import replace_file
from fedmodel.system.inert import inert

Passphrases = Callable[[str], str]
"""Returns a party's passphrase by its name; the authority's by "authority"."""


@dataclass(frozen=True)
class Change:
    """What a command of the administrator did.

    Attributes:
        roster: The roster as it is now.
        keys: The authority's.
        changed: The kit that was made or changed, if one was.
        notes: What a person has to do now, one line each.
    """

    roster: FederationRoster
    keys: AuthorityKeys
    changed: Path | None
    notes: tuple[str, ...]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Everybody's fingerprint, by name."""
        return fingerprints(self.roster, self.keys)


def read_scenarios(federation: FederationFile, beside: Path) -> list[Scenario]:
    """Read the scenarios that a federation's file names.

    Args:
        federation: The file.
        beside: The folder that it lies in, where its paths begin.

    Raises:
        ConfigError: When one is missing, is named twice, has no seed, or names a silo outside the federation.
    """
    known: dict[str, Scenario] = {}
    for name in federation.scenarios:
        scenario = read_steadily(name if name in builtin_scenarios() else str(beside / name))
        if scenario.name in known:
            raise ConfigError(f"scenario {scenario.name!r} is named twice; a federation knows scenarios by their names")
        known[scenario.name] = scenario
    _check_silos([silo.name for silo in federation.silos], list(known.values()))
    return list(known.values())


def read_steadily(name_or_path: str) -> Scenario:
    """Read a scenario that has the same hash at each reading, because laws name it by its hash.

    Raises:
        ConfigError: When it cannot be read, or has no seed.
    """
    scenario = resolved(read_scenario(name_or_path))
    if scenario != resolved(read_scenario(name_or_path)):
        raise ConfigError(
            f"scenario {scenario.name!r} has no seed, so it is another one, with another hash, each time that it is"
            f" read; write one into it: seed = {scenario.seed}"
        )
    return scenario


def issue(
    federation: FederationFile,
    scenarios: Sequence[Scenario],
    out: Path,
    *,
    passphrases: Passphrases | None = None,
    now: datetime | None = None,
) -> Change:
    """Make a federation: its authority, the roster, and a kit for each party.

    Args:
        federation: The file that it is made from.
        scenarios: The scenarios that its silos' laws admit, as `read_scenarios` returns them.
        out: A new folder, or an empty one.
        passphrases: Given if the federation's keys are sealed under passphrases.
        now: For tests; by default the clock's time.

    Raises:
        ConfigError: When `out` is not empty, or a silo's law cannot be written.
    """
    now = datetime.now(UTC) if now is None else now
    if (federation.seal == "passphrase") != (passphrases is not None):
        raise ConfigError(f'seal = "{federation.seal}", and {"no " * (passphrases is None)}passphrases are given')
    with made_whole(out) as root:
        authority_folder = found(root, federation, passphrases, now)
        members = [authority_folder.make_kit(SERVER, passphrases)]
        write_server_law(authority_folder.kit(SERVER), federation, scenarios)
        for silo in federation.silos:
            members.append(authority_folder.make_kit(silo.name, passphrases))
            law = joint_law(scenarios, silo.name, bytes.fromhex(members[0].identity), federation.packages)
            write_silo_law(authority_folder.kit(silo.name), law, federation, members[0], scenarios)
        for scenario in scenarios:
            authority_folder.keep_scenario(scenario)
        roster = authority_folder.sign(members, ())
        hand_out(root)
    notes = (
        "Keep authority/ offline. Give each party its kit, and nothing of another's; compare fingerprints.",
        _keys_note(federation),
    )
    return Change(roster, authority_folder.keys, out, notes)


def add(
    root: Path,
    name: str,
    opener: Opener,
    *,
    scenarios: Sequence[Scenario] = (),
    passphrases: Passphrases | None = None,
    now: datetime | None = None,
) -> Change:
    """Add a silo: its kit, and a newer roster.

    Args:
        root: The federation's folder.
        name: The new silo's.
        opener: Opens the authority.
        scenarios: Scenarios that name it; they replace the federation's scenarios of the same names.
        passphrases: Given if kits are sealed under passphrases.
        now: For tests; by default the clock's time.

    Raises:
        ConfigError: When it is a member already, or no scenario names it.
    """
    with opened(root, opener, now) as authority_folder:
        if authority_folder.finished == f"add {name}":
            return _added(
                authority_folder,
                name,
                authority_folder.roster,
                authority_folder.scenarios(),
                read_law(authority_folder.kit(name)),
            )
        if any(member.name == name for member in authority_folder.roster.members):
            raise ConfigError(f"{name!r} is a member already; `fedmodel authority rotate` gives it new keys")
        federation = _with_silo(authority_folder.federation, name)
        _check_free(authority_folder.kit(name))
        known = {scenario.name: scenario for scenario in [*authority_folder.scenarios(), *scenarios]}
        naming = [scenario for scenario in known.values() if name in scenario.federation.silos]
        gone = [one.name for one in authority_folder.roster.revoked]
        _check_silos([silo.name for silo in federation.silos], naming, gone)
        server_key = bytes.fromhex(authority_folder.roster.server.identity)
        law = joint_law(list(known.values()), name, server_key, federation.packages)
        authority_folder.enter_revoked(name, authority_folder.certificates(name), "of a kit that was never handed over")
        party = authority_folder.make_kit(name, _passphrases(authority_folder, passphrases))
        server = authority_folder.roster.server
        write_silo_law(authority_folder.new_kit(name), law, federation, server, known.values())
        for scenario in scenarios:
            authority_folder.keep_scenario(scenario)
        authority_folder.keep_federation(federation)
        roster = authority_folder.sign([*authority_folder.roster.members, party], authority_folder.roster.revoked)
        authority_folder.put_in_place(f"add {name}")
        return _added(authority_folder, name, roster, list(known.values()), law)


def rotate(
    root: Path,
    name: str,
    opener: Opener,
    *,
    passphrases: Passphrases | None = None,
    now: datetime | None = None,
) -> Change:
    """Give a party new keys of every kind, and revoke the old ones.

    A silo's new `silo.toml` has no budgets. Its ledger is signed by the old key, and what was spent under that key
    still counts, but a new ledger would not know of it. A person enters what is left.

    Raises:
        ConfigError: When it is no member.
    """
    with opened(root, opener, now) as authority_folder:
        old = authority_folder.roster.member(name)
        law = _law_without_budgets(authority_folder, name)
        party, kit = (
            authority_folder.make_kit(name, _passphrases(authority_folder, passphrases)),
            authority_folder.new_kit(name),
        )
        if law is None:
            write_server_law(kit, authority_folder.federation, authority_folder.scenarios())
        else:
            server, scenarios = authority_folder.roster.server, authority_folder.scenarios()
            write_silo_law(kit, law, authority_folder.federation, server, scenarios)
        authority_folder.enter_revoked(name, authority_folder.certificates(name), "rotated")
        gone = Revocation(name=name, identity=old.identity, when=moment(authority_folder.now), reason="keys rotated")
        members = [party if member.name == name else member for member in authority_folder.roster.members]
        roster = authority_folder.sign(members, (*authority_folder.roster.revoked, gone))
        authority_folder.put_in_place(f"rotate {name}")
        after = _server_rotated(party) if name == SERVER else _silo_rotated(name)
        return _change(
            authority_folder, roster, authority_folder.kit(name), _keys_note(authority_folder.federation), *after
        )


def renew(root: Path, names: Sequence[str], opener: Opener, *, now: datetime | None = None) -> Change:
    """Issue certificates again for the same keys, with new dates, and also a new roster and list of revocations.

    Args:
        root: The federation's folder.
        names: The parties whose certificates are renewed; if empty, all of them.
        opener: Opens the authority.
        now: For tests; by default the clock's time.

    Raises:
        ConfigError: When one is no member.
    """
    with opened(root, opener, now) as authority_folder:
        changed = {
            name: authority_folder.roster.member(name)
            for name in names or [one.name for one in authority_folder.roster.members]
        }
        for name, party in changed.items():
            new = authority_folder.renewed(party)
            if authority_folder.kit(name).is_dir():
                replace_file(authority_folder.new_kit(name) / CERTIFICATE, new)
            changed[name] = party.model_copy(update={"certificate": fingerprint(new)})
        members = [changed.get(member.name, member) for member in authority_folder.roster.members]
        roster = authority_folder.sign(members, authority_folder.roster.revoked)
        authority_folder.put_in_place(" ".join(["renew", *names]))
        return _change(
            authority_folder, roster, None, f"Give {', '.join(changed)} the new {CERTIFICATE}, which holds no secret."
        )


def revoke(root: Path, name: str, reason: str, opener: Opener, *, now: datetime | None = None) -> Change:
    """Remove a silo from the federation: from the roster, with its certificates put on the list of revocations.

    If the silo was removed already, the newest roster and list are handed out again, and its reason stays as it was.

    Raises:
        ConfigError: When it never was a member, or no silo would be left.
    """
    if not reason.strip() or len(reason) > 200:
        raise ConfigError("a revocation says why, in 1 to 200 characters; the roster shows it to everybody")
    if inert(reason) != reason:
        raise ConfigError(f"the reason has a character that acts on whoever shows it, or is not seen: {inert(reason)}")
    with opened(root, opener, now) as authority_folder:
        gone = authority_folder.roster.gone(name)
        if gone is not None:
            hand_out(root)
            return _change(
                authority_folder,
                authority_folder.roster,
                None,
                f"{name!r} was put out already, on {gone.when}: {gone.reason}. The newest roster, serial"
                f" {authority_folder.roster.serial}, and list of revocations are in every kit that is under {root}.",
            )
        old = authority_folder.roster.member(name)
        if name == SERVER:
            raise ConfigError("a federation without its server is none; `fedmodel authority rotate` gives it new keys")
        if len(authority_folder.roster.silos) == 1:
            raise ConfigError(f"{name!r} is the last silo; a federation of none is not kept: put its folder away")
        authority_folder.enter_revoked(name, authority_folder.certificates(name), reason)
        gone = Revocation(name=name, identity=old.identity, when=moment(authority_folder.now), reason=reason)
        members = [member for member in authority_folder.roster.members if member.name != name]
        left = tuple(silo for silo in authority_folder.federation.silos if silo.name != name)
        authority_folder.keep_federation(authority_folder.federation.model_copy(update={"silos": left}))
        roster = authority_folder.sign(members, (*authority_folder.roster.revoked, gone))
        authority_folder.put_in_place(f"revoke {name}")
        return _change(authority_folder, roster, None)


def show(folder: Path) -> Change:
    """Return the roster of a federation's folder, or of a kit; this opens nothing sealed.

    Raises:
        ConfigError: When the folder is neither.
    """
    place = folder / "authority" if (folder / "authority" / ROSTER_FILE).is_file() else folder
    what = pending(folder)
    notes = () if what is None else (f"`authority {what}` was cut short: the same command again goes on with it.",)
    return Change(read_federation_roster(place, expired_too=True), read_authority(place), None, notes)


def _change(authority_folder: AuthorityFolder, roster: FederationRoster, kit: Path | None, *notes: str) -> Change:
    """Return what was done, which earlier change was completed first, and what has to reach the server."""
    first = (
        (f"`authority {authority_folder.finished}` had been cut short, and is done now.",)
        if authority_folder.finished
        else ()
    )
    place = authority_folder.folder
    carry = f"Bring {place / ROSTER_FILE} and {place / REVOKED} to the server's kit; it hands the roster on."
    return Change(roster, authority_folder.keys, kit, (*first, carry, *notes))


def _added(
    authority_folder: AuthorityFolder, name: str, roster: FederationRoster, scenarios: Sequence[Scenario], law: SiloFile
) -> Change:
    """Return what an added silo's kit needs, and what other silos have to change in their own laws."""
    ended = ("Its kit is as it was asked for then, with those scenarios, and that passphrase if any.",)
    return _change(
        authority_folder,
        roster,
        authority_folder.kit(name),
        *(ended if authority_folder.finished == f"add {name}" else ()),
        _keys_note(authority_folder.federation),
        _admit_note(scenarios, law.largest_roster),
    )


def _passphrases(authority_folder: AuthorityFolder, passphrases: Passphrases | None) -> Passphrases | None:
    """Return the passphrases for a new kit, which is sealed in the same way as all others."""
    if authority_folder.federation.seal == "key-file":
        return None
    if passphrases is None:
        raise ConfigError("kits of this federation are sealed under passphrases; give one for the new keys")
    return passphrases


def _check_free(kit: Path) -> None:
    """Refuse to put a new kit over anything else: an old kit may hold the ledger of what was spent."""
    if kit.is_symlink() or (kit.exists() and (not kit.is_dir() or any(kit.iterdir()))):
        raise ConfigError(
            f"{kit}: is there already, and is no member's; move it away, since it may hold a ledger, and run this again"
        )


def _with_silo(federation: FederationFile, name: str) -> FederationFile:
    """Return a federation's file with one more silo."""
    try:
        entry = SiloEntry.model_validate({"name": name})
    except ValidationError as error:
        raise ConfigError(
            f"{name!r} is no name of a silo: lower-case letters, digits and dashes, 40 at most"
        ) from error
    return federation.model_copy(update={"silos": (*federation.silos, entry)})


def _law_without_budgets(authority_folder: AuthorityFolder, name: str) -> SiloFile | None:
    """Return the law of a silo whose keys are rotated, or None for the server."""
    if name == SERVER:
        return None
    kit = authority_folder.kit(name)
    if (kit / LAW).is_file():
        law = read_law(kit)
    else:
        server_key = bytes.fromhex(authority_folder.roster.server.identity)
        law = joint_law(authority_folder.scenarios(), name, server_key, authority_folder.federation.packages)
    return law.model_copy(update={"budgets": {}})


def _check_silos(silos: Sequence[str], scenarios: Sequence[Scenario], gone: Sequence[str] = ()) -> None:
    """Refuse a scenario that names silos outside the federation, or that masks updates among fewer than all silos."""
    for scenario in scenarios:
        named = scenario.federation.silos
        for name in named:
            if name not in silos and name not in gone:
                near = get_close_matches(name, silos, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(silos)}"
                raise ConfigError(f"scenario {scenario.name!r} names {name!r}, no silo of the federation; {hint}")
        if scenario.encryption.secure_aggregation == "on" and not set(silos) <= set(named):
            missing = sorted(set(silos) - set(named))
            raise ConfigError(
                f"scenario {scenario.name!r} does not name {missing[0]!r}: under secure aggregation the roster is the"
                " whole federation, and thresholds follow from it; name every silo under federation.silos"
            )


def _keys_note(federation: FederationFile) -> str:
    """Return how key files or passphrases travel."""
    if federation.seal == "key-file":
        return (
            "keys/NAME.key opens the kit of NAME: bring it another way than the kit, and keep no copy of it. What opens"
            " authority/ is keys/authority.key: keep it where authority/ is not."
        )
    return "Tell each party its passphrase another way than the kit."


def _admit_note(scenarios: Sequence[Scenario], largest_roster: int) -> str:
    """Return what other silos have to change in their own laws; nobody else changes these."""
    hashes = ", ".join(f'"{scenario_hash(scenario).hex()}"' for scenario in scenarios)
    return (
        "The other silos' laws are as they were. To go on with the scenarios as they are now, each adds to its"
        f" silo.toml: scenarios = [{hashes}] and largest_roster = {largest_roster}."
    )


def _server_rotated(party: Party) -> tuple[str, ...]:
    """Return what silos have to change once the server has new keys."""
    lattice = ""
    if party.post_quantum is not None:
        lattice = f' and post_quantum_servers = ["{post_quantum_hash(bytes.fromhex(party.post_quantum))}"]'
    return (
        f'Each silo, after it compared fingerprints, sets in its silo.toml: servers = ["{party.identity}"]{lattice}.',
    )


def _silo_rotated(name: str) -> tuple[str, ...]:
    """Return what happens to a silo's ledger."""
    return (
        f"{name}'s ledger stays under its old key, and what it says was spent still counts. Put it away, and enter"
        " under [budgets] of the new silo.toml what is left of each; until then the silo does not train.",
    )
