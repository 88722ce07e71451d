"""What an audit notes at a silo is whole: a full disk takes away no state that was noted, and adds no half one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fedmodel.canaries.observations import FOLDER, keep_state, known_states

LINEAGE, ANOTHER = b"\x01" * 16, b"\x02" * 16


def test_states_are_kept_by_lineage_and_a_failed_write_changes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FOLDER).mkdir()
    assert known_states(tmp_path, LINEAGE) == []
    for lineage, state in ((LINEAGE, "aa"), (ANOTHER, "bb"), (LINEAGE, "cc")):
        keep_state(tmp_path, lineage, state)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _full)
        with pytest.raises(OSError, match="No space left"):
            keep_state(tmp_path, LINEAGE, "dd")
    assert known_states(tmp_path, LINEAGE) == ["aa", "cc"]
    keep_state(tmp_path, LINEAGE, "ee")
    assert known_states(tmp_path, LINEAGE) == ["aa", "cc", "ee"]
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["states"]


def _full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
