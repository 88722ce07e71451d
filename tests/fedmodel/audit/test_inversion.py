"""What a server sees: the attack works where nothing protects, and stops working by the mechanism that is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmodel import plans
from fedmodel.audit import inversion as audited
from fedmodel.audit.inversion import NOTE, Cohort, Inversion, inversion, invert
from fedmodel.config import Scenario, read_scenario
from fedmodel.data import silo_records
from fedmodel.errors import AggregationRefused, ConfigError
from fedmodel.privacy.noise import OsNoise

pytestmark = pytest.mark.usefixtures("same_bytes")

# Pearson's correlation with a fixed picture, of 64 independent pixels: its standard deviation, and of a median of n.
ERROR = 1 / math.sqrt(63)
OF_MEDIAN = math.sqrt(math.pi / 2)


@pytest.fixture(scope="module")
def digits() -> Scenario:
    return read_scenario("digits")


def correlations(found: Inversion) -> dict[str, float]:
    return {one.name: one.correlation for one in found.pictures}


def medians(found: Inversion) -> dict[str, float]:
    return {one.name: one.median_correlation for one in found.pictures}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_only_the_unprotected_update_shows_the_digit(digits: Scenario, seed: int) -> None:
    found = inversion(digits, seed=seed, others=99)
    one, many = correlations(found), medians(found)
    assert list(one) == ["original", "unprotected", "noised", "masked"]
    assert found.digits == 100
    for figures in (one, many):
        assert figures["original"] == pytest.approx(1)
        assert figures["unprotected"] > 0.999
    for name in ("noised", "masked"):
        assert abs(one[name]) < 5 * ERROR
        assert abs(many[name]) < 5 * ERROR * OF_MEDIAN / math.sqrt(found.digits)


def test_without_the_mask_the_words_show_the_digit(digits: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmodel.secagg.silo.apply_masks", lambda words_P, masks: None)
    found = inversion(digits, others=9)
    assert correlations(found)["masked"] > 0.99
    assert medians(found)["masked"] > 0.99
    assert abs(correlations(found)["noised"]) < 5 * ERROR


def test_without_the_noise_the_clip_hides_nothing(digits: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class NoNoise(OsNoise):
        def gaussian(self, size: int, std: float, device: torch.device) -> torch.Tensor:
            asked.append(std)
            return torch.zeros(size, dtype=torch.float64, device=device)

    monkeypatch.setattr(audited, "OsNoise", NoNoise)
    found = inversion(digits, others=9)
    assert correlations(found)["noised"] > 0.99
    assert abs(correlations(found)["masked"]) < 5 * ERROR
    # And the noise that was left out here was that of the scenario's claim.
    plan = digits.plan("c0")
    assert found.plan == plan
    assert found.noise_multiplier == plans.noise_multiplier(plan)
    assert asked == [found.noise_multiplier * plan.max_grad_norm] * 10
    assert found.claim == "noise multiplier 2.63, that of epsilon 8.0000 at delta 0.001 over 30 steps"


def test_masks_are_real_and_of_one_round() -> None:
    cohort = Cohort(rounds=2)
    update_P = np.linspace(-1, 1, 1_000).astype(np.float32)
    first_P, second_P = cohort.masked(1, update_P), cohort.masked(2, update_P)
    for words_P in (first_P, second_P, first_P - second_P):
        # Uniform words: each of the 32 bits is set half the time.
        bits = np.unpackbits(np.ascontiguousarray(words_P).view(np.uint8))
        assert abs(bits.mean() - 0.5) < 5 * 0.5 / math.sqrt(bits.size)
    with pytest.raises(AggregationRefused):
        cohort.masked(2, update_P)


def test_the_words_are_read_as_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmodel.secagg.silo.apply_masks", lambda words_P, masks: None)
    update_P = np.linspace(-1, 1, 100).astype(np.float32)
    cohort = Cohort(rounds=1)
    assert cohort.read(cohort.masked(1, update_P)) == pytest.approx(update_P, abs=1e-7)


def hand_made() -> NDArray[np.float64]:
    """Two rows of three inputs, then two biases, then a layer that is not looked at."""
    return np.array([2.0, 4.0, 6.0, 9.0, 9.0, 9.0, -2.0, 1.0, 77.0])


@pytest.mark.parametrize("times", [1.0, -0.4, 1e-3])
def test_the_attack_by_hand(times: float) -> None:
    assert invert(times * hand_made(), inputs=3, rows=2).tolist() == pytest.approx([-1.0, -2.0, -3.0])


def test_a_silent_layer_is_not_inverted() -> None:
    with pytest.raises(ConfigError, match="another seed") as refused:
        invert(np.array([1.0, 2.0, 0.0, 3.0]), inputs=2, rows=1)
    assert "\n" not in str(refused.value)


def test_correlation_by_hand() -> None:
    one, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 4.0, 3.0])
    assert audited.correlation(one, other) == pytest.approx(0.6)
    assert audited.correlation(one, -3 * other + 5) == pytest.approx(-0.6)
    assert audited.correlation(one, np.full(4, 7.0)) == 0.0


def test_pictures_are_of_the_digit_that_was_asked_for(digits: Scenario) -> None:
    found = inversion(digits, digit=4, seed=3, others=0)
    original = found.pictures[0]
    assert (found.digit, found.digits, original.caption) == (4, 1, "a handwritten 4")
    fours = [
        (records.x_NF[i, 0].astype(np.float64) + 1) / 2
        for records in (silo_records(digits, silo) for silo in digits.federation.silos)
        for i in np.flatnonzero(records.y_N == 4)
    ]
    assert any(np.allclose(original.image, four) for four in fours)
    assert np.allclose(found.pictures[1].image, original.image, atol=1e-2)
    for one in found.pictures:
        assert one.image.shape == (8, 8)
        assert (one.image.min(), one.image.max()) == (0, 1)


def test_a_seed_decides_digits_and_never_noise(digits: Scenario) -> None:
    first, again, other = (inversion(digits, seed=seed, others=1) for seed in (1, 1, 2))

    def same(one: Inversion, two: Inversion) -> list[bool]:
        return [np.array_equal(p.image, q.image) for p, q in zip(one.pictures, two.pictures, strict=True)]

    assert same(first, again) == [True, True, False, False]
    assert not any(same(first, other))


def test_no_digit_is_attacked_twice(digits: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def images(self: Any, x_F: NDArray[np.float32], label: int) -> list[NDArray[np.float64]]:
        seen.append(x_F.tobytes())
        return [x_F.ravel()] * 3

    monkeypatch.setattr(audited._Attacked, "images", images)
    inversion(digits, others=255)
    assert len(seen) == len(set(seen)) == 256


@pytest.mark.parametrize(
    ("scenario", "options", "words"),
    [
        ("hospitals", {}, "digits"),
        ("digits", {"digit": 10}, "no digit 10"),
        ("digits", {"others": 256}, "255"),
        ("digits", {"others": -1}, "-1"),
    ],
)
def test_what_cannot_be_shown_is_refused(scenario: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        inversion(read_scenario(scenario), **options)
    assert "\n" not in str(refused.value)


def test_it_says_that_it_is_illustrative() -> None:
    assert NOTE.startswith("Illustrative, not a measurement of privacy")
    assert "Illustrative" in str(audited.__doc__)
