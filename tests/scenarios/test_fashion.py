"""The scenario `fashion` on made-up pictures of the same form: it learns, under privacy too, and is used again."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import fedmodel as fm
from fedmodel.config import read_scenario
from fedmodel.data import idx, silo_records
from fedmodel.data.folders import folder_dealt
from fedmodel.data.scattering import scattered
from fedmodel.errors import DataError
from scenarios.models.predict import scores_of
from scenarios.models.trained import read_model

_LABELS = 10
_LOT = ["privacy.expected_batch_size=20", "data.partition.min_records=20"]
_SMALL = ["encryption={}", "privacy.noise=seeded-unsafe", "rounds=12", *_LOT]


def write(folder: Path, prefix: str, count: int) -> None:
    """Write pictures as Fashion-MNIST's: stripes of a direction for each label, of any phase, under noise."""
    rng = np.random.default_rng(count)
    y_N = (np.arange(count) % _LABELS).astype(np.uint8)
    rows, columns = np.mgrid[:28, :28]
    angle_N = (math.pi * y_N / _LABELS)[:, None, None]
    along = rows * np.cos(angle_N) + columns * np.sin(angle_N)
    waves = np.sin(0.9 * along + rng.uniform(0, 2 * math.pi, (count, 1, 1)))
    pixels = np.clip(128 + 70 * waves + rng.normal(0, 25, waves.shape), 0, 255).astype(np.uint8)
    folder.mkdir(exist_ok=True)
    (folder / f"{prefix}{idx.IMAGES}").write_bytes(idx.written(pixels))
    (folder / f"{prefix}{idx.LABELS}").write_bytes(idx.written(y_N))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    write(made, "train", 600)
    write(made, "t10k", 100)
    return made


def run(folder: Path, out: Path, *settings: str) -> fm.Run:
    said = [*_SMALL, f"data.folder={folder}", *settings]
    return fm.simulate("fashion", said, engine="vectorised", out=out, progress=False)


def test_pictures_are_learnt_from_their_features_under_privacy_and_as_a_user_makes_them(
    folder: Path, tmp_path: Path
) -> None:
    private = run(folder, tmp_path / "private", "privacy.epsilon=50.0")
    assert private.figures["accuracy"] > 0.6
    model = read_model(tmp_path / "private")
    assert model.description.scattering_of == (1, 28, 28)
    assert model.description.decorrelated
    assert model.description.record == (
        "84x7x7 scattering features of a picture of 1x28x28 pixels from -1 to 1, as `scattered(..., decorrelated=True)`"
        " makes them, each bounded to plus and minus 10"
    )
    test = read_scenario(str(tmp_path / "private" / "scenario.toml"), ["data.features=pixels"])
    pixels, _ = folder_dealt(test)
    features = np.clip(scattered(pixels.x_NF, decorrelated=True), -10.0, 10.0)
    found = scores_of(model, features).argmax(axis=1)
    assert (found == pixels.y_N).mean() == pytest.approx(private.figures["accuracy"])


def test_silos_are_unalike_in_labels_and_nearly_alike_in_size(folder: Path) -> None:
    scenario = read_scenario("fashion", [f"data.folder={folder}", *_LOT])
    parts = [silo_records(scenario, silo) for silo in scenario.federation.silos]
    assert sum(map(len, parts)) == 600
    shares = np.array([np.bincount(part.y_N, minlength=_LABELS) for part in parts]) / 60
    assert shares.std() > 0.08  # Dirichlet of .5 over ten: .12
    assert all(abs(part.x_NF).max() <= 10.0 for part in parts)


def test_where_the_pictures_are_not_one_line_says_what_installs_them() -> None:
    scenario = read_scenario("fashion", ["data.folder=/usr/share/datasets/no-such"])
    with pytest.raises(DataError) as refused:
        silo_records(scenario, "s0")
    assert str(refused.value) == (
        "/usr/share/datasets/no-such: is not a folder; Debian has it as a package, apt install dataset-no-such, or"
        " data.folder names another one with the files"
    )
