"""One silo of secure aggregation as a transition system: what it keeps, what it is asked, and whether it does that.

The rules of `docs/secure-aggregation.md`, sections 2 and 5, written once, as expressions of z3. `docs.proofs.search`
asks a solver about them with everything open that a server chooses; `tests/fedmodel/secagg/test_proofs.py` gives them
constants, and holds what follows against the real code, request by request.

Abstracted: signatures cannot be forged, shares below the threshold say nothing, masks of unknown keys are uniform, and
hashes have no collisions. So a context is the tuple that is hashed, a cohort U1 is a number for which the set, the
roster, the window and every member's advert are fixed, and what a message weighs is who can have made it.

Sets of silos are words with a bit for each number of the roster; bit 0 is unused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, Final

import z3

from fedmodel.errors import ConfigError
from fedmodel.secagg.topology import plan_topology

Expression = Any
"""A term of z3, a word or a truth value."""

SURVIVORS, BASE, LEDGER, MASKED_WITH, COMMIT, ONE_LIST, CLOSED = (
    "only survivors give shares of b",
    "a window ends with its roster",
    "the ledger remembers what was done",
    "a survivor masked with every survivor",
    "a quorum signed the list",
    "what is revealed is what was signed",
    "a round is revealed once",
)
RULES: Final = frozenset((SURVIVORS, BASE, LEDGER, MASKED_WITH, COMMIT, ONE_LIST, CLOSED))
COHORTS: Final = 2
"""How many cohorts U1 the model has words for."""


class Ask(IntEnum):
    """What a silo is asked, or what happens to it."""

    NOTHING = 0
    ADVERT = 1
    DEAL = 2
    RECEIVE = 3
    MASK = 4
    COMMIT = 5
    REVEAL = 6
    RESTORE = 7


@dataclass(frozen=True)
class Size:
    """A federation, and how much of it is unrolled.

    Attributes:
        silos: In the roster; the last `colluding` of them work with the server.
        colluding: As many as the policy tolerates.
        n_min: Least cohort and least survivors.
        rounds: Of the window.
        attempts: At dealing for it.
        rosters: 2 where the server may show silos a newer roster, without the first silo, at any step.
        steps: Requests that each honest silo is asked, restores among them.
        restores: Whether any earlier state of a silo, or none, may be put in place of its newest.
        cohorts: How many cohorts U1 a server makes at most; within each, the set of silos is its choice.
    """

    silos: int
    colluding: int = 0
    n_min: int = 3
    rounds: int = 1
    attempts: int = 1
    rosters: int = 1
    steps: int = 6
    restores: bool = False
    cohorts: int = 2

    @property
    def honest(self) -> range:
        """The silos that keep to the rules, by their numbers in the first roster."""
        return range(1, self.silos - self.colluding + 1)

    def threshold(self, cohort: int) -> int | None:
        """Return how many shares bring a secret back in a cohort of so many, None where there is no threshold."""
        if cohort < max(3, self.n_min):
            return None
        try:
            return plan_topology(cohort, self.colluding, 0).threshold
        except ConfigError:  # so few that there is none
            return None

    def quorum(self, silos: int) -> int:
        """Return how many of a roster sign a list before it is revealed for."""
        return (silos + self.colluding) // 2 + 1

    def word(self, numbers: Iterable[int]) -> Expression:
        """Return a set of silos."""
        return z3.BitVecVal(sum(1 << number for number in numbers), self.silos + 1)

    def has(self, members: Expression, number: int) -> Expression:
        """Return whether a number is in a set."""
        return z3.Extract(number, number, members) == 1 if 0 < number <= self.silos else z3.BoolVal(False)

    def position(self, round_: Expression, attempt: Expression) -> Expression:
        """Return a round and attempt as one word that rises as they do."""
        return z3.Concat(z3.BitVecVal(0, 1), round_, attempt) + 1


def bits(flag: Expression) -> Expression:
    """Return a truth value as a word of one bit."""
    return z3.If(flag, z3.BitVecVal(1, 1), z3.BitVecVal(0, 1))


def count(flags: Iterable[Expression], width: int = 5) -> Expression:
    """Return how many are true."""
    total = z3.BitVecVal(0, width)
    for flag in flags:
        total = total + z3.If(flag, z3.BitVecVal(1, width), z3.BitVecVal(0, width))
    return total


@dataclass(frozen=True)
class Progress:
    """What a ledger knows of; as `fedmodel.secagg.Progress`."""

    position: Expression
    dealt: Expression
    cohort: Expression
    masked: Expression
    signed: Expression
    told: Expression


@dataclass(frozen=True)
class Round:
    """What is held for one round of a window: whether it is there, `b`, the shares of others, and ctx once masked."""

    there: Expression
    b: Expression
    held: Expression
    masked: Expression
    context: Expression


@dataclass(frozen=True)
class State:
    """What a silo keeps, as `fedmodel.secagg.state.State`."""

    progress: Progress
    revealed: Expression
    stale: Expression
    live: Expression
    attempt: Expression
    roster: Expression
    advert: Expression
    has_cohort: Expression
    cohort: Expression
    received: Expression
    masked_with: Expression
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Action:
    """One request: what, for which round and attempt, under which roster, about what."""

    ask: Expression
    round: Expression
    attempt: Expression
    roster: Expression
    cohort: Expression
    model: Expression
    context: Expression
    survivors: Expression
    dealers: Expression
    copy: Expression


@dataclass(frozen=True)
class Cohorts:
    """What the cohorts U1 are: who is in each, under which roster, for which attempt; and each one's advert in it."""

    members: tuple[Expression, ...]
    rosters: tuple[Expression, ...]
    attempts: tuple[Expression, ...]
    adverts: dict[int, tuple[Expression, ...]]

    def of(self, values: tuple[Expression, ...], cohort: Expression) -> Expression:
        """Return one of the values by a cohort that is a term."""
        chosen = values[0]
        for number, value in enumerate(values[1:], start=1):
            chosen = z3.If(cohort == number, value, chosen)
        return chosen


@dataclass(frozen=True)
class Done:
    """What a step came to: whether the silo did it, and what it gave or holds by it.

    Attributes:
        done: Whether it was not refused.
        state: After it.
        ledger: After it.
        part: The state that the step was done in, from which a mask or a reveal is made.
        gives_b: The dealers, by number, of which a share of `b` is given.
        gives_root: Those of which a share of the root is.
    """

    done: Expression
    state: State
    ledger: Progress
    part: State
    gives_b: Expression
    gives_root: Expression


def choose(flag: Expression, one: Any, other: Any) -> Any:
    """Return one of two records of terms, whichever a truth value says."""
    if isinstance(one, tuple):
        return tuple(choose(flag, first, second) for first, second in zip(one, other, strict=True))
    if isinstance(one, State | Progress | Round):
        chosen = {each.name: choose(flag, getattr(one, each.name), getattr(other, each.name)) for each in fields(one)}
        return type(one)(**chosen)
    return z3.If(flag, one, other)


class Silo:
    """The rules of one honest silo.

    Args:
        size: Of its federation.
        number: Its own, in the first roster.
        cohorts: What the server's cohorts are.
        rules: Those that hold.
    """

    def __init__(self, size: Size, number: int, cohorts: Cohorts, rules: frozenset[str] = RULES) -> None:
        self.size, self.number, self.cohorts, self.rules = size, number, cohorts, rules
        self._false, self._nobody = z3.BoolVal(False), size.word(())
        self._no_context, self._no_cohort = z3.BitVecVal(0, 5), z3.BitVecVal(0, 1)

    def fresh(self) -> State:
        """Return the state of a silo that has none."""
        nothing = self._false
        rounds = tuple(Round(nothing, nothing, nothing, nothing, self._no_context) for _ in range(self.size.rounds))
        bit = z3.BitVecVal(0, 1)
        return State(
            self.nothing_done(), nothing, nothing, nothing, bit, bit, z3.BitVecVal(0, 2), nothing, bit, nothing,
            self._nobody, rounds,
        )  # fmt: skip

    def nothing_done(self) -> Progress:
        """Return what a ledger knows before anything was entered."""
        nothing = self._false
        told = z3.BitVecVal(0, 5 + self.size.silos + 1)
        return Progress(z3.BitVecVal(0, 3), nothing, self._no_cohort, nothing, nothing, told)

    def own(self, roster: Expression) -> Expression:
        """Return the set of this silo alone, under a roster."""
        return z3.If(roster == 0, self.size.word([self.number]), self.size.word([self.number - 1]))

    def step(
        self, state: State, ledger: Progress, made: Expression, action: Action, quorum: Expression, dealt: Expression
    ) -> Done:
        """Return what becomes of one request.

        Args:
            state: The silo's newest, or an older one that was put in its place.
            ledger: What its ledger knows.
            made: How many adverts it made ever; the next one is of other secrets.
            action: The request.
            quorum: Whether enough of the roster signed what is asked.
            dealt: The silos, by number, that a server has shares of for this one in the cohort at hand.
        """
        opened = self._opened(state, ledger, action)
        is_member = action.roster == 0 if self.number == 1 else z3.BoolVal(True)  # the newer roster is without it
        outcomes = {
            Ask.ADVERT: self._advert(opened, made, action),
            Ask.DEAL: self._deal(opened, action),
            Ask.RECEIVE: self._receive(opened, action, dealt),
            Ask.MASK: self._mask(opened, action),
            Ask.COMMIT: self._commit(opened, action),
            Ask.REVEAL: self._reveal(opened, action, quorum),
        }
        done, after = self._false, state
        for ask, (accepted, result) in outcomes.items():
            now = z3.And(action.ask == ask, is_member, accepted)
            done, after = z3.Or(done, now), choose(now, result, after)
        progress = after.progress
        told = z3.And(done, z3.Or(progress.dealt, progress.masked, progress.signed))
        in_held = opened.masked_with | self.own(opened.roster)
        alive = action.survivors
        survives = (alive & self.own(action.roster)) != 0
        gives_b = z3.If(survives, in_held & alive, self._nobody) if SURVIVORS in self.rules else in_held & alive
        return Done(done, after, choose(told, progress, ledger), opened, gives_b, in_held & ~alive)

    def _opened(self, state: State, ledger: Progress, action: Action) -> State:
        """Return the state as a silo takes it up: without a window of another roster, closed where it is stale."""
        if LEDGER in self.rules:
            lost = replace(self.fresh(), progress=ledger, revealed=z3.BoolVal(True), stale=z3.BoolVal(True))
            state = choose(self.covers(state.progress, ledger), state, lost)
        if BASE in self.rules:
            ended = z3.And(state.live, state.roster != action.roster)
            state = choose(ended, self._without_window(state), state)
        return state

    def covers(self, progress: Progress, known: Progress) -> Expression:
        """Return whether a state knows of all that a ledger knows."""
        same = z3.And(
            z3.Or(z3.Not(known.dealt), z3.And(progress.dealt, progress.cohort == known.cohort)),
            z3.Or(z3.Not(known.signed), z3.And(progress.signed, progress.told == known.told)),
            z3.Or(z3.Not(known.masked), progress.masked),
        )
        return z3.If(progress.position == known.position, same, z3.UGT(progress.position, known.position))

    def _without_window(self, state: State) -> State:
        fresh = self.fresh()
        return replace(fresh, progress=state.progress, revealed=state.revealed, stale=state.stale)

    def _at(self, state: State, position: Expression) -> tuple[Expression, State]:
        """Return whether a silo may act in a round, and its state there: without acts in a higher one."""
        known = state.progress
        same = known.position == position
        clean = replace(self.nothing_done(), position=position)
        there = replace(state, progress=choose(same, known, clean), revealed=z3.And(same, state.revealed))
        closed = z3.And(same, state.stale, state.revealed)
        return z3.And(z3.UGE(position, known.position), z3.Not(closed)), there

    def _enter(self, state: State, round_: Expression) -> State:
        """Return a state from which the rounds before are erased."""
        rounds = tuple(
            choose(z3.UGE(z3.BitVecVal(index, 1), round_), held, replace(held, there=self._false))
            for index, held in enumerate(state.rounds)
        )
        left = z3.Or(*(held.there for held in rounds))
        state = replace(state, rounds=rounds)
        entered: State = choose(z3.And(state.live, z3.Not(left)), self._without_window(state), state)
        return entered

    def _held(self, state: State, round_: Expression) -> Round:
        found = state.rounds[0]
        for index, held in enumerate(state.rounds[1:], start=1):
            found = choose(round_ == index, held, found)
        return found

    def _with(self, state: State, round_: Expression, held: Round) -> State:
        rounds = tuple(choose(round_ == index, held, old) for index, old in enumerate(state.rounds))
        return replace(state, rounds=rounds)

    def context(self, state: State, round_: Expression, model: Expression) -> Expression:
        """Return ctx as this silo derives it."""
        return z3.Concat(state.roster, state.attempt, round_, state.cohort, model)

    def _advert(self, state: State, made: Expression, action: Action) -> tuple[Expression, State]:
        position = self.size.position(z3.BitVecVal(0, 1), action.attempt)
        again = z3.And(state.live, z3.Not(state.has_cohort), state.attempt == action.attempt)
        fresh, yes = self.fresh(), z3.BoolVal(True)
        rounds = tuple(replace(held, there=yes, b=yes, held=self._false) for held in fresh.rounds)
        new = replace(
            fresh,
            progress=replace(self.nothing_done(), position=position),
            live=yes,
            attempt=action.attempt,
            roster=action.roster,
            advert=made,
            rounds=rounds,
        )
        return z3.Or(again, z3.UGT(position, state.progress.position)), choose(again, state, new)

    def _deal(self, state: State, action: Action) -> tuple[Expression, State]:
        cohort, cohorts = action.cohort, self.cohorts
        members = cohorts.of(cohorts.members, cohort)
        accepted = z3.And(
            state.live,
            z3.Not(state.has_cohort),
            *(held.there for held in state.rounds),
            members & self.own(state.roster) != 0,
            cohorts.of(cohorts.rosters, cohort) == state.roster,
            cohorts.of(cohorts.attempts, cohort) == state.attempt,
            cohorts.of(cohorts.adverts[self.number], cohort) == state.advert,
            self._within(members, state.roster),
            self.enough(members) != 0,
        )
        rounds = tuple(replace(held, held=z3.BoolVal(True)) for held in state.rounds)
        progress = replace(state.progress, dealt=z3.BoolVal(True), cohort=cohort)
        return accepted, replace(state, progress=progress, has_cohort=z3.BoolVal(True), cohort=cohort, rounds=rounds)

    def enough(self, members: Expression) -> Expression:
        """Return the threshold of a cohort as a word, 0 where the policy refuses it."""
        found = z3.BitVecVal(0, 5)
        size = count(self.size.has(members, number) for number in range(1, self.size.silos + 1))
        for cohort in range(1, self.size.silos + 1):
            threshold = self.size.threshold(cohort)
            if threshold is not None:
                found = z3.If(size == cohort, z3.BitVecVal(threshold, 5), found)
        return found

    def _within(self, members: Expression, roster: Expression) -> Expression:
        every = range(1, self.size.silos + 1)
        allowed = z3.If(roster == 0, self.size.word(every), self.size.word(every[:-1]))
        return members & ~allowed == 0

    def _receive(self, state: State, action: Action, dealt: Expression) -> tuple[Expression, State]:
        members = self.cohorts.of(self.cohorts.members, state.cohort)
        dealers = action.dealers
        number = count(self.size.has(dealers, one) for one in range(1, self.size.silos + 1))
        accepted = z3.And(
            state.live,
            state.has_cohort,
            z3.Not(state.received),
            dealers & ~members == 0,
            dealers & self.own(state.roster) == 0,
            dealers & ~dealt == 0,
            z3.UGE(number + 1, self.enough(members)),
        )
        return accepted, replace(state, received=z3.BoolVal(True), masked_with=dealers)

    def _mask(self, state: State, action: Action) -> tuple[Expression, State]:
        held = self._held(state, action.round)
        may, there = self._at(state, self.size.position(action.round, state.attempt))
        done = z3.Or(there.progress.masked, there.revealed, there.progress.signed)
        accepted = z3.And(state.live, state.received, held.there, held.b, may, z3.Not(done))
        context = self.context(state, action.round, action.model)
        there = replace(there, progress=replace(there.progress, masked=z3.BoolVal(True)))
        masked = replace(held, b=self._false, masked=z3.BoolVal(True), context=context)
        return accepted, self._with(self._enter(there, action.round), action.round, masked)

    def _commit(self, state: State, action: Action) -> tuple[Expression, State]:
        may, there = self._at(state, self.size.position(action.round, action.attempt))
        first = z3.And(z3.Not(there.progress.signed), z3.Not(there.revealed))
        accepted = z3.And(may, first if ONE_LIST in self.rules else z3.BoolVal(True), self._acceptable(state, action))
        return accepted, self._enter(self._signed(there, action), action.round)

    def _signed(self, state: State, action: Action) -> State:
        told = z3.Concat(action.context, action.survivors)
        return replace(state, progress=replace(state.progress, signed=z3.BoolVal(True), told=told))

    def _reveal(self, state: State, action: Action, quorum: Expression) -> tuple[Expression, State]:
        may, there = self._at(state, self.size.position(action.round, action.attempt))
        held, told = self._held(state, action.round), z3.Concat(action.context, action.survivors)
        signed = z3.Or(z3.Not(there.progress.signed), there.progress.told == told)
        accepted = z3.And(
            may,
            z3.Not(there.revealed) if CLOSED in self.rules else z3.BoolVal(True),
            self._acceptable(state, action),
            self._has_part(state, action),
            held.held,
            signed if ONE_LIST in self.rules else z3.BoolVal(True),
            quorum if COMMIT in self.rules else z3.BoolVal(True),
        )
        after = replace(self._signed(there, action), revealed=z3.BoolVal(True))
        erased = held if CLOSED not in self.rules else replace(held, b=self._false, held=self._false)
        return accepted, self._with(self._enter(after, action.round), action.round, erased)

    def _has_part(self, state: State, action: Action) -> Expression:
        held = self._held(state, action.round)
        return z3.And(state.live, state.attempt == action.attempt, state.received, held.there)

    def _acceptable(self, state: State, action: Action) -> Expression:
        """Return whether a survivor list is one that this silo can accept."""
        alive, own, held = action.survivors, self.own(action.roster), self._held(state, action.round)
        number = count(self.size.has(alive, one) for one in range(1, self.size.silos + 1))
        listed, part = alive & own != 0, self._has_part(state, action)
        members = self.cohorts.of(self.cohorts.members, state.cohort)
        strangers = alive & members & ~self.own(state.roster) & ~state.masked_with
        within = z3.And(alive & ~members == 0, z3.Or(held.masked, z3.Not(listed)))
        masked = z3.And(
            held.context == action.context,
            z3.Or(strangers == 0, z3.Not(listed)) if MASKED_WITH in self.rules else z3.BoolVal(True),
        )
        return z3.And(
            self._within(alive, action.roster),
            z3.UGE(number, self.size.n_min),
            z3.If(part, z3.And(within, z3.Or(z3.Not(held.masked), masked)), z3.Not(listed)),
        )
