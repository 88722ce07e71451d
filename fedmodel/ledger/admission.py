"""Which runs a budget admits, and what everything that it admitted comes to: pure rules over values.

**The budget.** A scope's cap, epsilon at its delta, is turned into room for Rényi divergence of the scope's order,
counted in whole millionths: `cap`. A plan is admitted in one of two ways, and its reservation says in which.

    filter   its divergence, rounded up, fits beside that of everything reserved before. However plans are chosen, by
             looking at earlier releases too, all of them together stay within the cap (Feldman and Zrnic 2021).
    plan     it is the first of its scope, and its own epsilon, composed in advance by PLD, is within the cap. Then it
             takes the whole budget, and once it is charged no later plan is admitted: with nothing to choose, nothing
             is adaptive. Only a cap that a person raises over the divergence of both lets the filter admit more.

A run that adds no noise (`none-unsafe`), as a simulation's baseline, is in neither way. It is entered as what it
is, `none`, at a cost that stands for infinity (`UNBOUNDED`), over every cap; it is the first of its scope, and while
anything of it was or can be released nothing more is admitted to that scope, whatever its cap. No figure over it is
finite. Whether a silo takes part in such a run at all is for its law to say: a deployed one never does.

In the two ways a second accountant, which shares no code with the first from an event's parts on, is asked for a lower
bound (`fedmodel.privacy.accounting.lower`); a plan whose epsilon is at least more than it is admitted as is refused.

Guarantee: whoever only appends entries that `Standing.apply` takes never spends more than the cap of a scope, as long
as no override raised it, and no run without noise is in it: everything that was charged to it, together, is (epsilon,
delta)-private for the cap's epsilon and the scope's delta, whoever chose plans, their order and their ends by looking
at whatever was released. Each entry carries the totals after it, so that a reader of the last one knows what is left.

Proof. Every entry leaves a scope in one of two states: (1) all that its runs hold fits into its room; or (2) one run
alone holds or took anything, it was admitted as the plan, and its own epsilon is within the cap. A reservation makes
(1) by the filter, and (2) as the plan, where nothing was held; to close a run or void a charge adds to nothing; a
higher cap leaves either as it is; a lower one that would leave neither is refused (`check_lowered`), whether or not
anything was charged. So it is at the first charge, too. Let X be the room then, a number fixed before the first
release. (1) What is held stays within X, since only the filter admits anything beside what was charged. A charged step
of a part has a divergence of at most d = cost / steps of that part, known before the step is taken, and what `totals`
counts of a run is never under d times the steps that it took, added over its parts: `Run.spent` rounds up, and a run
holds all of its cost until it is closed. So at every moment, after every prefix of every strategy, the divergences of
the steps taken add up to X at most. A strategy that may choose the next step, or to stop, by looking is what the Rényi
filter allows (Feldman and Zrnic 2021): all of it has divergence X at most, and the cap's epsilon at delta. To close a
run gives back the divergence of steps that were not taken, and no other: divergences at one order, unlike epsilons by
PLD, may be counted by the steps really taken, since the sum is held under X whatever was released. (2) The plan is not
closed once charged (`Standing._take_void`), and while it stands nothing else is admitted, so all that is ever charged
is the first tau of its T steps, for a tau that anybody may choose: post-processing of all T
(`fedmodel.privacy.accounting.odometer`). Of several parts it is the first tau_j steps of each, and which part is drawn
on next may be chosen by looking as well. What a step of part j releases, whatever was released before it, is a function
of one draw from its dominating pair, and of what is known by then (Blackwell's theorem, applied by Dong, Roth and Su
2022, theorem 2.10). So let all draws of all parts be made in advance, independently: that is the fixed composition
whose epsilon was computed, and whoever chooses an order and an end by looking only chooses which of them to read, which
is post-processing. An override that raises the cap makes X another number; from then on (1) holds for that one, if
whoever raised it did not choose it by looking, which no program can see. An override that lowers it changes what is
admitted, and nothing of what was claimed: `Budgets.bound` tells the largest cap that held since the first charge.

A plan's divergence, computed in floating point, is written down once, rounded up, in whole millionths; what follows
from it is integer arithmetic. A reader computes it again, and takes a ledger whose figure is no less, to one millionth:
one that was kept by a looser accountant is as sound as ever. One that was kept by an accountant that read too little,
so that a plan is over its cap by more than 10^-5 of it, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fedmodel.errors import LedgerError, PrivacyBudgetExceeded
from fedmodel.ledger.runs import Run
from fedmodel.ledger.scope import MICRO, Admission, Scope
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event, bounded
from fedmodel.privacy.rounding import down, small, up
from fedmodel.system.counts import counted, one_or_more


class Budgets:
    """The budgets of a ledger, and what runs hold and took of them.

    Attributes:
        scopes: By name, with the cap that holds now.
        runs: By run.
        caps: By scope, the largest cap that held since its first charge, and whether a person raised it since.
    """

    def __init__(self) -> None:
        self.scopes: dict[str, Scope] = {}
        self.runs: dict[str, Run] = {}
        self.caps: dict[str, tuple[float, bool]] = {}

    def is_unprotected(self, scope: str) -> bool:
        """Return whether a run of a scope releases, or may yet release, records without noise."""
        return any(run.admitted == "none" and run.matters for run in self.of(scope))

    def totals(self, scope: str) -> tuple[int, int, int]:
        """Return cap, reserved and spent of a scope, in millionths; who took the whole budget counts as that."""
        cap = self.scopes[scope].cap
        reserved = min(cap, self.held(scope))
        return cap, reserved, min(reserved, sum(run.spent for run in self.of(scope)))

    def held(self, scope: str) -> int:
        """Return the divergence of all reservations of a scope, in millionths, whatever its cap."""
        return sum(run.reserved for run in self.of(scope))

    def taken_whole(self, scope: str) -> bool:
        """Return whether one plan takes the whole budget under the cap that holds now, so that no other is admitted.

        Once a person raised the cap over that plan's divergence, the filter admits what fits beside it.
        """
        took = any(run.admitted == "plan" and run.matters for run in self.of(scope))
        return took and self.held(scope) >= self.scopes[scope].cap

    def of(self, scope: str) -> list[Run]:
        """Return the runs of a scope, oldest first."""
        return [run for run in self.runs.values() if run.scope == scope]

    def events(self, scope: str) -> list[Event]:
        """Return everything charged to a scope, oldest first."""
        return [event for run in self.of(scope) for event in run.events]

    def claimed(self, scope: str) -> list[Event]:
        """Return the whole plans of everything charged to a scope, oldest first."""
        return [event for run in self.of(scope) for event in run.claimed]

    def cap_of(self, run: Run) -> float:
        """Return what bounds a run besides its own plan: the largest cap of its budget since the first charge.

        Everything that is charged to the budget is within it, so each run is. Infinity where nothing was charged, or a
        person raised it since, who may have looked, or a run without noise is in it, which no cap holds.
        """
        cap, raised = self.caps.get(run.scope, (math.inf, False))
        return math.inf if raised or self.is_unprotected(run.scope) else cap

    def bound(self, scope: str) -> float:
        """Return epsilon of everything that is charged to a scope, however plans were chosen and wherever they ended.

        The one plan's, where it took the whole budget; else the largest cap that held since the first charge. Never
        that of the divergence taken: what a strategy that stops by looking took is no bound on what it found. 0 where
        nothing is charged; infinity where a run without noise is.
        """
        runs = [run for run in self.of(scope) if run.matters]
        if not any(run.charges for run in runs):
            return 0.0
        if self.is_unprotected(scope):
            return math.inf
        largest = replace(self.scopes[scope], epsilon=self.caps[scope][0])
        if [run.admitted for run in runs] == ["plan"] and self.held(scope) >= largest.cap:
            return accounting.epsilon(runs[0].claimed, largest.delta)
        return largest.epsilon

    def admit(self, scope: Scope, parts: Sequence[Event], cost: int, tolerance: float = 0.0) -> Admission:
        """Return in which way a run is admitted.

        Args:
            scope: As it stands now.
            parts: All that the run may do: all steps of its plan, and what else it may release.
            cost: What `scope.cost` says of each, together.
            tolerance: Of epsilon, relative, for who reads what another machine admitted.

        Raises:
            PrivacyBudgetExceeded: When it is in neither.
        """
        for part in parts:
            scope.check_records(part)
        earlier = [run for run in self.of(scope.name) if run.matters]
        if self.is_unprotected(scope.name):
            raise PrivacyBudgetExceeded(
                f"the budget of {scope.name} holds a run without noise, which protects nobody: no epsilon is finite"
                " over what it released, so nothing more is admitted, whatever the cap; simulate into a new folder"
            )
        if bounded(parts) is None:
            if earlier:
                raise PrivacyBudgetExceeded(
                    f"a run without noise is not admitted to {scope.name}, which holds {counted(len(earlier), 'run')}"
                    f" that {one_or_more(len(earlier), 'is', 'are')} protected: it would undo what was promised there"
                )
            return "none"
        if self.held(scope.name) + cost <= scope.cap:
            _check_not_contradicted(scope, parts, scope.epsilon)
            return "filter"
        if not earlier:
            figure = accounting.epsilon(parts, scope.delta)
            if figure <= scope.epsilon * (1 + tolerance):
                _check_not_contradicted(scope, parts, figure)
                return "plan"
        whole = [run for run in earlier if run.admitted == "plan"]
        if whole:
            raise PrivacyBudgetExceeded(
                f"the budget of {scope.name} (epsilon {scope.epsilon} at delta {scope.delta}) was taken whole by"
                f" one plan of {_steps(whole[0].parts)}; nothing is left for another"
            )
        left = (scope.cap - self.held(scope.name)) / MICRO
        raise PrivacyBudgetExceeded(
            f"a plan of {_steps(parts)} does not fit into the budget of {scope.name} (epsilon {scope.epsilon} at"
            f" delta {scope.delta}): it needs {cost / MICRO:.6f} of Rényi divergence of order {scope.order}, and"
            f" {left:.6f} is left"
        )

    def check_lowered(self, scope: Scope, tolerance: float = 0.0) -> None:
        """Refuse a cap under what runs hold together, unless all of it is one plan's whose own epsilon is within it.

        Args:
            scope: With the lower cap.
            tolerance: Of epsilon, relative, for who reads what another machine admitted.

        Raises:
            LedgerError: When it is.
        """
        runs = [run for run in self.of(scope.name) if run.matters]
        if self.held(scope.name) <= scope.cap:
            return
        if [run.admitted for run in runs] == ["plan"]:
            figure = accounting.epsilon(runs[0].parts, scope.delta)
            if figure <= scope.epsilon * (1 + tolerance):
                return
        raise LedgerError(f"epsilon {scope.epsilon} is under what runs hold already; void their reservations first")

    def rounds_fitting(self, scope: Scope, plan: Event, steps_per_round: int, besides: Sequence[Event] = ()) -> int:
        """Return for how many rounds of a plan a scope would admit it, from its first round on, all else in full."""

        def fits(rounds: int) -> bool:
            parts = (plan.times(rounds * steps_per_round), *besides)
            try:
                self.admit(scope, parts, sum(map(scope.cost, parts)))
            except PrivacyBudgetExceeded:
                return False
            return True

        low, high = 0, plan.steps // steps_per_round
        if high == 0 or fits(high):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def runs_fitting(self, scope: Scope, plan: Event, besides: Sequence[Event] = ()) -> int:
        """Return how many more runs of a plan a scope would admit, one after the other, each in full."""
        parts = (plan, *besides)
        cost = sum(map(scope.cost, parts))
        try:
            admitted = self.admit(scope, parts, cost)
        except PrivacyBudgetExceeded:
            return 0
        return 1 if admitted == "plan" else (scope.cap - self.held(scope.name)) // cost


def _steps(parts: Sequence[Event]) -> str:
    """Say how many steps all parts have."""
    return counted(sum(part.steps for part in parts), "step")


def _check_not_contradicted(scope: Scope, parts: Sequence[Event], admitted: float) -> None:
    """Refuse a plan whose epsilon is more than it is admitted as, by an accountant that shares no code with ours.

    Raises:
        PrivacyBudgetExceeded: When it is.
    """
    least = accounting.least_epsilon(parts, scope.delta)
    if least > admitted:
        raise PrivacyBudgetExceeded(
            f"a plan of {_steps(parts)} is not admitted to {scope.name}: two accountants contradict each other."
            f" One admits it as epsilon {up(admitted)} at delta {small(scope.delta)}, and by the other it is at least"
            f" {down(least)}; take more noise or fewer steps, and report this as a fault"
        )
