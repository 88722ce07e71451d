"""The scenarios of docs/fields/vision.md run as they stand there, on made-up files of the forms that they name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fedmodel as fm
from fedmodel.data import cifar
from fedmodel.kinds.standardised import StandardisedConv2d

_PAGE = Path(__file__).parents[2] / "docs" / "fields" / "vision.md"
RNG = np.random.default_rng(6)


def written(name: str, folder: Path) -> str:
    """Write the page's scenario of a name as a file, and return its path."""
    blocks = re.findall(r"```toml\n(.*?)```", _PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (text,) = [block for block in blocks if block.startswith(f'name = "{name}"\n')]
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def scans(folder: Path, count: int) -> None:
    """Write grey scans, half of them with a bright spot somewhere, of two sizes."""
    for label in ("clear", "suspect"):
        (folder / label).mkdir(parents=True)
        for place in range(count // 2):
            pixels = RNG.normal(90, 12, (16, 12 if place % 2 else 16))
            if label == "suspect":
                row, column = RNG.integers(3, 9, 2)
                pixels[row : row + 4, column : column + 4] += 110
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / label / f"{place}.png")


def test_scans_in_folders_of_three_hospitals_are_learnt_from_copies_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for party in ("north", "south", "west", "held-out"):
        scans(tmp_path / "scans" / party, 40)
    small = ["data.size=[16,16]", "privacy.expected_batch_size=40", "rounds=6", "privacy.noise=seeded-unsafe",
             "privacy.epsilon=100.0", "data.augment.crop=1"]  # fmt: skip
    run = fm.simulate(written("scans", tmp_path), small, out=tmp_path / "run", progress=False)
    assert run.scenario.data.augment is not None
    assert run.figures["accuracy"] > 0.8


def test_a_resnet_learns_of_files_in_the_form_of_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, count in (("data_batch_1.bin", 60), ("data_batch_2.bin", 60), ("test_batch.bin", 40)):
        y_N = np.arange(count) % 10
        pixels = RNG.normal(100, 15, (count, 3, 32, 32))
        pixels += 60 * ((y_N[:, None] >> np.arange(3)) & 1)[:, :, None, None]  # a label's bits are colours
        (folder / name).write_bytes(cifar.written(np.clip(pixels, 0, 255).astype(np.uint8), y_N, 1))
    small = ["model.channels=[8]", "model.blocks=[1]", "model.groups=2", "federation.silos=['c0','c1']", "rounds=2",
             "privacy.noise=seeded-unsafe", "privacy.epsilon=100.0", "privacy.sample_rate=0.5",
             "privacy.expected_batch_size=30", "data.augment.views=2", "federation.min_silos=2"]  # fmt: skip
    run = fm.simulate(written("objects", tmp_path), small, out=tmp_path / "run", progress=False)
    assert run.figures["loss"] < 2.4
    assert any(type(layer) is StandardisedConv2d for layer in run.model.modules())
