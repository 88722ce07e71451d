"""Several processes release what one does, to the bit, or nothing at all."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmodel.config import Scenario, read_scenario
from fedmodel.data import silo_records
from fedmodel.errors import ConfigError, FedmodelError, PrivacyError
from fedmodel.learning import preflight as preflighting
from fedmodel.learning import ranks
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.gradients.hooks import PerSample
from fedmodel.learning.inputs import tensors
from fedmodel.learning.jobs import Observer, Question, Site, _pipelines, _rank
from fedmodel.learning.jobs.training import Answering
from fedmodel.learning.models import build_model
from fedmodel.learning.ranks import Pipeline, Ranks
from fedmodel.learning.vectors import flatten
from fedmodel.privacy.events import event_to_json
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.mechanisms.none_unsafe import UnprotectedEvent
from fedmodel.privacy.noise import OsNoise, SeededNoise
from fedmodel.system.nursery import heard_or_gone
from scenarios.selftest.planting import fresh
from tests.conftest import TINY
from tests.fedmodel.learning.test_lengths import SMALL, Words, small, small_records

EVENT = DpSgdEvent(2.0, 1.0, 0.5, 3, denominator=10, noise_source="seeded-unsafe")
IMAGES = [
    "data.source=digits", "data.records=", "data.features=", "data.reference_range=[0.0, 16.0]", "data.held_out=0.9",
    "model.kind=cnn", "model.channels=[4, 8]", "model.groups=2",
]  # fmt: skip
SETTINGS = {
    "mlp": ["training.momentum=0.9", "training.keep_optimizer_state=true"],
    "cnn": IMAGES,
    "cnn, hooks, adam": [*IMAGES, "training.gradients=hooks", "training.optimizer=adam", "training.proximal=0.1"],
    "views": ["data.augment.noise=0.5", "data.augment.views=3", "training.max_physical_batch=24"],
}
ME = os.getpid()
LATER = 0.125
SLOW_S = 0.2


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    path = tmp_path_factory.mktemp("scenario") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return {
        name: read_scenario(str(path), ["training.max_physical_batch=8", *settings])
        for name, settings in SETTINGS.items()
    }


@pytest.fixture(scope="module")
def alone(scenarios: dict[str, Scenario]) -> Iterator[dict[str, np.ndarray]]:
    """What one process makes of each; those that are forked after it know what it measured."""
    torch.set_num_threads(1)
    found = {name: update(one, 1) for name, one in scenarios.items()}
    ranks.prepare(_rank.work)
    yield found
    ranks.close()


def update(scenario: Scenario, processes: int, event: DpSgdEvent = EVENT, carried: Any = None) -> np.ndarray:
    question = Question(1, flatten(build_model(scenario.model, scenario.data.shape, 1)))
    job = Answering(Site("north", scenario, "cpu", simulated=False, processes=processes))
    job.check(question, event)
    return job.answer(question, lambda: silo_records(scenario, "north"), event, {} if carried is None else carried)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_make_of_a_silos_records_what_one_does(
    name: str, scenarios: dict[str, Scenario], alone: dict[str, np.ndarray]
) -> None:
    assert update(scenarios[name], 2).tobytes() == alone[name].tobytes()


def test_three_do_too_and_their_optimisers_state_is_the_same(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray]
) -> None:
    states: list[dict[str, Any]] = [{}, {}]
    updates = [update(scenarios["mlp"], count, carried=state) for count, state in zip((1, 3), states, strict=True)]
    assert updates[0].tobytes() == updates[1].tobytes() == alone["mlp"].tobytes()
    one, other = ({name: held.tobytes() for name, held in state["fedmodel.optimizer"].items()} for state in states)
    assert one == other != {}


def pipeline_of(scenario: Scenario) -> tuple[Pipeline, ClippedSum, Ranks]:
    """Return two processes that are ready, and the pipeline of this one."""
    job = Answering(Site("north", scenario, "cpu", simulated=False, processes=2))
    question = Question(1, flatten(build_model(scenario.model, scenario.data.shape, 1)))
    rows, others, alike = job._measured(question, EVENT, torch.device("cpu"))
    assert others is not None
    gradients = _pipelines.gradients_of(alike.scenario, EVENT.times(1), torch.device("cpu"))
    others.begin(alike, None, rows)
    return alike, gradients, others


LOTS = {
    "empty": [],
    "one record": [5],
    "one physical batch": range(8),
    "a batch and a record": range(9),
    "three batches, the last of them short": range(21),
    "with a record twice": [3, 3, *range(14)],
}


def test_lots_of_any_size_have_the_sum_that_one_process_makes(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same sums of batches, in the same order: it shows in few sums' last bits, and decides those of many."""
    _, gradients, others = pipeline_of(scenarios["mlp"])
    x_N, y_N = tensors(silo_records(scenarios["mlp"], "north"), torch.device("cpu"))
    added: list[bytes] = []
    put = gradients.put

    def noted(sum_P: Tensor) -> None:
        added.append(sum_P.numpy().tobytes())
        put(sum_P)

    monkeypatch.setattr(gradients, "put", noted)
    for name, indices in LOTS.items():
        lot = np.array([*indices], dtype=np.intp)
        here = gradients.of(x_N, y_N, lot)
        expected = added.copy()
        added.clear()
        there = others.of(gradients, x_N, y_N, lot)
        assert all(map(torch.equal, here, there)), name
        assert added == expected, name
        assert len(set(added)) == -(-len(lot) // 8), name
        assert name == "empty" or any(bool(one.any()) for one in here)
        added.clear()


def test_lots_are_drawn_and_noise_is_added_here_and_once(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            drawn.append(name)
            if os.getpid() != ME:
                raise AssertionError(f"{name} was drawn in another process")
            return real(*given)

        return noted

    scenario = scenarios["mlp"]
    monkeypatch.setattr(SeededNoise, "lot", counted("lot", SeededNoise.lot))
    monkeypatch.setattr(SeededNoise, "gaussian", counted("noise", SeededNoise.gaussian))
    ranks.prepare(_rank.work)  # others have it too
    assert update(scenario, 2).tobytes() == alone["mlp"].tobytes()
    assert drawn == ["lot", "noise"] * EVENT.steps


def elsewhere(act: Callable[[], object]) -> Callable[[_rank._Rank, Any, Any], Tensor]:
    """Return what sums up a physical batch in another process, and does something before: as it trains, not before."""
    summed = _rank._Rank._summed

    def planted(self: _rank._Rank, names: Any, values: Any) -> Tensor:
        act()
        return summed(self, names, values)

    return planted


def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes meet what is planted as they train, and not before."""
    monkeypatch.setattr(Ranks, "check_as_one", lambda *_: None)


def test_processes_that_compute_otherwise_train_nothing(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    summed = BookKeeping.summed

    def otherwise(self: BookKeeping, x_V: Any, y_R: Tensor) -> Tensor:
        sum_P = summed(self, x_V, y_R)
        return sum_P if os.getpid() == ME else sum_P * (1 + 2**-20)  # less would be rounded away, to the very sum

    def reads() -> Any:
        raise AssertionError("records were read")

    monkeypatch.setattr(BookKeeping, "summed", otherwise)
    monkeypatch.setattr(f"{__name__}.silo_records", lambda *_: reads())
    ranks.prepare(_rank.work)
    with pytest.raises(PrivacyError, match="do not compute alike; say a device"):
        update(scenarios["mlp"], 2)


def test_processes_that_compute_otherwise_at_fewer_rows_are_refused_before_a_round_of_these_is_charged(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model received later may be measured to hold at fewer rows than those at which they were compared."""
    summed, check_received = BookKeeping.summed, preflighting.check_received

    def otherwise(self: BookKeeping, x_V: Any, y_R: Tensor) -> Tensor:
        sum_P = summed(self, x_V, y_R)
        return sum_P if os.getpid() == ME or self.rows != 4 else sum_P * (1 + 2**-20)

    def fewer(gradients: ClippedSum, *given: Any) -> int:
        rows = check_received(gradients, *given)
        return rows if float(gradients.parameters[0].detach().flatten()[0]) != LATER else 4

    monkeypatch.setattr(BookKeeping, "summed", otherwise)
    monkeypatch.setattr(_pipelines, "check_received", fewer)
    ranks.prepare(_rank.work)
    scenario = scenarios["mlp"]
    assert update(scenario, 2).tobytes() == alone["mlp"].tobytes()
    later_P = flatten(build_model(scenario.model, scenario.data.shape, 1))
    later_P[0] = LATER
    job = Answering(Site("north", scenario, "cpu", simulated=False, processes=2))
    with pytest.raises(PrivacyError, match="do not compute alike; say a device"):
        job.check(Question(2, later_P), EVENT)


@pytest.mark.parametrize("odd", [0, 2, 4])
def test_processes_are_compared_at_every_length_and_the_longest_rows_of_a_turn_are_computed_here(
    odd: int, scenarios: dict[str, Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that others are waited for by how long rows took that are as long as theirs, or longer."""
    summed, here = PerSample.summed, list[int]()

    def otherwise(self: PerSample, x_V: Any, y_R: Tensor) -> Tensor:
        sum_P, length = summed(self, x_V, y_R), x_V["tokens"].shape[1]
        if os.getpid() == ME:
            here.append(length)
        return sum_P * (1 + 2**-20) if os.getpid() != ME and length == odd else sum_P

    monkeypatch.setattr(PerSample, "summed", otherwise)
    monkeypatch.setattr(_pipelines, "gradients_of", lambda *_: small(Words()))
    monkeypatch.setattr(_pipelines, "rows_at", lambda *_: 8)
    ranks.prepare(_rank.work)
    others, gradients = ranks.ranks_of(2), small(Words())
    assert others is not None
    alike = Pipeline(scenarios["mlp"].json_text, event_to_json(EVENT), "cpu", None)
    assert others.measured(alike, np.zeros(1, np.float32), lambda: 8, lambda: 0.0) == 8
    if odd:
        with pytest.raises(PrivacyError, match="do not compute alike; say a device"):
            others.check_as_one(alike, gradients, SMALL)
        return
    others.check_as_one(alike, gradients, SMALL)
    x_N, y_N = small_records(*[2] * 9, *[4] * 8, *[8] * 7)
    lot = np.arange(24)
    alone = gradients.of(x_N, y_N, lot)
    here.clear()
    assert all(map(torch.equal, alone, others.of(gradients, x_N, y_N, lot)))
    assert here == [2, 8]  # of 2 and 2, and of 4 and 8


def test_processes_that_measure_other_rows_train_nothing(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_at = _pipelines.rows_at
    monkeypatch.setattr(_pipelines, "rows_at", lambda *given: rows_at(*given) // 2)
    ranks.prepare(_rank.work)
    with pytest.raises(PrivacyError, match="measured 8, 4 rows for a physical batch"):
        update(scenarios["mlp"], 2)


def test_a_refusal_of_another_process_is_one_of_the_silo(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> None:
        raise PrivacyError("its loss is not one")

    unmeasured(monkeypatch)
    monkeypatch.setattr(_rank._Rank, "_summed", elsewhere(refuses))
    ranks.prepare(_rank.work)
    with pytest.raises(FedmodelError, match="process 1 of this silo: its loss is not one") as refused:
        update(scenarios["mlp"], 2)
    assert refused.value.code == FedmodelError.code  # that of any failure, once records are read


def test_a_process_that_is_killed_in_mid_step_ends_it_without_a_release(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    released: list[int] = []

    def waits() -> None:
        os.write(write, f"{os.getpid()}\n".encode())
        signal.pause()

    def kills() -> None:
        if select.select([read], [], [], 60)[0]:
            os.kill(int(os.read(read, 40).split(b"\n")[0]), signal.SIGKILL)  # two may be there by now

    release = DpSgd._release
    monkeypatch.setattr(DpSgd, "_release", lambda self, sums: (released.append(1), release(self, sums))[1])
    unmeasured(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(_rank._Rank, "_summed", elsewhere(waits))
        ranks.prepare(_rank.work)
    killing = threading.Thread(target=kills)
    killing.start()
    with pytest.raises(FedmodelError) as lost:
        update(scenarios["mlp"], 3)
    killing.join()
    os.close(read)
    os.close(write)
    assert "process 1 ended, of the 3 that train" in str(lost.value) or "process 2 ended" in str(lost.value)
    assert "\n" not in str(lost.value)
    assert released == []
    assert ranks._ranks is not None
    assert ranks._ranks.is_ended
    assert ranks._ranks._processes == []
    ranks.prepare(_rank.work)
    assert update(scenarios["mlp"], 2).tobytes() == alone["mlp"].tobytes()  # it goes on with new ones


def test_a_process_that_hangs_is_waited_for_no_longer_than_its_time(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    unmeasured(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(_rank._Rank, "_summed", elsewhere(signal.pause))
        ranks.prepare(_rank.work)
    others = ranks.ranks_of(2)
    assert others is not None
    handle = os.dup(others._processes[0].handle)
    take_turn = Ranks._take_turn

    def hurried(self: Ranks, *given: Any) -> None:
        monkeypatch.setattr(ranks, "_AT_LEAST_S", 0.1)
        take_turn(self, *given)

    monkeypatch.setattr(Ranks, "_take_turn", hurried)
    monkeypatch.setattr(ranks, "_NOTICED_S", 0.0)
    with pytest.raises(FedmodelError, match=r"process 1 of the 2 that .* is waited for no longer: a minute") as late:
        update(scenarios["mlp"], 2)
    assert "memory" not in str(late.value)
    with closing(os.fdopen(handle, "rb")):
        assert select.select([handle], [], [], 0)[0]  # it is gone
    ranks.prepare(_rank.work)


def test_a_new_process_is_waited_for_by_how_long_was_measured_here_and_not_remembered(
    scenarios: dict[str, Scenario], alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    preflight, waited_s = preflighting.preflight, []

    def slow(*given: Any) -> int:
        time.sleep(SLOW_S)
        return preflight(*given)

    def noted(end: Any, processes: Any, seconds: float) -> bool:
        waited_s.append(seconds)
        return heard_or_gone(end, processes, seconds)

    monkeypatch.setattr(_pipelines, "preflight", slow)
    monkeypatch.setattr(ranks, "heard_or_gone", noted)
    monkeypatch.setattr(ranks, "_TIMES_AS_LONG", 1000)
    with fresh():
        ranks.prepare(_rank.work)  # they know of nothing that is measured here from here on
        assert update(scenarios["mlp"], 1).tobytes() == alone["mlp"].tobytes()
        monkeypatch.setattr(ranks, "_AT_LEAST_S", 0.0)
        others = ranks.ranks_of(2)
        assert others is not None
        monkeypatch.setattr(others, "check_as_one", lambda *_: None)
        job = Answering(Site("north", scenarios["mlp"], "cpu", simulated=False, processes=2))
        question = Question(1, flatten(build_model(scenarios["mlp"].model, scenarios["mlp"].data.shape, 1)))
        job.check(question, EVENT)
        assert len(waited_s) == 1
        assert waited_s[0] >= 1000 * SLOW_S
    ranks.prepare(_rank.work)


class Looking:
    """An observer that wraps nothing, as an audit by loss canaries."""

    wrapper = None

    def ready(self) -> None:
        raise AssertionError("it was asked")


@pytest.mark.parametrize("is_checked", [True, False])
@pytest.mark.parametrize("why", ["is audited", "trains without a clip"])
def test_what_one_process_alone_does_is_refused_in_several(
    why: str, is_checked: bool, scenarios: dict[str, Scenario], alone: dict[str, np.ndarray]
) -> None:
    scenario, looking = scenarios["mlp"], [cast("Observer", Looking())] if why == "is audited" else []
    event = EVENT if looking else UnprotectedEvent(None, 0.5, 3, 10, "seeded-unsafe")
    site = Site("north", scenario, "cpu", simulated=True, processes=2)
    question = Question(1, flatten(build_model(scenario.model, scenario.data.shape, 1)))
    job = Answering(site, looking)
    answer = partial(job.answer, question, lambda: pytest.fail("records were read"), event, {})
    with pytest.raises(PrivacyError, match=f"a silo that {why} does so in one process, and this one has 2") as refused:
        job.check(question, event) if is_checked else answer()
    assert "\n" not in str(refused.value)


def test_masks_of_a_process_are_its_own(alone: dict[str, np.ndarray], tiny_file: Path) -> None:
    """Of a source from a seed all would draw the same ones for their batches; lots and noise stay what they are."""
    scenario = read_scenario(str(tiny_file), ["training.max_physical_batch=8", "model.hidden=[8]", "model.dropout=0.5"])
    first, again, one = update(scenario, 2), update(scenario, 2), update(scenario, 1)
    assert np.array_equal(first, again)
    assert np.isfinite(first).all()
    assert not np.array_equal(first, one)


def test_how_many_fit_in_memory_is_shared_out_and_agreed_on(
    alone: dict[str, np.ndarray], tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = read_scenario(str(tiny_file), ["training.max_physical_batch=auto"])
    monkeypatch.setattr(_pipelines, "most_rows", lambda *_: 31 if os.getpid() == ME else 1000)
    with fresh():
        assert update(scenario, 1).shape
        assert _pipelines._KEPT[torch.device("cpu")][1].rows == 16
        ranks.prepare(_rank.work)
    with fresh():
        _, gradients, _ = pipeline_of(scenario)
        assert gradients.rows == 8  # of 15, which is half of what there is room for


def test_what_an_os_source_draws_is_drawn_here(alone: dict[str, np.ndarray], scenarios: dict[str, Scenario]) -> None:
    event = DpSgdEvent(2.0, 1.0, 0.5, 3, denominator=10)
    first, second = (update(scenarios["mlp"], 2, event) for _ in range(2))
    assert not np.allclose(first, second)
    assert OsNoise().name == event.drawn_from


def test_a_silo_that_was_started_with_one_process_is_started_again_for_more(scenarios: dict[str, Scenario]) -> None:
    ranks.close()
    with pytest.raises(ConfigError, match="processes = 2, and said 1 when this silo was started"):
        update(scenarios["mlp"], 2)
