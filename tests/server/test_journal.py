"""A server that dies at any moment and is started again: the run ends as if it had never been interrupted.

The real apps over the in-process grid. The server dies by an exception that nothing catches, at a step that is counted:
before or after a question goes out, an answer comes, is kept, a checkpoint, a model or a line is written. What it had
in memory is gone with it; silos keep what they have on disk, as real ones do. `tests/integration/` kills real
processes.

Noise is seeded here, so that "as if" can be said of every bit of the model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load, save

from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto.sealed import new_age_key, open_bytes, opener_from_secret, write_sealed
from fedmodel.errors import CryptoError, DropoutError, ProtocolError
from fedmodel.learning.starts import resolved
from fedmodel.ledger import verify_ledger
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import read_identity, read_kit
from server.joining import find_again
from server.journal import Answers, Checkpoint, Journal, Seal
from server.server_app import run_federation
from tests.fakes import FaultyGrid, charged, run_config

RUN = 2**63 + 12345
SECRET, RECIPIENT = new_age_key()
BASE = ["privacy.noise=seeded-unsafe", "rounds=3", "federation.round_timeout_s=5.0"]
ON = [*BASE, "encryption.secure_aggregation=on", "encryption.bound=50.0", "encryption.colluding=0",
      'federation.silos=["north","south","west","east"]', "data.partition.min_records=10",
      "encryption.window=2", "training.momentum=0.9", "training.keep_optimizer_state=true",
      "besides.label-counts.noise_multiplier=4.0", "besides.label-counts.bound=60.0"]  # fmt: skip
MODES = {"off": BASE, "on": ON}


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


class Doom:
    """Counts the steps of a server, and kills it at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.steps = at, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with a step before it and one after."""

        def call(*arguments: Any, **named: Any) -> Any:
            self.step()
            result = real(*arguments, **named)
            self.step()
            return result

        return call


class DoomedGrid(FaultyGrid):
    """The in-process grid, to one run whatever Flower calls it, with a server that dies around its calls."""

    def __init__(self, scenario: Scenario, run_dir: Path, doom: Doom) -> None:
        super().__init__(scenario, run_dir)
        for context in self._contexts.values():
            context.run_config = {**run_config(scenario, run_dir), "run": str(RUN)}
        self._doom = doom

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._doom.step()
        pushed = list(super().push_messages(messages))
        self._doom.step()
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        pulled = list(super().pull_messages(message_ids))
        self._doom.step()
        return pulled


@contextmanager
def server_of(folder: Path, doom: Doom) -> Iterator[None]:
    """A server whose kit is that of a simulation, but sealed, and whose writes are steps."""
    identity = read_identity(folder / "server")
    own = SimpleNamespace(recipient=RECIPIENT, age_secret=SECRET, identity=identity, post_quantum=None)
    with ExitStack() as stack:
        for name, value in (("unlocked", lambda _: own), ("read_server_law", lambda _: SimpleNamespace(escrow=()))):
            stack.enter_context(mock.patch(f"server.run_files.{name}", value))
        for place in (
            "server.journal.replace_file",
            "server.known_heads.replace_file",
            "server.run_files.save_model",
            "server.metrics.MetricsLog.append",
        ):
            stack.enter_context(mock.patch(place, doom.around(resolve_name(place))))
        yield


def serve(scenario: Scenario, folder: Path, doom: Doom) -> bool:
    """Run the server until it ends or dies; return whether it ended."""
    grid = DoomedGrid(scenario, folder, doom)
    with server_of(folder, doom):
        try:
            run_federation(grid, scenario, folder, torch.device("cpu"), home=folder / "server", run=RUN)
        except Killed:
            return False
    return True


def outcome(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Return what a run left behind: all that must be as if it had never been interrupted."""
    sealed = (folder / "model.safetensors.age").read_bytes()
    tensors = load(open_bytes(sealed, opener_from_secret(SECRET)))
    files = [path for name in ("metrics", "besides") if (path := folder / f"{name}.jsonl").exists()]
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    charges = outcome_of_ledgers(scenario, folder)
    return {"model": {name: tensor.tobytes() for name, tensor in tensors.items()}, "lines": lines, "charges": charges}


def outcome_of_ledgers(scenario: Scenario, folder: Path) -> dict[str, list[DpSgdEvent]]:
    """Return what each silo's ledger, which is whole, was charged."""
    charges = {}
    for silo in scenario.federation.silos:
        path = folder / "ledgers" / f"{silo}.sqlite"
        verify_ledger(path, read_kit(folder / "silos" / silo).identity.public)
        charges[silo] = charged(path)
    return charges


@pytest.fixture(scope="module", params=MODES)
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Scenario, dict[str, Any], int]:
    """A run that was never interrupted, and how many steps its server took."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp(request.param)
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    scenario = read_scenario(str(folder / "tiny.toml"), MODES[request.param])
    doom = Doom()
    (folder / "run").mkdir()
    assert serve(scenario, folder / "run", doom)
    return scenario, outcome(scenario, folder / "run"), doom.steps


def killed_at(
    scenario: Scenario, folder: Path, moments: Iterable[int], expected: dict[str, Any], tries: int = 30
) -> int:
    """Kill the server at these steps, one life after the other, and hold what it leaves to what it should."""
    folder.mkdir()
    lives = iter(moments)
    kills = 0
    for _ in range(tries):
        if serve(scenario, folder, Doom(next(lives, None))):
            break
        kills += 1
    found = outcome(scenario, folder)
    assert found["lines"] == expected["lines"]
    assert found["model"] == expected["model"]
    assert found["charges"] == expected["charges"]
    assert not (folder / "answers").exists()
    return kills


SLICES = 8


@pytest.mark.parametrize("part", range(SLICES))
def test_a_server_killed_at_any_step_ends_as_if_it_never_was(
    part: int, reference: tuple[Scenario, dict[str, Any], int], tmp_path: Path
) -> None:
    """A few steps of all; `make test-chaos` takes every one."""
    scenario, expected, steps = reference
    at = 1 + (part * steps) // SLICES + part % 3
    assert killed_at(scenario, tmp_path / "run", [at], expected) == 1


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_server_killed_at_every_single_step_ends_as_if_it_never_was(
    reference: tuple[Scenario, dict[str, Any], int], tmp_path: Path
) -> None:
    scenario, expected, steps = reference
    kills = sum(killed_at(scenario, tmp_path / f"at-{at}", [at], expected) for at in range(1, steps + 1))
    assert kills == steps


@pytest.mark.parametrize("seed", range(2))
def test_a_server_killed_again_and_again_ends_as_if_it_never_was(
    seed: int, reference: tuple[Scenario, dict[str, Any], int], tmp_path: Path
) -> None:
    """In its second and third life too, and while it takes up what it had."""
    scenario, expected, steps = reference
    chance = np.random.default_rng(seed)
    moments = [int(chance.integers(1, steps // 4)) for _ in range(6)]  # early enough that there is more to do
    assert killed_at(scenario, tmp_path / "run", moments, expected) >= 3


class LosingGrid(DoomedGrid):
    """A grid that has an error of Flower's for a node's first answer of each kind, as of a process that died."""

    def __init__(self, scenario: Scenario, run_dir: Path, lost: set[str]) -> None:
        super().__init__(scenario, run_dir, Doom())
        self._lost = lost

    def _answer(self, message: Message) -> Message:
        answer, kind = super()._answer(message), message.metadata.message_type
        if message.metadata.dst_node_id != 2 or kind in {*self._lost, wire.READY}:
            return answer
        self._lost.add(kind)
        return Message(Error(code=0, reason=""), reply_to=message)


def test_a_silo_whose_process_died_with_the_server_is_asked_again(
    reference: tuple[Scenario, dict[str, Any], int], tmp_path: Path
) -> None:
    """In every stage in which answers are kept: the server dies as soon as it has written the error down."""
    scenario, expected, _ = reference
    real, lost, deaths, folder = Answers.keep, set[str](), 0, tmp_path / "run"

    def keep(self: Answers, silo: str, reply: Message | None) -> Message | None:
        kept = real(self, silo, reply)
        if reply is not None and reply.has_error():
            raise Killed
        return kept

    folder.mkdir()
    with mock.patch("server.journal.Answers.keep", keep):
        for _ in range(30):
            grid = LosingGrid(scenario, folder, lost)
            try:
                with server_of(folder, Doom()):
                    run_federation(grid, scenario, folder, torch.device("cpu"), home=folder / "server", run=RUN)
                break
            except Killed:
                deaths += 1
    assert deaths == len(lost - {wire.JOIN})
    assert wire.TRAIN in lost
    assert outcome(scenario, folder) == expected


def test_a_run_that_is_taken_up_again_does_not_read_again_what_it_began_from(tiny_file: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "w.safetensors", tmp_path / "run"
    file.write_bytes(save({"1.weight": np.full((1, 4), 3.0, np.float32), "1.bias": np.zeros(1, np.float32)}))
    start = f'model.init={{file="{file}", trained_on="public"}}'
    scenario = resolved(read_scenario(str(tiny_file), [*BASE, start]))
    folder.mkdir()
    write_sealed(folder / "start.safetensors.age", file.read_bytes(), [RECIPIENT])
    file.unlink()
    looked = iter([find_again, None])

    def look(*arguments: Any) -> None:
        if (real := next(looked)) is None:  # before the second round's questions
            raise Killed
        real(*arguments)

    with mock.patch("server.round_loop.find_again", look):
        assert not serve(scenario, folder, Doom())
    (folder / "start.safetensors.age").unlink()
    assert serve(scenario, folder, Doom())
    found = load(open_bytes((folder / "model.safetensors.age").read_bytes(), opener_from_secret(SECRET)))
    assert np.all(found["1.weight"] > 1.0)  # where no random start is, nor three rounds of these lead


def test_nothing_that_a_run_leaves_can_be_read_without_the_key(
    reference: tuple[Scenario, dict[str, Any], int], tmp_path: Path
) -> None:
    """Killed in the middle of a round: model, answers and window are there, and none in the clear."""
    scenario, _, steps = reference
    (tmp_path / "run").mkdir()
    assert not serve(scenario, tmp_path / "run", Doom(steps // 2))
    files = [path for path in (tmp_path / "run").rglob("*.age") if path.is_file()]
    assert {path.name for path in files} >= {"checkpoint.age", "model.safetensors.age"}
    for path in files:
        data = path.read_bytes()
        assert data.startswith(b"age-encryption.org/v1\n")
        assert path.stat().st_mode & 0o077 == 0
        assert b"charges" not in data
        assert b'"dtype"' not in data  # three letters of a header would be in so many bytes by chance
    assert not list((tmp_path / "run").rglob("*.partial"))
    assert not (tmp_path / "run" / "model.safetensors").exists()


def checkpoint(**other: Any) -> Checkpoint:
    event = DpSgdEvent(2.0, 1.0, 0.5, 2, denominator=10)
    told = {"round_number": 3, "model_P": np.arange(5, dtype=np.float32), "charges": {"north": event},
            "charged": {"north": 3}, "absent": {}, "withdrawn": {}, **other}  # fmt: skip
    return Checkpoint(**told)


def journal_of(folder: Path, **other: Any) -> Journal:
    told = {"seal": Seal(RECIPIENT, opener_from_secret(SECRET)), "run": RUN, "scenario": bytes(32), **other}
    return Journal(folder, newest=folder / "heads" / f"{told['run']}.round", **told)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = checkpoint(failures=1, ended=True, line={"round": 3}, secure={"window": None}, strategy=b"\0{state")
    back = Checkpoint.from_bytes(kept.to_bytes())
    assert back.model_P.tobytes() == kept.model_P.tobytes()
    assert {**vars(back), "model_P": 0} == {**vars(kept), "model_P": 0}


def test_a_checkpoint_of_the_version_before_opens_with_no_state_of_a_strategy() -> None:
    """It was written by the code of then, and is frozen in a file."""
    told = json.loads((Path(__file__).parents[1] / "vectors" / "checkpoint.json").read_text(encoding="utf-8"))
    back = Checkpoint.from_bytes(bytes.fromhex(told["version_1"]))
    assert back.model_P.tolist() == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert (back.round_number, back.charged, back.failures, back.ended) == (3, {"north": 3, "south": 2}, 1, False)
    assert back.charges["north"] == DpSgdEvent(2.0, 1.0, 0.5, 2, denominator=10)
    assert (back.absent, back.withdrawn) == ({"west": "late"}, {"east": {"round": 2, "code": "budget-exceeded"}})
    assert (back.secure["window"], back.lineages) == ([1, 1, 4], {"north": "cd" * 32})
    assert back.strategy == b""
    assert Checkpoint.from_bytes(back.to_bytes()).charges == back.charges


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 8, b"\0" * 7 + b"\x02{}", b"\xff" * 40, b"\0" * 7 + b'\x0d{"version":1}']
)
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="checkpoint"):
        Checkpoint.from_bytes(data)


def test_a_checkpoint_of_another_version_is_refused() -> None:
    with pytest.raises(ProtocolError, match="version 4"):
        Checkpoint.from_bytes(checkpoint().to_bytes().replace(b'"version": 3', b'"version": 4'))


def test_a_checkpoint_of_version_2_opens_with_each_silos_own_event() -> None:
    told = json.loads((Path(__file__).parents[1] / "vectors" / "checkpoint.json").read_text(encoding="utf-8"))
    back = Checkpoint.from_bytes(bytes.fromhex(told["version_2"]))
    event = DpSgdEvent(2.0, 1.0, 0.5, 2, denominator=10)
    other = DpSgdEvent(3.0, 1.0, 0.5, 2, denominator=10)
    assert back.charges == {"north": event, "south": event, "west": other}
    assert (back.round_number, back.strategy, back.model_P.tolist()) == (3, b"\0{state", [-0.5, -0.25, 0.0, 0.25, 0.5])
    assert Checkpoint.from_bytes(back.to_bytes()).charges == back.charges


def test_a_checkpoint_says_once_what_many_silos_charge_and_apart_what_is_written_otherwise() -> None:
    one, whole = DpSgdEvent(2.0, 1.0, 0.5, 2, denominator=10), DpSgdEvent(2, 1.0, 0.5, 2, denominator=10)
    assert one == whole
    charges = {**{f"silo-{number:04d}": one for number in range(1000)}, "west": whole}
    data = checkpoint(charges=charges).to_bytes()
    assert data.count(b"dp-sgd") == 2
    assert len(data) < 1000 * 14 + 2000
    back = Checkpoint.from_bytes(data)
    assert back.charges == charges
    assert type(back.charges["west"].noise_multiplier) is int


def test_another_servers_key_opens_no_checkpoint(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    assert journal.load() is None
    journal.keep(checkpoint())
    other, recipient = new_age_key()
    with pytest.raises(CryptoError, match=r"checkpoint\.age"):
        journal_of(tmp_path, seal=Seal(recipient, opener_from_secret(other))).load()


def test_answers_come_back_in_their_order_and_only_to_their_round(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    journal.begin(4)
    first = journal.asking()
    assert first.told() == []
    for silo in ("west", "north", "east"):
        first.keep(silo, None)
    again = journal_of(tmp_path)
    again.begin(4)
    assert again.asking().told() == [("west", None), ("north", None), ("east", None)]
    assert again.asking().told() == []
    again.begin(5)
    assert again.asking().told() == []


def test_who_refused_the_question_that_a_run_ended_on_is_asked_again_and_comes_after_the_others(tmp_path: Path) -> None:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    reply = Message(RecordDict({"told": ConfigRecord({"a": 1})}), 7, "train")
    journal = journal_of(tmp_path)
    journal.begin(4)
    journal.asking().keep("west", None)
    last = journal.asking()
    for silo, answer in (("west", None), ("north", reply), ("east", None), ("south", reply)):
        last.keep(silo, answer)
    journal.ask_again()
    again = journal_of(tmp_path)
    again.begin(4)
    assert again.asking().told() == [("west", None)]
    answers = again.asking()
    assert [silo for silo, _ in answers.told()] == ["north", "south"]
    answers.keep("east", reply)
    third = journal_of(tmp_path)
    third.begin(4)
    third.asking()
    assert [silo for silo, _ in third.asking().told()] == ["north", "south", "east"]


def test_an_error_of_flowers_is_final_once_a_later_question_was_begun(tmp_path: Path) -> None:
    """What a silo refused and what was late are final at once. A later question may be out before it has an answer."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    question = Message(RecordDict(), 7, "train")
    lost, refused = (Message(error, reply_to=question) for error in (Error(0, ""), wire.refusal("budget-exceeded")))
    journal = journal_of(tmp_path)
    journal.begin(4)
    first = journal.asking()
    for silo, answer in (("west", lost), ("north", refused), ("east", lost), ("south", None)):
        first.keep(silo, answer)

    def taken_up() -> tuple[Journal, Answers, list[str]]:
        again = journal_of(tmp_path)
        again.begin(4)
        answers = again.asking()
        return again, answers, [silo for silo, _ in answers.told()]

    again, answers, told = taken_up()
    assert told == ["north", "south"]
    answers.keep("west", lost)
    assert again.asking().told() == []
    for _ in range(2):
        again, _, told = taken_up()
        assert told == ["north", "south", "west"]
        assert again.asking().told() == []


def test_an_answer_that_cannot_be_written_down_is_none_and_stops_nobody(tmp_path: Path) -> None:
    """A header of Flower's is JSON: a lone surrogate inflates well, and does not go back."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    grid_message = Message(RecordDict({"\ud800": ConfigRecord({"a": 1})}), 7, "train")
    journal = journal_of(tmp_path)
    journal.begin(1)
    assert journal.asking().keep("north", grid_message) is None
    again = journal_of(tmp_path)
    again.begin(1)
    assert again.asking().told() == [("north", None)]


def test_a_run_that_ended_in_mid_window_needs_its_window_no_more(tmp_path: Path) -> None:
    """It was erased with the run's end; killed between that and the outcome, the run is no failed one."""
    journal = journal_of(tmp_path)
    journal.keep(checkpoint(ended=True, secure={"window": [3, 1, 2]}), ([], []))
    (tmp_path / "window.age").unlink()
    loaded = journal.load()
    assert loaded is not None
    assert loaded[0].ended
    assert loaded[1] is None


@pytest.mark.parametrize("other", [{"run": RUN + 1}, {"scenario": bytes([1]) * 32}], ids=["run", "scenario"])
def test_the_files_of_another_run_or_scenario_are_refused(other: dict[str, Any], tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    journal.keep(checkpoint())
    journal.begin(4)
    journal.asking().keep("north", None)
    with pytest.raises(ProtocolError, match="is of another run, scenario or round"):
        journal_of(tmp_path, **other).load()
    again = journal_of(tmp_path, **other)
    again.begin(4)
    with pytest.raises(ProtocolError, match="is of another run, scenario or round"):
        again.asking().told()


def test_an_answer_of_another_round_or_place_is_refused(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    journal.begin(3)
    journal.asking().keep("north", None)
    (kept,) = (tmp_path / "answers").iterdir()
    kept.rename(kept.with_name(kept.name.replace("0000003", "0000004")))
    again = journal_of(tmp_path)
    again.begin(4)
    with pytest.raises(ProtocolError, match="is of another run, scenario or round"):
        again.asking().told()


def test_the_window_of_another_moment_is_refused(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    journal.keep(checkpoint(secure={"window": [1, 1, 3]}), ([], []))
    older = (tmp_path / "window.age").read_bytes()
    journal.keep(checkpoint(secure={"window": [4, 1, 3]}), ([], []))
    assert journal_of(tmp_path).load() is not None
    (tmp_path / "window.age").write_bytes(older)
    with pytest.raises(ProtocolError, match=r"window\.age: is of another run, scenario or round"):
        journal_of(tmp_path).load()


def test_an_older_checkpoint_is_refused_by_the_round_that_is_kept_elsewhere(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    journal.keep(checkpoint(round_number=3))
    older = (tmp_path / "checkpoint.age").read_bytes()
    journal.keep(checkpoint(round_number=7))
    (tmp_path / "checkpoint.age").write_bytes(older)
    with pytest.raises(ProtocolError, match="is of round 3, and round 7 of the run was whole"):
        journal_of(tmp_path).load()
    # Put back together with it: killed between the two files looks alike, and silos notice.
    (tmp_path / "heads" / f"{RUN}.round").write_bytes(b"2")
    assert journal_of(tmp_path).load() is not None


@pytest.mark.parametrize("mode", MODES)
def test_a_server_that_was_put_back_altogether_is_refused_by_every_silo(
    mode: str, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint and what it keeps elsewhere are of round 1, and silos were charged for round 3."""
    scenario, run, copied = read_scenario(str(tiny_file), MODES[mode]), tmp_path / "run", tmp_path / "copied"
    run.mkdir()
    keep = Journal.keep

    def kept(journal: Journal, told: Checkpoint, *dealt: Any) -> None:
        if told.round_number == 3:
            raise Killed
        keep(journal, told, *dealt)
        if told.round_number == 1:
            shutil.copytree(run, copied, ignore=lambda _, names: {"silos", "ledgers", "logs"} & set(names))

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", kept)
        assert not serve(scenario, run, Doom())
    before = outcome_of_ledgers(scenario, run)
    (run / "checkpoint.age").write_bytes((copied / "checkpoint.age").read_bytes())
    with pytest.raises(ProtocolError, match="is of round 1, and round 2 of the run was whole"):
        serve(scenario, run, Doom())
    shutil.rmtree(run / "server" / "heads")
    shutil.copytree(copied, run, dirs_exist_ok=True)
    with pytest.raises(DropoutError):
        serve(scenario, run, Doom())
    assert outcome_of_ledgers(scenario, run) == before
    for silo in scenario.federation.silos:
        told = (run / "logs" / f"{silo}.log").read_text(encoding="utf-8")
        assert "round 2 is asked for, where round 3 of the run was charged" in told
