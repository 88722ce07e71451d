"""Flower's state of the fleet, in which one silo's objects are its own, few, and no larger than an answer needs.

A message of Flower is announced as a tree of hashes. Its objects come afterwards, one by one, and all of them lie in
one store. This has three weaknesses. Whoever announces an object first decides, for everybody, what its children are.
An announcement may name fifty thousand objects, or a few dozen whose tree becomes exponential when it is read. And what
nobody asks for stays until the run ends. Here

    objects         of questions are in one place, and those of each node's answers in a place of that node
    an answer       has as many objects, so deep and as many bytes as the run's largest question allows (`Bound`)
    its tree        is the tree that will be read: an object that is named twice has the same children each time
    answers kept    are a node's last four; an older one, which nobody asked for, is released with its objects
    a session       that Flower begins for an answer that it then does not take is ended at once

An announcement that does not fit is refused before anything is registered.

Does NOT say to whom a node belongs, or whether it may answer: Flower checks the signature, and that the question was
for this node.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from flwr.app import Message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.supercore.object_store import ObjectStore
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink.federation import FederationManager

from fedmodel.secagg.parameters import MOST_ROUNDS

MOST_ANSWERS: Final = 4
"""A silo's node answers one question at a time; its earlier answers were taken in, or come too late."""
MOST_DEPTH: Final = 5
"""Message, its content, a record, an array, a chunk of it."""
# A message, its content, and of `fedmodel.wire` a head, arrays with their one array, messages, a window; twice that.
_RECORDS: Final = 14
# Beside the model, answers hold figures of the scenario, heads of a ledger with their proofs, and keys and shares: per
# neighbour, 1.3 KiB for each round of the window and 1.5 KiB once, both with post-quantum keys.
_FIGURES_BYTES: Final = 256 * 2**10
_NEIGHBOUR_BYTES: Final = 2 * 2**10
_QUESTIONS: Final = 0
_WHOSE: ContextVar[int] = ContextVar("whose", default=_QUESTIONS)


class PastShare(Exception):
    """Raised when a node announces or sends more than an answer can need. The text names the rule."""


@dataclass(frozen=True)
class Bound:
    """How large one answer may be.

    Attributes:
        size_bytes: The size of all its objects together.
    """

    size_bytes: int

    @property
    def objects(self) -> int:
        """How many objects an answer of this size may have."""
        return _RECORDS + -(-self.size_bytes // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE)

    @classmethod
    def of(cls, question_bytes: int, silos: int, window: int) -> Bound:
        """Return the bound of a run's answers.

        An update has at most as many words as the model in the question, and no larger ones. The rest of an answer
        grows with the roster and with the rounds that secrets are dealt for. The margin is a factor of two for the
        update, and at least 1.3 for the rest.

        Args:
            question_bytes: The size of the run's largest question so far.
            silos: How many silos the roster has.
            window: For how many rounds secrets are dealt at once.
        """
        secrets_bytes = (silos + 1) * (window + 1) * _NEIGHBOUR_BYTES
        return cls(2 * question_bytes + _FIGURES_BYTES + secrets_bytes)


class PartedStore(ObjectStore):
    """Several stores of Flower: one for the objects of questions, and one for the answers of each node."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._parts = {_QUESTIONS: InMemoryObjectStore()}

    def part(self) -> InMemoryObjectStore:
        """Return the store of the node that is being served."""
        with self._lock:
            return self._parts.setdefault(_WHOSE.get(), InMemoryObjectStore())

    def _all(self) -> list[InMemoryObjectStore]:
        with self._lock:
            return list(self._parts.values())

    def _with(self, object_id: str) -> InMemoryObjectStore:
        """Return a store that has an object. A message is in only one; an object in several is the same in each."""
        return next((part for part in self._all() if object_id in part), self._parts[_QUESTIONS])

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Register the announced objects; return those that are still to come."""
        return self.part().preregister(run_id, object_tree)

    def get_object_tree(self, object_id: str) -> ObjectTree:
        """Return the tree of a message's objects."""
        return self._with(object_id).get_object_tree(object_id)

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep an object that was announced."""
        self.part().put(object_id, object_content)

    def get(self, object_id: str) -> bytes | None:
        """Return an object, whoever brought it; b"" if it was only announced, None if it was not even that."""
        found = [content for part in self._all() if (content := part.get(object_id)) is not None]
        return max(found, key=len, default=None)

    def delete(self, object_id: str) -> None:
        """Release a message and its objects."""
        self._with(object_id).delete(object_id)
        self._forget_empty()

    def delete_objects_in_run(self, run_id: int) -> None:
        """Release all objects of a run."""
        for part in self._all():
            part.delete_objects_in_run(run_id)
        self._forget_empty()

    def clear(self) -> None:
        """Release everything."""
        with self._lock:
            self._parts = {_QUESTIONS: InMemoryObjectStore()}

    def _forget_empty(self) -> None:
        with self._lock:
            self._parts = {whose: part for whose, part in self._parts.items() if whose == _QUESTIONS or len(part)}

    def __contains__(self, object_id: str) -> bool:
        return any(object_id in part for part in self._all())

    def __len__(self) -> int:
        return sum(len(part) for part in self._all())


@dataclass
class _Question:
    """A question whose objects are still coming, and its size so far."""

    run: int
    missing: set[str]
    size_bytes: int = 0


@dataclass
class _Answer:
    """An answer that a node announced."""

    node: int
    root: str
    question: str
    session: str
    left_bytes: int


@dataclass
class _Run:
    """What bounds the answers of a run."""

    window: int
    question_bytes: int = 0


class BoundedState(InMemoryLinkState):
    """Flower's state in memory, which takes no more from a node than an answer needs.

    Args:
        silos: How many silos the roster has.
        federation_manager: Flower's.
        object_store: Holds the objects.
    """

    def __init__(self, silos: int, federation_manager: FederationManager, object_store: ObjectStore) -> None:
        if not isinstance(object_store, PartedStore):
            raise TypeError("answers are bounded in a store that has a part for each node")
        super().__init__(federation_manager, object_store)
        self._silos, self._parted = silos, object_store
        self._runs: dict[int, _Run] = {}
        self._questions: dict[str, _Question] = {}
        self._answers: dict[int, deque[_Answer]] = {}
        self._by_session: dict[str, _Answer] = {}

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        """Take a message's announcement.

        Raises:
            PastShare: When it is an answer, and larger than an answer may be.
        """
        told = message.metadata
        with self.lock:
            if not told.reply_to_message_id:
                stored, missing = super().store_message_and_object_tree(message, object_tree, session_id)
                if missing:
                    self._questions[session_id] = _Question(told.run_id, set(missing))
                return stored, missing
            stored = False
            try:
                with _of(told.src_node_id):
                    bound = self._bound(told.run_id)
                    self._check(object_tree, bound.objects)
                    stored, missing = super().store_message_and_object_tree(message, object_tree, session_id)
            finally:
                if not stored:
                    self._cleanup_push_session(session_id, cleanup_messages=False)
            if stored:
                root, question = object_tree.object_id, told.reply_to_message_id
                self._keep(_Answer(told.src_node_id, root, question, session_id, bound.size_bytes))
            return stored, missing

    def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        """Take an object of a message that was announced.

        Raises:
            PastShare: When it belongs to an answer, and makes that larger than an answer may be.
        """
        size_bytes = len(object_content)
        with self.lock:  # before Flower's lock on sessions, as where messages are stored; it alone would take it after
            answer = self._by_session.get(session_id)
            if answer is not None and size_bytes > answer.left_bytes:
                raise PastShare(f"an object of {size_bytes} bytes, where its answer has {answer.left_bytes} left")
            with _of(_QUESTIONS if answer is None else answer.node):
                stored = super().store_object(run_id, session_id, object_id, object_content)
            if stored and answer is not None:
                answer.left_bytes -= size_bytes
            elif stored:
                self._note(session_id, object_id, size_bytes)
            return stored

    def get_object(self, run_id: int, object_id: str) -> bytes | None:
        """Return an object, with the locks always taken in the same order."""
        with self.lock:
            return super().get_object(run_id, object_id)

    def cleanup_run(self, run_id: int) -> None:
        """Forget a run that has ended."""
        super().cleanup_run(run_id)
        with self.lock:
            self._runs.pop(run_id, None)
            self._questions = {key: one for key, one in self._questions.items() if one.run != run_id}
            for node in list(self._answers):
                self._drop_gone(node)

    def _note(self, session_id: str, object_id: str, size_bytes: int) -> None:
        """Note how large a run's questions are; this is known before any node has the whole of one."""
        question = self._questions.get(session_id)
        if question is None:
            return
        question.missing.discard(object_id)
        question.size_bytes += size_bytes
        run = self._run(question.run)
        run.question_bytes = max(run.question_bytes, question.size_bytes)
        if not question.missing:
            del self._questions[session_id]

    def _run(self, run_id: int) -> _Run:
        if run_id not in self._runs:
            found = self.run_ids.get(run_id)
            self._runs[run_id] = _Run(window_in(found.run.override_config if found else {}))
        return self._runs[run_id]

    def _bound(self, run_id: int) -> Bound:
        run = self._run(run_id)
        return Bound.of(run.question_bytes, self._silos, run.window)

    def _check(self, tree: ObjectTree, most: int) -> None:
        """Refuse a tree that is larger than an answer's, or that would be read as another tree than was announced."""
        children: dict[str, list[str]] = {}
        ahead, count = [(tree, 1)], 0
        while ahead:
            part, depth = ahead.pop()
            count += 1
            if count > most or depth > MOST_DEPTH:
                raise PastShare(f"an answer of more than {most} objects, or deeper than {MOST_DEPTH}")
            below = [child.object_id for child in part.children]
            if children.setdefault(part.object_id, below) != below:
                raise PastShare("an answer that has one object in two ways")
            if depth > 1 and part.object_id in self.message_res_store:
                raise PastShare("an answer that has another in it")
            ahead += [(child, depth + 1) for child in part.children]
        own = self._parted.part()
        for object_id, below in children.items():
            if object_id in own and [child.object_id for child in own.get_object_tree(object_id).children] != below:
                raise PastShare("an answer that has an earlier one's object in another way")

    def _keep(self, answer: _Answer) -> None:
        """Keep a node's newest answer, and release its oldest if there are too many."""
        self._drop_gone(answer.node)
        kept = self._answers.setdefault(answer.node, deque())
        for same in [one for one in kept if one.root == answer.root]:  # announced again: what came stays
            kept.remove(same)
            self._by_session.pop(same.session, None)
            answer.left_bytes = min(answer.left_bytes, same.left_bytes)
        kept.append(answer)
        self._by_session[answer.session] = answer
        while len(kept) > MOST_ANSWERS:
            oldest = kept.popleft()
            self._by_session.pop(oldest.session, None)
            self._cleanup_push_session(oldest.session, cleanup_messages=True)
            self.delete_messages({oldest.question})
            with _of(oldest.node):
                self._parted.part().delete(oldest.root)

    def _drop_gone(self, node: int) -> None:
        """Forget answers that were taken in, or that ended with their run."""
        with _of(node):
            own = self._parted.part()
        kept = deque(one for one in self._answers.get(node, ()) if one.root in own)
        for gone in set(map(_session, self._answers.get(node, ()))) - set(map(_session, kept)):
            self._by_session.pop(gone, None)
        self._answers[node] = kept
        if not kept:
            del self._answers[node]


def window_in(config: Any) -> int:
    """Return for how many rounds a run's scenario deals secrets at once; the most there are, where it does not say.

    >>> window_in({"scenario": '{"encryption": {"window": 8}}'}), window_in({})
    (8, 256)
    """
    try:
        window = json.loads(config["scenario"])["encryption"]["window"]
    except (KeyError, TypeError, ValueError):
        return MOST_ROUNDS
    return window if isinstance(window, int) and 1 <= window <= MOST_ROUNDS else MOST_ROUNDS


def _session(answer: _Answer) -> str:
    return answer.session


@contextmanager
def _of(node: int) -> Iterator[None]:
    """Have what is stored while the block lasts be a node's."""
    token = _WHOSE.set(node)
    try:
        yield
    finally:
        _WHOSE.reset(token)
