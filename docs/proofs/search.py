"""Everything that a server can have a small federation do, as one question to a solver: does it learn what it must not?

Each honest silo is asked `steps` requests, of any kind and about anything, in any order, under either roster, and
any older state may be put in the place of its newest. Colluders sign and reveal whatever helps, and hand over every
share that was dealt to them. What follows for the server is worked out: which `b` and which roots have enough shares,
and of which sets of updates the masks cancel. The solver is asked for a run that breaks one of

    two secrets     both `b` and root of one silo for one round
    two updates     one silo masks twice with the same secrets
    a small sum     a sum opens of fewer honest updates than n_min less the colluders: a single one, first of all
    two sums        sums of two different sets of one round open; so too two sums that differ by one silo

"No such run" is a proof for these bounds. Requests are not put in one order over all silos: a share may be received
that is dealt later, and a list signed of a cohort whose adverts are made later, which gives a server more than it has,
and never less.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import z3

from docs.proofs.model import COHORTS, RULES, Action, Ask, Cohorts, Done, Expression, Silo, Size, State, choose, count

_TACTICS = ("simplify", "propagate-values", "solve-eqs", "simplify", "bit-blast", "sat")
CLAIMS = ("two secrets", "two updates", "a small sum", "two sums")


@dataclass(frozen=True)
class Asked:
    """One request of a run that was found."""

    silo: int
    step: int
    ask: Ask
    done: bool
    about: dict[str, int]


@dataclass(frozen=True)
class Run:
    """A run that was found.

    Attributes:
        asked: Each honest silo's requests, silo by silo, in its own order.
        cohorts: By cohort, its numbers, the roster and attempt that it is under, and which advert of each honest silo.
    """

    asked: tuple[Asked, ...]
    cohorts: tuple[tuple[tuple[int, ...], int, int, dict[int, int]], ...]


@dataclass
class Trace:
    """One silo's requests, and what came of each."""

    silo: Silo
    actions: list[Action]
    done: list[Done]
    states: list[State]


class Search:
    """A federation unrolled.

    Args:
        size: Of it.
        rules: Those that hold.
    """

    def __init__(self, size: Size, rules: frozenset[str] = RULES) -> None:
        self.size, self.rules = size, rules
        self.solver = z3.Then(*_TACTICS).solver()
        self.cohorts = self._cohorts()
        self.actions = {one: [self._action(one, step) for step in range(size.steps)] for one in size.honest}
        self._dealt = {
            (one, cohort): z3.Bool(f"dealt {one} {cohort}") for one in size.honest for cohort in range(COHORTS)
        }
        self._quorum = {
            (one, step): z3.Bool(f"quorum {one} {step}") for one in size.honest for step in range(size.steps)
        }
        self.traces = {one: self._trace(one) for one in size.honest}
        self._tie_adverts()
        self._tie_shares()
        self._tie_quorums()
        self._leave_out_what_changes_nothing()

    def _cohorts(self) -> Cohorts:
        size = self.size
        return Cohorts(
            tuple(z3.BitVec(f"members {cohort}", size.silos + 1) for cohort in range(COHORTS)),
            tuple(self._choice(f"roster of {cohort}", size.rosters) for cohort in range(COHORTS)),
            tuple(self._choice(f"attempt of {cohort}", size.attempts) for cohort in range(COHORTS)),
            {
                one: tuple(z3.BitVec(f"advert of {one} in {cohort}", 2) for cohort in range(COHORTS))
                for one in size.honest
            },
        )

    def _choice(self, name: str, values: int) -> Expression:
        return z3.BitVec(name, 1) if values > 1 else z3.BitVecVal(0, 1)

    def _action(self, one: int, step: int) -> Action:
        size, at = self.size, f"{one} {step}"
        asked = Action(
            z3.BitVec(f"ask {at}", 3),
            self._choice(f"round {at}", size.rounds),
            self._choice(f"attempt {at}", size.attempts),
            self._choice(f"roster {at}", size.rosters),
            z3.BitVec(f"cohort {at}", 1),
            z3.BitVec(f"model {at}", 1),
            z3.BitVec(f"context {at}", 5),
            z3.BitVec(f"survivors {at}", size.silos + 1),
            z3.BitVec(f"dealers {at}", size.silos + 1),
            z3.BitVec(f"copy {at}", 4),
        )
        if not size.restores:
            self.solver.add(asked.ask != Ask.RESTORE)
        return asked

    def _trace(self, one: int) -> Trace:
        """Unroll one silo's requests."""
        silo = Silo(self.size, one, self.cohorts, self.rules)
        trace = Trace(silo, self.actions[one], [], [silo.fresh()])
        ledger, made = silo.nothing_done(), z3.BitVecVal(0, 2)
        for step, action in enumerate(trace.actions):
            state = trace.states[-1]
            found = silo.step(state, ledger, made, action, self._quorum[one, step], self._dealt_to(state))
            made = z3.If(z3.And(action.ask == Ask.ADVERT, found.done, found.state.advert == made), made + 1, made)
            after, ledger = found.state, found.ledger
            if self.size.restores:
                older = trace.states[0]
                for copy, kept in enumerate(trace.states[1:], start=1):
                    older = choose(action.copy == copy, kept, older)
                after = choose(action.ask == Ask.RESTORE, older, after)
            trace.done.append(found)
            trace.states.append(after)
        return trace

    def _dealt_to(self, state: State) -> Expression:
        """Return whose shares a server has for a silo in its cohort: colluders', and those that honest ones dealt."""
        size = self.size
        roster, everybody = state.roster, size.word(())
        for one in range(1, size.silos + 1):
            number = z3.If(roster == 0, size.word([one]), size.word([one - 1] if one > 1 else []))
            there = (
                self.cohorts.of(tuple(self._dealt[one, k] for k in range(COHORTS)), state.cohort)
                if (one in size.honest)
                else z3.BoolVal(True)
            )
            everybody = everybody | z3.If(there, number, size.word(()))
        return everybody

    def _did(self, one: int, step: int, ask: Ask) -> Expression:
        trace = self.traces[one]
        return z3.And(trace.actions[step].ask == ask, trace.done[step].done)

    def _tie_adverts(self) -> None:
        """Say that an honest silo is in a cohort only with an advert that it made, for that roster and attempt."""
        for one in self.size.honest:
            for cohort in range(COHORTS):
                made = [
                    z3.And(
                        self._did(one, step, Ask.ADVERT),
                        found.state.advert == self.cohorts.adverts[one][cohort],
                        found.state.roster == self.cohorts.rosters[cohort],
                        found.state.attempt == self.cohorts.attempts[cohort],
                    )
                    for step, found in enumerate(self.traces[one].done)
                ]
                is_in = self.number_in(one, cohort) & self.cohorts.members[cohort] != 0
                self.solver.add(z3.Implies(is_in, z3.Or(*made)))

    def _tie_shares(self) -> None:
        """Say that an honest silo's shares are there only if it dealt in that cohort."""
        for (one, cohort), there in self._dealt.items():
            dealt = [
                z3.And(self._did(one, step, Ask.DEAL), self.actions[one][step].cohort == cohort)
                for step in range(self.size.steps)
            ]
            self.solver.add(there == z3.Or(*dealt))

    def _tie_quorums(self) -> None:
        """Say that a list has a quorum only if so many silos signed it; colluders sign everything."""
        size = self.size
        for (one, step), has in self._quorum.items():
            asked = self.actions[one][step]
            signers = [z3.BoolVal(True)] * size.colluding
            for other in size.honest:
                signed = []
                for at, told in enumerate(self.actions[other]):
                    same = [
                        getattr(told, name) == getattr(asked, name)
                        for name in ("round", "attempt", "roster", "context", "survivors")
                    ]
                    signed.append(z3.And(self._did(other, at, Ask.COMMIT), *same))
                signers.append(z3.Or(*signed))
            needed = z3.If(
                asked.roster == 0,
                z3.BitVecVal(size.quorum(size.silos), 5),
                z3.BitVecVal(size.quorum(size.silos - 1), 5),
            )
            self.solver.add(has == z3.UGE(count(signers), needed))

    def _leave_out_what_changes_nothing(self) -> None:
        """Have every step but the last ones do something, and the two cohorts in one order: every run has such a one.

        What a silo refuses leaves its state, its ledger and everybody else as they were.
        """
        for one in self.size.honest:
            idle = [action.ask == Ask.NOTHING for action in self.actions[one]]
            for step, action in enumerate(self.actions[one]):
                self.solver.add(z3.Or(idle[step], action.ask == Ask.RESTORE, self.traces[one].done[step].done))
                if step:
                    self.solver.add(z3.Implies(idle[step - 1], idle[step]))
        self.solver.add(z3.UGE(self.cohorts.members[0], self.cohorts.members[1]))
        if self.size.cohorts == 1:
            self.solver.add(self.cohorts.members[1] == 0)

    def leave_out_what_nobody_can_play(self) -> None:
        """Have no silo sign a list of a cohort before it made its own advert in it: no hash is known before its text.

        For runs that are played to real silos, where the server of `docs.proofs` knows more than any real one.
        """
        for one in self.size.honest:
            for cohort in range(COHORTS):
                told, advert = self.cohorts, self.cohorts.adverts[one][cohort]
                is_in = self.number_in(one, cohort) & told.members[cohort] != 0
                is_made = z3.BoolVal(False)
                for step, action in enumerate(self.actions[one]):
                    bits = (told.rosters[cohort], told.attempts[cohort], z3.BitVecVal(cohort, 1))
                    roster, attempt, number = (z3.Extract(place, place, action.context) for place in (4, 3, 1))
                    is_of_it = z3.And(roster == bits[0], attempt == bits[1], number == bits[2])
                    signs = z3.And(action.ask == Ask.COMMIT, is_of_it, is_in)
                    self.solver.add(z3.Implies(signs, is_made))
                    is_made = z3.Or(is_made, z3.And(self._did(one, step, Ask.ADVERT),
                                                    self.traces[one].done[step].state.advert == advert))  # fmt: skip

    # What the server holds

    def number_in(self, one: int, cohort: int) -> Expression:
        """Return a silo's bit in the numbers of a cohort's roster."""
        newer = self.size.word([one - 1] if one > 1 else [])
        return z3.If(self.cohorts.rosters[cohort] == 0, self.size.word([one]), newer)

    def shares(self, dealer: int, cohort: int, round_: int, attempt: int, kind: str) -> Expression:
        """Return how many shares of a dealer's secret are out, of those that were dealt in one cohort."""
        number, members = self.number_in(dealer, cohort), self.cohorts.members[cohort]
        holders = [
            self.number_in(one, cohort) & members != 0
            for one in range(self.size.silos - self.size.colluding + 1, self.size.silos + 1)
        ]
        for one in self.size.honest:
            given = []
            for step, found in enumerate(self.traces[one].done):
                asked = self.actions[one][step]
                gives = found.gives_b if kind == "b" else found.gives_root
                given.append(
                    z3.And(
                        self._did(one, step, Ask.REVEAL),
                        asked.round == round_,
                        asked.attempt == attempt,
                        found.part.cohort == cohort,
                        gives & number != 0,
                    )
                )
            holders.append(z3.Or(*given))
        return count(holders)

    def knows(self, round_: int, attempt: int) -> dict[tuple[str, int, int], Expression]:
        """Return, by kind, dealer and cohort, whether that secret of the dealer's advert in that cohort is known."""
        size, known = self.size, {}
        for kind in ("b", "root"):
            for dealer in size.honest:
                direct = []
                for cohort in range(COHORTS):
                    threshold = self.traces[dealer].silo.enough(self.cohorts.members[cohort])
                    out = self.shares(dealer, cohort, round_, attempt, kind)
                    direct.append(
                        z3.And(
                            self._dealt[dealer, cohort],
                            self.cohorts.attempts[cohort] == attempt,
                            threshold != 0,
                            z3.UGE(out, threshold),
                        )
                    )
                adverts = self.cohorts.adverts[dealer]
                for cohort in range(COHORTS):
                    same = [z3.And(direct[k], adverts[k] == adverts[cohort]) for k in range(COHORTS)]
                    known[kind, dealer, cohort] = z3.Or(*same)
        return known

    def breaks(self, claim: str, round_: int = 0, attempt: int = 0) -> Expression:
        """Return whether a run breaks a claim in one round and attempt."""
        if claim == "two updates":
            return z3.Or(*(self._masks_twice(one, round_, attempt) for one in self.size.honest))
        known = self.knows(round_, attempt)
        if claim == "two secrets":
            return z3.Or(*(z3.And(known["b", one, k], known["root", one, k], self._dealt[one, k])
                           for one in self.size.honest for k in range(COHORTS)))  # fmt: skip
        first, opens = self._opened_set("first", known, round_, attempt)
        number = count(first.values())
        if claim == "a small sum":
            return z3.And(opens, z3.ULT(number + self.size.colluding, self.size.n_min))
        second, opens_too = self._opened_set("second", known, round_, attempt)
        return z3.And(opens, opens_too, z3.Or(*(first[one] != second[one] for one in self.size.honest)))

    def opens_a_sum(self, least: int) -> Expression:
        """Return whether a sum of at least so many honest updates opens: that the model does anything."""
        first, opens = self._opened_set("whole", self.knows(0, 0), 0, 0)
        return z3.And(opens, z3.UGE(count(first.values()), least))

    def _masked(self, one: int, step: int, round_: int, attempt: int) -> Expression:
        part = self.traces[one].done[step].part
        return z3.And(self._did(one, step, Ask.MASK), self.actions[one][step].round == round_, part.attempt == attempt)

    def _masks_twice(self, one: int, round_: int, attempt: int) -> Expression:
        at = [self._masked(one, step, round_, attempt) for step in range(self.size.steps)]
        return z3.Or(*(z3.And(at[first], at[second]) for second in range(len(at)) for first in range(second)))

    def _opened_set(
        self, name: str, known: dict[tuple[str, int, int], Expression], round_: int, attempt: int
    ) -> tuple[dict[int, Expression], Expression]:
        """Return a set of honest silos, any, and whether the sum of their updates is left under no mask."""
        size = self.size
        members = {one: z3.Bool(f"{name} has {one}") for one in size.honest}
        chosen = {one: z3.BitVec(f"{name} masked {one} with", size.silos + 1) for one in size.honest}
        cohort = {one: z3.BitVec(f"{name} cohort {one}", 1) for one in size.honest}
        context = {one: z3.BitVec(f"{name} context {one}", 5) for one in size.honest}
        holds = [z3.Or(*members.values())]
        for one in size.honest:
            trace = self.traces[one]
            sent = [
                z3.And(
                    self._masked(one, step, round_, attempt),
                    chosen[one] == found.part.masked_with,
                    cohort[one] == found.part.cohort,
                    context[one] == trace.silo.context(found.part, self.actions[one][step].round,
                                                       self.actions[one][step].model),
                )
                for step, found in enumerate(trace.done)
            ]  # fmt: skip
            free = [z3.Or(*sent), self._of_cohort(known, "b", one, cohort[one])]
            for other in size.honest:
                if other == one:
                    continue
                mask = self._bit(other, cohort[one]) & chosen[one] != 0
                both = z3.And(
                    members[other], context[other] == context[one], chosen[other] & self._bit(one, cohort[one]) != 0
                )
                roots = [self._of_cohort(known, "root", either, cohort[one]) for either in (one, other)]
                free.append(z3.Implies(mask, z3.Or(*roots, both)))
            holds.append(z3.Implies(members[one], z3.And(*free)))
        return members, z3.And(*holds)

    def _bit(self, one: int, cohort: Expression) -> Expression:
        return self.cohorts.of(tuple(self.number_in(one, k) for k in range(COHORTS)), cohort)

    def _of_cohort(
        self, known: dict[tuple[str, int, int], Expression], kind: str, one: int, cohort: Expression
    ) -> Expression:
        return self.cohorts.of(tuple(known[kind, one, k] for k in range(COHORTS)), cohort)

    # Answers

    def find(self, claim: str, round_: int = 0, attempt: int = 0) -> Run | None:
        """Return a run that breaks a claim, None where there is none.

        Raises:
            RuntimeError: When the solver gave up.
        """
        return self.run_with(self.breaks(claim, round_, attempt))

    def run_with(self, wanted: Expression) -> Run | None:
        """Return a run with something in it, None where there is none."""
        self.solver.push()
        try:
            self.solver.add(wanted)
            answer = self.solver.check()
            if answer == z3.unknown:
                raise RuntimeError(f"the solver gave up: {self.solver.reason_unknown()}")
            if answer == z3.unsat:
                return None
            return self._run(self.solver.model())
        finally:
            self.solver.pop()

    def _run(self, found: z3.ModelRef) -> Run:
        def value(term: Expression) -> int:
            return int(found.eval(term, True).as_long())

        run = []
        for one, actions in self.actions.items():
            for step, action in enumerate(actions):
                values = {each.name: value(getattr(action, each.name)) for each in fields(action)}
                done = z3.is_true(found.eval(self.traces[one].done[step].done, True))
                run.append(Asked(one, step, Ask(values.pop("ask")), done, values))
        cohorts = []
        for cohort in range(COHORTS):
            adverts = {one: value(told[cohort]) for one, told in self.cohorts.adverts.items()}
            members = members_of(value(self.cohorts.members[cohort]))
            cohorts.append(
                (members, value(self.cohorts.rosters[cohort]), value(self.cohorts.attempts[cohort]), adverts)
            )
        return Run(tuple(run), tuple(cohorts))


def members_of(word: int) -> tuple[int, ...]:
    """Return the numbers in a set."""
    return tuple(number for number in range(word.bit_length()) if word >> number & 1)
