"""The hash that says which code ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmodel import packages


def test_the_code_hash_changes_with_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert packages.code_hash() == packages.code_hash()
    package = tmp_path / "otherpackage"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(packages, "PACKAGES", ("otherpackage",))
    first = packages.code_hash()
    (package / "__init__.py").write_text("x = 2\n")
    assert packages.code_hash() != first
