"""A fuzz target of whatever reads bytes: `python -m tests.fedmodel.secagg.fuzz --messages 1000000 --seed 0`.

Valid messages of every kind are mutated and given to silos and server. A third of them is signed again by the silo that
sent them, as a hostile silo could, so that what stands behind the signature is reached. What counts as a finding:

- anything raised but a refusal;
- a message accepted that its sender did not sign, or that is not in its one encoding;
- a silo's state, or what the server took in, changed by a message that was refused.

A finding is printed with its seed, its number and its bytes, and the exit status is 1. Numbers are independent of each
other: `--first 1234 --messages 1` runs one again.
"""

from __future__ import annotations

import argparse
import copy
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedmodel.crypto import SigningKey, Suite
from fedmodel.errors import AggregationRefused, CryptoError, DropoutError, Rule
from fedmodel.secagg import (
    Collection,
    Participant,
    Roster,
    Tally,
    Window,
    join_messages,
    pack_numbers,
    read_numbers,
    split_messages,
)
from fedmodel.secagg.messages import HEADER_SIZE, Advert, Commit, Kind, Mask, MessageScope, Reveal, Share
from fedmodel.secagg.shamir import PRIME
from tests.fedmodel.secagg.freeze import counted_secrets
from tests.fedmodel.secagg.peers import RUN, Federation, Opened, Round

REFUSALS = (AggregationRefused, CryptoError, DropoutError)
SILOS, HOSTILE, VICTIM = 5, 5, 1
READERS = {Kind.ADVERT: Advert, Kind.SHARE: Share, Kind.MASK: Mask, Kind.COMMIT: Commit, Kind.REVEAL: Reveal}
VALUES = [
    *(number.to_bytes(size, "big") for number in (0, 1, 5, 6, 255) for size in (1, 2, 4, 8, 32)),
    *(b"\xff" * size for size in (1, 2, 4, 8, 32)),
    *(struct.pack(">I", number) for number in (2**24, 2**24 + 1, 2**31 - 1, 2**31)),
    PRIME.to_bytes(32, "big"),
    (PRIME - 1).to_bytes(32, "big"),
    (1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
]


class Finding(Exception):
    """What must not be."""


def copied(peer):
    """Return a collection or a tally of its own, so that what one takes in the other does not have."""
    other = copy.copy(peer)
    for name, value in vars(peer).items():
        if isinstance(value, dict | set | list):
            own = copy.copy(value)
            if isinstance(own, dict):
                own.update({key: copy.copy(one) for key, one in own.items() if isinstance(one, dict | set)})
            setattr(other, name, own)
    return other


@dataclass
class Grounds:
    """Messages and peers of one suite, stopped before each stage that reads messages.

    Attributes:
        federation: Its keys; the hostile silo's are used to sign again.
        place: Of the window's first round.
        originals: By kind, a valid message of the hostile silo to the victim or the server.
        words: The hostile silo's masked update.
        survivors: U3.
        context: ctx.
        servers: By kind, the server before the hostile silo's message.
        silos: By stage, the victim before it, and its state then.
        others: Valid messages of all kinds, to splice from and to fill up with.
    """

    federation: Federation
    place: MessageScope
    originals: dict[Kind, bytes]
    adverts: list[bytes]
    shares: list[bytes]
    dealt: list[bytes]
    commits: list[bytes]
    words: np.ndarray
    survivors: tuple[int, ...]
    context: bytes
    servers: dict[Kind, Collection | Tally]
    silos: dict[str, tuple[Participant, object]]
    others: list[bytes]

    def silo(self, stage: str) -> Participant:
        return self.silos[stage][0]

    def check_silo(self, stage: str) -> None:
        """Refuse that a refused message left a trace."""
        silo, before = self.silos[stage]
        if silo._state != before:
            self.restore(stage)
            raise Finding(f"the silo's state before {stage} was changed by what it refused")

    def restore(self, stage: str) -> None:
        """Put the silo back to before a stage."""
        silo, before = self.silos[stage]
        silo._state = copy.deepcopy(before)


def make_grounds(suite: Suite) -> Grounds:
    """Run one honest round, and keep what is needed to do each stage again."""
    federation = Federation(SILOS, suite=suite)
    window = Window(RUN, 1, 1, 2)
    place = MessageScope(federation.setting(window), 1)
    silos: dict[str, tuple[Participant, object]] = {}
    servers: dict[Kind, Collection | Tally] = {}

    def keep(*stages: str) -> None:
        for stage in stages:
            silo = federation.silo(VICTIM)
            silos[stage] = silo, copy.deepcopy(silo._state)

    collection = Collection(federation.setting(window))
    servers[Kind.ADVERT] = copied(collection)
    adverts = [federation.call(number, "advert", window) for number in federation.numbers]
    keep("deal")
    for data in adverts:
        collection.add_advert(data)
    collection.close_adverts()
    rows = {number: federation.call(number, "deal", adverts) for number in federation.numbers}
    keep("receive")
    for number, messages in rows.items():
        if number == HOSTILE:
            servers[Kind.SHARE] = copied(collection)
        collection.add_shares(messages)
    for number in federation.numbers:
        federation.call(number, "receive", collection.shares_for(number))

    held = Round(Opened(federation, collection), 1)
    updates = {number: np.arange(8, dtype="<u4") for number in federation.numbers}
    held.mask(updates, gone=[HOSTILE])
    servers[Kind.MASK] = copied(held.tally)
    held.mask_one(HOSTILE, updates[HOSTILE])
    held.close()
    keep("commit", "reveal")
    held.commit(gone=[HOSTILE])
    servers[Kind.COMMIT] = copied(held.tally)
    held.commit(gone=set(federation.numbers) - {HOSTILE})
    held.reveal(gone=[HOSTILE])
    servers[Kind.REVEAL] = copied(held.tally)
    held.reveal(gone=set(federation.numbers) - {HOSTILE})

    shares = collection.shares_for(VICTIM)
    commits = [held.commits[number] for number in sorted(held.commits, reverse=True)]
    return Grounds(
        federation=federation,
        place=place,
        originals={
            Kind.ADVERT: adverts[HOSTILE - 1],
            Kind.SHARE: shares[-1],
            Kind.MASK: held.masked[HOSTILE],
            Kind.COMMIT: held.commits[HOSTILE],
            Kind.REVEAL: held.reveals[HOSTILE],
        },
        adverts=adverts,
        shares=shares,
        dealt=[data for data in rows[HOSTILE] if data != shares[-1]],
        commits=commits,
        words=held.words[HOSTILE],
        survivors=held.tally.survivors,
        context=held.context,
        servers=servers,
        silos=silos,
        others=[*adverts, *shares, *held.masked.values(), *commits, *held.reveals.values()],
    )


# Mutations


def mutate(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Return bytes changed in one to three ways."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(MUTATIONS)(data, chance, others)
    return data


def flip(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8)) if changed else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    size = chance.randrange(len(data) + 1)
    return chance.choice((data[:size], data[size:], data[:-1], data[1:]))


def drop(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.choice((1, 4, 32, 37, 64)) :]


def extend(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    more = chance.choice((b"\0", chance.randbytes(chance.randrange(1, 70)), chance.choice(others)[:200], data[-64:]))
    start = chance.choice((len(data), len(data), chance.randrange(len(data) + 1)))
    return data[:start] + more + data[start:]


def splice(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    other = chance.choice(others)
    start, end = chance.randrange(len(data) + 1), chance.randrange(len(other) + 1)
    return chance.choice((data[:start] + other[start:], data[:start] + other[end:]))


def overwrite(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Put another value in the place of a field, as a rule at a word's beginning."""
    value = chance.choice(VALUES)
    start = chance.randrange(max(1, len(data) - len(value) + 1))
    start -= start % chance.choice((1, 4, 4, 32))
    return data[:start] + value + data[start + len(value) :]


def reorder(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Swap two rows of some width, or repeat one: numbers, shares, keys."""
    width = chance.choice((4, 32, 37, 64))
    if len(data) < 2 * width:
        return data
    start = chance.randrange(len(data) - 2 * width + 1)
    one, other = data[start : start + width], data[start + width : start + 2 * width]
    return data[:start] + chance.choice((other + one, one + one, other)) + data[start + 2 * width :]


MUTATIONS: list[Callable[[bytes, random.Random, list[bytes]], bytes]] = [
    flip,
    flip,
    cut,
    drop,
    extend,
    splice,
    overwrite,
    overwrite,
    reorder,
]


def signed_again(grounds: Grounds, kind: Kind, chance: random.Random) -> bytes:
    """Return a message with a mutated body, and now and then a mutated header, under a valid signature."""
    body = mutate(grounds.originals[kind][HEADER_SIZE:-64], chance, grounds.others)
    header = grounds.place.header(kind, HOSTILE, len(body))
    if chance.random() < 0.1:
        header = flip(header, chance, grounds.others)
    return header + body + grounds.federation.identities[HOSTILE].sign(kind.label, header + body)


# What is given the messages. Each returns whether the message was accepted.


def read(grounds: Grounds, kind: Kind, data: bytes) -> None:
    """Refuse that a message is accepted in two encodings."""
    message = READERS[kind].read(data, grounds.place)
    if message.sign(grounds.place, grounds.federation.identities[message.sender]) != data:
        raise Finding("a message is accepted that is not what its sender would have signed")


def silo_deals(grounds: Grounds, data: bytes) -> None:
    silo = grounds.silo("deal")
    try:
        silo.deal([data, *grounds.adverts[:-1]])
    except REFUSALS:
        grounds.check_silo("deal")
        raise
    grounds.restore("deal")


def server_takes(grounds: Grounds, kind: Kind, stage: str, *message) -> None:
    """Give the server a message; one that it refuses leaves no trace in it."""
    server = copied(grounds.servers[kind])
    try:
        getattr(server, stage)(*message)
    except REFUSALS:
        if vars(server) != vars(grounds.servers[kind]):
            raise Finding(f"{stage} refused and kept") from None
        raise


def server_takes_advert(grounds: Grounds, data: bytes) -> None:
    server_takes(grounds, Kind.ADVERT, "add_advert", data)


def server_takes_shares(grounds: Grounds, data: bytes) -> None:
    server_takes(grounds, Kind.SHARE, "add_shares", [data, *grounds.dealt])


def server_takes_mask(grounds: Grounds, data: bytes) -> None:
    server_takes(grounds, Kind.MASK, "add_masked", data, grounds.words)


def server_takes_commit(grounds: Grounds, data: bytes) -> None:
    server_takes(grounds, Kind.COMMIT, "add_commit", data)


def server_takes_reveal(grounds: Grounds, data: bytes) -> None:
    server_takes(grounds, Kind.REVEAL, "add_reveal", data)


def silo_opens_share(grounds: Grounds, data: bytes) -> None:
    silo = grounds.silo("receive")
    try:
        window, setting = silo._window()
        silo._opened_share(window, setting, data)
    finally:
        grounds.check_silo("receive")


def silo_receives(grounds: Grounds, data: bytes) -> None:
    """A share that is not right counts as not there: four others are enough, and one is too few."""
    silo = grounds.silo("receive")
    refused = silo.receive([data, *grounds.shares[:-1]])
    masked_with = silo._state.window.rounds["1"].masked_with
    grounds.restore("receive")
    if data in grounds.shares:
        return  # spliced in whole: it is the true one of the two that counts as the second
    if list(refused) not in ([], [0]) or (HOSTILE in masked_with) is bool(refused):
        raise Finding(f"of four shares, {list(refused)} counted as false, and {masked_with} are masked with")
    if refused:
        raise AggregationRefused(Rule.SHARES, refused[0])


def silo_reveals(grounds: Grounds, data: bytes) -> None:
    """A false COMMIT first; what follows would be a quorum without it."""
    silo = grounds.silo("reveal")
    told = (1, 1, grounds.context, list(grounds.survivors), [data, *grounds.commits[1:]])
    try:
        silo.reveal(*told)
    except REFUSALS:
        grounds.check_silo("reveal")
        raise
    grounds.restore("reveal")


TARGETS: dict[Kind, list[Callable[[Grounds, bytes], None]]] = {
    Kind.ADVERT: [server_takes_advert, server_takes_advert, server_takes_advert, silo_deals],
    Kind.SHARE: [silo_opens_share, silo_opens_share, server_takes_shares, silo_receives],
    Kind.MASK: [server_takes_mask],
    Kind.COMMIT: [server_takes_commit, silo_reveals],
    Kind.REVEAL: [server_takes_reveal],
}
# What takes a millisecond and more where a message is accepted, or does much before it looks at it.
COSTLY = {silo_deals, silo_receives, server_takes_shares}


def give_message(grounds: Grounds, kind: Kind, chance: random.Random) -> bytes:
    """Give one mutated message to one reader; return it where it was refused or rightly accepted."""
    again = chance.random() < 1 / 3
    original = grounds.originals[kind]
    data = signed_again(grounds, kind, chance) if again else mutate(original, chance, grounds.others)
    target = chance.choice(TARGETS[kind])
    if target in COSTLY and chance.random() < 0.8:
        target = TARGETS[kind][0]
    try:
        if again:
            read(grounds, kind, data)
        target(grounds, data)
    except REFUSALS:
        return data
    except Finding as finding:
        raise Finding(f"{target.__name__}: {finding}: {data.hex()}") from finding
    except Exception as error:
        raise Finding(f"{target.__name__}: {error!r}: {data.hex()}") from error
    # Another silo's own message, spliced in whole, is one that was signed. Signatures of shares are their receivers'.
    if target is not server_takes_shares and not again and data != original and data not in grounds.others:
        raise Finding(f"{target.__name__}: accepted what nobody signed: {data.hex()}")
    return data


def give_lists(grounds: Grounds, chance: random.Random) -> bytes:
    """Give whole lists of true messages, out of order, with some twice or missing."""
    what = chance.choice(("deal", "receive", "reveal"))
    rows = {"deal": grounds.adverts, "receive": grounds.shares, "reveal": grounds.commits}[what]
    some = chance.choices(rows, k=chance.randrange(1, 2 * len(rows)))
    if chance.random() < 0.3:
        some = chance.sample(rows, chance.randrange(len(rows) + 1))
    if chance.random() < 0.2:
        some.insert(chance.randrange(len(some) + 1), chance.choice(grounds.others))
    silo = grounds.silo(what)
    distinct = {data for data in some if data in rows}
    try:
        if what == "reveal":
            silo.reveal(1, 1, grounds.context, list(grounds.survivors), some)
            fits = len(distinct) >= grounds.federation.quorum()
        else:
            getattr(silo, what)(some)
            fits = len(distinct) >= 3 and (what == "receive" or len(some) == len(distinct))
    except REFUSALS:
        grounds.check_silo(what)
        return join_messages(some)
    grounds.restore(what)
    if not fits:
        raise Finding(f"{what} accepted a list: {join_messages(some).hex()}")
    return join_messages(some)


def give_survivors(grounds: Grounds, chance: random.Random) -> bytes:
    """Give a mutated survivor list, or one in a mutated context, to be signed."""
    packed = pack_numbers(chance.sample(range(1, SILOS + 1), chance.randrange(SILOS + 1)))
    if chance.random() < 0.7:
        packed = mutate(pack_numbers(grounds.survivors), chance, grounds.others)
    context = grounds.context
    if chance.random() < 0.3:
        context = mutate(context, chance, grounds.others)
    silo = grounds.silo("commit")
    try:
        survivors = read_numbers(packed, SILOS)
        if pack_numbers(survivors) != packed:
            raise Finding(f"numbers are read in two encodings: {packed.hex()}")
        silo.commit(1, 1, context, survivors)
    except REFUSALS:
        grounds.check_silo("commit")
        return packed
    grounds.restore("commit")
    if context != grounds.context or len(survivors) < grounds.federation.policy.n_min:
        raise Finding(f"a list was signed: {packed.hex()}, {context.hex()}")
    return packed


def give_blob(grounds: Grounds, chance: random.Random) -> bytes:
    blob = mutate(join_messages(chance.choices(grounds.others, k=chance.randrange(4))), chance, grounds.others)
    if join_messages(split_messages(blob)) != blob:
        raise Finding(f"a sequence is split into something else: {blob.hex()}")
    return blob


def give_roster(grounds: Grounds, chance: random.Random) -> bytes:
    administrator: SigningKey = grounds.federation.administrator
    original = grounds.federation.roster.sign(administrator)
    again = chance.random() < 0.5
    data = mutate(original[:-64] if again else original, chance, grounds.others)
    if again:
        data += administrator.sign(b"fedmodel/v1/sa-roster", data)
    try:
        roster = Roster.open(data, administrator.public)
    except REFUSALS:
        return data
    if data != original and (not again or roster.to_bytes() != data[:-64]):
        raise Finding(f"a roster is accepted: {data.hex()}")
    return data


RARE = (give_lists, give_survivors, give_blob, give_roster)


def run(messages: int, seed: int, first: int = 0) -> tuple[list[str], Counter[str]]:
    """Give that many messages; return findings, and how many of each kind were given."""
    with counted_secrets(b"fuzz" + seed.to_bytes(8, "big")):
        grounds = {suite: make_grounds(suite) for suite in Suite}
    findings: list[str] = []
    given: Counter[str] = Counter()
    kinds = list(READERS)
    for number in range(first, first + messages):
        chance = random.Random(f"{seed}:{number}")  # noqa: S311 - which message is mutated how is no secret
        ground = grounds[Suite.POST_QUANTUM if chance.random() < 0.1 else Suite.CLASSIC]
        try:
            what = chance.random()
            if what < 0.01:
                given["lists"] += 1
                give_lists(ground, chance)
            elif what < 0.2:
                rare = chance.choice(RARE[1:])
                given[rare.__name__] += 1
                rare(ground, chance)
            else:
                kind = chance.choice(kinds)
                given[kind.name] += 1
                give_message(ground, kind, chance)
        except REFUSALS:
            continue
        except Finding as finding:
            findings.append(f"seed {seed}, message {number}: {finding}")
        except Exception as error:
            findings.append(f"seed {seed}, message {number}: {error!r}")
        if len(findings) >= 20:
            break
    return findings, given


def main() -> int:
    """Read the command line, give the messages, and say how fast."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    told = parser.parse_args()
    started = time.monotonic()
    findings, given = run(told.messages, told.seed, told.first)
    took_s = time.monotonic() - started
    write = sys.stdout.write
    for finding in findings:
        write(finding + "\n")
    write(f"{dict(given)}\n")
    write(f"{sum(given.values())} messages in {took_s:.1f} s, {sum(given.values()) / took_s:.0f} a second, ")
    write(f"{len(findings)} findings\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
