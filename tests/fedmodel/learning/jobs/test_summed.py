"""A sum that is released is one sampled Gaussian: no record adds more than the clip, and what is charged covers it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedmodel.config import Scenario, read_scenario
from fedmodel.data import Records
from fedmodel.errors import PrivacyError, ProtocolError
from fedmodel.kinds.shape import ArrayShape
from fedmodel.learning.jobs import Question, Serving, Site, State, _summed, label_counts
from fedmodel.learning.jobs._summed import Answering, clipped
from fedmodel.plans import events_besides
from fedmodel.privacy import grid
from fedmodel.privacy.mechanisms.gaussian import Gaussian, GaussianEvent
from fedmodel.privacy.noise import OsNoise
from fedmodel.privacy.primitives import Parts, SampledGaussian

NAME = "label-counts"
ASKED = Question(3, np.zeros(2, dtype=np.float32))
vectors = arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6))


@pytest.fixture
def counting(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), [f"besides.{NAME}.noise_multiplier=4.0", f"besides.{NAME}.bound=50.0"])


def event(scenario: Scenario) -> GaussianEvent:
    (found,) = events_besides(scenario, "north")
    assert isinstance(found, GaussianEvent)
    return found


def job(scenario: Scenario) -> Answering:
    found: Answering = label_counts.answering(Site("north", scenario, "cpu", simulated=True), ())
    return found


def labelled(labels: Sequence[int]) -> Records:
    return Records(np.zeros((len(labels), 4), np.float32), np.array(labels, np.int64), np.arange(len(labels)))


def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OsNoise, "gaussian", lambda _, size, std, device: torch.zeros(size, dtype=torch.float64))


@given(vectors, st.floats(1e-3, 1e3), st.floats(0.2, 100.0))
def test_no_vector_adds_more_than_the_clip_and_sums_are_exact(
    vectors_BK: np.ndarray[Any, Any], clip: float, noise: float
) -> None:
    fine = grid.fine(noise * clip)
    found_BK = clipped(vectors_BK, clip, fine)
    for row in found_BK:
        assert math.fsum(value * value for value in row) <= clip * clip
    assert (found_BK / fine == np.round(found_BK / fine)).all()


@pytest.mark.parametrize("word", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_no_number_counts_as_zeros_and_is_not_told_of(word: float) -> None:
    """However large the numbers of another are, it is clipped."""
    found_BK = clipped(np.array([[0.6, word], [0.6, 0.0], [1e300, 0.0]]), 1.0, 2.0**-30)
    assert found_BK.tolist()[0] == [0.0, 0.0]
    assert found_BK[1, 0] == pytest.approx(0.6)
    assert 0 <= found_BK[2, 0] <= 1


@pytest.mark.parametrize(
    "spread", [lambda found: found[:, :1], lambda found: found[:1], lambda found: found.sum(axis=1)]
)
def test_a_job_whose_vectors_would_be_spread_over_the_sum_is_refused_before_the_charge(
    spread: Any, counting: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One word that numpy adds to every one of the sum, for one."""
    real = label_counts.LabelCounts.vectors
    monkeypatch.setattr(label_counts.LabelCounts, "vectors", lambda *asked: spread(real(*asked)))
    with pytest.raises(PrivacyError, match="no vector of 2 words of each record"):
        job(counting).check(ASKED, event(counting))


def test_each_record_counts_once(counting: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """In shares of the bound, 50; two neighbours differ by one record of one class."""
    without_noise(monkeypatch)
    records = [labelled([0, 0, 1, 0, 7]), labelled([0, 0, 1, 0, 7, 1])]
    found = [job(counting).answer(ASKED, lambda one=one: one, event(counting), {}) * 50 for one in records]  # type: ignore[misc]
    assert found[0] == pytest.approx([3, 1], abs=1e-3)
    assert found[1] == pytest.approx([3, 2], abs=1e-3)


def test_what_is_over_the_bound_is_told_as_the_bound(counting: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    without_noise(monkeypatch)
    found = job(counting).answer(ASKED, lambda: labelled([0] * 80), event(counting), {})
    assert found == pytest.approx([1, 0], abs=1e-6)


@pytest.mark.usefixtures("same_bytes")
def test_noise_is_as_much_as_was_charged(counting: Scenario) -> None:
    """Its deviation of 400 draws, in records, to five standard errors."""
    wide = counting.model_copy(update={"besides": {NAME: counting.besides[NAME].model_copy(update={"bound": 1e6})}})
    found = [job(wide).answer(ASKED, lambda: labelled([0, 1]), event(wide), {}) * 1e6 - 1 for _ in range(200)]
    assert np.std(found) == pytest.approx(4.0, abs=5 * 4.0 / math.sqrt(2 * 400))


def test_the_event_is_of_all_records_once_for_the_unit_of_the_scenario(counting: Scenario) -> None:
    assert event(counting).parts() == ((SampledGaussian(1.0, 4.0, 1), 1),)
    privacy = counting.privacy.model_copy(update={"unit": "person", "max_records": 6})
    assert event(counting.model_copy(update={"privacy": privacy})).parts() == ((SampledGaussian(1.0, 4.0, 6), 1),)


@dataclass(frozen=True)
class Cheaper(GaussianEvent):
    """Charges for more noise than there is."""

    def parts(self) -> Parts:
        return tuple((part._replace(noise=2 * part.noise), count) for part, count in super().parts())  # type: ignore[union-attr]


@dataclass(frozen=True)
class Lonelier(GaussianEvent):
    """Charges for one record of a unit."""

    def parts(self) -> Parts:
        return tuple((part._replace(records=1), count) for part, count in super().parts())


@dataclass(frozen=True)
class Free(GaussianEvent):
    """Charges for nothing."""

    def parts(self) -> Parts:
        return ()


@pytest.mark.parametrize("kind", [Cheaper, Lonelier, Free, "two"])
def test_an_event_that_does_not_cover_the_sum_is_refused_before_any_record_is_read(
    kind: type[GaussianEvent] | str, counting: Scenario
) -> None:
    right = replace(event(counting), max_records=3)
    fields = {name: getattr(right, name) for name in right.__dataclass_fields__}
    wrong = right.times(2) if isinstance(kind, str) else kind(**fields)

    def records() -> Records:
        raise AssertionError("records were read")

    why = "charges for 0 of them|an event of 2 is none of it"
    with pytest.raises(PrivacyError, match=why):
        job(counting).check(ASKED, wrong)
    with pytest.raises(PrivacyError, match=why):
        job(counting).answer(ASKED, records, wrong, {})
    job(counting).check(ASKED, right)


def test_a_mechanism_that_adds_less_noise_than_its_event_says_is_refused(
    counting: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Gaussian.release
    halved = lambda self, event, *asked: real(self, replace(event, noise_multiplier=event.noise_multiplier / 2), *asked)  # noqa: E731
    monkeypatch.setattr(Gaussian, "release", halved)
    with pytest.raises(PrivacyError, match="mechanism 'gaussian' releases"):
        job(counting).check(ASKED, event(counting))


def test_a_machine_on_which_noise_is_not_exact_is_refused_before_the_charge(
    counting: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(device: torch.device) -> None:
        raise PrivacyError(f"noise computed on {device} is 9 times as far from a Gaussian")

    monkeypatch.setattr(_summed, "check_device", refuses)
    with pytest.raises(PrivacyError, match="computed on cpu is 9 times as far"):
        job(counting).check(ASKED, event(counting))


@pytest.mark.parametrize("vector", [[0.0], [0.0, 0.0, 0.0], [0.0, 1.0]])
def test_a_question_that_says_anything_is_refused(vector: list[float], counting: Scenario) -> None:
    with pytest.raises(ProtocolError, match="2 zeros, and by nothing else"):
        job(counting).check(Question(3, np.array(vector, dtype=np.float32)), event(counting))


def test_noise_from_another_source_than_charged_is_refused(counting: Scenario) -> None:
    seeded = replace(event(counting), noise_source="seeded-unsafe")
    object.__setattr__(seeded, "noise_source", "os-2")
    with pytest.raises(PrivacyError, match="noise would come from"):
        job(counting).answer(ASKED, lambda: labelled([0]), seeded, {})


def test_a_job_whose_vectors_hang_on_each_other_is_refused(counting: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of a batch: one record more changes those of all others."""
    real = label_counts.LabelCounts.vectors
    monkeypatch.setattr(
        label_counts.LabelCounts,
        "vectors",
        lambda *asked: real(*asked) / np.sqrt(len(real(*asked))),  # shape of a batch
    )
    with pytest.raises(PrivacyError, match="another vector of a record where others are beside it"):
        job(counting).check(ASKED, event(counting))


def test_there_is_no_place_for_an_observer(counting: Scenario) -> None:
    with pytest.raises(PrivacyError, match="no place for an observer"):
        label_counts.answering(Site("north", counting, "cpu", simulated=True), [object()])  # type: ignore[list-item]


def test_targets_that_are_no_labels_are_not_counted() -> None:
    shape = replace(read_scenario("quickstart").data.shape, target=ArrayShape((3,)))
    assert label_counts.LabelCounts().words(shape) == 0


def test_the_server_tells_the_sum_and_how_noisy_it_is(counting: Scenario) -> None:
    """Of four silos, whose mean share of 50 is 0.5 and -0.02."""
    asking = label_counts.asking(Serving(counting, lambda *_: (ASKED.vector_P, b""), lambda _: {}))
    assert asking.question(3, State(ASKED.vector_P)).tolist() == [0.0, 0.0]
    state = asking.fold(State(ASKED.vector_P), np.array([0.5, -0.02], dtype=np.float32))
    assert asking.tell(state, 4) == {"noise_std": 8.0, "counts": {"0": 100.0, "1": -4.0}}
