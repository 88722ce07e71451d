"""Where a ledger stands, and which entry may follow: pure rules over values, with no file beneath.

**What a run reserves.** Its plan, and beside it, in parts of their own, whatever else it may release: a run may train,
ask for statistics and evaluate. All parts are admitted together, or nothing is; each charge says which part it draws
on; and parts are charged in any order, each up to its own steps. "A plan" below is all parts of a run.

**Lapsing.** A reservation may say until when it is held for a run of which nothing was charged. From then on the silo
itself may give it back (`_take_lapse`), and its run may be reserved again, by the rules of any reservation. Guarantee:
nothing is given back so of a run of which anything was ever charged, whether or not that stands, or of which an update
was masked; and nothing is charged for a run between the entry that gives it back and the next that reserves it. What
decides is what the entries say, in their order: a clock that jumps makes a reservation lapse early or late, and nothing
else. Which plans a budget admits, `fedmodel.ledger.admission` says.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from fedmodel.crypto import SIGNATURE_SIZE, check_verification_key
from fedmodel.errors import ConfigError, CryptoError, LedgerError, LedgerTampered, PrivacyBudgetExceeded
from fedmodel.ledger.admission import Budgets
from fedmodel.ledger.entries import (
    AGGREGATION_SUBJECT,
    COUNTERSIGNED,
    HASH,
    KINDS,
    NOTHING_BEFORE,
    RUN_NAME,
    VERSION,
    Entry,
    by_part,
    canonical,
    figures_of,
    is_lapse,
    origin_of,
    progress_of,
    reserved_parts,
    told_time,
)
from fedmodel.ledger.heads import Head
from fedmodel.ledger.merkle import EMPTY_ROOT
from fedmodel.ledger.runs import Charged, Run
from fedmodel.ledger.scope import UNBOUNDED, Scope
from fedmodel.privacy.events import MOST_EPSILON, protects
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.secagg.progress import Progress

_TOLERANCE: Final = 1e-5  # of epsilon, relative: what accountants of other releases and machines may differ by


class Standing(Budgets):
    """Where a ledger stands after some entries: its owner, its budgets, its runs.

    Attributes:
        silo: Whose ledger it is.
        key: The public key that its first entry names.
        charged: Sequences of all charges that stand, of whichever run, oldest first.
        progress: By run, how far the silo came in its secure aggregation.
        masked: By run and round, the newest entry that says that an update of it was masked.
        size: Entries taken.
        last: The newest one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.silo = ""
        self.key = b""
        self.size = 0
        self.last: Entry | None = None
        self._keys: set[str] = set()
        self.charged: list[int] = []
        self.progress: dict[str, Progress] = {}
        self.masked: dict[tuple[str, int], int] = {}

    def may_have_left(self, run: str, charge: int) -> bool:
        """Return whether an update was masked for a charge that stands: since it, in its round, whatever came then.

        An update is masked after it was charged. One that was masked in an earlier attempt at the round has a charge
        of its own.
        """
        return self.masked.get((run, self.runs[run].charges[charge].round), 0) > charge

    def lapsed(self, now: str) -> list[str]:
        """Return the runs whose reservations may be given back at a time, as entries say it."""
        return [name for name in self.runs if self._may_lapse(name, now)]

    def _may_lapse(self, name: str, now: str) -> bool:
        """Return whether a run's reservation is past its time, and nothing was ever done for it."""
        run = self.runs[name]
        past = bool(run.until) and now >= run.until and not run.closed
        return past and not run.touched and all(masked != name for masked, _ in self.masked)

    def apply(self, entry: Entry) -> None:
        """Take the next entry.

        Raises:
            LedgerTampered: When no ledger that was only appended to has it here; its totals are not compared.
        """
        try:
            entry.check_types()
            self._check_place(entry)
            getattr(self, f"_take_{entry.kind}")(entry)
        except LedgerTampered as error:
            raise LedgerTampered(error.found, error.sequence or self.size + 1) from error
        except (
            ConfigError,
            CryptoError,
            LedgerError,
            PrivacyBudgetExceeded,
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:
            raise LedgerTampered(f"it is no {entry.kind} that may stand here: {error}", entry.sequence) from error
        if entry.key is not None:
            self._keys.add(entry.key)
        self.size, self.last = entry.sequence, entry

    def check_totals(self, entry: Entry) -> None:
        """Refuse an entry whose totals are not what follows from all entries up to it.

        Raises:
            LedgerTampered: When they are not.
        """
        found = (entry.cap, entry.reserved, entry.spent)
        expected = (0, 0, 0) if entry.scope is None else self.totals(entry.scope)
        if found != expected:
            raise LedgerTampered(f"its totals are {found} where {expected} follow from the entries", entry.sequence)

    def _check_place(self, entry: Entry) -> None:
        """Check number, chain, time and key."""
        previous, before = (NOTHING_BEFORE, "") if self.last is None else (self.last.hash, self.last.time)
        if entry.sequence != self.size + 1:
            raise LedgerTampered(f"entry {self.size + 1} is missing", self.size + 1)
        if entry.previous != previous:
            raise LedgerTampered("it is not chained to the entry before it", entry.sequence)
        if entry.time < before and entry.kind != "override":
            raise LedgerTampered("it is older than the entry before it", entry.sequence)
        if entry.key is not None and entry.key in self._keys:
            raise LedgerTampered("another entry has its idempotency key", entry.sequence)
        if entry.kind not in KINDS or len(entry.signature) != SIGNATURE_SIZE:
            raise LedgerTampered("its kind or signature is none", entry.sequence)
        if (self.last is None) != (entry.kind == "create" and entry.scope is None):
            raise LedgerTampered("a ledger begins with whose it is, and says so once", entry.sequence)
        if entry.scope is not None and entry.kind != "create" and entry.scope not in self.scopes:
            raise LedgerTampered("its scope was never created", entry.sequence)
        if entry.kind in ("reserve", "charge", "void", "override") and entry.scope is None:
            raise LedgerTampered("it is about no scope", entry.sequence)

    def _take_create(self, entry: Entry) -> None:
        content = entry.content
        if entry.scope is None:
            if set(content) != {"key", "nonce", "silo", "version"} or content["version"] != VERSION:
                raise LedgerError(f"a ledger says silo, key and nonce, in version {VERSION}")
            if type(content["silo"]) is not str:
                raise LedgerError("a silo has a name")
            Head(origin_of(content["silo"]), 0, EMPTY_ROOT)  # refuses a name that no head could bear
            self.silo, self.key = content["silo"], bytes.fromhex(content["key"])
            check_verification_key(self.key)
            return
        scope = Scope(**content)
        scope.check()
        if scope.name != entry.scope or scope.name in self.scopes:
            raise LedgerError("a scope is created once, under its own name")
        if scope.data in {other.data for other in self.scopes.values()}:
            raise LedgerError("a data set has one scope")
        self.scopes[scope.name] = scope

    def _take_reserve(self, entry: Entry) -> None:
        content, scope = entry.content, self.scopes[str(entry.scope)]
        said = set(content) - {"besides", "until", "name"}
        until, name = content.get("until", ""), content.get("name", "")
        before = None if entry.run is None else self.runs.get(entry.run)
        if entry.run is None or said != {"admitted", "cost", "event", "scenario"}:
            raise LedgerError("a run is reserved with event, cost, scenario and how it was admitted")
        if before is not None and (not before.lapsed or before.scenario != content["scenario"]):
            raise LedgerError("a run is reserved once, or again for its scenario once its reservation lapsed")
        if "until" in content and not (until == told_time(datetime.fromisoformat(until)) and until > entry.time):
            raise LedgerError("a reservation lapses at a time after its own, told as entries tell it, or does not")
        if "name" in content and not RUN_NAME.fullmatch(name):
            raise LedgerError("a run's name is small letters, figures and hyphens")
        parts = reserved_parts(content)
        costs = figures_of(content["cost"], len(parts))
        for part, cost in zip(parts, costs, strict=True):
            # Another machine's logarithms may differ in the last bit.
            least = UNBOUNDED if not protects(part) else max(1, scope.cost(part) - 1)
            if cost < least:
                raise LedgerError(f"its cost is {cost}, where {scope.cost(part)} follows")
        admitted = self.admit(scope, parts, sum(costs), tolerance=_TOLERANCE)
        if content["admitted"] != admitted:
            raise LedgerError(f"it was admitted by the {content['admitted']}, where the {admitted} would")
        scenario, drawn = str(content["scenario"]), [0] * len(parts)
        self.runs.pop(entry.run, None)  # so that runs stand in the order of their reservations
        self.runs[entry.run] = Run(scope.name, parts, costs, admitted, scenario, entry.sequence, drawn)
        self.runs[entry.run].until, self.runs[entry.run].name = until, name

    def _take_charge(self, entry: Entry) -> None:
        run, content = self._run(entry), entry.content
        event, part = event_from_json(canonical(content["event"])), content.get("part", 0)
        said = {"event", "taken"} | ({"part"} if len(run.parts) > 1 else set())
        if entry.round is None or entry.key is None or set(content) != said:
            raise LedgerError("a charge is of a round, under a key, and says how much of its plan is taken")
        if type(part) is not int or not 0 <= part < len(run.parts):
            raise LedgerError(f"its run reserved no part {part!r}")
        reserved, taken = run.parts[part], run.drawn[part] + event.steps
        if run.closed or run.ended or event != reserved.times(event.steps):
            raise LedgerError("a charge is what its run reserved, while that is open")
        if taken > reserved.steps:
            raise LedgerError(f"its run would take {taken} of {reserved.steps} steps")
        run.charges[entry.sequence] = Charged(entry.round, event.steps, entry.key, part)
        run.touched = True
        self.charged.append(entry.sequence)
        self.caps.setdefault(run.scope, (self.scopes[run.scope].epsilon, False))
        self._take_steps(run, part, event.steps, entry)

    def _take_void(self, entry: Entry) -> None:
        run, of = self._run(entry), entry.content["of"]
        if is_lapse(entry.content):
            self._take_lapse(run, entry)
            return
        if set(entry.content) != {"of", "reason", "taken"}:
            raise LedgerError("a void says of which entry, why, and how much of the plan is taken")
        if of == run.sequence:
            if run.closed or (run.admitted == "plan" and run.charges):
                raise LedgerError("what took the whole budget and was charged, or was given back, is not given back")
            run.closed = True
            self._take_steps(run, 0, 0, entry)
        elif of in run.charges and of == self.charged[-1] and not run.ended:
            if self.may_have_left(str(entry.run), of):
                raise LedgerError("an update was masked for the charge that is voided, and may have left")
            self.charged.pop()
            charge = run.charges.pop(of)
            self._take_steps(run, charge.part, -charge.steps, entry)
        else:
            raise LedgerError(
                "only a reservation, or the newest charge of the whole ledger while its run goes on, is voided"
            )

    def _take_lapse(self, run: Run, entry: Entry) -> None:
        """Take that a reservation lapsed: at its own time or later, and of a run that nothing was ever done for."""
        content = entry.content
        if set(content) != {"of", "taken", "until"} or (content["of"], content["until"]) != (run.sequence, run.until):
            raise LedgerError("a reservation that lapsed is named with the time that is written in it")
        if not self._may_lapse(str(entry.run), entry.time):
            raise LedgerError("only an open reservation lapses, at its time or later, of whose run nothing was charged")
        run.closed = run.lapsed = True
        self._take_steps(run, 0, 0, entry)

    def _take_override(self, entry: Entry) -> None:
        scope = self.scopes[str(entry.scope)]
        if set(entry.content) != {"by", "epsilon", "reason"}:
            raise LedgerError("an override says by whom, why, and the new cap")
        epsilon = entry.content["epsilon"]
        if type(epsilon) not in (int, float) or not 0 < epsilon <= MOST_EPSILON:
            raise LedgerError(f"a cap is a number over 0, up to {MOST_EPSILON}")
        changed = replace(scope, epsilon=float(epsilon))
        if changed.epsilon < scope.epsilon:
            self.check_lowered(changed, _TOLERANCE)
        self.scopes[scope.name] = changed
        if scope.name in self.caps:
            cap, raised = self.caps[scope.name]
            self.caps[scope.name] = max(cap, changed.epsilon), raised or changed.epsilon > cap

    def _take_checkpoint(self, entry: Entry) -> None:
        if set(entry.content) != {"root", "size", "to"} or entry.content["size"] != self.size:
            raise LedgerError("a checkpoint is of all entries before it")

    def _take_audit(self, entry: Entry) -> None:
        content = entry.content
        if "subject" not in content:
            raise LedgerError("an audit says its subject")
        subject = content["subject"]
        if (entry.run is None) != (subject not in (AGGREGATION_SUBJECT, COUNTERSIGNED)):
            raise LedgerError(
                "what is entered of a run's secure aggregation or its end names the run, and nothing else"
            )
        if subject == AGGREGATION_SUBJECT:
            self._take_progress(entry)
        elif subject == COUNTERSIGNED:
            self._take_end(entry)

    def _take_progress(self, entry: Entry) -> None:
        progress, known = progress_of(entry), self.progress.get(str(entry.run), Progress())
        if not progress.covers(known):
            raise LedgerError(
                f"round {progress.round} of run {entry.run} comes after round {known.round}, or a second list of"
                " survivors was signed in it"
            )
        self.progress[str(entry.run)] = progress
        if progress.masked:
            self.masked[str(entry.run), progress.round] = entry.sequence

    def _take_end(self, entry: Entry) -> None:
        run, content = self.runs[str(entry.run)], entry.content
        if set(content) != {"code", "model", "scenario", "subject"} or content["scenario"] != run.scenario:
            raise LedgerError("the end of a run is countersigned for its scenario, a model and the code that ran")
        if run.ended or entry.round is not None:
            raise LedgerError("the end of a run is countersigned once, and is of no round")
        if not run.charges:
            raise LedgerError("the end of a run is countersigned where a charge of it stands, and none does")
        if not all(HASH.fullmatch(str(content[name])) for name in ("code", "model")):
            raise LedgerError("the end of a run is countersigned for the hash of one model")
        run.ended, run.model, run.code = entry.sequence, content["model"], content["code"]

    def _take_steps(self, run: Run, part: int, steps: int, entry: Entry) -> None:
        """Count steps of a part, and hold an entry to what it says of all of them."""
        run.drawn[part] += steps
        if figures_of(entry.content["taken"], len(run.drawn)) != tuple(run.drawn):
            said = entry.content["taken"]
            raise LedgerError(f"it says that {said} steps are taken, where {by_part(run.drawn)} are")

    def _run(self, entry: Entry) -> Run:
        run = self.runs[str(entry.run)]
        if run.scope != entry.scope:
            raise LedgerError("its run is of another scope")
        return run
