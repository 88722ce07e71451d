"""An installed package whose code a scenario may name: which files count, and what no hash would cover is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmodel.errors import ConfigError
from fedmodel.system import packages
from fedmodel.system.distributions import installed, owner, providing
from tests.packaged import FILES, install, on_the_path

LISTED = {"own-package": "1.2"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    install(tmp_path)
    with on_the_path(tmp_path):
        yield tmp_path


def test_all_files_of_a_package_count_but_what_python_kept_compiled(folder: Path) -> None:
    (folder / "ownpackage" / "late.so").write_bytes(b"x")  # by whoever, and whenever
    (folder / "ownpackage" / "__pycache__").mkdir()
    (folder / "ownpackage" / "__pycache__" / "nets.cpython-311.pyc").write_bytes(b"x")
    (folder / "ownpackage" / "data.txt").write_text("x")
    (folder / "other.py").write_text("x = 1\n")
    found = installed("own-package", "1.2")
    assert found.tops == {"ownpackage"}
    assert set(found.files) == {*FILES, "ownpackage/late.so", "ownpackage/data.txt"}
    assert owner("ownpackage.nets", LISTED) == found
    assert owner("numpy.linalg", LISTED) is None
    assert providing("ownpackage.nets") == ("own-package", "1.2")
    assert providing("nosuchmodule") is None


def test_the_code_hash_changes_with_each_byte_of_a_package_and_is_what_it_was_without_one(folder: Path) -> None:
    bare = packages.code_hash()
    assert packages.code_hash({}) == bare
    with_it = packages.code_hash(LISTED)
    assert with_it != bare
    for name in FILES:
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before + b"\n")
        assert packages.code_hash(LISTED) != with_it
        (folder / name).write_bytes(before)
    assert packages.code_hash(LISTED) == with_it
    (folder / "ownpackage" / "more.py").write_text("")
    assert packages.code_hash(LISTED) != with_it
    assert packages.code_hash() == bare
    (folder / "ownpackage" / "weights.bin").write_bytes(b"first")
    weighed = packages.code_hash(LISTED)
    (folder / "ownpackage" / "weights.bin").write_bytes(b"other")
    assert packages.code_hash(LISTED) != weighed
    (folder / "ownpackage" / "weights.bin").unlink()
    assert set(packages.code_files(LISTED)) - set(packages.code_files()) == {
        *(f"own-package==1.2/{name}" for name in FILES),
        "own-package==1.2/ownpackage/more.py",
    }


def test_a_package_of_one_file_is_that_file_and_the_data_that_its_list_names(tmp_path: Path) -> None:
    install(tmp_path, "one-file", "0.1", {"onefile.py": "x = 1\n", "onedata/table.csv": "1"})
    (tmp_path / "onedata" / "of_others.csv").write_text("2")
    with on_the_path(tmp_path):
        assert set(installed("one-file", "0.1").files) == {"onefile.py", "onedata/table.csv"}


@pytest.mark.parametrize(
    ("listed", "rule"),
    [
        (("own-package", "1.3"), r"listed in version 1\.3, and 1\.2 is installed here"),
        (("own-packages", "1.2"), r"^package own-packages 1\.2 is listed, and not installed here"),
    ],
)
def test_another_version_or_none_is_refused(folder: Path, listed: tuple[str, str], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        installed(*listed)
    with pytest.raises(ConfigError, match=rule):
        packages.code_hash(dict([listed]))


def test_what_no_hash_would_cover_is_refused(folder: Path) -> None:
    about = folder / "own_package-1.2.dist-info"
    (about / "direct_url.json").write_text(json.dumps({"url": "file:///x", "dir_info": {"editable": True}}))
    with pytest.raises(ConfigError, match=r"\(editable\), which no hash covers"):
        installed("own-package", "1.2")
    (about / "direct_url.json").unlink()
    record = (about / "RECORD").read_text()
    (about / "RECORD").write_text(record + "own.pth,,\n")
    with pytest.raises(ConfigError, match=r"has own\.pth, which Python runs as it starts"):
        installed("own-package", "1.2")
    (about / "RECORD").unlink()
    with pytest.raises(ConfigError, match=r"left no list of its files \(RECORD\)"):
        installed("own-package", "1.2")
    (about / "RECORD").write_text(record)
    (folder / "ownpackage" / "linked").symlink_to(folder.parent)
    with pytest.raises(ConfigError, match="linked: is a link to a folder, whose code no hash would cover"):
        installed("own-package", "1.2")
    (folder / "ownpackage" / "linked").unlink()
    (folder / "ownpackage").rename(folder / "elsewhere")
    (folder / "ownpackage").symlink_to(folder / "elsewhere")
    with pytest.raises(ConfigError, match="ownpackage: is a link to a folder"):
        installed("own-package", "1.2")


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        ({"spaced/nets.py": ""}, r"has no __init__\.py, so that other folders could add modules to it"),
        ({"json/__init__.py": ""}, "has a module 'json', which is not its own name to give"),
        ({"clients/__init__.py": ""}, "has a module 'clients', which is not its own name to give"),
    ],
)
def test_a_package_that_is_not_all_of_its_name_is_refused(tmp_path: Path, files: dict[str, str], rule: str) -> None:
    install(tmp_path, "odd-one", "1", files)
    with on_the_path(tmp_path), pytest.raises(ConfigError, match=rule):
        installed("odd-one", "1")
