"""The verifier in one file: the same bytes each time, and nothing from outside but the libraries that it names."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scenarios.report import build
from scenarios.report.verifier import zipped
from tests.runs import copied, masked
from tests.scenarios.report.test_build import page

__all__ = ["masked"]

# Runs the file as Python does, where nothing can be found but Python's own modules, these, and what they need.
ALONE = """
import os, runpy, sys
sys.path = [place for place in sys.path if not os.path.isdir(os.path.join(place, "fedmodel"))]
allowed = {*sys.stdlib_module_names, *sys.argv[1].split(","), "absl", "attr", "attrs", "_cffi_backend", "__main__"}
class Alone:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first not in allowed | {"fedmodel", "scenarios"} and not first.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"{name} is not there", name=name)
sys.meta_path.insert(0, Alone())
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_file_is_the_same_each_time_and_holds_no_more_than_it_imports() -> None:
    made = zipped.verifier()
    assert made == zipped.verifier()
    assert made.startswith(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert {"__main__.py", "fedmodel/ledger/verifying.py", "scenarios/report/verifier/program.py"} <= {*names}
    assert not [name for name in names if name.startswith(("clients/", "server/", "fedmodel/config", "tests/"))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    zipped.write_verifier(tmp_path / "verify.pyz")
    return tmp_path / "verify.pyz"


def alone(file: Path, folder: Path, libraries: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the file where only some libraries can be imported, and nothing of this distribution but from the file."""
    command = [sys.executable, "-I", "-c", ALONE, libraries, str(file), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def test_it_verifies_a_run_without_torch_flower_opacus_or_pydantic(file: Path, masked: Path, tmp_path: Path) -> None:
    run = copied(masked, tmp_path / "run")
    build.build(run, page)
    authority = (run / "server" / "administrator.pub").read_text(encoding="ascii").strip()
    done = alone(file, tmp_path, ",".join(zipped.LIBRARIES), "run", "--authority", authority, "--json")
    assert (done.returncode, done.stderr) == (6, "")
    answer = json.loads(done.stdout)
    assert answer["valid"]
    assert [one for one in answer["gaps"] if "silo" in one] == []
    (run / "report.html").write_text("another", encoding="utf-8")
    done = alone(file, tmp_path, ",".join(zipped.LIBRARIES), "run")
    assert done.returncode == 4
    assert done.stderr.startswith("error: report.html: is a changed page: ")


def test_a_library_that_is_missing_is_named(file: Path, tmp_path: Path) -> None:
    done = alone(file, tmp_path, "numpy,scipy,dp_accounting", "run")
    assert done.returncode == 1
    assert "cryptography" in done.stderr
    assert "pip install cryptography dp-accounting numpy scipy" in done.stderr
