"""What one node's answers may be, over Flower's own state: how many objects, how deep, how large, and whose."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, get_object_tree
from flwr.supercore.task_identity import TaskIdentity

from server.announced import MOST_ANSWERS, Bound, BoundedState, PartedStore, PastShare
from server.superlink import Link, whole_app

MIB = 2**20
NUMBERS = itertools.count()


class Federation:
    """Flower's state with two nodes and a run."""

    def __init__(self, folder: Path, window: int = 1) -> None:
        link = Link("127.0.0.1", 1, lambda: None, folder / "none", (), folder / "socket", bytes(32))  # type: ignore[arg-type,return-value]
        state = whole_app(link, silos=2).state.linkstate_factory.state()
        assert isinstance(state, BoundedState)
        self.state = state
        self.nodes = [self.state.create_node(name, name, name.encode(), 30) for name in ("north", "south")]
        for node in self.nodes:
            self.state.activate_node(node, 30)
        config = {"scenario": json.dumps({"encryption": {"window": window}})}
        self.run = self.state.create_run(
            None, None, "hash", config, "@none/default", None, None, str(TaskType.SERVER_APP)
        )
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = self.run, 1, SUPERLINK_NODE_ID

    def ask(self, node: int, size_bytes: int = 10, push: bool = True) -> Message:
        """Have a question stored as the coordinator does."""
        question = Message(
            RecordDict({"x": ConfigRecord({"a": bytes(size_bytes), "n": next(NUMBERS)})}), node, "query.x"
        )
        question.metadata.__dict__["_message_id"] = question.object_id
        session = self.state.start_session(self.run)
        stored, missing = self.state.store_message_and_object_tree(
            remove_content_from_message(question), get_object_tree(question), session
        )
        assert stored
        for name, part in get_all_nested_objects(question).items():
            if push and name in missing:
                assert self.state.store_object(self.run, session, name, part.deflate())
        return question

    def announce(self, question: Message, tree: ObjectTree) -> tuple[bool, list[str], str]:
        """Announce an answer; return whether it was taken, what is to come, and by which session."""
        answer = Message(RecordDict({}), reply_to=question)
        answer.metadata.__dict__["_message_id"] = tree.object_id
        answer.metadata.__dict__["_src_node_id"] = question.metadata.dst_node_id
        session = self.state.start_session(self.run)
        stored, missing = self.state.store_message_and_object_tree(remove_content_from_message(answer), tree, session)
        return stored, missing, session


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def tree(name: str, *children: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=get_object_id(name.encode()), children=children)


def leaves(count: int) -> list[ObjectTree]:
    return [tree(f"leaf {number}") for number in range(count)]


def sessions(state: BoundedState) -> int:
    return len(state._object_push_sessions)


def test_an_answer_has_as_many_objects_as_its_bytes_may_come_in(federation: Federation) -> None:
    most = Bound.of(0, silos=2, window=1).objects
    question = federation.ask(federation.nodes[0], push=False)
    with pytest.raises(PastShare, match=f"more than {most} objects"):
        federation.announce(question, tree("m", *leaves(most)))
    assert len(federation.state.object_store) == 3, "nothing of it was registered"
    stored, missing, _ = federation.announce(question, tree("m", *leaves(most - 1)))
    assert (stored, len(missing)) == (True, most)


def test_what_is_refused_leaves_no_session_behind(federation: Federation) -> None:
    question = federation.ask(federation.nodes[0])
    before = sessions(federation.state)
    for _ in range(10):
        with pytest.raises(PastShare):
            federation.announce(question, tree("m", *leaves(100)))
    federation.announce(question, tree("m"))
    for number in range(10):  # an answer that Flower does not take: its question has one
        assert not federation.announce(question, tree(f"another {number}"))[0]
    assert sessions(federation.state) == before + 1


def test_an_answer_is_as_deep_as_ours(federation: Federation) -> None:
    question = federation.ask(federation.nodes[0])
    deep = tree("1")
    for level in range(2, 6):
        deep = tree(str(level), deep)
    with pytest.raises(PastShare, match="deeper than 5"):
        federation.announce(question, tree("6", deep))
    assert federation.announce(question, deep)[0]


def test_no_tree_is_read_back_as_a_larger_one(federation: Federation) -> None:
    """A part that is named again without its children is what makes a few objects an exponential tree."""
    part = tree("2", tree("1"), ObjectTree(object_id=tree("1").object_id))
    whole = tree("3", part, ObjectTree(object_id=part.object_id))
    with pytest.raises(PastShare, match="one object in two ways"):
        federation.announce(federation.ask(federation.nodes[0]), whole)
    # The same in two announcements.
    assert federation.announce(federation.ask(federation.nodes[0]), tree("m", part))[0]
    with pytest.raises(PastShare, match="an earlier one's object in another way"):
        federation.announce(federation.ask(federation.nodes[0]), tree("n", ObjectTree(object_id=part.object_id)))


def test_no_answer_holds_another_and_keeps_it_from_being_released(federation: Federation) -> None:
    assert federation.announce(federation.ask(federation.nodes[0]), tree("first"))[0]
    with pytest.raises(PastShare, match="has another in it"):
        federation.announce(federation.ask(federation.nodes[0]), tree("second", tree("first")))


def test_one_nodes_announcement_says_nothing_about_anothers_objects(federation: Federation) -> None:
    """In one store the first to announce an object would say for everybody what its children are."""
    north, south = federation.nodes
    shared = tree("a record that anybody can guess")
    hostile = ObjectTree(object_id=shared.object_id, children=[tree("never sent")])
    assert federation.announce(federation.ask(south), tree("of south", hostile))[0]
    stored, missing, session = federation.announce(federation.ask(north), tree("of north", shared))
    assert (stored, len(missing)) == (True, 2)
    assert federation.state.object_store.get_object_tree(tree("of north").object_id) == tree("of north", shared)
    # And what is released with the one's message stays with the other's.
    federation.state.object_store.delete(tree("of south").object_id)
    assert shared.object_id in federation.state.object_store
    assert session in federation.state._object_push_sessions


def test_a_question_is_read_back_as_it_was_asked_whatever_a_node_announces(federation: Federation) -> None:
    question = federation.ask(federation.nodes[1])
    asked = get_object_tree(question)
    other = ObjectTree(object_id=asked.object_id, children=[tree("x")])
    federation.announce(question, tree("answer", other))
    assert federation.state.object_store.get_object_tree(asked.object_id) == asked


@pytest.mark.parametrize("question_bytes", [10, 3 * MIB])
def test_an_answer_is_as_large_as_the_largest_question_allows(tmp_path: Path, question_bytes: int) -> None:
    federation = Federation(tmp_path)
    question = federation.ask(federation.nodes[0], question_bytes)
    inside = sum(len(part.deflate()) for part in get_all_nested_objects(question).values())
    most = Bound.of(inside, silos=2, window=1).size_bytes
    content = RecordDict({"x": ConfigRecord({"a": bytes(most)})}).deflate()  # any object that Flower takes
    too_large = ConfigRecord({"a": bytes(most)}).deflate()
    fitting = ConfigRecord({"a": bytes(most // 2)}).deflate()
    again = ConfigRecord({"a": bytes(most // 2) + b"x"}).deflate()
    parts = [ObjectTree(object_id=get_object_id(one)) for one in (too_large, fitting, again, content)]
    _, _, session = federation.announce(question, tree("m", *parts))

    def push(one: bytes) -> bool:
        return federation.state.store_object(federation.run, session, get_object_id(one), one)

    with pytest.raises(PastShare, match="where its answer has"):
        push(too_large)
    assert push(fitting)
    with pytest.raises(PastShare, match="where its answer has"):
        push(again)
    assert push(content)


def test_announcing_the_same_again_gives_no_more_bytes(federation: Federation) -> None:
    question = federation.ask(federation.nodes[0])
    parts = [ConfigRecord({"a": bytes(100_000), "n": number}).deflate() for number in range(4)]
    announced = tree("m", *(ObjectTree(object_id=get_object_id(part)) for part in parts))
    took = 0
    for part in parts:
        _, _, session = federation.announce(question, announced)
        try:
            took += federation.state.store_object(federation.run, session, get_object_id(part), part)
        except PastShare:
            continue
    assert took * 100_000 <= Bound.of(100, silos=2, window=1).size_bytes < 4 * 100_000


def test_answers_that_nobody_asks_for_are_released_by_newer_ones(federation: Federation) -> None:
    """A late answer would stay until the run ends, with an update in it."""
    north, south = federation.nodes
    federation.announce(federation.ask(north), tree("of north"))
    for number in range(20):
        record = ConfigRecord({"a": bytes(1_000), "n": number}).deflate()
        record_tree = ObjectTree(object_id=get_object_id(record))
        _, _, session = federation.announce(federation.ask(south), tree(f"answer {number}", record_tree))
        assert federation.state.store_object(federation.run, session, record_tree.object_id, record)
    kept = [number for number in range(20) if tree(f"answer {number}").object_id in federation.state.object_store]
    assert kept == list(range(20 - MOST_ANSWERS, 20))
    assert federation.state.num_message_res() == MOST_ANSWERS + 1
    assert sessions(federation.state) <= MOST_ANSWERS + 1
    assert tree("of north").object_id in federation.state.object_store
    # What was taken in counts no more, and nothing is left when the run is over.
    federation.state.object_store.delete(tree("answer 19").object_id)
    federation.state.cleanup_run(federation.run)
    assert len(federation.state.object_store) == 0
    assert not federation.state._answers
    assert not federation.state._by_session
    assert not federation.state._questions


def test_a_bound_grows_with_what_answers_grow_with() -> None:
    small = Bound.of(0, silos=4, window=8)
    assert small.size_bytes < MIB
    assert small.objects < 20
    large = Bound.of(400 * MIB, silos=4, window=8)
    assert large.objects == 14 + -(-large.size_bytes // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE)
    assert Bound.of(0, silos=100, window=8).size_bytes > small.size_bytes
    assert Bound.of(0, silos=4, window=256).size_bytes > small.size_bytes


def test_locks_are_taken_in_one_order(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower takes its two locks in one order where messages are stored, and in the other where a session has expired.

    A silo that announces and comes back after the session's end could stop the server between them.
    """
    state, owned = federation.state, []
    real = state._on_push_session_expired

    def expired(message_object_ids: set[str]) -> None:
        owned.append(state.lock._is_owned())  # type: ignore[attr-defined]
        real(message_object_ids)

    monkeypatch.setattr(state, "_on_push_session_expired", expired)
    for late in ("push", "pull"):
        record = ConfigRecord({"late": late}).deflate()
        name = get_object_id(record)
        _, _, session = federation.announce(federation.ask(federation.nodes[0]), tree(late, ObjectTree(object_id=name)))
        state._object_push_sessions[session].expires_at = datetime.min.replace(tzinfo=UTC)
        if late == "push":
            assert not state.store_object(federation.run, session, name, record)
        else:
            assert not state.get_object(federation.run, name)
    assert owned == [True, True]


def test_the_store_of_nobody_is_flowers(federation: Federation) -> None:
    store = federation.state.object_store
    assert isinstance(store, PartedStore)
    assert store.get("0" * 64) is None
    store.clear()
    assert len(store) == 0
