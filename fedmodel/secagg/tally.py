"""The server's side of one round: masked updates in, their sum out.

    add_masked, close_masked        U3
    add_commit, commits             the quorum
    add_reveal, total               shares, and the sum

A message that breaks a rule raises, is not taken in, and is the fault of whoever sent it. `blamed` says of silos whose
messages were well formed what does not fit. If two silos contradict each other, it says so, and not which is right. A
dealer whose shares do not give its secret costs the round. `false_dealers` are the dealers of whom this is certain, if
no more silos lie than the policy tolerates. `at_odds` are silos that were left out because of a disagreement over
shares. Whom they masked with stays the same for the window, so they would be left out of its other rounds too.

Shapes: P coordinates.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from fedmodel.errors import AggregationRefused, CryptoError, DropoutError, Rule
from fedmodel.secagg import ring, shamir
from fedmodel.secagg.collection import Collection
from fedmodel.secagg.keys import MaskKey, commitment, pair_key, self_key
from fedmodel.secagg.masking import Sign, apply_masks
from fedmodel.secagg.messages import (
    Commit,
    Mask,
    MessageScope,
    Reveal,
    Secret,
    survivors_digest,
    words_digest,
)
from fedmodel.secagg.ring import Words

# Sets of shares that are tried for one secret before it is given up, if more are false than can be decoded: all sets if
# there are few, otherwise some at random.
_MOST_SETS: Final = 50_000
_MOST_TRIES: Final = 2_000


class Tally:
    """A round of a window, from masked updates to their sum.

    Args:
        collection: The window, with its shares dealt.
        number: The number of one of its rounds.

    Raises:
        AggregationRefused: When the window has no such round.
    """

    def __init__(self, collection: Collection, number: int) -> None:
        if number not in collection.setting.window.rounds:
            raise AggregationRefused(Rule.OUT_OF_ORDER, f"round {number} is not of the window")
        self.collection = collection
        self._setting = collection.setting
        self._place = MessageScope(collection.setting, number)
        self.number = number
        self._index = number - collection.setting.window.first
        self._masked: dict[int, tuple[Mask, Words]] = {}
        self._with_whom: dict[int, frozenset[int]] = {}
        self._commits: dict[int, bytes] = {}
        self._reveals: set[int] = set()
        self._coefficients: dict[tuple[int, ...], dict[int, int]] = {}
        self._liars: set[int] = set()
        self._total_P: Words | None = None
        self._shares: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self.survivors: tuple[int, ...] = ()
        self.told = b""
        self.context = b""
        self.false_dealers: set[int] = set()
        self.at_odds: set[int] = set()
        self._alive: frozenset[int] = frozenset()
        self._blamed_before: dict[int, str] = {}
        self.blamed: dict[int, str] = {}

    def add_masked(self, data: bytes, words_P: Words) -> int:
        """Take a masked update, and return its silo's number. The words are kept, not copied.

        Raises:
            AggregationRefused: When the silo did not deal, did not sign these words, or sent an update before.
        """
        mask = Mask.read(data, self._place)
        collection = self.collection
        if mask.sender not in collection.dealt or mask.sender in self._masked or self.survivors:
            raise AggregationRefused(Rule.REPEATED, f"silo {mask.sender} did not deal, sent twice, or came too late")
        if not set(mask.masked_with) <= collection.dealt & set(collection.peers[mask.sender]):
            raise AggregationRefused(Rule.SHARES, f"silo {mask.sender} masked with silos that did not deal to it")
        fits = self._total_P is None or len(words_P) == len(self._total_P)
        bits = self._setting.policy.ring_bits
        if not ring.holds(bits, words_P) or not fits:
            raise AggregationRefused(Rule.VECTOR, f"silo {mask.sender}'s words are of another ring or length")
        if words_digest(bits, words_P) != mask.words:
            raise AggregationRefused(Rule.VECTOR, f"silo {mask.sender}'s words are not those that it signed")
        if self._total_P is None:
            self._total_P = np.zeros_like(words_P)
        np.add(self._total_P, words_P, out=self._total_P)  # while it is in the cache
        self._masked[mask.sender] = mask, words_P
        self._with_whom[mask.sender] = frozenset(mask.masked_with)
        return mask.sender

    def close_masked(self) -> tuple[int, ...]:
        """Fix U3: the largest group that masked in one context, each silo with every neighbour in the group.

        Silos that do not fit are named in `blamed`: they masked in another context, or disagree with a neighbour about
        whether shares were dealt. It cannot be known which of the two is false, unless one disagrees with several.

        Raises:
            DropoutError: When fewer silos are left than the smallest allowed sum needs.
        """
        contexts = [mask.context for mask, _ in self._masked.values()]
        self.context = max(set(contexts), key=lambda one: (contexts.count(one), one), default=b"")
        alive = {number for number, (mask, _) in self._masked.items() if mask.context == self.context}
        for number in self._masked.keys() - alive:
            self.blamed[number] = "masked in another context: another model, or other rules"
        while alive:
            odds = {number: self._at_odds(number, alive) for number in alive}
            # Between two alone, leave out the one with which the other did not mask: its offers may be false.
            doubted = {number: any(number not in self._with_whom[peer] for peer in odds[number]) for number in alive}
            worst = max(alive, key=lambda number: (len(odds[number]), doubted[number], number))
            if not odds[worst]:
                break
            alive.remove(worst)
            self.at_odds.add(worst)
            self.blamed[worst] = f"left out: it and {_names(odds[worst])} disagree on whether shares were right"
        needed = self._setting.policy.n_min
        if len(alive) < needed:
            raise DropoutError(f"{len(alive)} masked updates fit together, where policy asks for {needed}")
        self.survivors, self._alive = tuple(sorted(alive)), frozenset(alive)
        self._blamed_before = dict(self.blamed)
        self.told = survivors_digest(self.survivors)
        for _, words_P in (self._masked[number] for number in self._masked.keys() - alive):
            if self._total_P is not None:
                np.subtract(self._total_P, words_P, out=self._total_P)
        return self.survivors

    def add_commit(self, data: bytes) -> int:
        """Take a COMMIT, and return its silo's number.

        Raises:
            AggregationRefused: When it is not for the survivor list, or is the silo's second.
        """
        commit = Commit.read(data, self._place)
        if (commit.context, commit.survivors) != (self.context, self.told) or commit.sender in self._commits:
            raise AggregationRefused(Rule.TWO_FACED, f"silo {commit.sender} signed another list, or twice")
        self._commits[commit.sender] = data
        return commit.sender

    @property
    def has_quorum(self) -> bool:
        """Whether enough silos of the roster signed."""
        return len(self._commits) >= self._setting.policy.quorum(self._setting.roster)

    def commits(self) -> list[bytes]:
        """Return a quorum of COMMITs; empty if the policy needs none.

        Raises:
            DropoutError: When there are too few.
        """
        policy, roster = self._setting.policy, self._setting.roster
        if policy.consistency == "quorum":
            return []
        needed = policy.quorum(roster)
        if len(self._commits) < needed:
            raise DropoutError(
                f"{len(self._commits)} of {len(roster)} silos signed the list, where {needed} are needed"
            )
        return [data for _, data in sorted(self._commits.items())][:needed]

    def add_reveal(self, data: bytes) -> int:
        """Take a REVEAL, and return its silo's number.

        Raises:
            AggregationRefused: When it is not for the survivor list, gives a share of the wrong secret, or is the
                silo's second.
        """
        reveal = Reveal.read(data, self._place)
        if (reveal.context, reveal.survivors) != (self.context, self.told) or reveal.sender in self._reveals:
            raise AggregationRefused(Rule.TWO_FACED, f"silo {reveal.sender} revealed for another list, or twice")
        if reveal.sender not in self.collection.cohort:
            raise AggregationRefused(Rule.SHARES, f"silo {reveal.sender} is not of the cohort")
        dealers = {*self.collection.peers[reveal.sender], reveal.sender}
        gives_b = reveal.sender in self._alive
        for dealer, (secret, _) in reveal.shares.items():
            asked = Secret.B if dealer in self._alive else Secret.ROOT
            if dealer not in dealers or secret is not asked or (secret is Secret.B and not gives_b):
                raise AggregationRefused(Rule.SHARES, f"silo {reveal.sender} gave a share that was not asked for")
        self._reveals.add(reveal.sender)
        for dealer, (_, share) in reveal.shares.items():
            self._shares[dealer][reveal.sender] = share
        return reveal.sender

    @property
    def is_recoverable(self) -> bool:
        """Whether there are enough shares of every secret that the sum needs."""
        threshold = self.collection.topology.threshold
        needed = itertools.chain(self.survivors, (vanished for vanished, _ in self._vanished()))
        return all(len(self._shares[dealer]) >= threshold for dealer in needed)

    def total(self) -> Words:
        """Return the sum of the survivors' vectors, shape `(P,)`, with every mask subtracted.

        Raises:
            DropoutError: When there are too few shares of a secret, or no set of them gives the secret committed to.
        """
        if self._total_P is None:
            raise AggregationRefused(Rule.OUT_OF_ORDER, "no masked update was taken in")
        # This may be a second try with more shares, so what did not fit before may fit now.
        self.blamed, self.false_dealers = dict(self._blamed_before), set()
        masks: list[tuple[bytes, Sign]] = [
            (self_key(self._recover(number, Secret.B), self.context, number), -1) for number in self.survivors
        ]
        masks += self._left_over()
        total_P = self._total_P.copy()
        apply_masks(total_P, masks, os.cpu_count() or 1)
        ring.reduce(self._setting.policy.ring_bits, total_P)
        return total_P

    def _at_odds(self, number: int, alive: set[int]) -> list[int]:
        """Return the neighbours in a group that did not mask with the silo, or with which it did not mask."""
        own = self._with_whom[number]
        return [
            peer
            for peer in self.collection.peers[number]
            if peer in alive and not (peer in own and number in self._with_whom[peer])
        ]

    def _vanished(self) -> Iterator[tuple[int, list[int]]]:
        """Yield every silo that dealt and is not in the sum, with the survivors that masked with it, if any did."""
        for vanished in sorted(self.collection.dealt - self._alive):
            peers = self.collection.peers[vanished]
            ends = [peer for peer in peers if peer in self._alive and vanished in self._with_whom[peer]]
            if ends:
                yield vanished, ends

    def _left_over(self) -> Iterator[tuple[bytes, Sign]]:
        """Yield the masks that survivors share with silos that vanished, each with the sign that removes it."""
        collection, policy = self.collection, self._setting.policy
        for vanished, ends in self._vanished():
            root = self._recover(vanished, Secret.ROOT)
            key = MaskKey(policy.suite, root, self._setting.base, self.number, vanished)
            for number in ends:
                offer = collection.offer(min(number, vanished), max(number, vanished), self._index)
                public = collection.adverts[number].mask_keys[self._index]
                try:
                    secret = key.agree(number, public, offer)
                except CryptoError as error:
                    self.blamed[number] = f"what it offered silo {vanished} does not open with the key it was made for"
                    self.false_dealers.add(number)
                    raise DropoutError(f"what silo {number} and vanished silo {vanished} shared is lost") from error
                yield pair_key(secret, self.context, number, vanished), -1 if number < vanished else 1

    def _recover(self, dealer: int, secret: Secret) -> int:
        """Recover a secret and check it; if some shares are false, find a set without them, and name the false ones."""
        threshold = self.collection.topology.threshold
        shares = self._shares[dealer]
        if len(shares) < threshold:
            raise DropoutError(
                f"{len(shares)} shares of silo {dealer}'s secret, where a threshold of {threshold} is needed"
            )
        ordered = sorted(shares, key=lambda sender: (sender in self._liars, sender))
        for points in _tried(shares, ordered, threshold):
            chosen = {point: shares[point] for point in points}
            found = shamir.combine(chosen, self._lagrange(points))
            if self._is_committed(dealer, secret, found):
                if points != tuple(ordered[:threshold]):
                    self._name_liars(dealer, shares, chosen)
                return found
        # With c false shares of t + 2c, decoding would have found the secret; with c false of t + c, one of all their
        # sets would have. It was not found, so it was never dealt.
        spare, colluding = len(shares) - threshold, self._setting.policy.colluding
        if spare >= 2 * colluding or (spare >= colluding and math.comb(len(shares), threshold) <= _MOST_SETS):
            self.blamed[dealer] = "it dealt no shares of the secret that it committed to"
            self.false_dealers.add(dealer)
        else:
            self.blamed[dealer] = "its shares give nothing that it committed to: it dealt falsely, or several silos lie"
        raise DropoutError(f"the shares of silo {dealer}'s secret give nothing that it committed to")

    def _lagrange(self, points: tuple[int, ...]) -> Mapping[int, int]:
        """Return the coefficients of a set of points; in a complete graph one set serves all secrets."""
        if points not in self._coefficients:
            self._coefficients.clear()
            self._coefficients[points] = shamir.lagrange_at_zero(points)
        return self._coefficients[points]

    def _is_committed(self, dealer: int, secret: Secret, found: int) -> bool:
        advert = self.collection.adverts[dealer]
        setting, index = self._setting, self._index
        if secret is Secret.B:
            return commitment(found, setting.base, self.number, dealer) == advert.commitments[index]
        key = MaskKey(setting.policy.suite, found, setting.base, self.number, dealer)
        return key.public == advert.mask_keys[index]

    def _name_liars(self, dealer: int, shares: Mapping[int, int], right: Mapping[int, int]) -> None:
        """Name every sender whose share is not on the polynomial through the set that gave the secret.

        False shares may cancel in a set that gives the right secret, so that others look false. The polynomial of such
        a set agrees with at most t + c - 2 shares (it meets the true one at 0 and in t - 2 other points). Only if more
        shares agree is the finding certain.
        """
        others = {sender: share for sender, share in shares.items() if sender not in right}
        false = {sender for sender, share in others.items() if shamir.extrapolate(right, sender) != share}
        self._liars |= false
        sure = len(shares) - len(false) > len(right) + self._setting.policy.colluding - 2
        for sender in false:
            self.blamed[sender] = (
                f"its share of silo {dealer}'s secret is false, or silo {dealer} dealt it so"
                if sure
                else f"its share of silo {dealer}'s secret does not fit the others', of which some may be false instead"
            )


def _tried(shares: Mapping[int, int], ordered: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """Yield sets of senders to try: the first; a decoded one; each without one run of senders; all, or random ones."""
    count = len(ordered)
    yield tuple(ordered[:size])
    if count > size + 1:
        agreeing = shamir.agreeing(shares, size)
        if agreeing:
            yield tuple(sorted(agreeing)[:size])
    for start in range(1, count if count > size else 1):
        yield tuple(sorted(ordered[(start + step) % count] for step in range(size)))
    if math.comb(count, size) <= _MOST_SETS:
        yield from itertools.combinations(ordered, size)
        return
    chooser = random.Random(0)  # noqa: S311 - which sets are tried is no secret
    for _ in range(_MOST_TRIES):
        yield tuple(sorted(chooser.sample(list(ordered), size)))


def _names(numbers: Sequence[int]) -> str:
    return ", ".join(f"silo {number}" for number in numbers)
