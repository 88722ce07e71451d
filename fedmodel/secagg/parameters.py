"""What a silo knows before a round begins, and no message can change: roster, policy, window.

The administrator signs the roster, and hands it over out of band. The policy is the silo's own. From these two, and
from nothing else, a silo derives threshold, quorum, ring and suite of every round. Both are hashed into every key, so
silos of different rosters or policies never mask together.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Self

from fedmodel.crypto import KEY_SIZE, SIGNATURE_SIZE, SigningKey, Suite, check_verification_key, digest, verify
from fedmodel.errors import AggregationRefused, ConfigError, CryptoError, Rule
from fedmodel.secagg.quantize import Quantizer
from fedmodel.secagg.ring import RingBits
from fedmodel.secagg.topology import COMPLETE_UP_TO, LEAST_SILOS, Topology, plan_topology

Consistency = Literal["commit", "quorum"]

MOST_ROUNDS: Final = 256  # of one window: each costs a silo two shares per neighbour, kept until used
MOST_ATTEMPTS: Final = 3  # to deal in one window: each may leave entries in every silo's ledger
_ROSTER_LABEL: Final = b"fedmodel/v1/sa-roster"
_ROSTER_MAGIC: Final = b"FMSR\x01"
_MOST_MEMBERS: Final = 100_000


@dataclass(frozen=True)
class Member:
    """A silo of the roster: its name, and the Ed25519 key that its messages are signed with."""

    name: str
    key: bytes


@dataclass(frozen=True)
class Roster:
    """Everyone who may ever take part; a silo's number is its place, from 1.

    Raises:
        AggregationRefused: When a name or key is there twice, a key is of small order, or nobody is in it.
    """

    federation: str
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        names, keys = {member.name for member in self.members}, {member.key for member in self.members}
        if not 1 <= len(self.members) <= _MOST_MEMBERS or not len(names) == len(keys) == len(self.members):
            raise AggregationRefused(Rule.DUPLICATE, "a roster names each silo once, with a key of its own")
        for member in self.members:
            try:
                check_verification_key(member.key)
            except CryptoError as error:
                raise AggregationRefused(Rule.WEAK_KEY, f"the roster's key of {member.name!r}: {error}") from error

    def __len__(self) -> int:
        return len(self.members)

    def key(self, number: int) -> bytes:
        """Return a silo's verification key.

        Raises:
            AggregationRefused: When the roster has no such number.
        """
        if not 1 <= number <= len(self.members):
            raise AggregationRefused(
                Rule.UNKNOWN_SENDER, f"the roster has silos 1 to {len(self.members)}, not {number}"
            )
        return self.members[number - 1].key

    def number(self, key: bytes) -> int:
        """Return the number of the silo with this verification key.

        Raises:
            AggregationRefused: When no silo has it.
        """
        for number, member in enumerate(self.members, start=1):
            if member.key == key:
                return number
        raise AggregationRefused(Rule.UNKNOWN_SENDER, "this silo's own key is not in the roster")

    @cached_property
    def digest(self) -> bytes:
        """The hash that every key of a round is bound to."""
        return digest(b"fedmodel/v1/sa-roster-digest", self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the roster's one encoding."""
        parts = [_ROSTER_MAGIC, _text(self.federation), struct.pack(">I", len(self.members))]
        for member in self.members:
            parts += [_text(member.name), member.key]
        return b"".join(parts)

    def sign(self, administrator: SigningKey) -> bytes:
        """Return the encoding followed by the administrator's signature, as a silo is given it."""
        encoded = self.to_bytes()
        return encoded + administrator.sign(_ROSTER_LABEL, encoded)

    @classmethod
    def open(cls, signed: bytes, administrator: bytes) -> Self:
        """Read a signed roster.

        Args:
            signed: What `sign` returned.
            administrator: The verification key that the silo was given out of band.

        Raises:
            AggregationRefused: When the administrator did not sign it, or it is not a roster.
        """
        encoded, signature = signed[:-SIGNATURE_SIZE], signed[-SIGNATURE_SIZE:]
        try:
            verify(administrator, _ROSTER_LABEL, encoded, signature)
        except CryptoError as error:
            raise AggregationRefused(Rule.BAD_SIGNATURE, "the roster is not signed by the administrator") from error
        try:
            roster = cls._parse(encoded)
        except (struct.error, IndexError, ValueError) as error:
            raise AggregationRefused(Rule.MALFORMED, "the roster cannot be read") from error
        if roster.to_bytes() != encoded:
            raise AggregationRefused(Rule.MALFORMED, "the roster is not in its one encoding")
        return roster

    @classmethod
    def _parse(cls, encoded: bytes) -> Self:
        place = len(_ROSTER_MAGIC)

        def text() -> str:
            nonlocal place
            start, place = place + 1, place + 1 + encoded[place]
            return encoded[start:place].decode()

        federation = text()
        (count,) = struct.unpack_from(">I", encoded, place)
        place += 4
        members = []
        for _ in range(min(count, _MOST_MEMBERS)):
            name = text()
            members.append(Member(name, encoded[place : place + KEY_SIZE]))
            place += KEY_SIZE
        return cls(federation, tuple(members))


@dataclass(frozen=True)
class Policy:
    """What one silo requires. Silos mask together only if their policies are equal.

    Attributes:
        n_min: Least silos in a sum.
        colluding: c, silos that may work with the server, of the whole roster.
        dropping: d, silos that may vanish in a round. It does not change the threshold of a complete graph.
        secrecy_bits: -log2 of the failure probability on a ring, above 300 silos.
        ring_bits: 8, 12, 16, 24 or 32: how wide a coordinate is as it is sent.
        bound: Largest magnitude of a coordinate; a larger one is clipped before masking.
        largest_roster: Most silos in a roster.
        window: Most rounds for which secrets are dealt at once.
        suite: Classic, or post-quantum.
        consistency: "commit"; or "quorum", which leaves the COMMIT stage out, and holds only against a server that
            shows every silo the same list: a server that does not can open a single update.

    Raises:
        ConfigError: When the numbers could protect nobody.
    """

    n_min: int
    colluding: int
    dropping: int
    bound: float
    largest_roster: int
    secrecy_bits: int = 80
    ring_bits: RingBits = 32
    window: int = 8
    suite: Suite = Suite.CLASSIC
    consistency: Consistency = "commit"

    def __post_init__(self) -> None:
        if min(self.colluding, self.dropping) < 0:
            raise ConfigError("colluding and dropping silos are counted from 0")
        if self.n_min < self.colluding + 2:
            raise ConfigError(
                f"min_silos = {self.n_min} with {self.colluding} colluding silos: a sum of fewer than two honest silos"
                f" hides nothing; set it to at least {self.colluding + 2}"
            )
        if not 3 <= self.largest_roster <= _MOST_MEMBERS:
            raise ConfigError(f"a largest roster of {self.largest_roster} silos is not from 3 to {_MOST_MEMBERS}")
        if not 1 <= self.window <= MOST_ROUNDS:
            raise ConfigError(f"a window of {self.window} rounds is not from 1 to {MOST_ROUNDS}")
        if not 1 <= self.secrecy_bits <= 256:
            raise ConfigError(f"secrecy_bits = {self.secrecy_bits} is not from 1 to 256")
        _ = self.quantizer  # a ring without room is refused here

    @property
    def quantizer(self) -> Quantizer:
        """The mapping into the ring. It has room for the largest roster, however many silos take part."""
        return Quantizer(self.bound, self.ring_bits, self.largest_roster)

    @cached_property
    def digest(self) -> bytes:
        """The hash that every key of a round is bound to."""
        numbers = struct.pack(
            ">7Id2B",
            self.n_min,
            self.colluding,
            self.dropping,
            self.secrecy_bits,
            self.ring_bits,
            self.largest_roster,
            self.window,
            self.bound,
            self.suite.value,
            self.consistency == "commit",
        )
        return digest(b"fedmodel/v1/sa-policy", numbers)

    @property
    def least_cohort(self) -> int:
        """The fewest silos that may begin a round. A sum may have only `n_min`, if others of its cohort vanished."""
        return max(LEAST_SILOS, self.n_min)

    def topology(self, silos: int) -> Topology:
        """Return degree and threshold for a cohort of this many.

        In a complete graph the threshold follows from n and c alone, and so does how many silos may drop out.

        Raises:
            AggregationRefused: When the cohort is too small or too large, or no threshold hides an update.
        """
        if not self.least_cohort <= silos <= self.largest_roster:
            raise AggregationRefused(
                Rule.COHORT,
                f"a cohort of {silos}, where policy asks for at least {self.least_cohort} silos, and at most"
                f" {self.largest_roster}",
            )
        left = silos - ((silos + self.colluding) // 2 + 1)
        dropping = min(self.dropping, left) if silos <= COMPLETE_UP_TO else self.dropping
        try:
            return plan_topology(silos, self.colluding, dropping, self.secrecy_bits)
        except ConfigError as error:
            raise AggregationRefused(Rule.COHORT, str(error)) from error

    def quorum(self, roster: Roster) -> int:
        """Return a number of signatures that no two survivor lists can both have: more than (N + c) / 2."""
        return (len(roster) + self.colluding) // 2 + 1


@dataclass(frozen=True, order=True)
class Window:
    """The rounds for which secrets are dealt at once.

    Attributes:
        run: 64 bits.
        first: The first round, from 1.
        attempt: From 1; rises when dealing for the same first round is started again.
        count: How many rounds.
    """

    run: int
    first: int
    attempt: int
    count: int

    def __post_init__(self) -> None:
        fits = 0 <= self.run < 2**64 and 1 <= self.first < 2**31 and 1 <= self.attempt < 2**16
        if not fits or not 1 <= self.count <= MOST_ROUNDS:
            raise AggregationRefused(Rule.MALFORMED, "a window's run, first round, attempt or count is out of range")

    @property
    def rounds(self) -> range:
        """Its rounds."""
        return range(self.first, self.first + self.count)


@dataclass(frozen=True)
class Setting:
    """Roster, policy and window together: all that is fixed before the first message of a window."""

    roster: Roster
    policy: Policy
    window: Window

    def __post_init__(self) -> None:
        if len(self.roster) > self.policy.largest_roster:
            raise AggregationRefused(
                Rule.ROSTER, f"a roster of {len(self.roster)} silos, where policy allows {self.policy.largest_roster}"
            )
        if self.window.count > self.policy.window:
            raise AggregationRefused(
                Rule.ROSTER, f"a window of {self.window.count} rounds, where policy allows {self.policy.window}"
            )

    @cached_property
    def base(self) -> bytes:
        """The hash that every secret of the window is bound to."""
        window = self.window
        numbers = struct.pack(">QIHH", window.run, window.first, window.attempt, window.count)
        return digest(b"fedmodel/v1/sa-base", numbers, self.roster.digest, self.policy.digest)

    def context(self, round_number: int, cohort: bytes, model: bytes, configuration: bytes) -> bytes:
        """Return ctx, the hash that a round's masks are bound to.

        Args:
            round_number: Of the window.
            cohort: The hash of all adverts.
            model: The hash of the model received.
            configuration: The hash of what is to be done with it.
        """
        return digest(
            b"fedmodel/v1/sa-context", self.base, round_number.to_bytes(4, "big"), cohort, model, configuration
        )


def _text(words: str) -> bytes:
    encoded = words.encode()
    if not 1 <= len(encoded) <= 255:
        raise AggregationRefused(Rule.MALFORMED, "a name in a roster has from 1 to 255 bytes")
    return bytes([len(encoded)]) + encoded
