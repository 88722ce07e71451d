"""What is available is what the machine has, and no more than a control group leaves."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fedmodel.system import memory


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 1_000),
        ({"memory.max": "max\n", "memory.current": "300\n"}, 1_000),
        ({"memory.max": "900\n", "memory.current": "300\n"}, 600),
        ({"memory.max": "9000\n", "memory.current": "300\n"}, 1_000),
        ({"memory.max": "200\n", "memory.current": "300\n"}, 0),
        ({"memory.max": "900\n"}, 1_000),
    ],
)
def test_a_control_group_leaves_less(
    files: dict[str, str], left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1_000))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert memory.available(tmp_path) == left
