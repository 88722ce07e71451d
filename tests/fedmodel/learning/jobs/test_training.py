"""What a silo sends is what the event says: so many steps, from the named source, as a difference."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.answering import job_at
from clients.silo import Silo
from fedmodel import plans
from fedmodel.canaries.probes import Block, Probed, bare
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, DataError, FedmodelError, PrivacyError, ProtocolError
from fedmodel.learning import choosing, devices, refusals
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.jobs import Carried, Serving, State, _pipelines, training
from fedmodel.learning.models import build_model
from fedmodel.learning.precision import Rounded
from fedmodel.learning.vectors import flatten
from fedmodel.privacy import release
from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.mechanisms.none_unsafe import UnprotectedEvent
from fedmodel.privacy.noise import NoiseSource, OsNoise, SeededNoise
from fedmodel.wire import TrainRequest
from scenarios.selftest.planting import fresh, replaced
from tests.fakes import checked, trained

pytestmark = pytest.mark.usefixtures("same_bytes")
EVENT = DpSgdEvent(2.0, 1.0, 0.5, 2, denominator=10)


def silo(scenario: Scenario, tmp_path: Path) -> Silo:
    return Silo("north", scenario, "1", "cpu", tmp_path, tmp_path)


def request(scenario: Scenario, round_number: int = 1, seed: int = 1) -> TrainRequest:
    return TrainRequest(round_number, flatten(build_model(scenario.model, scenario.data.shape, seed)))


def test_the_update_is_a_difference_from_the_model_received(tiny: Scenario, tmp_path: Path) -> None:
    """With a vanishing learning rate the difference vanishes, whatever the model was."""
    slow = tiny.model_copy(update={"training": tiny.training.model_copy(update={"learning_rate": 1e-12})})
    update = trained(silo(slow, tmp_path), EVENT, request(slow))
    assert np.abs(request(slow).model_P).max() > 0.01
    assert np.abs(update).max() < 1e-6


@pytest.mark.parametrize("threads", [1, 2, "auto"])
def test_it_is_measured_under_the_settings_of_torch_that_it_trains_under(
    threads: int | str, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever code of the user's own sets as it makes the model."""
    seen: list[tuple[str, int, bool]] = []
    tiny = read_scenario(str(tiny_file), [f"training.threads={threads}", "training.max_physical_batch=auto"])
    monkeypatch.setattr(devices, "cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def building(*given: Any, **named: Any) -> nn.Module:
        torch.set_num_threads(4)
        torch.backends.cuda.matmul.allow_tf32 = True
        return build_model(*given, **named)

    def noting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            seen.append((name, torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32))
            return real(*given)

        return noted

    for builder in (_pipelines, choosing, refusals):
        monkeypatch.setattr(builder, "build_model", building)
    monkeypatch.setattr(_pipelines, "check_device", noting("device", _pipelines.check_device))
    monkeypatch.setattr(_pipelines, "most_rows", noting("memory", lambda *_: 5))
    monkeypatch.setattr(_pipelines, "preflight", noting("preflight", _pipelines.preflight))
    monkeypatch.setattr(_pipelines, "check_received", noting("received", _pipelines.check_received))
    monkeypatch.setattr(DpSgd, "step", noting("step", DpSgd.step))
    try:
        with fresh():
            for seed in (1, 2):  # the second time nothing is built that would set torch up
                trained(silo(tiny, tmp_path), EVENT, request(tiny, seed=seed))
                torch.set_num_threads(4)
    finally:
        torch.set_num_threads(1)
    expected = 3 if threads == "auto" else threads
    assert set(seen) == {(name, expected, False) for name in ("device", "memory", "preflight", "received", "step")}


def test_exactly_the_charged_steps_are_taken_at_the_charged_figures(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    figures: list[tuple[float, int]] = []
    released: set[Event] = set()
    clips: set[float] = set()
    rates: set[float] = set()
    real, real_lot, real_release = DpSgd.step, OsNoise.lot, release.release

    def lot(self: OsNoise, records: int, sample_rate: float) -> np.ndarray:
        rates.add(sample_rate)
        return real_lot(self, records, sample_rate)

    monkeypatch.setattr(OsNoise, "lot", lot)

    def counted(self: DpSgd, *arguments: object) -> None:
        steps.append(len(arguments[2]))  # type: ignore[arg-type]
        clips.add(self.gradients.max_grad_norm)
        real(self, *arguments)  # type: ignore[arg-type]

    def noted(sums_L: list[Tensor], noise: NoiseSource, std: float, denominator: int) -> list[Tensor]:
        figures.append((std, denominator))
        return real_release(sums_L, noise, std, denominator)

    monkeypatch.setattr(DpSgd, "step", counted)
    event = DpSgdEvent(1.25, 0.75, 0.4, 17, denominator=11)  # each unlike the scenario's
    training._check_charged(event)  # which releases made-up sums
    monkeypatch.setattr(release, "release", noted)
    mechanism, real_mechanisms = mechanism_of(event), mechanism_of(event).release

    def of_event(of: Event, sums_L: list[Tensor], noise: NoiseSource) -> list[Tensor]:
        released.add(of)
        return real_mechanisms(of, sums_L, noise)

    monkeypatch.setattr(mechanism, "release", of_event)
    trained(silo(tiny, tmp_path), event, request(tiny))
    assert len(steps) == len(figures) == 17
    assert (set(figures), clips) == ({(1.25 * 0.75, 11)}, {0.75})
    assert rates == {0.4}
    assert released == {event.times(1)}  # what was measured is what is used
    assert len(set(steps)) > 1  # Poisson lots, not fixed ones


def test_noise_from_the_operating_system_differs_between_equal_runs(tiny: Scenario, tmp_path: Path) -> None:
    first, second = (trained(silo(tiny, tmp_path), EVENT, request(tiny)) for _ in range(2))
    assert not np.allclose(first, second)


def test_seeded_noise_repeats_by_silo_and_round(tiny: Scenario, tmp_path: Path) -> None:
    event = replace(EVENT, noise_source="seeded-unsafe")

    def update(name: str, round_number: int) -> np.ndarray:
        acting = replace(silo(tiny, tmp_path), name=name)
        return trained(acting, event, request(tiny, round_number))

    assert np.array_equal(update("north", 1), update("north", 1))
    assert not np.allclose(update("north", 1), update("north", 2))
    assert not np.allclose(update("north", 1), update("south", 1))


def test_the_event_decides_the_noise_source_not_the_scenario(tiny_file: Path, tmp_path: Path) -> None:
    """What the ledger says was done is what is done, even where the scenario would have it otherwise."""
    unsafe = read_scenario(str(tiny_file), ["privacy.noise=seeded-unsafe"])
    first, second = (trained(silo(unsafe, tmp_path), EVENT, request(unsafe)) for _ in range(2))
    assert not np.allclose(first, second)


def test_a_request_is_checked_by_the_preflight(tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise PrivacyError("measured")

    with fresh():
        monkeypatch.setattr(_pipelines, "preflight", refuses)
        with pytest.raises(PrivacyError, match="measured"):
            checked(silo(tiny, tmp_path), EVENT, request(tiny))


def test_a_device_on_which_noise_is_not_exact_is_refused_before_a_silo_charges(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuses(device: torch.device) -> None:
        asked.append(str(device))
        raise PrivacyError("noise computed on cpu is 9 times as far from a Gaussian")

    with fresh():
        monkeypatch.setattr(_pipelines, "check_device", refuses)
        with pytest.raises(PrivacyError, match="9 times as far"):
            checked(silo(tiny, tmp_path), EVENT, request(tiny))
    assert asked == ["cpu"]


def test_a_model_is_refused_by_its_layers_name_before_a_silo_charges(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise PrivacyError("the layer '1' (BatchNorm1d) couples records")

    with fresh():
        monkeypatch.setattr(_pipelines, "check_model", refuses)
        with pytest.raises(PrivacyError, match="couples records"):
            checked(silo(tiny, tmp_path), EVENT, request(tiny))


def test_the_pipeline_is_measured_at_every_model_received_and_trains_at_the_rows_that_were_found(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the charge, and not again for the training on it; a smaller physical batch is what trains."""
    looked: list[np.ndarray] = []
    rows: list[int] = []
    real = DpSgd.step

    def look(gradients: ClippedSum, *_: object) -> int:
        looked.append(flatten(gradients.module))
        return 4

    def noted(self: DpSgd, *arguments: object) -> None:
        rows.append(self.gradients.rows)
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_pipelines, "check_received", look)
    monkeypatch.setattr(DpSgd, "step", noted)
    with fresh():
        for seed in (1, 2, 1):
            checked(silo(tiny, tmp_path), EVENT, request(tiny, seed=seed))
            trained(silo(tiny, tmp_path), replace(EVENT, steps=1), request(tiny, seed=seed))
    received = [request(tiny, seed=seed).model_P for seed in (1, 2, 1)]
    assert all(np.array_equal(one, model_P) for one, model_P in zip(looked, received, strict=True))
    assert rows == [4, 4, 4]


def test_runs_that_differ_in_their_seed_alone_are_measured_once(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those that differ in what is trained or charged."""
    measured: list[float] = []
    real = _pipelines.preflight
    monkeypatch.setattr(
        _pipelines, "preflight", lambda *given: (measured.append(given[0].max_grad_norm), real(*given))[1]
    )
    with fresh():
        for settings in (["seed=1"], ["seed=2"], ["seed=2", "training.loss=mse"]):
            one = read_scenario(str(tiny_file), settings)
            trained(silo(one, tmp_path), EVENT, request(one))
        trained(silo(one, tmp_path), replace(EVENT, max_grad_norm=2.0), request(one))
    assert measured == [1.0, 1.0, 2.0]


def test_how_many_records_fit_is_found_once_and_before_any_is_read(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = read_scenario(str(tiny_file), ["training.max_physical_batch=auto"])
    happened: list[str] = []
    rows: set[int] = set()
    real, real_records = DpSgd.step, Silo.records

    def found(*_: object) -> int:
        happened.append("found")
        return 5

    def read(self: Silo) -> Any:
        happened.append("read")
        return real_records(self)

    def noted(self: DpSgd, *arguments: object) -> None:
        rows.add(self.gradients.rows)
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_pipelines, "most_rows", found)
    monkeypatch.setattr(Silo, "records", read)
    monkeypatch.setattr(DpSgd, "step", noted)
    with fresh():
        for seed, event in ((1, EVENT), (2, EVENT), (2, replace(EVENT, denominator=12))):
            checked(silo(scenario, tmp_path), event, request(scenario, seed=seed))
            trained(silo(scenario, tmp_path), event, request(scenario, seed=seed))
    assert happened == ["found", "read", "read", "read"]
    assert max(rows) == 4


def test_where_memory_runs_out_before_the_charge_and_after_it(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it, what leaves is the code of any failure: how many records a silo has may be why."""

    def runs_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with fresh(), monkeypatch.context() as patch:
        patch.setattr(_pipelines, "preflight", runs_out)
        with pytest.raises(ConfigError, match=r'set training\.max_physical_batch to less than 512, or "auto"'):
            checked(silo(tiny, tmp_path), EVENT, request(tiny))
    monkeypatch.setattr(DpSgd, "step", runs_out)
    with pytest.raises(DataError, match=r"memory ran out; set training\.max_physical_batch") as caught:
        trained(silo(tiny, tmp_path), EVENT, request(tiny))
    assert caught.value.code == "internal"


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (PrivacyError("a trainable parameter got no per-record gradient"), "got no per-record gradient"),
        (ConfigError("no such key"), "no such key"),
        (ProtocolError("out of order"), "out of order"),
        (DataError("too many"), "too many"),
    ],
)
def test_what_is_refused_of_a_silos_own_records_has_the_code_of_any_failure(
    raised: FedmodelError, said: str, tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another code would tell that a record reached a branch, or which rule it broke."""

    def refuses(*_: object) -> None:
        raise raised

    monkeypatch.setattr(DpSgd, "step", refuses)
    with pytest.raises(DataError, match=said) as caught:
        trained(silo(tiny, tmp_path), EVENT, request(tiny))
    assert caught.value.code == FedmodelError.code


@pytest.mark.parametrize("kind", ["book-keeping", "hooks"])
def test_a_layer_that_only_a_silos_own_records_skip_is_no_refusal_of_the_preflights(
    kind: str, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = read_scenario(str(tiny_file), [f"training.gradients={kind}"])
    skips: list[bool] = []

    class Skipping(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.beside = inner, nn.Linear(1, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            out = self.inner(x)
            return out if skips else out + self.beside(out[:, :1])

    def building(*given: Any, **named: Any) -> nn.Module:
        return Skipping(build_model(*given, **named))

    def read(self: Silo) -> Any:
        skips.append(True)
        return real(self)

    real = Silo.records
    monkeypatch.setattr(Silo, "records", read)
    for builder in (_pipelines, choosing, refusals):
        monkeypatch.setattr(builder, "build_model", building)
    asked = TrainRequest(1, flatten(building(scenario.model, scenario.data.shape, 1)))
    with fresh():
        checked(silo(scenario, tmp_path), EVENT, asked)
        assert not skips
        with pytest.raises(DataError, match="gradient") as caught:
            trained(silo(scenario, tmp_path), EVENT, asked)
    assert caught.value.code == FedmodelError.code


def test_gradients_of_a_kind_that_is_not_known_are_refused_before_a_charge(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), ["training.gradients=ghost"])
    with pytest.raises(ConfigError, match="unknown kind of gradients 'ghost'"):
        checked(silo(scenario, tmp_path), EVENT, request(scenario))


SEEDED = replace(EVENT, noise_source="seeded-unsafe")


def test_a_model_is_built_once_for_all_that_a_request_is_asked_and_measured_for(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    def counted(*arguments: Any, **how: Any) -> nn.Module:
        built.append(1)
        return build_model(*arguments, **how)

    monkeypatch.setattr(_pipelines, "build_model", counted)
    with fresh():
        for number, event in enumerate((EVENT, EVENT, replace(EVENT, denominator=12), EVENT)):
            checked(silo(tiny, tmp_path), replace(event, steps=9), request(tiny, seed=number))
            for name in ("north", "south"):
                trained(replace(silo(tiny, tmp_path), name=name), event, request(tiny, seed=number))
    assert len(built) == 2  # once for each preflight, and for nothing else


def test_what_hangs_on_the_pipeline_alone_is_measured_once_for_runs_that_differ_in_all_else(
    tiny: Scenario, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    real = _pipelines.preflight

    def noted(*given: Any) -> int:
        measured.append("once")
        return real(*given)

    monkeypatch.setattr(_pipelines, "preflight", noted)
    with fresh():
        for settings, times in (([], 1), (["rounds=3", "seed=6"], 1), (["training.max_physical_batch=8"], 2)):
            other = read_scenario(str(tiny_file), settings)
            checked(silo(other, tmp_path), EVENT, request(other))
            assert len(measured) == times
        checked(silo(tiny, tmp_path), replace(EVENT, noise_multiplier=3.0), request(tiny))
        assert len(measured) == 3
        _pipelines.forget_pipelines()
        checked(silo(tiny, tmp_path), EVENT, request(tiny))
        assert len(measured) == 4


def test_a_baseline_trains_on_the_model_that_its_private_figures_were_measured_on(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever clip it had last, each request has its own."""
    built, clips = [], []
    real = DpSgd.step

    def counted(*arguments: Any, **how: Any) -> nn.Module:
        built.append(1)
        return build_model(*arguments, **how)

    def noted(self: DpSgd, *arguments: object) -> None:
        clips.append((self.gradients.max_grad_norm, self.gradients.unit))
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_pipelines, "build_model", counted)
    monkeypatch.setattr(DpSgd, "step", noted)
    monkeypatch.setattr(training, "_check_simulated", lambda _: None)
    plain = UnprotectedEvent(None, 0.5, 1, 10, "os")
    with fresh():
        for event in (replace(EVENT, steps=1), plain, replace(EVENT, steps=1), plain):
            trained(silo(tiny, tmp_path), event, request(tiny))
    (private, unit), (baseline, fine) = clips[:2]
    assert clips == [(private, unit), (baseline, fine)] * 2
    assert (private, math.isinf(baseline)) == (1.0, True)
    assert len(built) <= 2


def test_a_round_builds_no_model_and_does_no_work_twice(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is counted, not time: modules and optimisers made, passes over the model, and noise drawn."""
    counts: Counter[str] = Counter()
    acting, asked = silo(tiny, tmp_path), [request(tiny, number, seed=number) for number in range(1, 4)]
    event, parameters = replace(EVENT, steps=3), len(asked[0].model_P)
    lots: list[int] = []
    real_lot = OsNoise.lot

    def lot(self: OsNoise, *given: Any) -> np.ndarray:
        drawn = real_lot(self, *given)
        lots.append(len(drawn))
        return drawn

    def counting(owner: type, name: str, what: str, size: Callable[..., int] = lambda *_: 1) -> None:
        real = getattr(owner, name)

        def counted(*given: Any, **named: Any) -> Any:
            counts[what] += size(*given)
            return real(*given, **named)

        monkeypatch.setattr(owner, name, counted)

    monkeypatch.setattr(OsNoise, "lot", lot)
    counting(nn.Module, "__init__", "modules")
    counting(torch.optim.Optimizer, "__init__", "optimisers")
    counting(nn.Linear, "forward", "passes")
    counting(OsNoise, "gaussian", "noise", lambda _, size, *__: size)
    with fresh():
        for one in asked:
            checked(acting, event, one)
            measured, counts["passes"] = counts["passes"], 0
            trained(acting, event, one)
            ((_, gradients),) = _pipelines._KEPT.values()
            rows = gradients.rows
            assert counts["passes"] == sum(-(-drawn // rows) for drawn in lots)
            assert counts["noise"] == event.steps * parameters
            assert counts["optimisers"] == 1
            if one is not asked[0]:  # whose preflight is the process's
                assert counts["modules"] == 0
                assert measured <= 10
            counts.clear()
            lots.clear()
        trained(replace(acting, name="south"), event, asked[-1])  # nothing that was measured is measured again
        assert counts["passes"] == sum(-(-drawn // rows) for drawn in lots)


@pytest.mark.parametrize("before", ["a round", "another silo", "a stop in mid-lot", "a baseline"])
def test_nothing_of_an_earlier_request_is_in_a_model_that_is_used_again(
    before: str, tiny_file: Path, tmp_path: Path
) -> None:
    scenario = read_scenario(str(tiny_file), ["model.hidden=[8]", "model.dropout=0.5"])
    asked = request(scenario, 2, seed=7)
    with fresh():
        expected = trained(silo(scenario, tmp_path), SEEDED, asked)
    with fresh():
        match before:
            case "a round":
                trained(silo(scenario, tmp_path), SEEDED, request(scenario))
            case "another silo":
                trained(replace(silo(scenario, tmp_path), name="south"), EVENT, asked)
            case "a stop in mid-lot":
                with replaced(BookKeeping, "take", _stopped), pytest.raises(KeyboardInterrupt):
                    trained(silo(scenario, tmp_path), SEEDED, asked)
            case "a baseline":
                plain = UnprotectedEvent(None, 0.5, 2, 10, "seeded-unsafe")
                with replaced(training, "_check_simulated", lambda _: None):
                    trained(silo(scenario, tmp_path), plain, asked)
        assert np.array_equal(trained(silo(scenario, tmp_path), SEEDED, asked), expected)


def _stopped(_: BookKeeping) -> None:
    raise KeyboardInterrupt


def test_training_leaves_torchs_global_generator_alone(tiny: Scenario, tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    trained(silo(tiny, tmp_path), EVENT, request(tiny))
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_from_another_source_than_was_charged_is_refused(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_noise", lambda *_: SeededNoise(0))
    with pytest.raises(PrivacyError, match="'seeded-unsafe' where 'os' was charged"):
        trained(silo(tiny, tmp_path), EVENT, request(tiny))


def test_dropout_masks_are_as_secret_as_the_noise(tiny_file: Path, tmp_path: Path) -> None:
    """Masks that follow from the public seed couple records: with them, two noiseless runs would be equal."""
    scenario = read_scenario(str(tiny_file), ["model.hidden=[8]", "model.dropout=0.5"])

    class Full(OsNoise):
        def lot(self, records: int, sample_rate: float) -> np.ndarray:
            return np.arange(records)

        def gaussian(self, size: int, std: float, device: torch.device) -> torch.Tensor:
            return torch.zeros(size, dtype=torch.float64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_noise", lambda *_: Full())
        first, second = (trained(silo(scenario, tmp_path), EVENT, request(scenario)) for _ in range(2))
    assert not np.allclose(first, second)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad"])
def test_optimizer_state_crosses_rounds_only_when_asked(optimizer: str, tiny_file: Path, tmp_path: Path) -> None:
    settings = [f"training.optimizer={optimizer}"] + (["training.momentum=0.9"] if optimizer == "sgd" else [])
    event = replace(EVENT, noise_source="seeded-unsafe")

    def second_round(keep: bool) -> tuple[np.ndarray, Carried]:
        scenario = read_scenario(str(tiny_file), [*settings, f"training.keep_optimizer_state={str(keep).lower()}"])
        state: Carried = {}
        trained(silo(scenario, tmp_path), event, request(scenario, 1), state)
        return trained(silo(scenario, tmp_path), event, request(scenario, 2), state), state

    kept, kept_state = second_round(keep=True)
    fresh, fresh_state = second_round(keep=False)
    assert list(fresh_state) == []
    assert list(kept_state) == ["fedmodel.optimizer"]
    assert not np.allclose(kept, fresh)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad"])
def test_kept_state_is_as_if_never_interrupted(optimizer: str, tiny_file: Path, tmp_path: Path) -> None:
    """Two rounds of n steps with kept state are one of 2n, when both see the same lots and noise."""
    settings = [f"training.optimizer={optimizer}", "training.keep_optimizer_state=true"]
    settings += ["training.momentum=0.9"] if optimizer == "sgd" else []
    scenario = read_scenario(str(tiny_file), settings)
    acting, state = silo(scenario, tmp_path), {}

    class Zero(SeededNoise):
        name = "os"

        def lot(self, records: int, sample_rate: float) -> np.ndarray:
            return np.arange(records)

        def gaussian(self, size: int, std: float, device: torch.device) -> torch.Tensor:
            return torch.zeros(size, dtype=torch.float64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_noise", lambda *_: Zero(0))
        begin = request(scenario)
        first = trained(acting, EVENT, begin, state)
        second = trained(acting, EVENT, TrainRequest(2, begin.model_P + first), state)
        whole = trained(acting, replace(EVENT, steps=4), begin)
    assert np.allclose(first + second, whole, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "apart"), [("float32", 1e-5), ("bf16", 1e-2)])
def test_a_gpu_trains_to_the_same_update(precision: str, apart: float, tiny_file: Path, tmp_path: Path) -> None:
    event = replace(EVENT, noise_source="seeded-unsafe")
    tiny = read_scenario(str(tiny_file), [f"training.precision={precision}"])
    on_cpu = trained(silo(tiny, tmp_path), event, request(tiny))
    on_gpu = trained(replace(silo(tiny, tmp_path), device="cuda"), event, request(tiny))
    assert np.allclose(on_cpu, on_gpu, atol=apart)


@pytest.mark.parametrize("probed", [False, True])
def test_a_silo_trains_in_bf16_where_the_scenario_says_so(
    probed: bool, tiny_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update is float32 and nearly the same, canaries' block stays float32 whatever the model does."""
    event = replace(EVENT, noise_source="seeded-unsafe")
    found, looked = {}, []
    monkeypatch.setattr(_pipelines, "check_precision", lambda said, _: looked.append(said))
    monkeypatch.setattr(_pipelines, "tell_if_no_faster", lambda module, _: looked.append(type(module)))
    with fresh(), caplog.at_level(logging.INFO):
        for said in ("float32", "bf16"):
            scenario = read_scenario(str(tiny_file), [f"training.precision={said}"])
            found[said] = trained(silo(scenario, tmp_path), event, request(scenario))
        assert 'gradients = "auto" is book-keeping, in bf16' in caplog.messages
        pipeline = plans.pipeline_event(scenario.plan("north"), event)
        wrappers = (Block(3),) if probed else ()
        module = _pipelines._built(scenario.model_dump_json(), pipeline, torch.device("cpu"), 1.0, wrappers).module
    assert looked[2:] == ["bf16", Rounded]  # once each, after what the run in float32 asked
    assert found["bf16"].dtype == np.float32
    assert 0 < np.abs(found["bf16"] - found["float32"]).max() < 2.0**-6
    assert isinstance(bare(module), Rounded)
    assert isinstance(module, Probed) is probed


@pytest.mark.parametrize(("weight", "refused"), [(1.0, False), (1000.0, False), (1e5, True), (1e9, True), (3e38, True)])
def test_a_model_that_would_swallow_a_step_is_refused_before_anything_is_charged(
    weight: float, refused: bool, tiny: Scenario, tmp_path: Path
) -> None:
    """On weights that large the other silos' updates are zero, noise and all, and a sum is one silo's update."""
    model_P = request(tiny).model_P.copy()
    model_P[0] = weight
    asked = TrainRequest(1, model_P)
    if refused:
        with pytest.raises(ProtocolError, match="rounded away"):
            checked(silo(tiny, tmp_path), EVENT, asked)
        return
    checked(silo(tiny, tmp_path), EVENT, asked)
    update = trained(silo(tiny, tmp_path), EVENT, asked)
    assert np.count_nonzero(update) == len(update)


def test_observers_hang_on_from_outside_and_change_nothing_that_they_do_not_add(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told the same in the same order: before the charge, before a record is read, and of every lot."""
    told: list[str] = []

    class Onlooker:
        wrapper = None

        def __getattr__(self, name: str) -> Callable[..., object]:
            def noted(*arguments: object) -> object:
                told.append(name)
                return arguments if name == "add" else None

            return noted

    def records(acting: Silo) -> object:
        told.append("records")
        return read(acting)

    read = Silo.records
    monkeypatch.setattr(Silo, "records", records)
    acting, event = silo(tiny, tmp_path), replace(EVENT, noise_source="seeded-unsafe", steps=3)
    alone = trained(acting, event, request(tiny))
    told.clear()
    job, question = job_at(acting, request(tiny))
    watched = training.Answering(job.site, [Onlooker()])  # type: ignore[attr-defined, list-item]
    watched.check(question, event)
    assert told == ["ready"]
    answer = watched.answer(question, acting.records, event, {})
    assert told == ["ready", "begin", "records", "add", "watch", "drew", "drew", "drew", "end"]
    assert answer.tobytes() == alone.tobytes()


def test_only_an_audited_scenario_has_observers(tiny_file: Path, tmp_path: Path) -> None:
    for settings, looking_on in (([], 0), (["audit.count=9"], 1)):
        scenario = read_scenario(str(tiny_file), settings)
        job, _ = job_at(silo(scenario, tmp_path), request(scenario))
        assert len(job._observers) == looking_on  # type: ignore[attr-defined]


def test_the_server_asks_about_the_model_and_folds_means_by_what_it_is_given(tiny: Scenario) -> None:
    def apply(model_P: np.ndarray, mean_P: np.ndarray, state: bytes) -> tuple[np.ndarray, bytes]:
        return model_P + 2 * mean_P, state + b"+"

    job = training.asking(Serving(tiny, apply, lambda vector_P: {"loss": float(vector_P[0])}))
    state = State(np.array([1.0, 2.0], np.float32))
    for number in (1, 2):
        assert job.question(number, state) is state.vector_P
        state = job.fold(state, np.array([0.5, 0.0], np.float32))
    assert (state.vector_P.tolist(), state.kept) == ([3.0, 2.0], b"++")
    assert job.tell(state, 3) == {"loss": 3.0}


def test_a_model_is_trained_alike_by_hooks_and_by_book_keeping(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same seeds, several rounds: but for rounding, once no clip is set aside for the rounding of huge silos."""
    monkeypatch.setattr(BookKeeping, "most_records", 64)
    models: list[np.ndarray] = []
    for name in ("hooks", "book-keeping"):
        scenario = read_scenario(str(tiny_file), [f"training.gradients={name}", "privacy.noise=seeded-unsafe"])
        model_P = request(scenario).model_P
        with fresh():
            for number in (1, 2, 3):
                model_P = model_P + trained(
                    silo(scenario, tmp_path), replace(SEEDED, steps=5), TrainRequest(number, model_P)
                )
        models.append(model_P)
    assert np.abs(models[0] - request(scenario).model_P).max() > 0.1
    assert np.allclose(*models, rtol=1e-5, atol=1e-6)
