"""A file of an installed package is read by its hash, and its package's code never runs."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.shipped import Shipped
from fedmodel.kinds.sources import SOURCES

RECORDS = b"age,ill\n40,no\n"
FILE = Shipped("ward", "wards==1.2", "wards", "data/ward.csv", hashlib.sha256(RECORDS).hexdigest())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose code must not run."""
    (tmp_path / "wards" / "data").mkdir(parents=True)
    (tmp_path / "wards" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "wards" / "data" / "ward.csv").write_bytes(RECORDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "wards"


def test_the_file_is_read_and_the_package_is_not_imported(package: Path) -> None:
    assert FILE.read() == RECORDS
    assert "wards" not in sys.modules


def test_a_package_that_is_not_there_is_named_with_what_installs_it() -> None:
    said = (
        "data.source = 'ward' reads a file of the package wards==1.2, which is not installed:"
        " pip install --no-deps wards==1.2"
    )
    for module in ("wards_that_nobody_has", "this"):  # no package, or a module without a folder
        with pytest.raises(ConfigError) as refused:
            replace(FILE, module=module).read()
        assert str(refused.value) == said


@pytest.mark.parametrize("changed", [RECORDS + b"\n", RECORDS[:-2] + b"\x00\n", b""])
def test_another_file_is_refused(package: Path, changed: bytes) -> None:
    (package / "data" / "ward.csv").write_bytes(changed)
    with pytest.raises(DataError, match=r"is not the file that wards==1\.2 ships; install it again: pip install"):
        FILE.read()


def test_a_file_that_is_not_there_is_refused(package: Path) -> None:
    (package / "data" / "ward.csv").unlink()
    with pytest.raises(DataError, match=r"ward\.csv: cannot be read: No such file"):
        FILE.read()


def test_every_package_that_a_source_reads_a_file_of_is_installed_with_the_tests_and_no_other() -> None:
    root = Path(__file__).parents[3]
    lines = (root / "datasets.txt").read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if not line.startswith("#")]
    kinds = [import_module(kind.__module__) for kind in SOURCES.values()]
    files = [one for module in kinds for one in vars(module).values() if isinstance(one, Shipped)]
    assert sorted(asked) == sorted({file.requirement for file in files})
    for file in files:
        assert file.read()
        assert file.source in SOURCES
