"""A record's copy hangs on that record and on draws of its own alone, and one record stays one record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from clients.silo import Silo
from fedmodel.config import Scenario, read_scenario, scenario_to_toml
from fedmodel.data import Records, silo_records
from fedmodel.errors import ConfigError
from fedmodel.kinds.augment import AugmentConfig
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning import augmenting as module
from fedmodel.learning.augmenting import augmenting, copies
from fedmodel.learning.gradients.hooks import PerSample
from fedmodel.learning.jobs._pipelines import gradients_of, key_of
from fedmodel.learning.models import build_model
from fedmodel.learning.vectors import flatten
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.noise import OsNoise, SeededNoise
from fedmodel.wire import TrainRequest
from scenarios.simulation.simulate import check_scenario
from tests.fakes import checked, trained

CPU = torch.device("cpu")
IMAGES = DataShape((2, 5, 6), 3)
EACH = {
    "flip": AugmentConfig(flip="both"),
    "crop": AugmentConfig(crop=2),
    "rotate": AugmentConfig(rotate=30.0),
    "noise": AugmentConfig(noise=0.5),
    "all": AugmentConfig(flip="both", crop=2, rotate=30.0, noise=0.5),
}
SERIES = AugmentConfig(shift=3)


class ByRow(OsNoise):
    """Draws that repeat themselves: of one call the first so many are the same, however many are asked for."""

    def __init__(self) -> None:
        self._calls = 0

    def uniform(self, size: int, device: torch.device) -> Tensor:
        self._calls += 1
        return torch.from_numpy(np.random.default_rng(self._calls).random(size)).to(device)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 2, 5, 6)).astype(np.float32))


def fixed(value: float) -> OsNoise:
    class Fixed(OsNoise):
        def uniform(self, size: int, device: torch.device) -> Tensor:
            return torch.full((size,), value, dtype=torch.float64, device=device)

    return Fixed()


@pytest.mark.parametrize("config", EACH.values(), ids=EACH.keys())
@pytest.mark.parametrize("filler", [0.0, 1e30, torch.nan, torch.inf])
def test_a_copy_is_the_same_to_the_bit_whatever_its_companions_and_their_number(
    config: AugmentConfig, filler: float
) -> None:
    x_R = images(9)
    own = copies(config, x_R, ByRow())
    others = x_R.clone()
    others[1:5] = filler
    beside = copies(config, others, ByRow())
    assert torch.equal(beside[:1], own[:1])
    assert torch.equal(beside[5:], own[5:])
    assert torch.equal(copies(config, x_R[:4], ByRow()), own[:4])
    assert own.shape == x_R.shape
    assert own.dtype == x_R.dtype
    # The same draws at another place: what a record's copy is hangs on them, and on no place.
    turned = copies(config, x_R.flip(0), _turned(9))
    assert torch.equal(turned.flip(0), own)


def _turned(rows: int) -> OsNoise:
    class Turned(ByRow):
        def uniform(self, size: int, device: torch.device) -> Tensor:
            return super().uniform(size, device).view(rows, -1).flip(0).reshape(-1)

    return Turned()


@pytest.mark.parametrize("config", [*EACH.values(), SERIES], ids=[*EACH, "shift"])
def test_every_copy_differs_from_the_others_and_draws_come_from_the_silos_source_alone(config: AugmentConfig) -> None:
    x_1 = images(1)[0, 0] if config == SERIES else images(1)[0]
    same = x_1.expand(200, *x_1.shape)
    torch.manual_seed(0)
    one = copies(config, same, OsNoise())
    torch.manual_seed(0)
    other = copies(config, same, OsNoise())
    assert not torch.equal(one, other)
    assert len(torch.unique(one.flatten(1), dim=0)) > 3
    assert torch.equal(copies(config, same, SeededNoise(4)), copies(config, same, SeededNoise(4)))
    assert not torch.equal(copies(config, same, SeededNoise(4)), copies(config, same, SeededNoise(5)))


def test_flips_swap_half_of_the_copies_each_way_by_itself() -> None:
    x_R = images(1).expand(4000, 2, 5, 6)
    ways = {
        "as it is": x_R[0],
        "across": x_R[0].flip(-1),
        "down": x_R[0].flip(-2),
        "both": x_R[0].flip(-1, -2),
    }
    found = copies(AugmentConfig(flip="both"), x_R, SeededNoise(1))
    counts = {name: int((found == way).flatten(1).all(dim=1).sum()) for name, way in ways.items()}
    assert sum(counts.values()) == 4000
    assert all(abs(count - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5 for count in counts.values())
    across = copies(AugmentConfig(flip="horizontal"), x_R, SeededNoise(1))
    assert {tuple(one.flatten().tolist()) for one in across} == {
        tuple(ways[name].flatten().tolist()) for name in ("as it is", "across")
    }


def test_a_crop_moves_an_image_and_fills_with_its_edge() -> None:
    x_R = images(1)
    moved = copies(AugmentConfig(crop=2), x_R, fixed(0.9999))  # the most, both ways
    rows, columns = torch.tensor([2, 3, 4, 4, 4]), torch.tensor([2, 3, 4, 5, 5, 5])
    assert torch.equal(moved, x_R[:, :, rows][:, :, :, columns])
    assert torch.equal(copies(AugmentConfig(crop=2), x_R, fixed(0.5)), x_R)
    seen = {
        tuple(one.flatten().tolist())
        for one in copies(AugmentConfig(crop=2), x_R.expand(2000, -1, -1, -1), SeededNoise(3))
    }
    assert len(seen) == 25


def test_a_turn_by_nothing_changes_nothing_and_by_a_right_angle_turns_a_square() -> None:
    x_R = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 1, 6, 6)).astype(np.float32))
    assert torch.equal(copies(AugmentConfig(rotate=90.0), x_R, fixed(0.5)), x_R)
    turned = copies(AugmentConfig(rotate=90.0), x_R, fixed(1.0 - 2**-53))
    assert torch.allclose(turned, torch.rot90(x_R, 1, (-2, -1)), atol=1e-5) or torch.allclose(
        turned, torch.rot90(x_R, -1, (-2, -1)), atol=1e-5
    )


def test_a_shift_moves_a_series_of_all_channels_alike() -> None:
    x_R = torch.arange(12.0).view(1, 2, 6)
    assert copies(SERIES, x_R, fixed(0.9999)).tolist() == [[[0, 0, 0, 0, 1, 2], [6, 6, 6, 6, 7, 8]]]
    assert copies(SERIES, x_R, fixed(0.0)).tolist() == [[[3, 4, 5, 5, 5, 5], [9, 10, 11, 11, 11, 11]]]
    assert copies(SERIES, x_R[:, 0], fixed(0.0)).tolist() == [[3, 4, 5, 5, 5, 5]]


def test_noise_has_the_standard_deviation_that_is_declared_and_is_never_infinite() -> None:
    x_R = torch.ones(1000, 100)
    added = copies(AugmentConfig(noise=0.25), x_R, SeededNoise(1)) - x_R
    assert abs(float(added.mean())) < 5 * 0.25 / 1e5**0.5
    assert abs(float(added.std()) / 0.25 - 1) < 5 / (2e5) ** 0.5
    for end in (0.0, 1 - 2**-53):
        assert copies(AugmentConfig(noise=0.25), x_R[:1], fixed(end)).isfinite().all()


def gradients() -> PerSample:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(60, 8), nn.Tanh(), nn.Linear(8, 3))
    losses = nn.CrossEntropyLoss(reduction="none")
    return PerSample(network, losses, max_grad_norm=0.5, unit=2.0**-30, rows=4)


@given(
    count=st.integers(1, 12),
    scale=st.sampled_from([1.0, 100.0, 1e20]),
    views=st.sampled_from([1, 4]),
    seed=st.integers(0, 1000),
)
def test_a_record_moves_the_clipped_sum_by_the_clip_at_most_for_fixed_draws_of_the_others(
    count: int, scale: float, views: int, seed: int
) -> None:
    """With all ways at once; lots of several physical batches, an outlier, and draws for each place of each batch."""
    found = gradients()
    found.views = views
    config = EACH["all"].model_copy(update={"views": views})
    x_N, y_N = images(count, seed), torch.from_numpy(np.random.default_rng(seed).integers(0, 3, count))
    x_N[-1] *= scale

    def sum_of(lot: range) -> Tensor:
        augment = augmenting(config, IMAGES, ByRow())
        return torch.cat([one.reshape(-1) for one in found.of(x_N, y_N, np.arange(len(lot)), augment)])

    with_it, without = sum_of(range(count)), sum_of(range(count - 1))
    assert float((with_it - without).norm()) <= 0.5


@pytest.mark.parametrize("views", [1, 3])
def test_training_augments_each_lot_and_neither_what_measures_nor_what_is_without_it_does(
    views: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = f"data.augment={{crop=1, rotate=10.0, noise=0.1, views={views}}}"
    settings = ["seed=3", 'model={kind="mlp"}', declared]
    scenario = read_scenario("digits", settings)
    augmented: list[int] = []
    lots: list[int] = []
    real, real_lot = module.copies, SeededNoise.lot

    def watched(config: AugmentConfig, x: Tensor, noise: SeededNoise) -> Tensor:
        assert isinstance(noise, SeededNoise)
        augmented.append(len(x))
        return real(config, x, noise)

    def lot(noise: SeededNoise, records: int, sample_rate: float) -> NDArray[np.intp]:
        drawn = real_lot(noise, records, sample_rate)
        lots.append(len(drawn))
        return drawn

    monkeypatch.setattr(module, "copies", watched)
    monkeypatch.setattr(SeededNoise, "lot", lot)
    event = DpSgdEvent(1.0, 1.0, 0.3, 3, noise_source="seeded-unsafe", denominator=40)

    def update(of: Scenario) -> NDArray[np.float32]:
        acting = Silo("c0", of, "1", "cpu", tmp_path, tmp_path)
        request, later = (TrainRequest(1, flatten(build_model(of.model, of.data.shape, seed))) for seed in (1, 2))
        before = sum(augmented)
        checked(acting, event, request)
        assert sum(augmented) == before
        found = trained(acting, event, request)
        checked(acting, event, later)  # by the pipeline that has trained
        return found

    with_it = update(scenario)
    assert sum(augmented) == views * sum(lots) > 0
    without = update(scenario.model_copy(update={"data": scenario.data.model_copy(update={"augment": None})}))
    assert sum(augmented) == views * sum(lots[: len(lots) // 2])
    assert lots[: len(lots) // 2] == lots[len(lots) // 2 :]  # drawn as without it
    assert not np.array_equal(with_it, without)


def test_views_lie_side_by_side_and_each_has_draws_of_its_own() -> None:
    shape = DataShape((), 2, inputs={"image": ArrayShape((1, 4, 4)), "tokens": ArrayShape((3,), 9)})
    augment = augmenting(AugmentConfig(array="image", noise=0.01, views=3), shape, SeededNoise(1))
    assert augment is not None
    tokens = torch.arange(6).view(2, 3)
    found = augment({"image": torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 4, 4), "tokens": tokens})
    assert isinstance(found, dict)
    assert found["image"].mean(dim=(1, 2, 3)).round().tolist() == [0, 0, 0, 1, 1, 1]
    assert len(torch.unique(found["image"].flatten(1), dim=0)) == 6
    assert torch.equal(found["tokens"], tokens.repeat_interleave(3, dim=0))


def test_views_share_the_room_of_a_physical_batch() -> None:
    rows = []
    for views in (1, 3, 16):
        settings = ["seed=3", f"data.augment={{crop=1, views={views}}}", "training.max_physical_batch=64"]
        scenario = read_scenario("digits", settings)
        event = DpSgdEvent(1.0, 1.0, 0.3, 3, denominator=60)
        made = gradients_of(*key_of(scenario, event), CPU, 1.0)
        rows.append((made.rows, made.views))
    assert rows == [(64, 1), (16, 3), (4, 16)]


def test_the_array_that_is_named_is_changed_and_what_tells_canaries_is_not() -> None:
    shape = DataShape((), 2, inputs={"image": ArrayShape((1, 4, 4)), "tokens": ArrayShape((3,), 9)})
    config = AugmentConfig(array="image", noise=1.0)
    augment = augmenting(config, shape, SeededNoise(1))
    assert augment is not None
    x_R = {"image": torch.zeros(3, 1, 4, 4), "tokens": torch.ones(3, 3, dtype=torch.int64)}
    found = augment(x_R)
    assert isinstance(found, dict)
    assert torch.equal(found["tokens"], x_R["tokens"])
    assert bool(found["image"].ne(0).any(dim=(1, 2, 3)).all())
    probed = augmenting(EACH["noise"], IMAGES, SeededNoise(1))
    assert probed is not None
    marked = probed({"features": images(3), "canary": torch.arange(3)})
    assert isinstance(marked, dict)
    assert torch.equal(marked["canary"], torch.arange(3))
    assert not torch.equal(marked["features"], images(3))


@pytest.mark.parametrize(
    ("config", "shape", "said"),
    [
        ({"flip": "both"}, DataShape((30,), 2), "data.augment.flip is of images, of shape [channels, height, width]"),
        ({"shift": 2}, DataShape((1, 8, 8), 2), "data.augment.shift is of series"),
        (
            {"crop": 8},
            DataShape((1, 8, 9), 2),
            "crop = 8 could move all of a record of shape [1, 8, 9] out",
        ),
        ({"shift": 30}, DataShape((30,), 2), "data.augment.shift = 30 could move all of a record"),
        ({"noise": 1.0, "array": "x"}, DataShape((30,), 2), "names one array of several, and records are one"),
        ({"noise": 1.0}, DataShape((), 2, inputs={"a": ArrayShape((3,))}), "array is to be one of a, found None"),
        ({"noise": 1.0}, DataShape((30,), 2, below=9), "changes real numbers, and these records are whole ones"),
    ],
)
def test_what_does_not_go_with_the_records_is_refused_in_one_line(
    config: dict[str, Any], shape: DataShape, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as refused:
        augmenting(AugmentConfig(**config), shape, OsNoise())
    assert "\n" not in str(refused.value)


def test_a_scenario_is_refused_before_it_runs_and_says_nothing_where_nothing_is_said() -> None:
    plain = read_scenario("digits", ["seed=1"])
    assert "augment" not in scenario_to_toml(plain)
    assert "augment" not in plain.model_dump_json()
    with pytest.raises(ConfigError, match=r"data\.augment: says none of flip, crop, rotate, shift, noise"):
        read_scenario("digits", ["data.augment={crop=0}"])
    with pytest.raises(ConfigError, match=r"data\.augment\.flp is not a known key; did you mean 'flip'"):
        read_scenario("digits", ['data.augment={flp="both"}'])
    with pytest.raises(ConfigError, match=r"data\.augment\.shift is of series"):
        check_scenario(read_scenario("digits", ["data.augment={shift=2}"]))
    said = read_scenario("digits", ['data.augment={flip="both", crop=1}', "seed=1"])
    assert "crop = 1" in scenario_to_toml(said)
    assert said.data.augment is not None
    assert said.data.augment.described.endswith("differs by chance from its record (flip = both, crop = 1)")
    assert isinstance(silo_records(said, "c0"), Records)
    assert "views" not in said.model_dump_json()
    several = read_scenario("digits", ["data.augment={crop=1, views=4}", "seed=1"])
    assert several.data.augment is not None
    assert several.data.augment.described.endswith("(crop = 1), 4 of a record at a time, which count as one")
    for settings, refused in (("views=4", "says none of flip"), ("crop=1, views=0", "views = 0 is not accepted")):
        with pytest.raises(ConfigError, match=refused):
            read_scenario("digits", [f"data.augment={{{settings}}}"])
