"""What a server opened is written whole, read back as it was, and told by its hash; whatever is no mean is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedmodel.canaries.means import drop_mean, keep_mean, means_digest, read_means
from fedmodel.errors import LedgerTampered

MEANS = {1: np.arange(3, dtype=np.float32), 100_000: np.ones(3, np.float32), 12: np.zeros(3, np.float32)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, mean_W in MEANS.items():
        keep_mean(tmp_path, number, mean_W)
    return tmp_path


def test_means_come_back_by_round_and_a_round_done_again_replaces_its_own(home: Path) -> None:
    found = read_means(home)
    assert list(found) == [1, 12, 100_000]
    assert all(np.array_equal(found[number], mean_W) for number, mean_W in MEANS.items())
    keep_mean(home, 12, np.full(3, 2, np.float32))
    assert read_means(home)[12].tolist() == [2, 2, 2]
    assert sorted(path.name for path in (home / "audit").iterdir()) == [
        *("mean-00001.npy", "mean-00012.npy", "mean-100000.npy")
    ]


def test_a_round_that_failed_when_it_was_done_again_has_none(home: Path, tmp_path: Path) -> None:
    before = means_digest(home)
    drop_mean(home, 13)
    drop_mean(tmp_path / "another", 1)  # which kept none
    assert means_digest(home) == before
    drop_mean(home, 100_000)
    assert list(read_means(home)) == [1, 12]


def test_a_run_that_kept_none_has_none_and_no_hash(tmp_path: Path) -> None:
    assert read_means(tmp_path) == {}
    assert means_digest(tmp_path) is None


def test_the_hash_is_of_every_byte_and_of_the_round(home: Path) -> None:
    before = means_digest(home)
    assert before is not None
    assert len(before) == 32
    path = home / "audit" / "mean-00012.npy"
    held = path.read_bytes()
    path.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    assert means_digest(home) != before
    path.write_bytes(held)
    assert means_digest(home) == before
    path.rename(home / "audit" / "mean-00013.npy")
    assert means_digest(home) != before


@pytest.mark.parametrize("harm", [b"", b"no array", "float64", "matrix", "objects"])
def test_what_is_no_mean_is_refused(home: Path, harm: bytes | str) -> None:
    path = home / "audit" / "mean-00012.npy"
    if isinstance(harm, bytes):
        path.write_bytes(harm)
    else:
        made = {"float64": np.zeros(3), "matrix": np.zeros((3, 1), np.float32), "objects": np.array([{}, None])}
        np.save(path, made[harm], allow_pickle=harm == "objects")
    with pytest.raises(LedgerTampered, match="is not as it was written"):
        read_means(home)
