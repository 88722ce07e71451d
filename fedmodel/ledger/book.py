"""A silo's ledger, open: what is entered into it, and by whose leave.

Guarantee: what a method refuses is not entered, and what it enters is on disk when it returns, as
`fedmodel.ledger.file` says. A charge is entered before the records are read for what it pays.

Does NOT know what was released for a charge: whoever takes one back answers for it that nothing was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fedmodel.errors import LedgerError, PrivacyBudgetExceeded
from fedmodel.ledger import clock, merkle
from fedmodel.ledger.entries import (
    by_part,
    canonical,
    charge_body,
    countersigned_body,
    figures_of,
    lapse_body,
    progress_body,
    reserve_body,
    reserved_parts,
    scope_body,
    told_time,
    void_body,
)
from fedmodel.ledger.file import Draft
from fedmodel.ledger.reserving import Asked, as_known
from fedmodel.ledger.rows import LedgerRows
from fedmodel.ledger.runs import share
from fedmodel.ledger.scope import Scope
from fedmodel.ledger.standing import Standing
from fedmodel.privacy.events import MOST_EPSILON, Event
from fedmodel.secagg.progress import Progress
from fedmodel.system.counts import counted

# From the newest backwards: the plus keeps SQLite from sorting all of a scope by its index.
_NEWEST_OF_SCOPE: Final = "WHERE +scope = ? ORDER BY sequence DESC LIMIT 1"


@dataclass(frozen=True)
class Charge:
    """A charge: what was charged, and the number of its entry."""

    event: Event
    sequence: int


class Ledger(LedgerRows):
    """An open ledger; use it as a context manager."""

    def check_scope(self, scope: Scope) -> None:
        """Refuse a scope that is not as the ledger has it now.

        Raises:
            LedgerError: When it has other figures: a budget is made once, and changed by an override.
        """
        if self.scope(scope.name) == scope:
            return
        known = {other.data: other for other in self.standing().scopes.values()}.get(scope.data)
        if known is None:
            raise LedgerError(f"{self.path}: has no budget for data set {scope.data!r}")
        raise LedgerError(_differs(self.path, known, scope))

    def reserve(self, asked: Asked) -> Event:
        """Reserve all that a run may do, once; and give back what other runs reserved, and lapsed.

        A run whose own reservation lapsed reserves again, as any other run does.

        Returns:
            What was reserved, the plan or its first rounds; asked again, the same.

        Raises:
            LedgerError: When the run reserved another plan, or a person gave its rest back; or the data set has another
                budget, which is made once, and changed by an override.
            PrivacyBudgetExceeded: When it does not fit. Nothing is entered.
        """
        with self._appending():
            return self._enter_asked(asked)

    def check_reserves(self, asked: Asked) -> Event:
        """Refuse what `reserve` would refuse now, and return what it would reserve.

        It is tried, and undone. Guarantee: nothing is entered, whatever comes of it.
        """
        with self._transaction(undone=True):
            return self._enter_asked(asked)

    def charge(self, run: str, round_number: int, steps: int, key: str, part: int = 0) -> Charge:
        """Enter what a round is about to do. Call it before the records are read for training.

        Every call is a charge, and pays for one release. A request whose update is still in hand is answered with that,
        and not charged; one whose update is not, whatever became of it, is charged again.

        Args:
            run: The run, reserved before.
            round_number: The round, from 1.
            steps: Steps that the round will take.
            key: Of what is asked. Charged again, the entry's key says how often: `key.2`.
            part: Of the reservation, on which it draws: 0 is the plan, and then come those beside it.

        Returns:
            What was charged: the part's figures with these steps.

        Raises:
            LedgerError: When the run has no reservation, or reserved no such part.
            PrivacyBudgetExceeded: When the steps do not fit into what is left of the part. Nothing is entered.
        """
        with self._appending():
            self._check_complete()
            reserved = self._reserved(run)
            if reserved is None:
                raise LedgerError(f"run {run} has no reservation; a silo joins a run before it trains in it")
            if (end := self._one("WHERE run = ? AND kind = 'audit' AND round IS NULL", run)) is not None:
                raise LedgerError(
                    f"run {run} has ended, as entry {end.sequence} says; no round of it is charged any more"
                )
            parts = reserved_parts(reserved.content)
            if not 0 <= part < len(parts):
                raise LedgerError(
                    f"run {run} reserved {counted(len(parts), 'part')}, and none of number {part}; nothing is done"
                )
            drawn = list(self._drawn(reserved))
            plan, taken = parts[part], drawn[part]
            if taken + steps > plan.steps:
                raise PrivacyBudgetExceeded(
                    f"round {round_number} asks for {counted(steps, 'step')};"
                    f" run {run} has taken {taken} of the {plan.steps} that its budget pays for"
                )
            before = self._one(_NEWEST_OF_SCOPE, str(reserved.scope)) or reserved
            self._check_totals(before)
            cost = figures_of(reserved.content["cost"], len(parts))[part]
            more = share(cost, taken + steps, plan.steps) - share(cost, taken, plan.steps)
            event = plan.times(steps)
            totals = (before.cap, before.reserved, min(before.reserved, before.spent + more))
            drawn[part] += steps
            body = charge_body(event, by_part(drawn), part)
            draft = Draft("charge", body, reserved.scope, run, round_number, self._unused(key))
            entry = self._signed(draft, totals)
            self._insert(entry)
        return Charge(event, entry.sequence)

    def void_charge(self, run: str, round_number: int, reason: str) -> None:
        """Take back the newest charge of the whole ledger. The caller knows that nothing noised for it left.

        Raises:
            LedgerError: When that is not of this round of this run, or an update was masked since in that round.
        """
        with self._appending():
            standing = self.standing()
            found = standing.runs.get(run)
            newest = standing.charged[-1] if standing.charged else None
            charge = found.charges.get(newest) if found is not None and newest is not None else None
            if found is None or newest is None or charge is None or charge.round != round_number:
                raise LedgerError(
                    f"the newest charge of the ledger is not of round {round_number} of run {run}, and no other is"
                    " voided: of any before it an update may have left"
                )
            if standing.may_have_left(run, newest):
                raise LedgerError(
                    f"an update of round {round_number} of run {run} was masked, and may have left; its charge stands"
                )
            left = [drawn - charge.steps * (part == charge.part) for part, drawn in enumerate(found.drawn)]
            body = void_body(newest, reason, by_part(left))
            self._append(Draft("void", body, found.scope, run, round_number), standing)

    def release(self, run: str, reason: str) -> None:
        """Give back what a run reserved and did not take. No round of it is charged any more.

        Raises:
            LedgerError: When there is nothing to give back, or the run took the whole budget.
        """
        with self._appending():
            standing = self.standing()
            found = standing.runs.get(run)
            if found is None or found.closed:
                raise LedgerError(f"run {run} holds no reservation")
            if found.admitted == "plan" and found.charges:
                raise LedgerError(
                    f"run {run} was admitted as the one plan of {found.scope}, and took the whole budget: what follows"
                    " would have been chosen after seeing its releases, which is not accounted for"
                )
            body = void_body(found.sequence, reason, by_part(found.drawn))
            self._append(Draft("void", body, found.scope, run), standing)

    def override(self, scope: str, epsilon: float, reason: str, by: str) -> None:
        """Change a scope's cap: a person's deed, with a name. It is entered whatever the clock says.

        Raises:
            LedgerError: When there is no such scope, or runs hold more than the new cap.
        """
        if not 0 < epsilon <= MOST_EPSILON:
            raise LedgerError(f"a cap of epsilon {epsilon} is none; it is over 0, and at most {MOST_EPSILON}")
        with self._appending():
            standing = self.standing()
            if scope not in standing.scopes:
                known = ", ".join(standing.scopes) or "none"
                raise LedgerError(f"{self.path}: has no scope {scope!r}; known: {known}")
            changed = replace(standing.scopes[scope], epsilon=float(epsilon))
            if changed.epsilon < standing.scopes[scope].epsilon:
                standing.check_lowered(changed)  # a reader bears with other last digits; whoever writes does not
            self._append(
                Draft("override", canonical({"by": by, "epsilon": epsilon, "reason": reason}), scope), standing
            )

    def checkpoint(self, to: str) -> bytes:
        """Enter to whom the head is given, and return it: of all entries but this one."""
        with self._appending():
            standing = self.standing()
            head, root = self.head(), merkle.root(standing.size, self._node)
            self._append(
                Draft("checkpoint", canonical({"root": root.hex(), "size": standing.size, "to": to})), standing
            )
        return head

    def audit(self, finding: dict[str, str]) -> None:
        """Enter what somebody found or signed off, under a `subject`."""
        with self._appending():
            self._append(Draft("audit", canonical(finding)), self.standing())

    def advance(self, run: str, progress: Progress) -> None:
        """Enter how far the silo came in a run's secure aggregation, once; call it before a message says so.

        Raises:
            LedgerError: When another list of survivors was signed in that round, or the run is past it. Nothing is
                entered, and nothing may leave.
        """
        if not progress.is_something or self.progress(run) == progress:
            return
        with self._appending():
            known = self.progress(run)
            if not progress.covers(known):
                raise LedgerError(
                    f"{self.path}: in run {run}, something else was done in round {known.round} than what would be"
                    " entered now: a state of secure aggregation was put back while another process acted"
                )
            draft = Draft("audit", progress_body(progress), run=run, round=progress.round)
            self._insert(self._signed(draft, (0, 0, 0)))

    def countersign(self, run: str, scenario: str, model: str, code: str) -> None:
        """Enter that a run has ended, for one model: from then on nothing of it is charged, or voided, any more.

        Asked again for the same model, it stands as it is.

        Args:
            run: The run, of which a charge stands.
            scenario: Hash of the scenario that it is of, in hexadecimal.
            model: SHA-256 of the model, in hexadecimal, as the run's server names it.
            code: Hash of the code that runs here.

        Raises:
            LedgerError: When the ledger does not know the run, knows it for another scenario, has no charge of it that
                stands, or has countersigned its end for another model.
        """
        with self._appending():
            standing = self.standing()
            found = standing.runs.get(run)
            if found is None or found.scenario != scenario:
                raise LedgerError(f"run {run} has no reservation for this scenario, so its end is not countersigned")
            if not found.charges:
                raise LedgerError(
                    f"nothing that was charged for run {run} stands, so its end is not countersigned: this silo gave"
                    " nothing to the model"
                )
            if found.ended and found.model != model:
                raise LedgerError(
                    f"the end of run {run} was countersigned for model {found.model[:16]}..., and is not for another"
                )
            if not found.ended:
                self._append(Draft("audit", countersigned_body(scenario, model, code), run=run), standing)

    # Below: what is entered under the lock

    def _enter_asked(self, asked: Asked) -> Event:
        """Create the scope where there is none, reserve in it, and return what is reserved."""
        standing = self.standing()
        self._enter_scope(asked.scope, standing)
        return self._enter_reservation(asked, standing)

    def _enter_scope(self, scope: Scope, standing: Standing) -> None:
        """Create a scope where its data set has none yet."""
        scope.check()
        known = {other.data: other for other in standing.scopes.values()}.get(scope.data)
        if known is None:
            self._append(Draft("create", scope_body(scope), scope.name), standing)
        elif known != scope:
            raise LedgerError(_differs(self.path, known, scope))

    def _enter_reservation(self, asked: Asked, standing: Standing) -> Event:
        """Reserve what is asked, unless it is reserved, and return what is."""
        if not 1 <= asked.steps_per_round <= asked.plan.steps:
            raise LedgerError(f"a round of {asked.steps_per_round} steps is none of a plan of {asked.plan.steps}")
        known = standing.runs.get(asked.run)
        if known is None or known.lapsed:
            known = None
            self._enter_lapses(standing)
        if asked.check is not None:
            asked.check(standing)
        if known is not None:
            return as_known(known, asked)
        scope, plan, steps, besides = asked.scope, asked.plan, asked.steps_per_round, asked.besides
        rounds = standing.rounds_fitting(scope, plan, steps, besides) if asked.partial else 0
        fitting = plan.times(rounds * steps) if rounds else plan
        costs = [scope.cost(part) for part in (fitting, *besides)]
        admitted = standing.admit(scope, (fitting, *besides), sum(costs))
        until = "" if asked.held is None else told_time(clock.now() + asked.held)
        body = reserve_body(fitting, asked.scenario, admitted, by_part(costs), besides, until, asked.name)
        self._append(Draft("reserve", body, scope.name, asked.run), standing)
        return fitting

    def _enter_lapses(self, standing: Standing) -> None:
        """Give back every reservation that lapsed, at the time that entries have now."""
        now = clock.time_after("" if standing.last is None else standing.last.time, "void")
        for name in standing.lapsed(now):
            run = standing.runs[name]
            body = lapse_body(run.sequence, run.until, by_part(run.drawn))
            self._append(Draft("void", body, run.scope, name), standing)


def _differs(path: Path, known: Scope, asked: Scope) -> str:
    """Say how two scopes of one data set differ."""
    names = [name for name in known.__dataclass_fields__ if getattr(known, name) != getattr(asked, name)]
    found = ", ".join(f"{name} {getattr(known, name)} where {getattr(asked, name)} is asked" for name in names)
    return (
        f"{path}: the budget of {known.data} was made with {found}; a budget is made once: `fedmodel ledger override`"
        " changes its cap, and nothing else is changed"
    )
