"""What a privacy officer asks: what was spent and is left, whether a ledger is whole, what a silo's law says.

Every answer is read from a ledger or a kit, and from nothing that a server said. Verbs that write sign with the silo's
key: they are for whoever holds its kit.

Everything is found by its place: the ledger at `ledgers/NAME.sqlite`; in a run's folder the kit at `silos/NAME`, or
`kits/silos/NAME` after a rehearsal, and the server's heads at `server/heads/NAME`; a deployed silo's kit is the folder
that its `ledgers` lie in. Elsewhere, options say where. A deployed silo's keys are sealed: whoever signs unlocks them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from clients.outbox import Outbox, outbox
from clients.sentences import sentences
from fedmodel import plans
from fedmodel.config import Scenario, SiloFile
from fedmodel.crypto import check_verification_key, digest
from fedmodel.crypto.sealed import Opener
from fedmodel.data import check_sources, table_lookalikes
from fedmodel.errors import ConfigError, CryptoError, DataError, FedmodelError, LedgerError, LedgerTampered
from fedmodel.ledger import MICRO, Ledger, Run, Scope, Standing, Verified, ledger_image, read_ledger, verify_ledger
from fedmodel.ledger.heads import verifier_key
from fedmodel.privacy import accounting
from fedmodel.privacy.events import MOST_EPSILON, Event, bounded, is_secret
from fedmodel.provision import (
    SIMULATED,
    Kit,
    fingerprints,
    is_kit,
    is_sealed,
    read_authority,
    read_federation_roster,
    read_kit,
    read_law,
    read_roster,
    unlock,
)
from fedmodel.secagg import Member
from fedmodel.system.counts import counted
from fedmodel.system.durable import MISSING, replace_file
from scenarios.runs.claims import as_if_secret, claim_of

_HEAD: Final = "ledger.head"
_CURVE: Final = (0.25, 0.5, 1.0, 1.5, 2.0)  # of epsilon
MU_FLOOR: Final = 1e-9
"""The delta under which mu is not asked to hold: far under that of any claim, far over what accounting truncates."""


@dataclass(frozen=True)
class LedgerFiles:
    """Where a ledger lies, and what is known about it from elsewhere.

    Attributes:
        ledger: The file.
        kit: The silo's folder, which may not be there.
    """

    ledger: Path
    kit: Path

    @classmethod
    def of(cls, ledger: Path, kit: Path | None = None) -> LedgerFiles:
        """Return a ledger's place, with the kit that lies where a run's folder has it unless another is given."""
        ledger = ledger.resolve()
        if kit is not None:
            return cls(ledger, kit.resolve())
        above, name = ledger.parent.parent, ledger.stem
        places = (above, above / "kits" / "silos" / name, above / "silos" / name)
        return cls(ledger, next((place for place in places if is_kit(place)), places[-1]))

    @classmethod
    def meant(cls, path: Path, kit: Path | None = None, heads: Sequence[Path] = ()) -> LedgerFiles:
        """Return the place of a ledger that a person names, by its file or by a folder that has one alone.

        Args:
            path: The ledger; the folder that it lies in; or a run's folder or a silo's kit, where one lies in it.
            kit: As for `of`.
            heads: Signed heads that the person kept.

        Raises:
            ConfigError: When there is none, or there are several in the folder.
            LedgerTampered: When there is none, and a signed head of it is kept.
        """
        place = cls.of(_ledger_in(path) if path.is_dir() else path, kit)
        if not place.ledger.exists():
            if heads or place.heads():
                raise LedgerTampered(f"{place.ledger}: no such ledger, and a signed head of it is kept; find it, or the"
                                     " newest backup of it")  # fmt: skip
            raise ConfigError(f"{place.ledger}: no such ledger; name its file, or the folder that it lies in")
        return place

    @cached_property
    def own(self) -> Kit:
        """The silo's kit.

        Raises:
            ConfigError: When it is not there, or is sealed and was not unlocked.
        """
        return read_kit(self.kit)

    def unlock(self, opener: Callable[[], Opener]) -> None:
        """Open the keys of a deployed silo's kit, for this process; a simulated one's lie open."""
        if is_sealed(self.kit):
            unlock(self.kit, opener())

    def key(self) -> bytes | None:
        """Return the silo's public key, from a roster beside the ledger, or None where there is none."""
        for folder in (self.kit, self.ledger.parent.parent / "server"):
            keys = {member.name: member.key for member in _members(folder)}
            if self.ledger.stem in keys:
                return keys[self.ledger.stem]
        return None

    def heads(self) -> list[bytes]:
        """Return the signed heads that lie beside the ledger: the silo's own, and the server's."""
        places = (self.kit / _HEAD, self.ledger.parent.parent / "server" / "heads" / self.ledger.stem)
        return [path.read_bytes() for path in places if path.is_file()]

    def open(self) -> Ledger:
        """Verify the ledger, and open it for writing, under the silo's key."""
        if not self.ledger.is_file():
            raise LedgerError(f"{self.ledger}: no such ledger")
        verify_ledger(self.ledger, self.own.identity.public, unused=False)
        return Ledger(self.ledger, self.own.law.name, self.own.identity, self.kit / _HEAD)


def _ledger_in(folder: Path) -> Path:
    """Return the one ledger in a folder, or in that for ledgers which lies in it; a simulated silo's is beside it."""
    beside = folder.resolve().parent.parent / "ledgers" / f"{folder.resolve().name}.sqlite"
    for found in (sorted(folder.glob("*.sqlite")), sorted(folder.glob("ledgers/*.sqlite"))):
        if len(found) > 1:
            raise ConfigError(f"{folder}: has several ledgers; name one of {', '.join(map(str, found))}")
        if found:
            return found[0]
    if is_kit(folder) and beside.exists():
        return beside
    raise ConfigError(f"{folder}: no ledger lies in this folder; one is a file, as ledgers/NAME.sqlite")


def _members(folder: Path) -> tuple[Member, ...]:
    """Return a roster's silos; one that has expired still says whose key is whose."""
    if (folder / "roster.json").exists():
        return read_federation_roster(folder, expired_too=True).aggregation().members
    return read_roster(folder).members if (folder / "roster").exists() else ()


def verify(place: LedgerFiles, heads: list[Path], key: str | None) -> Verified:
    """Check everything about a ledger, against all heads that are known.

    Raises:
        LedgerTampered: When it is not as it was written.
        ConfigError: When a head or the key cannot be read.
    """
    try:
        public = place.key() if key is None else bytes.fromhex(key)
        notes = place.heads() + [path.read_bytes() for path in heads]
        if public is not None:
            check_verification_key(public)
    except (*MISSING, ValueError, CryptoError) as error:
        raise ConfigError(f"the key is hexadecimal and a head is a file: {error}") from error
    return verify_ledger(place.ledger, public, notes)


def copy(place: LedgerFiles, to: Path) -> int:
    """Copy a ledger as it is at one moment, and verify the copy; return how many entries it has.

    Nothing is replaced: a slip of the hand would put an old ledger in the place of one that a silo goes on with.

    Raises:
        LedgerTampered: When it is not as it was written; then there is no copy.
        ConfigError: When there is a file of that name.
    """
    if to.exists() or to.is_symlink():
        raise ConfigError(f"{to}: is there already, and no file is replaced by a copy; name a new one")
    replace_file(to, ledger_image(place.ledger))
    try:
        return verify_ledger(to, place.key(), place.heads()).head.size
    except BaseException:
        to.unlink()
        raise


def told(found: Verified) -> dict[str, Any]:
    """Return what a verification found, for `--json`."""
    return {
        "valid": True,
        "silo": found.standing.silo,
        "entries": found.head.size,
        "root": found.head.root.hex(),
        "heads": list(found.heads),
        "key": found.standing.key.hex(),
        "key_from": "the ledger itself" if found.key_is_its_own else "the roster or the command line",
        "unused_bytes_compared": found.unused_compared,
        "verifier_key": verifier_key(found.head.origin, found.standing.key),
    }


def entries(found: Verified) -> list[dict[str, Any]]:
    """Return a ledger's entries as documents, oldest first."""
    return [
        {
            **json.loads(entry.document),
            "body": entry.content,
            "hash": entry.hash.hex(),
            "signature": entry.signature.hex(),
        }
        for entry in found.entries
    ]


def spent(ledger: Path) -> dict[str, Any]:
    """Return what a ledger's scopes have spent, hold and have left, by run."""
    standing = read_ledger(ledger)
    return {"silo": standing.silo, "scopes": [_scope(standing, scope) for scope in standing.scopes.values()]}


def figures(events: Sequence[Event], delta: float, grid: float = accounting.FINE_GRID) -> dict[str, Any]:
    """Return what is shown besides epsilon: the curve, mu with its floor, and the largest advantage of an attack."""
    epsilon = accounting.epsilon(events, delta, grid)
    if not events or not math.isfinite(epsilon):
        return {"epsilon": epsilon, "curve": [], "mu": None, "mu_floor": MU_FLOOR, "advantage": None}
    points = [epsilon * part for part in _CURVE]
    return {
        "epsilon": epsilon,
        "curve": [list(pair) for pair in zip(points, accounting.deltas(events, points, grid), strict=True)],
        "mu": accounting.gdp_mu(events, MU_FLOOR, grid),
        "mu_floor": MU_FLOOR,
        "advantage": accounting.advantage(events, grid),
    }


def forecast(ledger: Path, scenario: Scenario, silo: str | None) -> dict[str, Any]:
    """Return how many more rounds, or whole runs, of a scenario a ledger's budget admits.

    Of noise that comes from a seed, what a run costs is told under its label alone (`as_if_secret`).

    Raises:
        ConfigError: When the scenario does not have the silo, or the ledger no budget that it could be charged to.
    """
    standing = read_ledger(ledger)
    name = silo or standing.silo
    if name not in scenario.federation.silos:
        raise ConfigError(
            f"the scenario has no silo {name!r}; say with --silo which of {scenario.federation.silos} it is"
        )
    plan = scenario.plan(name)
    scopes = [scope for scope in standing.scopes.values() if scope.data == _counted_by(ledger, plan.data)]
    if not scopes:
        raise ConfigError(f"{ledger}: has no budget for data set {plan.data!r}")
    (scope,) = scopes
    if plan.baseline is not None:
        raise ConfigError("privacy.baseline adds no noise: no budget pays for it, and there is nothing to forecast")
    event, *besides = plans.planned_parts(scenario, name)
    if (plan.unit, plan.max_records) != (scope.unit, scope.max_records) or plan.delta > scope.delta:
        raise ConfigError(
            f"the scenario claims delta {plan.delta} for a {plan.unit} of at most"
            f" {counted(plan.max_records, 'record')}, and the budget is {scope.name} at delta {scope.delta}; a silo"
            " refuses it"
        )
    runs = standing.runs_fitting(scope, event, besides)
    # Of lots that grow a silo reserves all rounds, or nothing.
    whole = scenario.rounds if runs else 0
    grown = bool(scenario.training.lots)
    found = {
        "silo": name,
        "scope": scope.name,
        "runs": runs,
        "rounds": whole if grown else standing.rounds_fitting(scope, event, plan.steps_per_round, besides),
        "rounds_of_a_run": scenario.rounds,
        "delta": plan.delta,
        "unit": plan.unit,
        "max_records": plan.max_records,
        "noise_multiplier": event.noise_multiplier,
        "noise_source": event.noise_source,
        "protects": is_secret(event.noise_source),
        "epsilon_of_a_run": accounting.epsilon([event, *besides], plan.delta),
    }
    return found if found["protects"] else as_if_secret(found, "epsilon_of_a_run")


def _counted_by(ledger: Path, data: str) -> str:
    """Return the budget that counts a data set: by the silo's law where it is at hand, else the one named after it."""
    kit = LedgerFiles.of(ledger).kit
    return (read_law(kit).budget_name(data) if is_kit(kit) else None) or data


def give_back(place: LedgerFiles, run: str, round_number: int | None, reason: str) -> str:
    """Void a round's charge, of which nothing left, or what a run holds and no round of it will take.

    Returns:
        What was done, in a sentence.

    Raises:
        ConfigError: When there is no such run.
        LedgerError: When the outbox does not show that the round's update never left, or the ledger refuses.
    """
    with outbox(place.own, place.kit) as kept, place.open() as ledger:
        standing = ledger.standing()
        run = _run_meant(place.ledger, standing, run)
        if round_number is None:
            ledger.release(run, reason)
            return f"run {run} holds nothing more, and no round of it can be charged"
        _check_never_left(kept, standing, round_number)
        ledger.void_charge(run, round_number, reason)
        return f"the newest charge of round {round_number} of run {run} is taken back"


def _run_meant(ledger: Path, standing: Standing, said: str) -> str:
    """Return the number of the run that a person means by its number, or by what its server calls it.

    Raises:
        ConfigError: When there is none, or it means several.
    """
    found = [number for number, run in standing.runs.items() if run.name == said != ""]
    if said in standing.runs:
        others = ", ".join(number for number in found if number != said)
        if others:
            raise ConfigError(
                f"{ledger}: {said} is the number of a run, called {standing.runs[said].name or 'nothing'}, and what"
                f" a server calls another: {others}; say the first by its name, or the other by its number"
            )
        return said
    if len(found) > 1:
        raise ConfigError(f"{ledger}: has several runs called {said!r}; say one by its number: {', '.join(found)}")
    if not found:
        known = ", ".join(run.name or number for number, run in standing.runs.items())
        raise ConfigError(f"{ledger}: has no run {said!r}; known: {known or 'none'}")
    return found[0]


def _check_never_left(kept: Outbox, standing: Standing, round_number: int) -> None:
    """Refuse to void the newest charge unless the outbox holds what was made last before it, or that nothing was.

    It holds the last update that can have left: of the newest charge but one, where the newest's did not.
    """
    try:
        last = kept.last
    except (OSError, CryptoError) as error:
        raise LedgerError(
            f"the outbox cannot be read, so that round {round_number}'s update may have left: {error}; what may have"
            " left stays charged"
        ) from error
    if last is None:
        raise LedgerError(
            f"the outbox is missing, as after a restore, so that round {round_number}'s update may have left; what may"
            " have left stays charged"
        )
    if last != (standing.charged[-2] if len(standing.charged) > 1 else 0):
        raise LedgerError(
            f"the outbox does not hold the update before round {round_number}'s, so that this one may have left;"
            " what left stays charged"
        )


def sign_off(place: LedgerFiles, law: SiloFile, by: str) -> None:
    """Enter into the ledger that a person approves of the silo's law as it is."""
    text = (place.kit / "silo.toml").read_bytes()
    place.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with Ledger(place.ledger, law.name, place.own.identity, place.kit / _HEAD) as ledger:
        ledger.audit({"subject": "silo.toml", "digest": digest(b"fedmodel/v1/silo-toml", text).hex(), "by": by})


def override(place: LedgerFiles, scope: str, epsilon: float, reason: str, by: str) -> None:
    """Enter that a person changes a budget's cap.

    Raises:
        ConfigError: When the cap is none.
    """
    if not 0 < epsilon <= MOST_EPSILON:
        raise ConfigError(f"epsilon = {epsilon} is out of range; a cap is a number up to {MOST_EPSILON}")
    with place.open() as ledger:
        ledger.override(scope, epsilon, reason, by)


def ledger_of(kit: Path, silo: str) -> Path:
    """Return where the ledger of a kit's silo lies: in it where it is deployed, beside it in a simulation."""
    kit = kit.resolve()
    return (kit if is_sealed(kit) else kit.parent.parent) / "ledgers" / f"{silo}.sqlite"


def law_of(kit: Path) -> tuple[SiloFile, list[str]]:
    """Return a kit's law, and what it says in sentences.

    Raises:
        PolicyRefused: When one source would be charged to two budgets.
    """
    law = read_law(kit) if is_sealed(kit) else read_kit(kit).law
    check_sources(law, kit.resolve())
    said = sentences(law)
    if is_sealed(kit):
        said.append(
            f"It reaches its server at {law.connection.address}." if law.connection else "It reaches no server."
        )
        roster = read_federation_roster(kit, expired_too=True)
        known = fingerprints(roster, read_authority(kit))
        for party in ("authority", roster.server.name, law.name):
            said.append(f"Fingerprint of {party}, to compare by telephone: {known[party]}.")
    elif (kit.resolve().parent.parent / SIMULATED).is_file():
        said.append(
            "This silo is a simulation's: a run without noise (privacy.baseline), which protects nobody, is not held to"
            " what is said here of noise, clip and epsilon."
        )
    return law, said


def lookalikes_of(kit: Path, law: SiloFile) -> dict[str, list[tuple[str, ...]]]:
    """Return where ids of a silo's tables and files look like one person's, of those that say whose a record is.

    Raises:
        ConfigError: When a database's account could write.
        DataError: When a table cannot be read, or has an id that its form does not admit.
    """
    found = {}
    for name, source in law.tables.items():
        if source.person is not None:
            try:
                found[name] = table_lookalikes(source.under(kit.resolve()), source.person)
            except DataError as error:
                raise DataError(f"table {name!r}: {error}") from None
    return found


def _scope(standing: Standing, scope: Scope) -> dict[str, Any]:
    """Return one budget's figures: `epsilon` holds however plans were chosen and wherever they ended.

    The curve, mu and the advantage are of `epsilon_of_plans`: all plans in full, had each been fixed in advance. Where
    noise of any run came from a seed, none of these stands, and `epsilon` has its label (`as_if_secret`).
    """
    claimed = standing.claimed(scope.name)
    cap, reserved, used = standing.totals(scope.name)
    runs = standing.of(scope.name)
    bare = standing.is_unprotected(scope.name)
    secret = all(is_secret(one.noise_source) for run in runs for one in run.claimed)
    found = {
        "scope": scope.name,
        "unit": scope.unit,
        "max_records": scope.max_records,
        "delta": scope.delta,
        "budget": scope.epsilon,
        "order": scope.order,
        "accountant": accounting.ACCOUNTANT,
        **figures(claimed, scope.delta),
        "epsilon": standing.bound(scope.name),
        "raised": standing.caps.get(scope.name, (0.0, False))[1],
        "epsilon_of_plans": accounting.epsilon(claimed, scope.delta),
        "epsilon_of_steps_taken": accounting.epsilon(standing.events(scope.name), scope.delta),
        "divergence": {"cap": cap / MICRO, "reserved": math.inf if bare else reserved / MICRO,
                       "spent": math.inf if bare and used else used / MICRO, "left": (cap - reserved) / MICRO},
        "taken_whole": standing.taken_whole(scope.name),
        "noise_sources": sorted({one.noise_source for run in runs for one in run.parts if one.noise_source}),
        "protects": not bare and secret,
        "without_noise": bare,
        "runs": [_run(standing, name, run, scope) for name, run in standing.runs.items() if run.scope == scope.name],
    }  # fmt: skip
    return found if secret or bare else as_if_secret(found)


def _run(standing: Standing, name: str, run: Run, scope: Scope) -> dict[str, Any]:
    """Return one run's figures."""
    found = {
        "run": name,
        "name": run.name,
        "rounds": len({one.round for one in run.charges.values()}),
        "steps": run.taken,
        "reserved_steps": run.steps,
        "held_steps": 0 if run.closed else run.steps - run.taken,
        "held_until": "" if run.closed or run.touched else run.until,
        "noise_multiplier": run.plan.noise_multiplier,
        "sample_rate": run.plan.sample_rate,
        "noise_source": run.plan.noise_source,
        "mechanism": run.plan.mechanism,
        "admitted": run.admitted,
        **claim_of(run.claimed, run.drawn, scope.delta, standing.cap_of(run)),
        "epsilon_reserved": accounting.epsilon(run.parts if run.matters else [], scope.delta),
    }
    if bounded(run.parts) is None or all(is_secret(one.noise_source) for one in run.parts):
        return found
    return as_if_secret(found)


def refused(error: FedmodelError) -> Mapping[str, Any]:
    """Return why a ledger did not verify, for `--json`."""
    return {"valid": False, "first_bad": getattr(error, "sequence", None), "reason": str(error)}
