"""A federation in memory: real silos and a real server, with nothing between them but what a test does to messages.

A silo never lives from one stage to the next. Each call builds it from the bytes of its last state, as a process that
was restarted would, so that whatever "once" rests on is in those bytes, and in what its ledger knows: a test may put an
older state in the newest's place, as somebody does who restores a backup.

`View` says what follows from messages: the linear equations that a server holds, and which sums of updates they give.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedmodel.crypto import SigningKey, Suite
from fedmodel.errors import AggregationRefused, FedmodelError, Rule
from fedmodel.secagg import Collection, Member, Participant, Policy, Progress, Roster, Setting, Tally, Window, ring
from fedmodel.secagg.messages import Kind, Mask, MessageScope, Reveal, Secret
from fedmodel.secagg.ring import RingBits

RUN = 9
MODEL, RULES = b"m" * 32, b"c" * 32
STAGES = (Kind.ADVERT, Kind.SHARE, Kind.MASK, Kind.COMMIT, Kind.REVEAL)

Moment = tuple[Mapping[int, bytes | None], Mapping[int, Progress]]
Gone = Mapping[Kind, Iterable[int]]
Tamper = Callable[[Kind, int, Any], Any]


def unchanged(kind: Kind, sender: int, message: Any) -> Any:
    """Tamper with nothing."""
    return message


def vanishing(at: Mapping[int, Kind]) -> dict[Kind, set[int]]:
    """Return who is gone at each stage, where a silo that vanishes stays away."""
    return {stage: {number for number, first in at.items() if first.value <= stage.value} for stage in STAGES}


def words_of(ring_bits: RingBits, size: int, seed: int) -> np.ndarray:
    """Return a vector that fills the whole ring, so that sums wrap."""
    drawn = np.random.default_rng(seed).integers(0, 2**ring_bits, size, dtype=np.uint64)
    return drawn.astype(ring.carrier(ring_bits))


def summed(vectors: Iterable[np.ndarray], ring_bits: int | None = None) -> np.ndarray:
    """Return the sum in the ring, of as many bits as the words have unless said."""
    vectors = list(vectors)
    total = np.sum(vectors, axis=0, dtype=np.uint64) % 2 ** (ring_bits or 8 * vectors[0].dtype.itemsize)
    return total.astype(vectors[0].dtype)


class Federation:
    """Keys, a signed roster, one policy, every silo's last state and what its ledger knows.

    Args:
        silos: How many the roster has.
        policy: What differs from the policy of this class.
    """

    def __init__(self, silos: int, **policy: Any) -> None:
        self.administrator = SigningKey.generate()
        self.identities = {number: SigningKey.generate() for number in range(1, silos + 1)}
        members = tuple(Member(f"silo-{number}", key.public) for number, key in self.identities.items())
        signed = Roster("federation", members).sign(self.administrator)
        self.roster = Roster.open(signed, self.administrator.public)
        told = {"n_min": 3, "colluding": 1, "dropping": 1, "bound": 1.0, "largest_roster": max(3, silos)}
        self.policy = Policy(**{**told, **policy})
        self.states: dict[int, bytes | None] = dict.fromkeys(self.identities)
        self.ledgers: dict[int, Progress] = dict.fromkeys(self.identities, Progress())

    @property
    def numbers(self) -> list[int]:
        return list(self.identities)

    def silo(self, number: int) -> Participant:
        """Return a silo as its last state left it."""
        return Participant(
            self.identities[number], self.roster, self.policy, RUN, self.states[number], self.ledgers[number]
        )

    def call(self, number: int, stage: str, *args: Any) -> Any:
        """Run one stage of a silo and keep its state, whether or not it refused."""
        silo = self.silo(number)
        try:
            return getattr(silo, stage)(*args)
        finally:
            self.states[number] = silo.state()
            if silo.progress.is_something:
                self.ledgers[number] = silo.progress

    def moment(self) -> Moment:
        """Return where everybody is, to begin from there more than once."""
        return dict(self.states), dict(self.ledgers)

    def go_back(self, moment: Moment) -> None:
        """Have everybody where they were, ledgers too, as if what came after had never been."""
        states, ledgers = moment
        self.states, self.ledgers = dict(states), dict(ledgers)

    def setting(self, window: Window) -> Setting:
        return Setting(self.roster, self.policy, window)

    def updates(self, size: int = 16) -> dict[int, np.ndarray]:
        """Return an update of each silo; they differ."""
        return {number: words_of(self.policy.ring_bits, size, number) for number in self.identities}

    def quorum(self) -> int:
        return self.policy.quorum(self.roster)


def refusal(stage: Callable[..., Any], *args: Any, **options: Any) -> Rule:
    """Return the rule that a call is refused by."""
    try:
        stage(*args, **options)
    except AggregationRefused as error:
        return error.rule
    raise AssertionError("nothing was refused")


def collect_adverts(
    federation: Federation, window: Window, gone: Gone | None = None, tamper: Tamper = unchanged
) -> tuple[Collection, list[bytes], list[tuple[Kind, int]]]:
    """Gather adverts; return also what every silo is to be sent, and what the server refused."""
    collection = Collection(federation.setting(window))
    refused = []
    for number in federation.numbers:
        if number in set((gone or {}).get(Kind.ADVERT, ())):
            continue
        message = tamper(Kind.ADVERT, number, federation.call(number, "advert", window))
        try:
            collection.add_advert(message)
        except FedmodelError:
            refused.append((Kind.ADVERT, number))
    return collection, collection.close_adverts(), refused


@dataclass
class Opened:
    """A window whose shares are dealt, and what was refused on the way, by the stage and the silo at fault."""

    federation: Federation
    collection: Collection
    refused: list[tuple[Kind, int]] = field(default_factory=list)
    faults: dict[int, dict[int, str]] = field(default_factory=dict)

    @property
    def window(self) -> Window:
        return self.collection.setting.window

    def round(self, number: int | None = None) -> Round:
        return Round(self, number or self.window.first)


def open_window(
    federation: Federation, window: Window | None = None, gone: Gone | None = None, tamper: Tamper = unchanged
) -> Opened:
    """Run a window up to dealt and opened shares, as an honest server would.

    Args:
        federation: Whose states move on.
        window: Of one round by default.
        gone: By stage, who sends nothing there. Whoever deals nothing is given nothing.
        tamper: What becomes of each message on its way to the server.
    """
    window = window or Window(RUN, 1, 1, 1)
    collection, adverts, refused = collect_adverts(federation, window, gone, tamper)
    opened = Opened(federation, collection, refused)
    for number in collection.cohort:
        if number in set((gone or {}).get(Kind.SHARE, ())):
            continue
        shares = tamper(Kind.SHARE, number, federation.call(number, "deal", adverts))
        try:
            collection.add_shares(shares)
        except FedmodelError:
            refused.append((Kind.SHARE, number))
    collection.check_enough_dealt()
    for number in sorted(collection.dealt):
        opened.faults[number] = federation.call(number, "receive", collection.shares_for(number))
    return opened


class Round:
    """One round, stage by stage, so that a test can stop between two and be the server."""

    def __init__(self, opened: Opened, number: int) -> None:
        self.federation, self.opened, self.number = opened.federation, opened, number
        self.attempt = opened.window.attempt
        self.tally: Tally = Tally(opened.collection, number)
        self.masked: dict[int, bytes] = {}
        self.words: dict[int, np.ndarray] = {}
        self.commits: dict[int, bytes] = {}
        self.reveals: dict[int, bytes] = {}
        self.refused: list[tuple[Kind, int]] = []

    @property
    def place(self) -> MessageScope:
        return MessageScope(self.opened.collection.setting, self.number)

    @property
    def context(self) -> bytes:
        return self.tally.context

    def mask(self, updates: Mapping[int, np.ndarray], gone: Iterable[int] = (), tamper: Tamper = unchanged) -> None:
        """Have every silo that dealt mask its update, and the server take it."""
        for number in sorted(self.opened.collection.dealt - set(gone)):
            self.mask_one(number, updates[number], tamper=tamper)

    def mask_one(
        self, number: int, update: np.ndarray, model: bytes = MODEL, rules: bytes = RULES, tamper: Tamper = unchanged
    ) -> None:
        words = update.copy()
        message = self.federation.call(number, "mask", self.number, words, model, rules)
        message, words = tamper(Kind.MASK, number, (message, words))
        self.masked[number], self.words[number] = message, words
        try:
            self.tally.add_masked(message, words)
        except FedmodelError:
            self.refused.append((Kind.MASK, number))

    def close(self) -> tuple[int, ...]:
        return self.tally.close_masked()

    def commit_one(self, number: int, survivors: Sequence[int] | None = None, context: bytes | None = None) -> bytes:
        """Ask a silo for its COMMIT, on the server's own list unless another is given."""
        told = self.tally.survivors if survivors is None else survivors
        return self.federation.call(number, "commit", self.number, self.attempt, context or self.context, told)

    def reveal_one(
        self,
        number: int,
        survivors: Sequence[int] | None = None,
        commits: Sequence[bytes] | None = None,
        context: bytes | None = None,
    ) -> bytes:
        """Ask a silo for its REVEAL."""
        told = self.tally.survivors if survivors is None else survivors
        signed = self.tally.commits() if commits is None else commits
        return self.federation.call(number, "reveal", self.number, self.attempt, context or self.context, told, signed)

    def commit(self, gone: Iterable[int] = (), tamper: Tamper = unchanged) -> None:
        """Have the whole roster sign, also silos that have no part in the round."""
        for number in self.federation.numbers:
            if number in set(gone):
                continue
            try:
                self.commits[number] = tamper(Kind.COMMIT, number, self.commit_one(number))
                self.tally.add_commit(self.commits[number])
            except AggregationRefused:
                self.refused.append((Kind.COMMIT, number))

    def reveal(self, gone: Iterable[int] = (), tamper: Tamper = unchanged) -> None:
        """Have every silo that dealt give its shares; a silo that refuses is one that is not there."""
        signed = self.tally.commits()
        for number in sorted(self.opened.collection.dealt - set(gone)):
            try:
                self.reveals[number] = tamper(Kind.REVEAL, number, self.reveal_one(number, commits=signed))
                self.tally.add_reveal(self.reveals[number])
            except AggregationRefused:
                self.refused.append((Kind.REVEAL, number))


def run_round(
    opened: Opened,
    number: int | None = None,
    updates: Mapping[int, np.ndarray] | None = None,
    gone: Gone | None = None,
    tamper: Tamper = unchanged,
) -> tuple[Round, np.ndarray]:
    """Run a whole round, and return it with the sum that the server gets."""
    gone = defaultdict(tuple, gone or {})
    held = opened.round(number)
    held.mask(updates or opened.federation.updates(), gone[Kind.MASK], tamper)
    held.close()
    held.commit(gone[Kind.COMMIT], tamper)
    held.reveal(gone[Kind.REVEAL], tamper)
    return held, held.tally.total()


class View:
    """What a server holds after a round, as linear equations over updates and masks that it does not know.

    A masked update is one equation: its update, its self mask, and a mask a neighbour with its sign. A self mask is
    known where `threshold` shares of b are held, a pair mask where as many of either root are. What colluding silos
    know is known: their own secrets, and both shares of whatever was dealt to them.

    Masks of unknown keys are taken to be free: that is the guarantee of `masking`, tested there.
    """

    def __init__(self, held: Round, colluding: Iterable[int] = ()) -> None:
        self.threshold = held.opened.collection.topology.threshold
        self.colluding = set(colluding)
        self.masked_with = {
            number: Mask.read(message, held.place).masked_with for number, message in held.masked.items()
        }
        self.holders: dict[tuple[Secret, int], set[int]] = defaultdict(set)
        for number in self.colluding:
            for dealer in held.opened.collection.dealt:
                self.holders[Secret.B, dealer].add(number)
                self.holders[Secret.ROOT, dealer].add(number)
        for message in held.reveals.values():
            self.read(Reveal.read(message, held.place))

    def read(self, reveal: Reveal) -> None:
        """Take in the shares of a REVEAL."""
        for dealer, (secret, _) in reveal.shares.items():
            self.holders[secret, dealer].add(reveal.sender)

    def knows(self, secret: Secret, dealer: int) -> bool:
        return dealer in self.colluding or len(self.holders[secret, dealer]) >= self.threshold

    def both_secrets(self) -> list[int]:
        """Return the honest silos of which both secrets are known; for each, its update is in the clear."""
        honest = sorted(self.masked_with.keys() - self.colluding)
        return [one for one in honest if self.knows(Secret.B, one) and self.knows(Secret.ROOT, one)]

    def sums(self) -> np.ndarray:
        """Return a basis of the sums of honest updates that follow, a row each, in order of the honest who masked."""
        honest = sorted(self.masked_with.keys() - self.colluding)
        unknown: dict[object, int] = {}
        rows = []
        for number in honest:
            row: dict[object, int] = {}
            if not self.knows(Secret.B, number):
                row["self", number] = 1
            for peer in self.masked_with[number]:
                if not (self.knows(Secret.ROOT, number) or self.knows(Secret.ROOT, peer)):
                    row["pair", min(number, peer), max(number, peer)] = 1 if number < peer else -1
            for name in row:
                unknown.setdefault(name, len(unknown))
            rows.append(row)
        masks = np.zeros((len(rows), len(unknown) + 1))
        for place, row in enumerate(rows):
            for name, sign in row.items():
                masks[place, unknown[name]] = sign
        # Whatever cancels every unknown mask, by the singular vectors that the masks do not reach.
        left, values, _ = np.linalg.svd(masks)
        return left[:, int((values > 1e-9).sum()) :].T

    def gives(self, survivors: Iterable[int]) -> bool:
        """Whether nothing follows but one sum, that of these silos (less the colluding)."""
        honest = sorted(self.masked_with.keys() - self.colluding)
        wanted = np.array([float(number in set(survivors)) for number in honest])
        basis = self.sums()
        return len(basis) == 1 and np.allclose(np.outer(wanted, basis[0]), np.outer(basis[0], wanted))


def is_uniform(words: np.ndarray) -> float:
    """Return the p-value of a chi-square test that every byte of the words is uniform."""
    from scipy.stats import chisquare

    return float(chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue)


SUITES = (Suite.CLASSIC, Suite.POST_QUANTUM)
