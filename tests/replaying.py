"""The model of `docs/proofs` and the real code side by side: each request goes to both, and both say the same of it.

The real side is `fedmodel.secagg.Participant`, built anew from its bytes for each request, with a ledger that remembers
what it did; what a silo refuses leaves no trace, as in `clients.aggregation_state`. Colluders are real silos that do
whatever is needed.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from typing import Any

import z3

from docs.proofs.model import RULES, Action, Ask, Cohorts, Done, Progress, Silo, Size, State
from docs.proofs.search import Asked, Run, members_of
from fedmodel.crypto import SigningKey, digest
from fedmodel.errors import AggregationRefused, CryptoError, Rule
from fedmodel.secagg import Member, Policy, Roster, Setting, Window
from fedmodel.secagg import Participant as RealSilo
from fedmodel.secagg import Progress as RealProgress
from fedmodel.secagg.messages import (
    Commit,
    Mask,
    MessageScope,
    Reveal,
    Secret,
    Share,
    cohort_digest_of,
    survivors_digest,
)
from tests.fedmodel.secagg.peers import RULES as CONFIGURATION
from tests.fedmodel.secagg.peers import RUN, words_of

MODELS = (b"m" * 32, b"n" * 32)
NEVER = 3  # a number that no advert has


@dataclass
class Cohort:
    """A cohort U1 that a server made: who is in it, and the adverts that it shows."""

    members: tuple[int, ...]
    roster: int
    attempt: int
    made: dict[int, int]
    adverts: list[bytes]
    digest: bytes
    shares: dict[tuple[int, int], bytes]


@dataclass
class Both:
    """One honest silo on both sides, with every state that it ever had."""

    model: list[State]
    ledger: Progress
    real: list[bytes | None]
    known: RealProgress
    made: int = 0


class Replay:
    """A federation in which a server asks honest silos one thing after the other.

    Args:
        size: Of it.
        rules: Those that the model has; the real code has all.
        consistency: The real policy's.
    """

    def __init__(self, size: Size, rules: frozenset[str] = RULES, consistency: str = "commit") -> None:
        self.size, self.rules = size, rules
        self.keys = {one: SigningKey.generate() for one in range(1, size.silos + 1)}
        everybody = tuple(Member(f"silo-{one}", key.public) for one, key in self.keys.items())
        self.rosters = [Roster("fed", everybody), Roster("fed", everybody[1:])]
        self.policy = Policy(n_min=size.n_min, colluding=size.colluding, dropping=0, bound=1.0,
                             largest_roster=max(3, size.silos), consistency=consistency)  # type: ignore[arg-type]  # fmt: skip
        self.cohorts: dict[int, Cohort] = {}
        self.adverts: dict[tuple[int, int, int, int], bytes] = {}
        self.commits: dict[tuple[int, ...], dict[int, bytes]] = defaultdict(dict)
        self.refused: list[tuple[int, Ask, Rule | None]] = []
        self.revealed: list[tuple[int, tuple[int, ...], Reveal]] = []
        self.masked: dict[int, tuple[bytes, set[int]]] = {}
        self.members: dict[int, Both] = {}
        for one in size.honest:
            silo = self.model_of(one)
            self.members[one] = Both([silo.fresh()], silo.nothing_done(), [None], RealProgress())

    def model_of(self, one: int) -> Silo:
        """Return a silo of the model, among the cohorts that there are by now."""
        size = self.size
        told = [self.cohorts.get(number) for number in range(2)]
        return Silo(
            size,
            one,
            Cohorts(
                tuple(size.word(each.members if each else ()) for each in told),
                tuple(z3.BitVecVal(each.roster if each else 0, 1) for each in told),
                tuple(z3.BitVecVal(each.attempt if each else 0, 1) for each in told),
                {
                    honest: tuple(z3.BitVecVal(each.made.get(honest, NEVER) if each else NEVER, 2) for each in told)
                    for honest in size.honest
                },
            ),
            self.rules,
        )

    def number(self, one: int, roster: int) -> int:
        return one - roster

    def window(self, attempt: int) -> Window:
        return Window(RUN, 1, attempt + 1, self.size.rounds)

    def make_cohort(self, number: int, roster: int, attempt: int, made: dict[int, int]) -> bool:
        """Show silos a cohort: honest ones by which of their adverts, and colluders with one for this cohort alone.

        Not where another number stands for it already: the model takes two numbers for two cohorts, with contexts of
        their own, and the very same adverts are one.
        """
        adverts = {}
        for one, which in made.items():
            if one in self.size.honest:
                if (one, roster, attempt, which) not in self.adverts:
                    return False
                adverts[one] = self.adverts[one, roster, attempt, which]
        colluders = {one: RealSilo(self.keys[one], self.rosters[roster], self.policy, RUN) for one in made
                     if one not in self.size.honest}  # fmt: skip
        for one, silo in colluders.items():
            adverts[one] = silo.advert(self.window(attempt))
        told = [adverts[one] for one in sorted(adverts)]
        setting = Setting(self.rosters[roster], self.policy, self.window(attempt))
        members = tuple(self.number(one, roster) for one in sorted(adverts))
        cohort = Cohort(members, roster, attempt, made, told, cohort_digest_of(setting, told), {})
        if any(cohort.digest == other.digest for place, other in self.cohorts.items() if place != number):
            return False
        try:
            for one, silo in colluders.items():
                self._take_shares(cohort, self.number(one, roster), silo.deal(told))
        except AggregationRefused:
            pass  # of a cohort that no policy takes
        self.cohorts[number] = cohort
        return True

    def _take_shares(self, cohort: Cohort, sender: int, shares: list[bytes]) -> None:
        place = MessageScope(Setting(self.rosters[cohort.roster], self.policy, self.window(cohort.attempt)), 1)
        for data in shares:
            cohort.shares[sender, Share.read(data, place).receiver] = data

    def context(self, bits: int) -> bytes:
        """Return the context that five bits of the model stand for."""
        roster, attempt, round_, cohort, model = (bits >> place & 1 for place in (4, 3, 2, 1, 0))
        found = self.cohorts.get(cohort)
        if found is None or (found.roster, found.attempt) != (roster, attempt):
            return digest(b"fedmodel/v1/test", bytes([bits]))  # nobody masks in it
        setting = Setting(self.rosters[roster], self.policy, self.window(attempt))
        return setting.context(round_ + 1, found.digest, MODELS[model], CONFIGURATION)

    def ask(self, one: int, ask: Ask, **about: int) -> bool:
        """Ask one silo on both sides, hold the one against the other, and return whether it did that."""
        told = {each.name: about.get(each.name, 0) for each in fields(Action) if each.name != "ask"}
        member = self.members[one]
        if ask is Ask.RESTORE:
            copy = told["copy"] if 0 < told["copy"] < len(member.real) else 0
            member.real.append(member.real[copy])
            member.model.append(member.model[copy])
            return True
        place = (told["roster"], told["round"], told["attempt"], told["context"], told["survivors"])
        found, quorum = self._ask_model(one, ask, told, place)
        expected = z3.is_true(z3.simplify(found.done))
        answer = self._ask_real(one, ask, told, place)
        assert (answer is not None) == expected, (one, ask.name, told, self.refused[-1:], quorum)
        if answer is None:
            member.real.append(member.real[-1])
            member.model.append(member.model[-1])
            return False
        member.model.append(simplified(found.state))
        member.ledger = simplified(found.ledger)
        self._compare(one, member.model[-1], member.real[-1])
        if ask is Ask.REVEAL:
            self._compare_shares(one, found, answer, place)
        return True

    def _ask_model(self, one: int, ask: Ask, told: dict[str, int], place: tuple[int, ...]) -> tuple[Done, bool]:
        size, member, silo = self.size, self.members[one], self.model_of(one)
        widths = {"context": 5, "survivors": size.silos + 1, "dealers": size.silos + 1, "copy": 4}
        words = {name: z3.BitVecVal(value, widths.get(name, 1)) for name, value in told.items()}
        action = Action(z3.BitVecVal(int(ask), 3), **words)
        signers = len(self.commits[place]) + size.colluding
        quorum = signers >= size.quorum(size.silos - told["roster"])
        cohort = self._cohort_of(member)
        dealers = () if cohort is None else {sender for sender, receiver in cohort.shares
                                             if receiver == self.number(one, cohort.roster)}  # fmt: skip
        made = z3.BitVecVal(member.made, 2)
        return silo.step(member.model[-1], member.ledger, made, action, z3.BoolVal(quorum), size.word(dealers)), quorum

    def _cohort_of(self, member: Both) -> Cohort | None:
        """Return the cohort that a silo dealt in, by its newest state."""
        state = member.model[-1]
        return self.cohorts.get(state.cohort.as_long()) if z3.is_true(state.has_cohort) else None

    def _ask_real(self, one: int, ask: Ask, told: dict[str, int], place: tuple[int, ...]) -> Any:
        """Return the real silo's answer, None where it refused."""
        member, roster = self.members[one], self.rosters[told["roster"]]
        try:
            silo = RealSilo(self.keys[one], roster, self.policy, RUN, member.real[-1], member.known)
            answer = self._stage(silo, one, ask, told, place)
        except (AggregationRefused, CryptoError) as error:
            self.refused.append((one, ask, getattr(error, "rule", None)))
            return None
        member.real.append(silo.state())
        if silo.progress.is_something:
            member.known = silo.progress
        return answer

    def _stage(self, silo: RealSilo, one: int, ask: Ask, told: dict[str, int], place: tuple[int, ...]) -> Any:
        number, survivors = told["round"] + 1, members_of(told["survivors"])
        member = self.members[one]
        if ask is Ask.ADVERT:
            answer = silo.advert(self.window(told["attempt"]))
            if answer not in self.adverts.values():
                self.adverts[one, told["roster"], told["attempt"], member.made] = answer
                member.made += 1
            return answer
        if ask is Ask.DEAL:
            cohort = self.cohorts[told["cohort"]]
            shares = silo.deal(cohort.adverts)
            self._take_shares(cohort, self.number(one, cohort.roster), shares)
            return shares
        if ask is Ask.RECEIVE:
            return self._receive(silo, one, members_of(told["dealers"]))
        if ask is Ask.MASK:
            return self._mask(silo, one, number, MODELS[told["model"]])
        asked = (number, told["attempt"] + 1, self.context(told["context"]), survivors)
        if ask is Ask.COMMIT:
            self.commits[place][one] = signed = silo.commit(*asked)
            return signed
        return silo.reveal(*asked, [*self.commits[place].values(), *self._signed_by_colluders(told, asked)])

    def _mask(self, silo: RealSilo, one: int, number: int, model: bytes) -> bytes:
        """Have a silo mask an update, and keep with whom; a second one in a round of these sizes is never given."""
        message = silo.mask(number, words_of(32, 4, one), model, CONFIGURATION)
        cohort = self._cohort_of(self.members[one])
        assert cohort is not None
        setting = Setting(self.rosters[cohort.roster], self.policy, self.window(cohort.attempt))
        sent = Mask.read(message, MessageScope(setting, number))
        assert self.size.rounds * self.size.attempts > 1 or one not in self.masked
        self.masked[one] = sent.context, {peer + cohort.roster for peer in sent.masked_with}
        return message

    def smallest_sum(self) -> int | None:
        """Return of how few honest updates a sum opens by what real silos gave, None where none does.

        For one cohort, and one round and attempt.
        """
        size, cohort = self.size, self.cohorts.get(0)
        threshold = size.threshold(len(cohort.members)) if cohort else None
        if cohort is None or threshold is None:
            return None
        shares = {(secret, dealer + cohort.roster, one) for one, _, reveal in self.revealed
                  for dealer, (secret, _) in reveal.shares.items()}  # fmt: skip
        given = Counter((secret, dealer) for secret, dealer, _ in shares)  # one that is given twice is one share
        known = {(secret, one) for secret in Secret for one in size.honest
                 if given[secret, one] + size.colluding >= threshold}  # fmt: skip
        assert not any((Secret.B, one) in known and (Secret.ROOT, one) in known for one in size.honest)

        def is_free(one: int, among: tuple[int, ...]) -> bool:
            context, peers = self.masked[one]
            roots = {either for secret, either in known if secret is Secret.ROOT}
            left = [peer for peer in peers if peer in size.honest and not {one, peer} & roots]
            both = [self.masked[peer][0] == context and one in self.masked[peer][1] for peer in left if peer in among]
            return (Secret.B, one) in known and len(both) == len(left) and all(both)

        for number in range(1, len(self.masked) + 1):
            for among in itertools.combinations(sorted(self.masked), number):
                if all(is_free(one, among) for one in among):
                    return number
        return None

    def _receive(self, silo: RealSilo, one: int, dealers: tuple[int, ...]) -> object:
        cohort = self._cohort_of(self.members[one])
        if cohort is None:
            return silo.receive([])
        own = self.number(one, cohort.roster)
        if any((dealer, own) not in cohort.shares for dealer in dealers):
            raise AggregationRefused(Rule.SHARES, "nobody has such a share")
        faults = silo.receive([cohort.shares[dealer, own] for dealer in dealers])
        assert faults == {}
        return faults

    def _signed_by_colluders(self, told: dict[str, int], asked: tuple[Any, ...]) -> list[bytes]:
        number, attempt, context, survivors = asked
        roster = told["roster"]
        place = MessageScope(Setting(self.rosters[roster], self.policy, Window(RUN, number, attempt, 1)), number)
        colluders = range(self.size.silos - self.size.colluding + 1, self.size.silos + 1)
        return [
            Commit(self.number(one, roster), context, survivors_digest(survivors)).sign(place, self.keys[one])
            for one in colluders
        ]

    def _compare(self, one: int, model: State, real: bytes | None) -> None:
        """Hold what the two sides keep against each other."""
        assert real is not None
        kept = RealSilo(self.keys[one], self.rosters[model.roster.as_long()], self.policy, RUN, real)._state
        position = 0 if not kept.round else 2 * (kept.round - 1) + kept.attempt
        window = kept.window
        found = (position, bool(kept.dealt), kept.masked, kept.signed is not None, kept.revealed, kept.is_stale)
        flags = (model.progress.dealt, model.progress.masked, model.progress.signed, model.revealed, model.stale)
        assert found == (model.progress.position.as_long(), *map(z3.is_true, flags))
        assert (window is not None) == z3.is_true(model.live)
        if window is not None:
            assert (bool(window.cohort), window.received) == (z3.is_true(model.has_cohort), z3.is_true(model.received))
            there = [z3.is_true(held.there) for held in model.rounds]
            assert [str(number + 1) in window.rounds for number in range(self.size.rounds)] == there

    def _compare_shares(self, one: int, found: Done, answer: bytes, place: tuple[int, ...]) -> None:
        """Hold the shares that a REVEAL gives against those that the model says."""
        roster, round_, attempt, *_ = place
        setting = Setting(self.rosters[roster], self.policy, Window(RUN, round_ + 1, attempt + 1, 1))
        reveal = Reveal.read(answer, MessageScope(setting, round_ + 1))
        given = {kind: {dealer for dealer, (secret, _) in reveal.shares.items() if secret is kind} for kind in Secret}
        of_b, of_root = (members_of(z3.simplify(word).as_long()) for word in (found.gives_b, found.gives_root))
        assert (given[Secret.B], given[Secret.ROOT]) == (set(of_b), set(of_root))
        self.revealed.append((one, members_of(place[4]), reveal))


def simplified(record: Any) -> Any:
    """Return a record of the model with each term worked out."""
    if isinstance(record, tuple):
        return tuple(simplified(each) for each in record)
    if hasattr(record, "__dataclass_fields__"):
        return type(record)(**{each.name: simplified(getattr(record, each.name)) for each in fields(record)})
    return z3.simplify(record)


def replay(size: Size, run: Run, rules: frozenset[str] = RULES, consistency: str = "commit") -> Replay:
    """Put a run that the solver found to both sides, in an order in which whatever a request needs is there."""
    both = Replay(size, rules, consistency)
    open_ = {one: [asked for asked in run.asked if asked.silo == one and asked.ask is not Ask.NOTHING]
             for one in size.honest}  # fmt: skip

    def is_ready(asked: Asked) -> bool:
        if asked.ask is Ask.DEAL:
            return _made(both, run, asked.about["cohort"])
        if asked.ask is Ask.RECEIVE:
            cohort = both._cohort_of(both.members[asked.silo])
            wanted = members_of(asked.about["dealers"])
            return cohort is not None and all(
                (one, both.number(asked.silo, cohort.roster)) in cohort.shares for one in wanted
            )
        if asked.ask is Ask.COMMIT:
            roster, attempt, _, number, _ = (asked.about["context"] >> place & 1 for place in (4, 3, 2, 1, 0))
            is_of_it = run.cohorts[number][1:3] == (roster, attempt)  # as in `Replay.context`
            return not is_of_it or _made(both, run, number)  # a context is none before its cohort is
        to_come = [other.ask for others in open_.values() for other in others]
        return asked.ask is not Ask.REVEAL or Ask.COMMIT not in to_come

    while any(open_.values()):
        nexts = [asked[0] for asked in open_.values() if asked]
        ready = [asked for asked in nexts if is_ready(asked)] or nexts
        chosen = ready[0]
        open_[chosen.silo].pop(0)
        if not is_ready(chosen) and chosen.ask in (Ask.DEAL, Ask.COMMIT):
            continue  # of a cohort that cannot be
        both.ask(chosen.silo, chosen.ask, **chosen.about)
    return both


def _made(both: Replay, run: Run, number: int) -> bool:
    """Have a run's cohort, once all adverts in it are made; return whether it is there."""
    if number in both.cohorts:
        return True
    members, roster, attempt, adverts = run.cohorts[number]
    made = {one + roster: adverts.get(one + roster, 0) for one in members}
    return both.make_cohort(number, roster, attempt, made)


def hostile_request(both: Replay, chance: random.Random) -> tuple[int, Ask, dict[str, int]]:
    """Return some request to some silo: often the next one of an honest server, often with a word of it changed."""
    size = both.size
    one = chance.choice(list(size.honest))
    state = both.members[one].model[-1]
    about = {
        "round": chance.randrange(size.rounds),
        "attempt": chance.randrange(size.attempts),
        "roster": int(chance.random() < 0.1) if size.rosters > 1 else 0,
        "model": int(chance.random() < 0.1),
        "cohort": chance.randrange(2),
        "copy": chance.randrange(len(both.members[one].real)),
    }
    asks = [Ask.ADVERT, Ask.DEAL, Ask.RECEIVE, Ask.MASK, Ask.COMMIT, Ask.COMMIT, Ask.REVEAL, Ask.REVEAL]
    if size.restores:
        asks.append(Ask.RESTORE)
    ask = chance.choice(asks)
    if chance.random() < 0.75:
        ask = _next(state)
    number = about["cohort"]
    if ask is Ask.DEAL and number not in both.cohorts:
        is_made = _some_cohort(both, number, about["attempt"], about["roster"], chance)
        ask = Ask.DEAL if is_made else Ask.ADVERT
    if ask in (Ask.COMMIT, Ask.REVEAL):
        about |= _some_list(both, chance)
    cohort = both._cohort_of(both.members[one])
    there = [] if cohort is None else [sender for sender, receiver in cohort.shares
                                       if receiver == both.number(one, cohort.roster)]  # fmt: skip
    if chance.random() < 0.3:
        there = [sender for sender in there if chance.random() < 0.7]
    about["dealers"] = sum(1 << sender for sender in there)
    return one, ask, about


def _some_list(both: Replay, chance: random.Random) -> dict[str, int]:
    """Return a survivor list to ask about: the right one, one that was signed before, or any."""
    size, contexts = both.size, defaultdict(list)
    for one, member in both.members.items():
        for held in member.model[-1].rounds:
            if z3.is_true(held.masked):
                contexts[held.context.as_long()].append(one)
    if both.commits and chance.random() < 0.5:
        names = ("roster", "round", "attempt", "context", "survivors")
        return dict(zip(names, chance.choice(sorted(both.commits)), strict=True))
    if not contexts or chance.random() < 0.2:
        context = chance.choice([bits for bits in range(32) if bits >> 1 & 1 in both.cohorts] or [0])
        survivors = [one for one in range(1, size.silos + 1) if chance.random() < 0.8]
        return {"context": context, "survivors": size.word(survivors).as_long()} if both.cohorts else {}
    context = chance.choice(sorted(contexts))
    roster, attempt, round_ = (context >> place & 1 for place in (4, 3, 2))
    colluders = range(size.silos - size.colluding + 1, size.silos + 1)
    told = [one for one in (*contexts[context], *colluders) if chance.random() < 0.95]
    survivors = sum(1 << both.number(one, roster) for one in told)
    return {"roster": roster, "attempt": attempt, "round": round_, "context": context, "survivors": survivors}


def _next(state: State) -> Ask:
    """Return what an honest server would ask a silo next."""
    if not z3.is_true(state.live):
        return Ask.ADVERT
    if not z3.is_true(state.has_cohort):
        return Ask.DEAL
    if not z3.is_true(state.received):
        return Ask.RECEIVE
    if not z3.is_true(state.progress.masked):
        return Ask.MASK
    return Ask.REVEAL if z3.is_true(state.progress.signed) else Ask.COMMIT


def _some_cohort(both: Replay, number: int, attempt: int, roster: int, chance: random.Random) -> bool:
    """Make a cohort of most of those who advertised; return whether there is one."""
    made = {}
    for one in range(1 + roster, both.size.silos + 1):
        adverts = [told[3] for told in both.adverts if told[:3] == (one, roster, attempt)]
        if one not in both.size.honest:
            made[one] = 0
        elif adverts and chance.random() < 0.95:
            made[one] = chance.choice(adverts)
    return (
        len(made) >= 3 and len(made) >= both.size.silos - 1 - roster and both.make_cohort(number, roster, attempt, made)
    )


def begin(both: Replay, chance: random.Random) -> None:
    """Bring a federation some way into its first round, as an honest server does that loses a message now and then."""
    size, stages = both.size, (Ask.ADVERT, Ask.DEAL, Ask.RECEIVE, Ask.MASK, Ask.COMMIT)
    survivors = list(range(len(size.honest) + 1, size.silos + 1))
    for ask in stages[: chance.randrange(2, 6)]:
        if ask is Ask.DEAL:
            both.make_cohort(0, 0, 0, dict.fromkeys(range(1, size.silos + 1), 0))
        for one in size.honest:
            if ask is not Ask.ADVERT and chance.random() < 0.05:
                continue
            told = {sender for sender, receiver in both.cohorts[0].shares if receiver == one} if both.cohorts else set()
            dealers, alive = sum(1 << sender for sender in told), sum(1 << number for number in survivors)
            if both.ask(one, ask, dealers=dealers, survivors=alive) and ask is Ask.MASK:
                survivors.append(one)
