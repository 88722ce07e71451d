"""State that crosses rounds: used where all of a sum made it in the same rounds, dropped or refused everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.serde import recorddict_to_proto
from numpy.typing import NDArray

from clients import carried, hiding
from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.data import silo_records
from fedmodel.errors import AggregationRefused, Rule
from fedmodel.provision import scenario_hash
from fedmodel.secagg import FRESH, configuration, lineage_after, model_digest
from server.lineages import Lineages
from server.server_app import run_federation
from tests.fakes import FaultyGrid, charged
from tests.server.aggregation.test_masked import CPU, NODE, ON, SEEDED, Spy, lines, lost

HELD, OTHER = bytes(range(32)), bytes(range(1, 33))
STATE = {
    "fedmodel.optimizer": {"0.momentum_buffer": np.array([[0.5, -1.0]], dtype=np.float32), "0.step": np.array(3.0)}
}
KEEPING = ["training.momentum=0.9", "training.keep_optimizer_state=true"]


@pytest.mark.parametrize(
    ("kept", "named", "begins"),
    [
        (b"", FRESH, "fresh"),
        (b"", HELD, "refused"),
        (carried.leave(STATE, HELD), FRESH, "fresh"),
        (carried.leave(STATE, HELD), HELD, "state"),
        (carried.leave(STATE, HELD), OTHER, "refused"),
        (carried.leave(STATE, HELD), bytes(32), "refused"),
        (carried.leave({}, HELD), HELD, "refused"),
        (carried.leave(STATE, HELD)[32:], HELD, "refused"),  # as it lay there before it had a lineage
    ],
    ids=["nothing, fresh", "nothing", "fresh", "its own", "another", "zeros", "no state", "no lineage"],
)
def test_a_round_begins_from_what_is_named_or_fresh_or_not_at_all(kept: bytes, named: bytes, begins: str) -> None:
    if begins == "refused":
        with pytest.raises(AggregationRefused) as refused:
            carried.begin(kept, named)
        assert refused.value.rule is Rule.LINEAGE
        return
    found = carried.begin(kept, named)
    assert found.keys() == (STATE.keys() if begins == "state" else set())
    for name, arrays in found.items():
        assert {key: (value.dtype, value.tobytes(), value.shape) for key, value in arrays.items()} == {
            key: (value.dtype, value.tobytes(), value.shape) for key, value in STATE[name].items()
        }


def test_state_lies_in_the_outbox_as_it_always_did_also_where_an_optimiser_has_none() -> None:
    """A silo that is updated in mid-run begins from what it has; one whose optimiser keeps nothing has a lineage."""
    for arrays in (*STATE.values(), {}):
        kept = ArrayRecord({key: Array(value) for key, value in arrays.items()})
        packed = recorddict_to_proto(RecordDict({"fedmodel.optimizer": kept})).SerializeToString()
        assert carried.leave({"fedmodel.optimizer": arrays}, HELD) == HELD + packed
        assert carried.begin(HELD + packed, HELD).keys() == {"fedmodel.optimizer"}


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12, dtype=np.float32)[::2],
        np.arange(4, dtype=">i8"),
        np.array(3.0),
        np.array([True, False]),
        np.zeros((0, 3), dtype=np.float16),
    ],
    ids=["rows", "columns", "strides", "big end", "one", "flags", "none"],
)
def test_an_array_is_kept_as_flower_keeps_it_and_read_as_flower_reads_it(value: NDArray[Any]) -> None:
    theirs = recorddict_to_proto(RecordDict({"a": ArrayRecord({"b": Array(value)})})).SerializeToString()
    assert carried.leave({"a": {"b": value}}, HELD) == HELD + theirs
    found = carried.begin(HELD + theirs, HELD)["a"]["b"]
    assert (found.dtype, found.shape, found.tobytes()) == (value.dtype, value.shape, value.tobytes())
    assert found.flags.writeable
    if value.size:
        short = Array(str(value.dtype), value.shape, "numpy.ndarray", Array(value).data[:-1])
        packed = recorddict_to_proto(RecordDict({"a": ArrayRecord({"b": short})})).SerializeToString()
        with pytest.raises(ValueError, match=r"size|bytes|reshape"):
            carried.begin(HELD + packed, HELD)


def test_a_lineage_is_another_for_every_part_of_what_made_it() -> None:
    found = {lineage_after(HELD, 7, 3, HELD, HELD), lineage_after(OTHER, 7, 3, HELD, HELD)}
    found |= {lineage_after(HELD, 8, 3, HELD, HELD), lineage_after(HELD, 7, 4, HELD, HELD)}
    found |= {lineage_after(HELD, 7, 3, OTHER, HELD), lineage_after(HELD, 7, 3, HELD, OTHER)}
    assert len(found) == 6
    assert lineage_after(FRESH, 7, 3, HELD, HELD) not in found
    assert len({configuration(HELD, FRESH), configuration(HELD, OTHER), configuration(OTHER, FRESH)}) == 3


def test_the_server_names_what_all_that_are_asked_hold_and_forgets_who_does_not_answer(tiny_file: Path) -> None:
    scenario = read_scenario(str(tiny_file), KEEPING)
    lineages = Lineages(scenario, 7)
    everybody = ["north", "south", "west"]

    def done(number: int, asked: list[str], answering: list[str]) -> bytes:
        request = lineages.named(wire.TrainRequest(number, np.zeros(3, dtype=np.float32)), asked)
        lineages.answered(request, answering)
        return request.lineage

    assert done(1, everybody, everybody) == FRESH
    first = done(2, everybody, everybody)
    assert first != FRESH
    second = done(3, everybody, ["north", "south"])  # west may have trained, and may not
    assert second not in (FRESH, first)
    assert done(4, everybody, everybody) == FRESH
    assert done(5, ["north", "south"], ["north", "south"]) != FRESH  # west is not asked, and lags behind
    assert done(6, everybody, everybody) == FRESH
    again = Lineages(scenario, 7, lineages.state())
    assert again.named(wire.TrainRequest(7, np.zeros(3, dtype=np.float32)), everybody).lineage != FRESH
    plain = Lineages(read_scenario(str(tiny_file)), 7)
    for number in (1, 2):
        request = plain.named(wire.TrainRequest(number, np.zeros(3, dtype=np.float32)), everybody)
        assert request.lineage == FRESH
        plain.answered(request, everybody)


def began(grid: FaultyGrid) -> dict[str, list[bytes]]:
    """Return by round the distinct lineages that were named."""
    return {number: sorted(set(named)) for number, named in grid.named.items()}  # type: ignore[attr-defined]


class Watching(FaultyGrid):
    """Keeps which lineages were named in which round."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.named: dict[str, list[bytes]] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            if message.metadata.message_type == wire.TRAIN:
                lineage = wire.read_train_request(message).lineage
                self.named.setdefault(message.metadata.group_id, []).append(lineage)
        return super().push_messages(messages)


@pytest.mark.parametrize("mode", ["on", "simulated", "off"])
def test_one_dropout_makes_one_round_fresh_and_splits_nobody_for_longer(
    mode: str, tiny_file: Path, tmp_path: Path
) -> None:
    settings = [*ON, *KEEPING, "rounds=6", f"encryption.secure_aggregation={mode}"]
    scenario = read_scenario(str(tiny_file), settings)
    grid = Watching(scenario, tmp_path, lost(wire.TRAIN, "west", rounds=("2",)))
    run_federation(grid, scenario, tmp_path, CPU)
    named = began(grid)
    assert [len(named[str(number)]) for number in range(1, 7)] == [1] * 6
    assert [named[str(number)] == [FRESH] for number in range(1, 7)] == [True, False, True, False, False, False]
    assert [line["dropouts"] for line in lines(tmp_path)] == [{}, {"west": "internal"}, {}, {}, {}, {}]


def test_the_same_state_crosses_rounds_with_masks_and_without(tiny_file: Path, tmp_path: Path) -> None:
    models = []
    for mode in ("on", "simulated"):
        changes = [*ON, *KEEPING, SEEDED, f"encryption.secure_aggregation={mode}"]
        scenario = read_scenario(str(tiny_file), changes)
        folder = tmp_path / mode
        folder.mkdir()
        run_federation(FaultyGrid(scenario, folder, lost(wire.TRAIN, "west", rounds=("2",))), scenario, folder, CPU)
        models.append(
            safetensors.numpy.load((folder / "model.safetensors").read_bytes())
        )  # whose metadata name the scenario
    assert {name: value.tobytes() for name, value in models[0].items()} == {
        name: value.tobytes() for name, value in models[1].items()
    }


def test_state_that_is_lost_or_put_back_is_refused_uncharged_and_the_next_round_begins_fresh(
    tiny_file: Path, tmp_path: Path
) -> None:
    scenario = read_scenario(str(tiny_file), [*ON, *KEEPING, "rounds=6"])
    outbox = tmp_path / "silos" / "west" / "outbox"
    old: list[bytes] = []

    class PutBack(Watching):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            messages = list(messages)
            rounds = {one.metadata.group_id for one in messages if one.metadata.message_type == wire.TRAIN}
            if rounds == {"2"}:
                old.append(outbox.read_bytes())
            if rounds == {"3"}:
                outbox.write_bytes(old[0])
            if rounds == {"5"}:
                outbox.unlink()
            return super().push_messages(messages)

    grid = PutBack(scenario, tmp_path)
    run_federation(grid, scenario, tmp_path, CPU)
    told = [line["dropouts"] for line in lines(tmp_path)]
    assert told == [{}, {}, {"west": "aggregation-refused"}, {}, {"west": "aggregation-refused"}, {}]
    named = began(grid)
    assert [named[str(number)] == [FRESH] for number in range(1, 7)] == [True, False, False, True, False, True]
    assert len(charged(tmp_path / "ledgers" / "west.sqlite")) == 4
    assert (tmp_path / "logs" / "west.log").read_text().count(Rule.LINEAGE.value) == 2


def test_a_request_that_names_another_lineage_is_another_request(tiny_file: Path, tmp_path: Path) -> None:
    """It asks for another update; the very same once more gets the same bytes and costs nothing."""
    scenario = read_scenario(str(tiny_file), [*KEEPING, "rounds=6"])
    grid = FaultyGrid(scenario, tmp_path)
    model_P = np.zeros(5, dtype=np.float32)

    def asked(request: wire.TrainRequest | None) -> bytes | str:
        content, kind = (
            (wire.join_request(), wire.JOIN) if request is None else (wire.train_request(request), wire.TRAIN)
        )
        (reply,) = grid.send_and_receive([grid.asked(content, kind, NODE["north"])])
        if reply.has_error():
            return wire.refusal_code(reply.error)
        return b"" if request is None else wire.read_train_reply(reply).update_P.tobytes()

    asked(None)
    first = wire.TrainRequest(1, model_P)
    asked(first)
    left = lineage_after(FRESH, grid.run.run_id, 1, model_digest(model_P), scenario_hash(scenario))
    second = wire.TrainRequest(2, model_P, lineage=left)
    updates = [asked(second), asked(second), asked(replace(second, lineage=FRESH)), asked(second)]
    assert updates[0] == updates[1] != updates[2]
    assert updates[3] == "aggregation-refused"  # its state went with the round that began fresh
    assert len(charged(tmp_path / "ledgers" / "north.sqlite")) == 3


VICTIM = "east"
LAST = 5
SUPPRESSING = [
    *ON,
    SEEDED,
    "encryption.colluding=1",
    "federation.min_silos=3",
    "encryption.window=8",
    "training.optimizer=adagrad",
    "training.learning_rate=0.1",
    "training.keep_optimizer_state=true",
    "training.local_epochs=",
    "training.local_steps=1",
    "data.records=4000",
    "privacy.sample_rate=1.0",
    "privacy.expected_batch_size=800",
    "privacy.noise_multiplier=2.0",
    "data.partition.size_concentration=1000.0",
    "data.partition.label_concentration=100.0",
    f"rounds={LAST}",
]


class Suppressing(FaultyGrid):
    """A server that calls one silo late while it fills the others' accumulators, and then asks all of them.

    In the last round the model is one on which gradients are small.

    Args:
        last: What it names in the last round, of a silo's name and of what the others hold by then.
    """

    def __init__(self, scenario: Scenario, run_dir: Path, last: Callable[[str, bytes], bytes]) -> None:
        super().__init__(scenario, run_dir)
        self._last, self._held, self._hash = last, FRESH, scenario_hash(scenario)
        self._fitted_P = fitted(scenario)
        self._names = {node: silo for silo, node in NODE.items()}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        kept, left = [], self._held
        for message in list(messages):
            if message.metadata.message_type == wire.TRAIN:
                silo, number = self._names[message.metadata.dst_node_id], int(message.metadata.group_id)
                if silo == VICTIM and number < LAST:
                    continue
                left = self._ask_for_more(message, silo, number)
            kept.append(message)
        self._held = left
        return super().push_messages(kept)

    def _ask_for_more(self, message: Message, silo: str, number: int) -> bytes:
        """Put the attack into a question, and return the lineage that it leaves."""
        asked = wire.read_train_request(message)
        if number < LAST:
            crafted_P = np.random.default_rng(number).choice([-1, 1], len(asked.model_P)).astype(np.float32) * 3.5
            asked = replace(asked, model_P=crafted_P, lineage=self._held)
        else:
            asked = replace(asked, model_P=self._fitted_P, lineage=self._last(silo, self._held))
        message.content = wire.train_request(asked)
        self.sign_again(message)
        return lineage_after(asked.lineage, self.run.run_id, number, model_digest(asked.model_P), self._hash)


def fitted(scenario: Scenario) -> np.ndarray:
    """Return the linear model that fits all silos' records."""
    records = [silo_records(scenario, silo) for silo in scenario.federation.silos]
    x_NP = np.concatenate([np.c_[one.x_NF, np.ones(len(one.y_N))] for one in records])
    y_N = np.concatenate([one.y_N for one in records])
    model_P = np.zeros(x_NP.shape[1])
    for _ in range(1_000):
        model_P -= x_NP.T @ (1 / (1 + np.exp(-x_NP @ model_P)) - y_N) / len(y_N)
    return model_P.astype(np.float32)


def attacked(
    last: Callable[[str, bytes], bytes], tiny_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Spy, dict[str, str]]:
    """Run the attack to its end; return what was seen of it, and who dropped out of the last round."""
    scenario = read_scenario(str(tiny_file), SUPPRESSING)
    spy = Spy(monkeypatch)
    run_federation(Suppressing(scenario, folder, last), scenario, folder, CPU)
    told = lines(folder)
    assert [set(line["dropouts"]) for line in told[:-1]] == [{VICTIM}] * (LAST - 1)  # type: ignore[call-overload]
    spy.check(scenario)
    return spy, told[-1]["dropouts"]  # type: ignore[return-value]


def others_share(spy: Spy) -> float:
    """Return how large the others' part of the last sum is, over the victim's."""
    updates = spy.updates[LAST]
    others_P = np.sum([update for silo, update in updates.items() if silo != VICTIM], axis=0)
    return float(np.linalg.norm(others_P) / np.linalg.norm(updates[VICTIM]))


def test_a_silo_called_late_and_then_asked_with_all_others_stands_out_in_no_sum(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named alike, the round begins fresh at all four: Adagrad's first step is one size in every coordinate."""
    spy, dropouts = attacked(lambda *_: FRESH, tiny_file, tmp_path, monkeypatch)
    assert dropouts == {}
    assert set(spy.updates[LAST]) == set(NODE)
    assert others_share(spy) > 0.99  # of three equal steps up or down, one at least is left


@pytest.mark.parametrize("named", ["to each its own", "the others' to all"])
def test_a_silo_called_late_is_in_no_sum_with_state_that_it_has_not(
    named: str, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masks of who was told otherwise do not cancel; what it does not hold, it refuses before it is charged."""

    def last(silo: str, held: bytes) -> bytes:
        return FRESH if silo == VICTIM and named == "to each its own" else held

    spy, dropouts = attacked(last, tiny_file, tmp_path, monkeypatch)
    assert dropouts == {VICTIM: "aggregation-refused"}
    trained = VICTIM in spy.updates[LAST]
    assert trained == (named == "to each its own")
    assert len(charged(tmp_path / "ledgers" / f"{VICTIM}.sqlite")) == trained
    log = tmp_path / "logs" / f"{VICTIM}.log"
    assert (Rule.LINEAGE.value in log.read_text()) == (not trained)


def test_without_lineage_the_same_server_gets_a_sum_that_is_one_update(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the rule is for: silos that use whatever they keep, and mask with whoever has the same model."""
    monkeypatch.setattr(carried, "begin", lambda kept, _: {} if not kept else _opened(kept))
    monkeypatch.setattr(hiding, "configuration", lambda scenario, *_: scenario)
    spy, dropouts = attacked(lambda *_: FRESH, tiny_file, tmp_path, monkeypatch)
    assert dropouts == {}
    assert others_share(spy) < 0.2


def _opened(kept: bytes) -> carried.Carried:
    return _begin(kept, kept[:32])


_begin = carried.begin
