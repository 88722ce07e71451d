"""One exchange with many nodes over Flower's Grid, with a deadline of our own.

Flower's own strategies wait without end for nodes that are gone; this does not. Answers are yielded as they come, so
that a stage can end when it has enough.

With a journal, every answer is on disk before it is yielded, and a question that is asked again after the server was
killed first yields what came before, in the same order (`server.journal`).

A rehearsal (`[faults]` in a scenario) loses some exchanges on purpose, half of them before the node was asked: then its
answer never comes, as from a node that vanished, without anybody having to wait for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, Literal, Protocol, runtime_checkable

import httpx
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import RunNotRunningException

from fedmodel import wire
from fedmodel.config import Scenario
from fedmodel.crypto import SigningKey
from fedmodel.crypto.postquantum import PostQuantumKey
from fedmodel.provision import scenario_hash
from fedmodel.seeds import derive_seed
from server.journal import Journal

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_MOST_FAILURES: Final = 5  # to pull one reply, over some two seconds
NOWHERE: Final = 0
"""Where a silo is that has no node at present; Flower's nodes have other numbers."""

Half = Literal["request", "reply"]
Questions = Mapping[str, tuple[int, RecordDict]]


@runtime_checkable
class Owned(Protocol):
    """A grid that knows whose nodes are: `owners` has the silo's name by node."""

    owners: Mapping[int, str]


class Post:
    """Carries questions to nodes, and brings back what is answered in time.

    Args:
        grid: Flower's.
        scenario: Whose time-out and faults hold.
        key: The server's, which signs every question.
        post_quantum: Its ML-DSA key, which signs them besides, where it has one.
        run: The run's number, 64 bits; Flower's where none is given.
        journal: Where answers are kept, if they are.
        name: What people call the run here; empty where it has no name.
    """

    def __init__(
        self,
        grid: Grid,
        scenario: Scenario,
        key: SigningKey,
        post_quantum: PostQuantumKey | None = None,
        run: int | None = None,
        journal: Journal | None = None,
        name: str = "",
    ) -> None:
        self._grid, self._scenario = grid, scenario_hash(scenario)
        self._key, self._post_quantum = key, post_quantum
        self.run = int(grid.run.run_id) % 2**64 if run is None else run
        self.name = name
        self._journal = journal
        self.owners: Mapping[int, str] = grid.owners if isinstance(grid, Owned) else {}
        self._timeout_s = scenario.federation.round_timeout_s
        self._faults = Faults(scenario)
        self._unreadable: Counter[str] = Counter()

    def begin(self, round_number: int) -> None:
        """Begin a round, or take it up again."""
        if self._journal is not None:
            self._journal.begin(round_number)

    def ask_again(self) -> None:
        """Forget who refused the round's last question: the run ends, and they are asked when it is taken up again."""
        if self._journal is not None:
            self._journal.ask_again()

    def start_over(self) -> None:
        """Forget what was answered in the round at hand, before it is taken up again."""
        if self._journal is not None:
            self._journal.start_over()

    def present(self) -> list[int]:
        """Return the nodes that are there."""
        return sorted(self._grid.get_node_ids())

    def nodes(self, expected: int) -> list[int]:
        """Return node ids as soon as so many are there, or those that are when the deadline passes."""
        deadline = time.monotonic() + self._timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            nodes = self.present()
            if len(nodes) >= expected or time.monotonic() >= deadline:
                return nodes
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def ask(self, kind: str, round_number: int, contents: Questions) -> Iterator[tuple[str, Message | None]]:
        """Send one message to each node, and yield replies as they come; at the end, None for each that was late.

        Args:
            kind: The message's type.
            round_number: What the messages are grouped by.
            contents: By silo: its node, and what it is sent.
        """
        lost = {silo: self._faults.loses(kind, round_number, silo) for silo in contents}
        if self._journal is None:
            yield from self._ask(kind, round_number, contents, lost)
            return
        answers, still_open = self._journal.asking(), dict(contents)
        for silo, reply in answers.told():
            if still_open.pop(silo, None) is not None:
                yield silo, reply
        for silo, reply in self._ask(kind, round_number, still_open, lost):
            yield silo, answers.keep(silo, reply)

    def ask_nodes(self, kind: str, contents: Mapping[int, RecordDict]) -> Iterator[tuple[int, Message | None]]:
        """Ask nodes of which it is not known yet whose they are; what they answer is not kept."""
        questions = {str(node): (node, content) for node, content in contents.items()}
        lost = {silo: self._faults.loses(kind, 0, silo) for silo in questions}
        for name, reply in self._ask(kind, 0, questions, lost):
            yield int(name), reply

    def _ask(
        self, kind: str, round_number: int, contents: Questions, lost: Mapping[str, Half | None]
    ) -> Iterator[tuple[str, Message | None]]:
        """Ask, some exchanges lost on purpose."""
        deadline = time.monotonic() + self._timeout_s
        asked = [silo for silo, (node, _) in contents.items() if lost[silo] != "request" and node != NOWHERE]
        messages = []
        for silo in asked:
            node, content = contents[silo]
            signed = wire.sign_request(content, kind, self.run, self._scenario, self._key, self._post_quantum)
            messages.append(Message(signed, node, kind, ttl=self._timeout_s, group_id=str(round_number)))
        # Flower gives an empty id, or none at all, for what it does not send: to a node that has left, for one.
        ids = list(self._grid.push_messages(messages)) if messages else []
        sent = {message_id: silo for message_id, silo in zip(ids, asked, strict=False) if message_id}
        unsent = contents.keys() - set(sent.values())
        pause_s = _FIRST_PAUSE_S
        late = False
        while sent:
            for message_id, reply in self._pull(list(sent)):
                silo_asked = sent.pop(message_id, None)
                if silo_asked is not None:
                    yield silo_asked, None if lost[silo_asked] else reply
            if not sent or late:
                break
            late = time.monotonic() >= deadline  # one more look: what was acted upon meanwhile may have taken long
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        for silo in contents:
            if silo in unsent or silo in sent.values():
                yield silo, None

    def _pull(self, ids: list[str]) -> list[tuple[str, Message | None]]:
        """Return the replies that are there, each with the id of what it answers; None for one that cannot be read.

        A deployed server's grid takes each reply in by itself. Flower's own reads all at once, and raises whatever it
        raises for the first that is malformed: then each is asked for by itself, though some may have been given out
        and are gone. A network that fails for a moment raises too, so one failure is not the end. A SuperLink that is
        gone, or knows this run no more, is nobody's answer: that ends the attempt, not the run.
        """
        try:
            return [(reply.metadata.reply_to_message_id, reply) for reply in self._grid.pull_messages(ids)]
        except Exception as error:  # of any kind: what a node sends is read before anything of ours sees it
            if is_link_lost(error):
                raise
            if len(ids) > 1:
                return [pulled for message_id in ids for pulled in self._pull([message_id])]
        self._unreadable[ids[0]] += 1
        return [(ids[0], None)] if self._unreadable[ids[0]] >= _MOST_FAILURES else []


def is_link_lost(error: Exception) -> bool:
    """Return whether an error of the grid says that the SuperLink is gone, or does not know this run any more.

    Never what a node sent: for a malformed object Flower's own status is another.
    """
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == httpx.codes.UNAUTHORIZED
    return isinstance(error, (httpx.TransportError, RunNotRunningException))


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
        self._asked: Counter[tuple[str, int, str]] = Counter()

    def loses(self, kind: str, round_number: int, key: str) -> Half | None:
        """Return which half of an exchange is lost, if one is."""
        rate = self._rates.get(kind, 0.0)
        if not rate:
            return None
        self._asked[kind, round_number, key] += 1
        words = (kind, round_number, key, self._asked[kind, round_number, key])
        if derive_seed(self._seed, "fault", *words) >= rate * 2**63:
            return None
        return "request" if derive_seed(self._seed, "fault-half", *words) % 2 else "reply"
