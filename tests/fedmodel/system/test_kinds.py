from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedmodel.system.kinds import described, kind_names, kinds, not_known


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two kinds, a tool of theirs and a folder, under a name that no other test has: Python keeps what it imported."""
    folder = tmp_path / f"shelf_of_{tmp_path.name}"
    (folder / "inner").mkdir(parents=True)
    for name in ("inner/__init__", "_tool", "soft_edge", "hard", ".#hard", "hard copy"):
        (folder / f"{name}.py").write_text(f"NAME = {name!r}\n")
    (folder / "__init__.py").write_text("from fedmodel.system.kinds import kinds\n\nKINDS = kinds(__name__)\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_a_file_is_a_kind_and_neither_a_tool_nor_a_folder_is(package: str) -> None:
    found = kinds(package)

    assert list(found) == ["hard", "soft-edge"]
    assert found["soft-edge"].NAME == "soft_edge"


def test_names_are_known_without_importing_anything(package: str) -> None:
    assert kind_names(package) == ["hard", "soft-edge"]
    assert package not in sys.modules
    assert kind_names(f"{package}_not") == []


def test_a_package_finds_its_own_kinds_while_it_is_imported(package: str) -> None:
    assert list(__import__(package).KINDS) == ["hard", "soft-edge"]


def test_what_a_kind_says_of_itself_is_read_and_not_run(tmp_path: Path, package: str) -> None:
    said = '"""A soft edge: `1/x`,\nas in\nthe paper.\n\nMore."""\nraise SystemExit("it was run")\n'
    (tmp_path / package / "soft_edge.py").write_text(said)
    (tmp_path / package / "__init__.py").write_text("")
    assert described(package, "soft-edge") == "A soft edge: 1/x, as in the paper."
    for name, why in (("hard", "does not say what it is"), ("_tool", "has no kind"), ("../hard", "has no kind")):
        with pytest.raises(LookupError, match=why):
            described(package, name)


@pytest.mark.parametrize("name", ["os", "..system", "hard.NAME", "_tool", "inner"])
def test_no_other_name_is_a_kind(package: str, name: str) -> None:
    assert name not in kinds(package)
    assert name in not_known("shelf", name, kinds(package))
