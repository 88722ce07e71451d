"""What a round of secure aggregation costs one silo and the server, beside Flower's SecAgg+ in the same run.

    python benchmarks/secagg.py [--json] [--parameters 1000000] [--rows 50 100-20 ...] [--quick]

CPU seconds, medians over repeats; of the server wall seconds too, since it spreads over the cores.

A silo's round: quantise, mask, commit, reveal, and an eighth of advert, deal and receive, which a window of eight
rounds costs once. Each stage begins by reading the silo's kept state and ends by writing it; sealing it and the disk
are left out. The server's round: every vector checked and added, the survivors' signatures and shares checked, every
mask taken away. What it does once a window, checking adverts and dealt shares, is told beside it.

One silo of each federation does all its work, and is timed. The others are real too, but mask one word and sign for a
random vector: removing masks costs the same whatever is under them. A small federation, silos going missing, is first
summed in full and compared, so that what is timed is known to work.

Of Flower, the functions that its mod and its workflow call are timed one by one at the sizes of a round and multiplied
by how often they are called: in full, a row takes minutes. Transport is in neither. Both are in one file, longer than
others, so that what is counted on either side can be compared.
"""

from __future__ import annotations

import argparse
import base64
import functools
import itertools
import json
import os
import statistics
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from fedmodel.crypto import SigningKey, verify
from fedmodel.secagg import (
    Collection,
    Member,
    Participant,
    Policy,
    Roster,
    Setting,
    Tally,
    Window,
    messages,
    parameters,
)
from fedmodel.secagg.messages import Commit, Mask, MessageScope, survivors_digest, words_digest
from fedmodel.secagg.ring import Words, packed_size
from fedmodel.secagg.topology import COMPLETE_UP_TO, plan_topology

_RUN: Final = 1
_WINDOW: Final = 8
_MODEL, _CONFIGURATION = b"m" * 32, b"c" * 32
# More than a last-level cache holds, so that vectors which stand in for several silos' are read from memory.
_DISTINCT_VECTORS: Final = 128
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Row:
    """One federation, how many of it vanish after dealing, and the CPU seconds aimed at."""

    silos: int
    dropped: int
    target_client_s: float
    target_server_s: float

    @property
    def name(self) -> str:
        """What `--rows` calls it."""
        return f"{self.silos}-{self.dropped}" if self.dropped else str(self.silos)

    @property
    def gone(self) -> set[int]:
        """Who vanishes: evenly spread numbers."""
        return {step * self.silos // self.dropped + 1 for step in range(self.dropped)}


_ROWS: Final = (
    Row(50, 0, 0.05, 0.08),
    Row(100, 0, 0.10, 0.18),
    Row(100, 20, 0.10, 1.2),
    Row(1000, 0, 0.16, 3.5),
    Row(1000, 100, 0.18, 10.0),
)


def timed(work: Callable[[], _Result], repeats: int) -> tuple[float, float, _Result]:
    """Return the median CPU and wall time of a call, and what the last one returned."""
    cpu, wall = [], []
    for _ in range(repeats):
        cpu_started, wall_started = time.process_time(), time.perf_counter()
        result = work()
        cpu.append(time.process_time() - cpu_started)
        wall.append(time.perf_counter() - wall_started)
    return statistics.median(cpu), statistics.median(wall), result


@contextmanager
def checked_once() -> Iterator[None]:
    """Let silos that are not timed share one check of each signature, and one plan of the graph."""
    with (
        mock.patch.object(messages, "verify", functools.cache(verify)),
        mock.patch.object(parameters, "plan_topology", functools.cache(plan_topology)),
    ):
        yield


class Federation:
    """A roster with everybody's keys."""

    def __init__(self, silos: int) -> None:
        self.keys = {number: SigningKey.generate() for number in range(1, silos + 1)}
        members = tuple(Member(f"silo {number}", key.public) for number, key in self.keys.items())
        self.roster = Roster("benchmark", members)
        ring = silos > COMPLETE_UP_TO
        colluding, dropping = (silos // 5, silos // 10) if ring else (silos // 3, silos // 5)
        self.policy = Policy(
            n_min=silos // 2,
            colluding=colluding,
            dropping=dropping,
            bound=1.0,
            largest_roster=silos,
            secrecy_bits=40,
            window=_WINDOW,
        )
        self.topology = self.policy.topology(silos)

    def silo(self, number: int, state: bytes | None = None) -> Participant:
        """Return a silo as its process would begin a stage."""
        return Participant(self.keys[number], self.roster, self.policy, _RUN, state)


@dataclass
class TimedSilo:
    """A silo whose every stage goes from kept state to kept state, is repeated, and is timed.

    Attributes:
        state: What it keeps.
        seconds: By stage, the median CPU time, added up over rounds.
    """

    federation: Federation
    number: int
    repeats: int
    state: bytes | None = None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def stage(self, name: str, act: Callable[[Participant], _Result]) -> _Result:
        """Do a stage some times over from the same state; keep what the last left."""

        def work() -> tuple[bytes, _Result]:
            silo = self.federation.silo(self.number, self.state)
            result = act(silo)
            return silo.state(), result

        seconds, _, (self.state, result) = timed(work, self.repeats)
        self.seconds[name] += seconds
        return result

    def open_window(self, count: int) -> tuple[Collection, int, float]:
        """Advertise, deal and receive, with as many others as it takes.

        Returns:
            The window, the bytes that this silo sent, and the CPU seconds of the server.
        """
        window = Window(_RUN, 1, 1, count)
        collection = Collection(Setting(self.federation.roster, self.federation.policy, window))
        others = {number: self.federation.silo(number) for number in self.federation.keys if number != self.number}
        adverts = [silo.advert(window) for silo in others.values()]
        adverts.append(self.stage("advert", lambda silo: silo.advert(window)))
        adverts_s, _, told = timed(lambda: _closed(collection, adverts), 1)
        with checked_once():
            for peer in collection.peers[self.number]:
                collection.add_shares(others[peer].deal(told))
        dealt = self.stage("deal", lambda silo: silo.deal(told))
        # Every silo deals as many: the check of one silo's shares, times their number, is that of all.
        shares_s, _, _ = timed(lambda: collection.add_shares(dealt), 1)
        refused = self.stage("receive", lambda silo: silo.receive(collection.shares_for(self.number)))
        assert not refused, refused
        sent = len(adverts[-1]) + sum(map(len, dealt))
        return collection, sent, adverts_s + shares_s * len(self.federation.keys)

    def do_round(self, setting: Setting, number: int, update_P: NDArray[np.float32], survivors: Sequence[int]) -> int:
        """Quantise, mask, commit and reveal, and return the bytes sent beside the masked words."""
        place, quantizer = MessageScope(setting, number), self.federation.policy.quantizer
        mask = self.stage(
            "quantise and mask", lambda silo: silo.mask(number, quantizer.encode(update_P), _MODEL, _CONFIGURATION)
        )
        context, told = Mask.read(mask, place).context, survivors_digest(survivors)
        commit = self.stage("commit", lambda silo: silo.commit(number, 1, context, survivors))
        needed = self.federation.policy.quorum(self.federation.roster)
        quorum = [Commit(peer, context, told).sign(place, self.federation.keys[peer]) for peer in survivors[:needed]]
        reveal = self.stage("reveal", lambda silo: silo.reveal(number, 1, context, survivors, quorum))
        return len(mask) + len(commit) + len(reveal)

    def memory_ratio(self, update_P: NDArray[np.float32]) -> float:
        """Return the most memory that quantising and masking take beside the update, in updates."""
        silo, quantizer = self.federation.silo(self.number, self.state), self.federation.policy.quantizer
        tracemalloc.start()
        silo.mask(1, quantizer.encode(update_P), _MODEL, _CONFIGURATION)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak / update_P.nbytes


def _closed(collection: Collection, adverts: Sequence[bytes]) -> list[bytes]:
    for data in adverts:
        collection.add_advert(data)
    return collection.close_adverts()


def measure_client(rows: Sequence[Row], federation: Federation, size: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Return one silo's figures, by row; the window is opened once for all rows."""
    update_P = np.random.default_rng(0).normal(0, 0.1, size).astype(np.float32)
    client = TimedSilo(federation, len(federation.keys) // 2, repeats)
    client.open_window(1)
    window_1_s = sum(client.seconds.values())
    client = TimedSilo(federation, client.number, repeats)
    collection, sent, server_window_s = client.open_window(_WINDOW)
    figures: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = replace(client, seconds=defaultdict(float))
        survivors = [number for number in federation.keys if number not in row.gone]
        setting = collection.setting
        beside = [one.do_round(setting, number, update_P, survivors) for number in setting.window.rounds]
        window_s, rounds_s = sum(client.seconds.values()), sum(one.seconds.values())
        words_size = packed_size(federation.policy.ring_bits, size)
        figures[row.name] = {
            "client_s": (rounds_s + window_s) / _WINDOW,
            "client_window_s": window_s,
            "client_window_of_1_s": window_1_s,
            "client_stages_s": dict(client.seconds) | {name: spent / _WINDOW for name, spent in one.seconds.items()},
            "client_memory_ratio": client.memory_ratio(update_P),
            "upload_ratio": 1 + (max(beside) + sent / _WINDOW) / words_size,
            "server_window_s": server_window_s,
            "window": _WINDOW,
        }
    return figures


class Population:
    """All of a federation, with shares dealt and an update masked, for one round.

    Args:
        federation: Whose.
        vectors: Each silo's update, which is masked in place; or what stands in for masked updates, in turn.
        stand_in: Whether silos mask one word, and only sign for a vector.
    """

    def __init__(self, federation: Federation, vectors: Sequence[Words], stand_in: bool) -> None:
        self.federation = federation
        window = Window(_RUN, 1, 1, 1)
        self.collection = Collection(Setting(federation.roster, federation.policy, window))
        self._masked: dict[int, tuple[bytes, Words]] = {}
        silos = {number: federation.silo(number) for number in federation.keys}
        with checked_once():
            told = _closed(self.collection, [silo.advert(window) for silo in silos.values()])
            for silo in silos.values():
                self.collection.add_shares(silo.deal(told))
            for number, silo in silos.items():
                assert not silo.receive(self.collection.shares_for(number))
        place = MessageScope(self.collection.setting, 1)
        digests = [words_digest(32, words) for words in vectors] if stand_in else []
        for index, (number, silo) in enumerate(silos.items()):
            words_P = vectors[index % len(vectors)]
            data = silo.mask(1, np.zeros_like(words_P[:1]) if stand_in else words_P, _MODEL, _CONFIGURATION)
            if stand_in:
                signed = replace(Mask.read(data, place), words=digests[index % len(vectors)])
                data = signed.sign(place, federation.keys[number])
            self._masked[number] = data, words_P
        self._states = {number: silo.state() for number, silo in silos.items()}

    def messages(self, gone: set[int]) -> tuple[list[tuple[bytes, Words]], list[bytes], list[bytes]]:
        """Return what the server is sent in a round: masked updates, COMMITs, REVEALs."""
        masked = [sent for number, sent in self._masked.items() if number not in gone]
        tally = Tally(self.collection, 1)
        for data, words_P in masked:
            tally.add_masked(data, words_P)
        survivors = tally.close_masked()
        silos = [self.federation.silo(number, self._states[number]) for number in survivors]
        commits = [silo.commit(1, 1, tally.context, survivors) for silo in silos]
        for data in commits:
            tally.add_commit(data)
        quorum = tally.commits()
        with checked_once():
            reveals = [silo.reveal(1, 1, tally.context, survivors, quorum) for silo in silos]
        return masked, commits, reveals

    def add_up(
        self, masked: Sequence[tuple[bytes, Words]], commits: Sequence[bytes], reveals: Sequence[bytes]
    ) -> Words:
        """Do the server's round."""
        tally = Tally(self.collection, 1)
        for data, words_P in masked:
            tally.add_masked(data, words_P)
        tally.close_masked()
        for data in commits:
            tally.add_commit(data)
        tally.commits()
        for data in reveals:
            tally.add_reveal(data)
        return tally.total()


def measure_server(rows: Sequence[Row], federation: Federation, size: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Return the server's figures, by row; shares are dealt once for all rows."""
    source = np.random.default_rng(1)
    count = min(len(federation.keys), _DISTINCT_VECTORS)
    vectors = [source.integers(0, 2**32, size, dtype=np.uint32).astype("<u4", copy=False) for _ in range(count)]
    population = Population(federation, vectors, stand_in=True)
    figures: dict[str, dict[str, Any]] = {}
    for row in rows:
        sent = population.messages(row.gone)
        cpu_s, wall_s, _ = timed(functools.partial(population.add_up, *sent), repeats)
        hash_s, _, _ = timed(
            functools.partial(lambda sent: [words_digest(32, words) for _, words in sent], sent[0]), repeats
        )
        figures[row.name] = {"server_s": cpu_s, "server_wall_s": wall_s, "server_hash_s": hash_s}
    return figures


def check_sum(size: int = 10_000) -> None:
    """Refuse to time what does not add up: eight silos, two of them gone."""
    source = np.random.default_rng(2)
    plain = [source.integers(0, 2**32, size, dtype=np.uint32).astype("<u4", copy=False) for _ in range(8)]
    population = Population(Federation(8), [vector_P.copy() for vector_P in plain], stand_in=False)
    total_P = population.add_up(*population.messages({2, 7}))
    right_P = sum((plain[number - 1] for number in (1, 3, 4, 5, 6, 8)), np.zeros_like(plain[0]))
    if not np.array_equal(total_P, right_P):
        raise SystemExit("the sum of eight silos is wrong; nothing was timed")


def flower_seconds(row: Row, threshold: int, size: int, repeats: int) -> tuple[float, float]:
    """Return the CPU seconds of Flower's client and server: each call of its mod and workflow, times their number."""
    from flwr.common import bytes_to_ndarray, ndarray_to_bytes
    from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
    from flwr.common.secure_aggregation.crypto import shamir, symmetric_encryption
    from flwr.common.secure_aggregation.quantization import dequantize, quantize
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
    from flwr.supercore.primitives import asymmetric

    pairs, seed, fernet = (
        [asymmetric.generate_key_pairs() for _ in range(2)],
        bytes(32),
        base64.urlsafe_b64encode(bytes(32)),
    )
    private, public = asymmetric.private_key_to_bytes(pairs[0][0]), asymmetric.public_key_to_bytes(pairs[1][1])
    update = [np.random.default_rng(0).normal(0, 0.1, size).astype(np.float32)]
    shapes: list[tuple[int, ...]] = [(1,), (size,)]
    vector = pseudo_rand_gen(seed, 2**32, shapes)
    sent = [ndarray_to_bytes(part) for part in vector]
    dealt = {secret: shamir.create_shares(secret, threshold, row.silos) for secret in (seed, private)}
    plain = share_keys_plaintext_concat(1, 2, dealt[seed][0], dealt[private][0])
    sealed = symmetric_encryption.encrypt(fernet, plain)

    def agree() -> bytes:
        keys = asymmetric.bytes_to_private_key(private), asymmetric.bytes_to_public_key(public)
        return symmetric_encryption.generate_shared_key(*keys)

    peers, stayed, gone = row.silos - 1, row.silos - row.dropped, row.dropped
    # Its workflow combines all shares that came, not a threshold of them, and takes away a vanished client's masks with
    # everybody, other vanished ones too.
    removed = stayed + gone * peers
    calls: list[tuple[int, int, Callable[[], object]]] = [
        (2, 0, asymmetric.generate_key_pairs),
        (1, 0, lambda: shamir.create_shares(seed, threshold, row.silos)),
        (1, 0, lambda: shamir.create_shares(private, threshold, row.silos)),
        (peers, 0, lambda: symmetric_encryption.encrypt(fernet, plain)),
        (peers, 0, lambda: symmetric_encryption.decrypt(fernet, sealed)),
        (1, 0, lambda: quantize(arithmetic.parameters_multiply(update, 1.0), 8.0, 2**22)),
        (1, 0, lambda: [ndarray_to_bytes(part) for part in vector]),
        (2 * peers, gone * peers, agree),
        (1 + peers, removed, lambda: pseudo_rand_gen(seed, 2**32, shapes)),
        (1 + peers, stayed - 1 + removed, lambda: arithmetic.parameters_addition(vector, vector)),
        (1, 2, lambda: arithmetic.parameters_mod(vector, 2**32)),
        (0, stayed, lambda: [bytes_to_ndarray(part) for part in sent]),
        (0, stayed, lambda: shamir.combine_shares(dealt[seed][:stayed])),
        (0, gone, lambda: shamir.combine_shares(dealt[private][:stayed])),
        (0, 1, lambda: dequantize(vector, 8.0, 2**22)),
    ]
    units = [timed(call, repeats)[0] if client or server else 0.0 for client, server, call in calls]
    return (
        sum(client * unit for (client, _, _), unit in zip(calls, units, strict=True)),
        sum(server * unit for (_, server, _), unit in zip(calls, units, strict=True)),
    )


def measure(rows: Sequence[Row], size: int, repeats: int) -> list[dict[str, Any]]:
    """Return every figure of every row."""
    measured = []
    for silos, same in itertools.groupby(rows, key=lambda row: row.silos):
        group, federation = list(same), Federation(silos)
        client = measure_client(group, federation, size, repeats)
        server = measure_server(group, federation, size, repeats)
        for row in group:
            topology = federation.topology
            flower_client_s, flower_server_s = (
                flower_seconds(row, topology.threshold, size, repeats) if topology.complete else (None, None)
            )
            measured.append(
                {
                    "n": silos,
                    "graph": "complete" if topology.complete else f"k={topology.degree}",
                    "threshold": topology.threshold,
                    "dropped": row.dropped,
                    "target_client_s": row.target_client_s,
                    "target_server_s": row.target_server_s,
                    **client[row.name],
                    **server[row.name],
                    "flower_client_s": flower_client_s,
                    "flower_server_s": flower_server_s,
                    "extrapolated": topology.complete,
                }
            )
    return measured


def show(rows: Sequence[Mapping[str, Any]], size: int) -> None:
    """Print two tables, of 80 columns at most."""
    print(f"CPU seconds a round, {size:,} parameters; secrets dealt for {_WINDOW} rounds at once.\n")
    print(f"{'':20} | {'one silo':^25} | {'server':^25}")
    print("silos  graph    gone" + " |   ours target Flower ratio" * 2)
    for row in rows:
        line = f"{row['n']:5}  {row['graph']:8} {row['dropped']:4}"
        for party in ("client", "server"):
            ours, flower = row[f"{party}_s"], row[f"flower_{party}_s"]
            beside = "     -     -" if flower is None else f"{flower:6.2f} {flower / ours:4.0f}x"
            line += f" | {ours:6.3f} {row[f'target_{party}_s']:6.2f} {beside}"
        print(line)
    print("\nFlower: the cost of each call, times the calls of a round. Of ours, memory is")
    print("what goes beside the update, in updates; upload is to the masked words.\n")
    print(f"{'':12} | {'silo, a window of':^17} |{'':15} | server:{'':8} a window")
    print(f"silos   gone | {_WINDOW:>8} {1:>8} | memory  upload |   wall   hash   of {_WINDOW}")
    for row in rows:
        windows = f"{row['client_window_s']:8.3f} {row['client_window_of_1_s']:8.3f}"
        ratios = f"{row['client_memory_ratio']:6.2f} {row['upload_ratio']:7.4f}"
        server = f"{row['server_wall_s']:6.2f} {row['server_hash_s']:6.2f} {row['server_window_s']:6.2f}"
        print(f"{row['n']:5} {row['dropped']:6} | {windows} | {ratios} | {server}")


def main() -> None:
    """Print the tables, or one JSON object."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.name for row in _ROWS]
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--parameters", type=int, help="of the update; 1,000,000 unless told")
    parser.add_argument("--rows", nargs="+", choices=names, help="silos, and how many vanish; all unless told")
    parser.add_argument("--quick", action="store_true", help="20,000 parameters, up to 100 silos, each call once")
    arguments = parser.parse_args()
    size = arguments.parameters or (20_000 if arguments.quick else 1_000_000)
    wanted = arguments.rows or [row.name for row in _ROWS if row.silos <= 100 or not arguments.quick]
    check_sum()
    rows = measure([row for row in _ROWS if row.name in wanted], size, 1 if arguments.quick else 3)
    if arguments.json:
        print(json.dumps({"parameters": size, "cores": os.cpu_count(), "rows": rows}))
        return
    show(rows, size)


if __name__ == "__main__":
    main()
