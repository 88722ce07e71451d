"""One exchange with many nodes over Flower's Grid, with a deadline of our own.

Flower's own strategies wait without end for nodes that are gone; this does not. Answers are yielded as they come, so
that a stage can end when it has enough.

A rehearsal (`[faults]` in a scenario) loses some exchanges on purpose, half of them before the node was asked: then its
answer never comes, as from a node that vanished, without anybody having to wait for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedmodel import wire
from fedmodel.config import Scenario
from fedmodel.crypto import SigningKey
from fedmodel.provision import scenario_hash
from fedmodel.seeds import derive_seed

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_MOST_FAILURES: Final = 5  # to pull one reply, over some two seconds

Key = TypeVar("Key", int, str)


class Post:
    """Carries questions to nodes, and brings back what is answered in time.

    Args:
        grid: Flower's.
        scenario: Whose time-out and faults hold.
        key: The server's, which signs every question.
    """

    def __init__(self, grid: Grid, scenario: Scenario, key: SigningKey) -> None:
        self._grid, self._key, self._scenario = grid, key, scenario_hash(scenario)
        self._timeout_s = scenario.federation.round_timeout_s
        self._faults = Faults(scenario)
        self._unreadable: Counter[str] = Counter()

    @property
    def run(self) -> int:
        """The run, as 64 bits."""
        return int(self._grid.run.run_id) % 2**64

    def nodes(self, expected: int) -> list[int]:
        """Return node ids as soon as all are there, or those that are when the deadline passes."""
        deadline = time.monotonic() + self._timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            nodes = sorted(self._grid.get_node_ids())
            if len(nodes) >= expected or time.monotonic() >= deadline:
                return nodes
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def ask(
        self, kind: str, round_number: int, contents: Mapping[Key, tuple[int, RecordDict]]
    ) -> Iterator[tuple[Key, Message | None]]:
        """Send one message to each node, and yield replies as they come; at the end, None for each that was late.

        Args:
            kind: The message's type.
            round_number: What the messages are grouped by.
            contents: By silo, or by node where silos are not known yet: the node, and what it is sent.
        """
        deadline = time.monotonic() + self._timeout_s
        lost = {key: self._faults.loses(kind, round_number, key) for key in contents}
        asked = [key for key in contents if lost[key] != "request"]
        messages = []
        for one in asked:
            node, content = contents[one]
            signed = wire.sign_request(content, kind, self.run, self._scenario, self._key)
            messages.append(Message(signed, node, kind, ttl=self._timeout_s, group_id=str(round_number)))
        # Flower gives an empty id, or none at all, for what it does not send: to a node that has left, for one.
        ids = list(self._grid.push_messages(messages))
        sent = {message_id: key for message_id, key in zip(ids, asked, strict=False) if message_id}
        unsent = set(asked) - set(sent.values())
        pause_s = _FIRST_PAUSE_S
        while sent:
            for message_id, reply in self._pull(list(sent)):
                key = sent.pop(message_id, None)
                if key is not None:
                    yield key, None if lost[key] else reply
            if not sent or time.monotonic() >= deadline:
                break
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        for key in contents:
            if lost[key] == "request" or key in unsent or key in sent.values():
                yield key, None

    def _pull(self, ids: list[str]) -> list[tuple[str, Message | None]]:
        """Return the replies that are there, each with the id of what it answers; None for one that cannot be read.

        Flower reads all replies at once, and raises whatever it raises for the first that is malformed: then each is
        asked for by itself, so that a silo's malformed object costs that silo's answer alone. A network that fails for
        a moment raises too, so one failure is not the end.
        """
        try:
            return [(reply.metadata.reply_to_message_id, reply) for reply in self._grid.pull_messages(ids)]
        except Exception:  # of any kind: what a node sends is read before anything of ours sees it
            if len(ids) > 1:
                return [pulled for message_id in ids for pulled in self._pull([message_id])]
        self._unreadable[ids[0]] += 1
        return [(ids[0], None)] if self._unreadable[ids[0]] >= _MOST_FAILURES else []


class Faults:
    """Which exchanges a rehearsal loses: a function of the seed, so that a run can be repeated."""

    def __init__(self, scenario: Scenario) -> None:
        faults = scenario.faults
        self._seed = scenario.seed or 0
        self._rates = (
            {}
            if faults is None
            else {
                wire.SHARE: faults.share,
                wire.TRAIN: faults.train,
                wire.COMMIT: faults.commit,
                wire.REVEAL: faults.reveal,
            }
        )
        self._asked: Counter[tuple[str, int, str | int]] = Counter()

    def loses(self, kind: str, round_number: int, key: str | int) -> Literal["request", "reply"] | None:
        """Return which half of an exchange is lost, if one is."""
        rate = self._rates.get(kind, 0.0)
        if not rate:
            return None
        self._asked[kind, round_number, key] += 1
        words = (kind, round_number, key, self._asked[kind, round_number, key])
        if derive_seed(self._seed, "fault", *words) >= rate * 2**63:
            return None
        return "request" if derive_seed(self._seed, "fault-half", *words) % 2 else "reply"
