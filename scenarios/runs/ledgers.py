"""The silos' ledgers in a run's folder: verified, each up to the entries that a report is of, the run found in them.

A report is of ledgers as they were when it was made. Verified later, a ledger may have grown, by an approval that a
person entered since, or by another run: then the entries that it had are read, and it has to extend the signed head
that the report keeps.

Guarantee: `read_ledgers` passes entries as their silo signed them, all that a head at hand is of, and no ledger of
somebody who is no silo of the run; where a silo's kit is at hand, its own head has to be.

Does NOT notice entries that were taken away at the end of a ledger of which no head is at hand: their signatures say
nothing of what came after. `SiloLedger.heads` says whose are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedmodel.config import Scenario
from fedmodel.errors import FedmodelError, LedgerError, LedgerTampered
from fedmodel.ledger import Entry, Run, Scope, Standing, Verified, merkle, origin_of, verify_ledger
from fedmodel.ledger.heads import open_head
from fedmodel.privacy.events import Event
from fedmodel.provision import is_kit, scenario_hash
from scenarios.runs.claims import claim_in
from scenarios.runs.inspection import LedgerFiles
from scenarios.runs.parts import LedgerHead


@dataclass(frozen=True)
class SiloLedger:
    """One silo's ledger, whole and verified, up to the entries that a report is of.

    Attributes:
        silo: Whose.
        entries: Oldest first.
        standing: After them.
        root: Of the Merkle tree over them.
        note: The newest signed head that was found beside it, None where none was.
        vouched: Whether a roster, or a report that is signed, says whose key it is.
        roster: Whether that roster is at hand.
        heads: Whose signed heads of it are at hand: "silo", "server".
        compared: Whether its bytes that hold no entry were compared too.
        newer: Entries that it has besides.
        run: The run of the report; None where it has none.
        data: The data set of the report's scenario.
        goes_on: Whether the report's run began from a run's model: then its claim is of all that its budget holds.
        reported: Whether no ledger is here, and this is what the silo told the server (`scenarios.runs.reported`).
        booked: Whether none is, since a simulation kept none, and this is what its book says of the silo
            (`scenarios.runs.event_book`).
    """

    silo: str
    entries: tuple[Entry, ...]
    standing: Standing
    root: bytes
    note: bytes | None
    vouched: bool
    roster: bool
    heads: tuple[str, ...]
    compared: bool
    newer: int
    run: str | None = None
    data: str = ""
    goes_on: bool = False
    reported: bool = False
    booked: bool = False

    @property
    def is_absent(self) -> bool:
        """Whether no ledger of the silo is here."""
        return self.reported or self.booked

    @property
    def own(self) -> Run | None:
        """What the ledger holds of the report's run."""
        return None if self.run is None else self.standing.runs[self.run]

    @property
    def scope(self) -> Scope | None:
        """The budget that the report's run is charged to; the one of its data where it began from a run alone."""
        if self.is_absent:  # of a silo's budgets nothing is known
            return None
        if self.own is not None:
            return self.standing.scopes[self.own.scope]
        of_data = (scope for scope in self.standing.scopes.values() if self.goes_on and scope.data == self.data)
        return next(of_data, None)

    @property
    def others(self) -> bool:
        """Whether the claim is of other runs besides the report's."""
        scope = self.scope
        runs = [] if scope is None or not self.goes_on else self.standing.of(scope.name)
        return any(run.charges for run in runs if run is not self.own)

    @property
    def events(self) -> list[Event]:
        """What the report's run was charged for, and the others that its claim is of."""
        if self.others and self.scope is not None:
            return self.standing.events(self.scope.name)
        return [] if self.own is None else self.own.events

    @property
    def claimed(self) -> list[Event]:
        """What is claimed: the run's whole plan, and those of the others that its claim is of; none if not charged."""
        if self.others and self.scope is not None:
            return self.standing.claimed(self.scope.name)
        return [] if self.own is None else self.own.claimed

    def claim(self, delta: float) -> dict[str, Any]:
        """Return the claim's figures at a delta, as every output tells them (`scenarios.runs.claims`)."""
        scope = self.scope
        name = None if scope is None else scope.name
        return claim_in(self.standing, name, self.own, delta, goes_on=self.goes_on)

    @property
    def countersigned(self) -> Run | None:
        """The report's run, where the silo countersigned its end and was charged for it: else it is of no release."""
        run = self.own
        return run if run is not None and run.ended is not None and run.charges else None

    @property
    def cap(self) -> float:
        """What bounds the report's run besides its own plan."""
        return math.inf if self.own is None else self.standing.cap_of(self.own)

    @property
    def size(self) -> int | None:
        """How many entries it has; of one that is not here, what its newest known head says, None without one."""
        return head_of(self) if self.is_absent else len(self.entries)

    @property
    def rounds(self) -> set[int]:
        """Which rounds of the report's run were charged."""
        return {number for number, _ in self.charged}

    @property
    def charged(self) -> set[tuple[int, int]]:
        """Which rounds of the report's run were charged, each with the part of the reservation that it was charged to.

        What a silo reported says how many rounds of a part, and not which.
        """
        return set() if self.own is None else {(one.round, one.part) for one in self.own.charges.values()}

    def times(self, run: Run) -> list[str]:
        """Return when each charge of a run was entered, oldest first."""
        return [] if self.is_absent else [self.entries[sequence - 1].time for sequence in run.charges]

    def audits(self, subject: str | None = None) -> Iterator[Entry]:
        """Go through what people and audits entered, of one subject where one is given."""
        for entry in self.entries:
            if entry.kind == "audit" and subject in (None, entry.content["subject"]):
                yield entry


def ledger_in_run(run_dir: Path, silo: str) -> Path:
    """Return where a run's folder has a silo's ledger."""
    return run_dir / "ledgers" / f"{silo}.sqlite"


def read_ledgers(
    run_dir: Path, scenario: Scenario, kept: Mapping[str, LedgerHead], run: str | None = None
) -> dict[str, SiloLedger]:
    """Read and verify the ledgers of a run's folder; a silo that never opened one is left out.

    Args:
        run_dir: The folder.
        scenario: What was done.
        kept: By silo, what a report that is verified is of; empty for a new one.
        run: The run's number, where that is known; by default the newest of the scenario.

    Raises:
        LedgerTampered: When one is not as it was written, is gone, or is nobody's of the run.
    """
    silos = scenario.federation.silos
    for path in sorted((run_dir / "ledgers").glob("*.sqlite")):
        if path.stem not in silos:
            raise LedgerTampered(f"{path}: is a ledger of no silo of the run, and no report is of it")
    found = {}
    for silo in silos:
        path = ledger_in_run(run_dir, silo)
        if path.exists():
            found[silo] = _read_ledger(run_dir, path, kept.get(silo))
        elif silo in kept:
            raise LedgerTampered(f"{path}: is gone, and the report is of its {kept[silo].entries} entries")
    return _of_the_run(found, scenario, run) if found else {}


def newest_run(scenario: Scenario, reserved: Mapping[str, tuple[Standing, Sequence[Entry]]]) -> str | None:
    """Return the run of a scenario that ledgers, given by silo with their entries, reserved last; None where none did.

    It is one in all of them: a federation's run has one number.
    """
    wanted = scenario_hash(scenario).hex()
    newest: dict[str, str] = {}  # by run, when it was reserved
    for standing, entries in reserved.values():
        for name, run in standing.runs.items():
            if run.scenario == wanted:
                newest[name] = max(newest.get(name, ""), entries[run.sequence - 1].time)
    return max(newest, key=newest.__getitem__) if newest else None


def _of_the_run(ledgers: Mapping[str, SiloLedger], scenario: Scenario, run: str | None) -> dict[str, SiloLedger]:
    """Find the run of a scenario in the ledgers."""
    wanted = scenario_hash(scenario).hex()
    for silo, ledger in ledgers.items():
        found = None if run is None else ledger.standing.runs.get(run)
        if run is not None and (found is None or found.scenario != wanted):
            raise LedgerError(f"silo {silo}: its ledger holds no run {run} of this scenario (hash {wanted[:16]}...)")
    name = run or newest_run(scenario, {silo: (ledger.standing, ledger.entries) for silo, ledger in ledgers.items()})
    if name is None:
        raise LedgerError(
            f"no ledger holds a run of scenario.toml (hash {scenario_hash(scenario).hex()[:16]}...): one of the two is"
            " another run's, or of another version of fedmodel"
        )
    data, goes_on = scenario.data.data_set, scenario.goes_on
    return {
        silo: replace(ledger, run=name if name in ledger.standing.runs else None, data=data, goes_on=goes_on)
        for silo, ledger in ledgers.items()
    }


def _read_ledger(run_dir: Path, path: Path, stored: LedgerHead | None) -> SiloLedger:
    """Verify a ledger against every head that is known, and read the entries that a report is of."""
    beside, key = _heads(run_dir, path), key_of(path)
    kept = [stored.head.encode()] if stored is not None and stored.head is not None else []
    known = bytes.fromhex(stored.key) if key is None and stored is not None else key
    found = verify_ledger(path, known, list(beside.values()) + kept)
    size = found.head.size if stored is None else stored.entries
    if size > found.head.size:
        raise LedgerTampered(f"{path}: its newest entries are gone: the report is of {size}", found.head.size + 1)
    if stored is None:
        notes = [note for _, note in sorted(zip(found.heads, beside.values(), strict=False), key=lambda pair: pair[0])]
        note, vouched = (notes[-1] if notes else None), key is not None
    else:
        # Of a folder that was handed on without its kits, the signed report says whose key it is.
        note, vouched = (kept[0] if kept else None), key is not None or stored.key_from == "roster"
    standing, root = _up_to(found, size)
    return SiloLedger(
        silo=path.stem,
        entries=found.entries[:size],
        standing=standing,
        root=root,
        note=note,
        vouched=vouched,
        roster=key is not None,
        heads=tuple(beside),
        compared=found.unused_compared,
        newer=found.head.size - size,
    )


def _heads(run_dir: Path, path: Path) -> dict[str, bytes]:
    """Return the signed heads of a ledger that are at hand, by whose they are.

    Raises:
        LedgerTampered: When a silo's kit is here, and its own head is not.
    """
    kit = LedgerFiles.of(path).kit
    servers = (run_dir / "server" / "heads" / path.stem, run_dir / "kits" / "server" / "heads" / path.stem)
    places = {"silo": kit / "ledger.head", "server": next((one for one in servers if one.is_file()), servers[0])}
    if is_kit(kit) and not places["silo"].is_file():
        raise LedgerTampered(
            f"{places['silo']}: is gone; a silo keeps a head of its ledger, by which missing entries are noticed"
        )
    return {whose: place.read_bytes() for whose, place in places.items() if place.is_file()}


def key_of(path: Path) -> bytes | None:
    """Return the key that a roster at hand says a ledger is signed with, None where none does."""
    try:
        return LedgerFiles.of(path).key()
    except (FedmodelError, ValueError) as error:
        raise LedgerTampered(f"silo {path.stem}: a roster in the folder is not as it was signed: {error}") from error


def _up_to(found: Verified, size: int) -> tuple[Standing, bytes]:
    """Return where a ledger stood after its first entries, and the root over them."""
    if size == found.head.size:
        return found.standing, found.head.root
    standing, nodes = Standing(), dict[tuple[int, int], bytes]()
    for entry in found.entries[:size]:
        standing.apply(entry)
        leaf = merkle.leaf_hash(entry.document)
        made = merkle.new_nodes(entry.sequence - 1, leaf, lambda level, position: nodes[level, position])
        nodes.update({(level, position): value for level, position, value in made})
    return standing, merkle.root(size, lambda level, position: nodes[level, position])


def head_of(ledger: SiloLedger) -> int | None:
    """Return how many entries the head beside a ledger is of.

    Raises:
        LedgerTampered: When it is none of the silo's.
    """
    if ledger.note is None:
        return None
    try:
        return open_head(ledger.note, origin_of(ledger.standing.silo), ledger.standing.key).size
    except LedgerError:
        raise
    except FedmodelError as error:
        raise LedgerTampered(f"the head of {ledger.silo}: {error}") from error
