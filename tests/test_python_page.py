"""docs/python.md runs, block after block, as a reader would paste it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fedmodel.kinds import own_code
from tests.bases import make_base

ROOT = Path(__file__).parents[1]


def test_the_page_on_python_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 6
    make_base(tmp_path / "base", "encoder")
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for block in blocks:
            exec(compile(block, "docs/python.md", "exec", dont_inherit=True), names)  # noqa: S102 - our own page
    finally:
        own_code.close()
    run, second = names["run"], names["second"]
    assert run.epsilon <= 8.0
    assert names["based"].summary["parameters"] == 2 * 128 + 33  # two adapters, and a head
    assert run.figures["accuracy"] > 0.4
    assert (tmp_path / "kept" / "report.html").is_file()
    assert second.scenario.hash == names["changed"].hash
