"""A pattern is every party's alike, follows from what is public alone, and is of rounds of training."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmodel.config import Scenario, read_scenario
from fedmodel.data import silo_records
from fedmodel.errors import ConfigError, ProtocolError
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.jobs import Question, Site
from fedmodel.learning.jobs.training import Answering
from fedmodel.learning.models import build_model, parameters_of
from fedmodel.learning.pattern import Pattern, check_pattern, noise_grows, pattern_of, words_sent
from fedmodel.learning.random_bases import Bases
from fedmodel.learning.random_places import Places
from fedmodel.learning.vectors import flatten
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import scenario_hash
from scenarios.simulation.simulate import check_scenario


@pytest.fixture
def quarter(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), ["federation.update_share=0.25"])


@pytest.fixture
def rank_two(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), ["federation.update_rank=2", "model.hidden=[6]"])


def drawn(scenario: Scenario, number: int, size: int) -> Pattern:
    found = pattern_of(scenario, number, size)
    assert found is not None
    return found


def test_a_pattern_hangs_on_seed_round_and_size_alone_and_is_frozen(quarter: Scenario) -> None:
    """A change here would leave silos of two versions with sums of words that do not belong together."""
    first = drawn(quarter, 1, 100_000)
    assert isinstance(first, Places)
    assert len(first.places_K) == 25_000
    assert np.all(np.diff(first.places_K) > 0)
    assert hashlib.sha256(first.places_K.astype("<i8").tobytes()).hexdigest()[:16] == "60900651c888c3b1"
    masked = {"encryption": quarter.encryption.model_copy(update={"ring_bits": 8})}
    assert drawn(quarter.model_copy(update=masked), 1, 100_000).digest == first.digest
    for other in (drawn(quarter, 2, 100_000), drawn(quarter.model_copy(update={"seed": 6}), 1, 100_000)):
        assert isinstance(other, Places)
        assert other.digest != first.digest
        # Two independent quarters have a quarter of a quarter in common, to five standard errors.
        assert abs(len(np.intersect1d(first.places_K, other.places_K)) - 6250) < 5 * 6250**0.5


def test_bases_are_of_the_models_own_matrices_and_hang_on_seed_and_round(rank_two: Scenario) -> None:
    module = build_model(rank_two.model, rank_two.data.shape, 1)
    size = len(flatten(module))
    first = drawn(rank_two, 1, size)
    assert isinstance(first, Bases)
    assert first.shapes == tuple(tuple(one.shape) for one in module.parameters()) == ((6, 4), (6,), (1, 6), (1,))
    assert first.sent == words_sent(rank_two, size) == 6 * 2 + 6 + 2 + 1
    assert noise_grows(rank_two, size) == (pytest.approx((24 * 2 + 6 * 3 + 7) / 37), 3.0)
    masked = {"encryption": rank_two.encryption.model_copy(update={"ring_bits": 8})}
    assert drawn(rank_two.model_copy(update=masked), 1, size).digest == first.digest
    for other in (drawn(rank_two, 2, size), drawn(rank_two.model_copy(update={"seed": 6}), 1, size)):
        assert other.digest != first.digest
        assert not np.array_equal(other.take(flatten(module)), first.take(flatten(module)))


@pytest.mark.parametrize("act", [words_sent, noise_grows, lambda scenario, size: pattern_of(scenario, 1, size)])
def test_a_vector_of_another_model_has_no_bases(act: object, rank_two: Scenario) -> None:
    with pytest.raises(ProtocolError, match="38 words does not fit a model of 37 parameters"):
        act(rank_two, 38)  # type: ignore[operator]


def test_a_rank_that_makes_nothing_smaller_is_refused_before_anything_is_done(rank_two: Scenario) -> None:
    check_pattern(rank_two, 37)
    federation = rank_two.federation.model_copy(update={"update_rank": 6})
    wide = rank_two.model_copy(update={"federation": federation})
    assert parameters_of(wide.model, wide.data.shape) == words_sent(wide, 37) == 37
    with pytest.raises(ConfigError, match=r"federation\.update_rank = 6 makes no update smaller: .* smaller rank, or"):
        check_scenario(wide)


def test_a_share_needs_no_model_and_no_torch(tiny_file: Path) -> None:
    """Messages that train nothing are answered without torch, and what leaves is looked at in all of them."""
    probe = (
        "import sys; from fedmodel.config import read_scenario; from fedmodel.learning import pattern;"
        f"found = pattern.words_sent(read_scenario({str(tiny_file)!r}, ['federation.update_share=0.25']), 8);"
        "print(found, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


@pytest.mark.parametrize("said", ["update_share=0.25", "update_rank=2"])
def test_all_is_sent_unless_a_part_is_said_and_by_jobs_besides_training(
    said: str, tiny: Scenario, tiny_file: Path
) -> None:
    size = parameters_of(tiny.model, tiny.data.shape)
    assert pattern_of(tiny, 1, size) is None
    assert words_sent(tiny, size) == size
    assert noise_grows(tiny, size) == (1, 1)
    besides = [f"federation.{said}", "besides={statistics={noise_multiplier=5.0, bound=100.0}}"]
    asking = read_scenario(str(tiny_file), besides)
    assert pattern_of(asking, tiny.rounds, size) is not None
    assert pattern_of(asking, tiny.rounds + 1, 10) is None


@pytest.mark.parametrize("keeps", [False, True])
def test_what_was_left_out_comes_later_where_an_optimisers_state_is_kept_alone(
    keeps: bool, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = f"training.keep_optimizer_state={str(keeps).lower()}"
    scenario = read_scenario(str(tiny_file), ["federation.update_share=0.4", "training.momentum=0.5", kept])
    event = DpSgdEvent(2.0, 1.0, 0.5, 1, denominator=10, noise_source="seeded-unsafe")
    model_P = flatten(build_model(scenario.model, scenario.data.shape, 1))
    size, release = len(model_P), DpSgd._release
    first, second = drawn(scenario, 1, size), drawn(scenario, 2, size)
    left_P = torch.from_numpy(np.ones(size) - (first.put(first.take(np.ones(size, np.float32))) != 0))

    def moved(self: DpSgd, sums_L: list[torch.Tensor]) -> None:
        parts = left_P.split([one.numel() for one in sums_L])
        release(self, [one + 64 * part.view(one.shape) for one, part in zip(sums_L, parts, strict=True)])

    def sent(*, is_moved: bool) -> list[bytes]:
        job, carried, found = Answering(Site("north", scenario, "cpu", simulated=False)), dict[str, Any](), []
        for number, pattern in ((1, first), (2, second)):
            monkeypatch.setattr(DpSgd, "_release", moved if is_moved and number == 1 else release)
            question = Question(number, model_P)
            job.check(question, event)
            update_P = job.answer(question, lambda: silo_records(scenario, "north"), event, carried)
            found.append(pattern.take(update_P).tobytes())
        return found

    one, other = sent(is_moved=False), sent(is_moved=True)
    assert one[0] == other[0]
    assert (one[1] != other[1]) == keeps


def test_a_scenario_that_says_nothing_keeps_its_hash(tiny: Scenario, quarter: Scenario, rank_two: Scenario) -> None:
    assert "update_" not in tiny.json_text
    assert '"update_share":0.25' in quarter.json_text
    assert "update_rank" not in quarter.json_text
    assert '"update_rank":2' in rank_two.json_text
    assert len({scenario_hash(one) for one in (tiny, quarter, rank_two)}) == 3


@pytest.mark.parametrize("share", ["0.0", "-0.5", "1.01", "1e-5", "nan", '"half"', "true"])
def test_what_is_no_share_is_refused_in_one_line(share: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation\.update_share") as refused:
        read_scenario(str(tiny_file), [f"federation.update_share={share}"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rank", ["0", "-1", "1025", "2.5", "nan", '"half"', "true"])
def test_what_is_no_rank_is_refused_in_one_line(rank: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation\.update_rank") as refused:
        read_scenario(str(tiny_file), [f"federation.update_rank={rank}"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("said", ["update_share=0.5", "update_rank=2"])
def test_an_audit_asks_for_whole_updates(said: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=f"{said.partition('=')[0]} sends a part of each update, and an audit"):
        read_scenario(str(tiny_file), [f"federation.{said}", "audit.count=20"])


def test_a_share_of_a_low_rank_is_refused(tiny_file: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"update_share = 0\.5 and update_rank = 2 are two ways .* leave one"
    ) as refused:
        read_scenario(str(tiny_file), ["federation.update_share=0.5", "federation.update_rank=2"])
    assert "\n" not in str(refused.value)
