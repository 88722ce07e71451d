from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest

from scenarios.report import page_check


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("scenarios.report.document", "claim.py"),
        ("scenarios.report.page", "render.py"),
        ("scenarios.report.page", "page.html.j2"),
        ("scenarios.report.page", "en.toml"),
        ("scenarios.runs", "words.py"),
    ],
)
def test_whoever_changes_what_renders_a_page_changes_its_hash(
    package: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = resources.files
    copy = tmp_path / "copy"
    shutil.copytree(str(installed(package)), copy)
    monkeypatch.setattr(page_check.resources, "files", lambda one: copy if one == package else installed(one))
    before = page_check.page_hash()
    with (copy / name).open("a") as file:
        file.write("\n")

    assert page_check.page_hash() != before
