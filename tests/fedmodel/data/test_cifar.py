"""Files in the form of CIFAR's binary version, made up: read as images, dealt, and refused by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmodel.config import Scenario, TableSource
from fedmodel.data import cifar, held_out_records, silo_records
from fedmodel.data.files import files_records, may_hold_records
from fedmodel.data.files_handed_out import held_out_files
from fedmodel.errors import DataError, FedmodelError
from fedmodel.kinds.sources.cifar import CifarConfig
from tests.fedmodel.data.test_folders import SILOS, back, scenario_of

RNG = np.random.default_rng(5)


def write(folder: Path, name: str, count: int, label_bytes: int = 1) -> tuple[Any, Any]:
    """Write a file as CIFAR's are: bytes of labels, of which the last counts, then red, green and blue planes."""
    folder.mkdir(exist_ok=True)
    pixels, y_N = RNG.integers(0, 256, (count, 3, 6, 4), dtype=np.uint8), np.arange(count) % 2
    rows = [bytes([9] * (label_bytes - 1) + [int(y)]) + one.tobytes() for one, y in zip(pixels, y_N, strict=True)]
    (folder / name).write_bytes(b"".join(rows))
    return pixels, y_N


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_batches_are_dealt_and_a_test_batch_is_the_servers(label_bytes: int, tiny: Scenario, tmp_path: Path) -> None:
    batches = [write(tmp_path, f"data_batch_{place}.bin", 30, label_bytes) for place in (1, 2)]
    x_test, y_test = write(tmp_path, "test_batch.bin", 10, label_bytes)
    (tmp_path / "batches.meta.txt").write_text("clear\nsuspect\n")
    scenario = scenario_of(tiny, "cifar", tmp_path, size=[6, 4], label_bytes=label_bytes)
    assert scenario.data.shape.features == (3, 6, 4)
    parts = [silo_records(scenario, silo) for silo in SILOS]
    found = {back(one): label for part in parts for one, label in zip(part.x_NF, part.y_N, strict=True)}
    told = [pair for batch in batches for pair in zip(*batch, strict=True)]
    assert found == {np.moveaxis(one, 0, 2).tobytes(): label for one, label in told}
    held = held_out_records(scenario)
    assert [back(one) for one in held.x_NF] == [np.moveaxis(one, 0, 2).tobytes() for one in x_test]
    assert held.y_N.tolist() == y_test.tolist()


def test_what_a_silo_holds_out_and_what_it_trains_on_are_apart_and_all_it_has(tiny: Scenario, tmp_path: Path) -> None:
    pixels, y_N = write(tmp_path / "own", "batch.bin", 40)
    config = scenario_of(tiny, "cifar", tmp_path, size=[6, 4]).data
    assert isinstance(config, CifarConfig)
    source = TableSource(files=str(tmp_path / "own"), held_out=0.3)
    train = files_records(config, source)
    ((name, data),) = held_out_files(config, source, None)
    (tmp_path / name).write_bytes(data)
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + 72)
    apart = {(bytes(row[1:]), int(row[0])) for row in rows}
    kept = {
        (np.moveaxis(np.frombuffer(back(one), np.uint8).reshape(6, 4, 3), 2, 0).tobytes(), int(label))
        for one, label in zip(train.x_NF, train.y_N, strict=True)
    }
    assert not apart & kept
    assert apart | kept == {(one.tobytes(), int(label)) for one, label in zip(pixels, y_N, strict=True)}
    assert 4 < len(apart) < 20
    assert may_hold_records(tmp_path / name)


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (lambda data: data[:-1], "bytes, which is no whole number of records of 73, a label of 1 and 6x4 pixels"),
        (lambda _: b"", "has 0 bytes, which is no whole number of records of 73"),
        (lambda data: bytes([2]) + data[1:], "record 0: its label is none from 0 to 1, and data.labels names so many"),
        (
            None,
            r"has no file that ends in \.bin \(found: batch\.dat\); those of CIFAR's binary version are read, unpack",
        ),
    ],
)
def test_a_file_that_breaks_a_rule_is_named(spoilt: Any, why: str, tiny: Scenario, tmp_path: Path) -> None:
    for party in SILOS:
        write(tmp_path / party, "batch.bin", 12)
    path = tmp_path / "south" / "batch.bin"
    path.rename(path.with_suffix(".dat"))
    if spoilt is not None:
        path.write_bytes(spoilt(path.with_suffix(".dat").read_bytes()))
    with pytest.raises(DataError, match=why):
        silo_records(scenario_of(tiny, "cifar", tmp_path, size=[6, 4], held_out=0.25), "south")


LOOKED_FOR = "neither held-out/ nor beside others a .bin whose name begins with test, as test_batch.bin"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "has no file that ends in .bin (found: nothing); those of CIFAR's binary version are read, unpacked"),
        (
            ["data_batch_1.bin.gz", "test_batch.bin.gz"],
            "has no file that ends in .bin (found: data_batch_1.bin.gz, test_batch.bin.gz); those of CIFAR's binary"
            " version are read, unpacked",
        ),
        (
            ["data_batch_1.bin", "test_batch.bin.gz", ".DS_Store"],
            f"has no part for the server, {LOOKED_FOR} (found: data_batch_1.bin, test_batch.bin.gz); give held-out/ or"
            " data.held_out, and not both",
        ),
        (
            [f"data_batch_{place}.bin" for place in range(1, 8)],
            f"has no part for the server, {LOOKED_FOR} (found: "
            + "".join(f"data_batch_{place}.bin, " for place in range(1, 6))
            + "2 more); give held-out/ or data.held_out, and not both",
        ),
        (
            ["test_batch.bin"],
            f"has no part for the server, {LOOKED_FOR} (found: test_batch.bin); give held-out/ or data.held_out, and"
            " not both",
        ),
    ],
)
@pytest.mark.parametrize("layout", [".", "train"])
def test_what_is_looked_for_and_what_lies_there_is_said_where_nothing_is_the_servers(
    layout: str, names: list[str], said: str, tiny: Scenario, tmp_path: Path
) -> None:
    (folder := tmp_path / "files" / layout).mkdir(parents=True)
    for name in names:
        write(folder, name, 30)
    with pytest.raises(FedmodelError) as refused:
        held_out_records(scenario_of(tiny, "cifar", tmp_path / "files", size=[6, 4]))
    where = tmp_path / "files" if said.startswith("has no part") else folder
    assert str(refused.value) == f"{where}: {said}"


def test_a_file_too_large_for_any_memory_is_refused_by_its_size(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "batch.bin", 12)
    monkeypatch.setattr(cifar, "_MOST_BYTES", 12 * 73 - 1)
    with pytest.raises(DataError, match=r"batch.bin: has more than 875 bytes, and is not read"):
        silo_records(scenario_of(tiny, "cifar", tmp_path, size=[6, 4], held_out=0.25), "south")
