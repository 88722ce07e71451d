"""What is skipped for want of a program, or of another machine, is said at the end, with what brings it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tools

ROOT = Path(__file__).parents[1]
ASKS = """
import pytest
from tests import tools

@tools.needed("age")
def test_marked() -> None: ...

@pytest.fixture
def server() -> object:
    return tools.require("faketime")

def test_in_a_fixture(server: object) -> None: ...
"""
ON_A_GPU = """
@pytest.mark.gpu
def test_on_a_gpu() -> None: ...
"""


def run_without(folder: Path, *words: str, asks: str = ASKS) -> str:
    """Run the tests of `ASKS` as a machine would that has the programs of this folder alone, and no GPU."""
    path = folder / "test_asks.py"  # not beside the other tests, which others read meanwhile
    path.write_text(asks, encoding="utf-8")
    as_here = ("-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(path), *as_here, *words],
        cwd=ROOT,
        env={**os.environ, "PATH": str(folder), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_last_line_says_what_went_untested_and_what_brings_it(tmp_path: Path) -> None:
    for words in ((), ("-q",), ("--numprocesses", "1")):
        last = run_without(tmp_path, *words).splitlines()[-1]
        assert last.startswith("NOT TESTED, for want of age, faketime: the ordinary age tool opens models")
        assert last.endswith("`apt-get install age faketime` brings them all")


def test_want_of_a_gpu_is_said_beside_that_of_programs(tmp_path: Path) -> None:
    last = run_without(tmp_path, asks=ASKS + ON_A_GPU).splitlines()[-1]
    assert last.startswith("NOT TESTED, for want of age, faketime: ")
    assert "`apt-get install age faketime` brings them all. And for want of a CUDA device: on a GPU, a record" in last
    assert last.endswith("a machine with one and a torch that is built for it shows it")


def test_what_is_missing_is_known() -> None:
    assert tools.untested(["counts the kills of the whole module", tools.absent("root")]).startswith(
        "NOT TESTED, for want of root: a run on a disk that fills"
    )
    for name in (*tools.TOOLS, *tools.MACHINES):
        assert f"for want of {name}: " in tools.untested([tools.absent(name)])
    with pytest.raises(KeyError):
        tools.absent("a coffee machine")


def test_nothing_is_said_where_all_is_there(tmp_path: Path) -> None:
    for name in ("age", "faketime"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert "NOT TESTED" not in run_without(tmp_path)


def test_no_test_looks_for_a_program_by_another_way() -> None:
    """So that none goes missing without a word; CI installs each of them."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.name in ("tools.py", "test_tools.py"):
            continue
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"""shutil\.which\(["']([\w-]+)""", text):
            assert name not in tools.TOOLS, f"{path} looks for {name} itself"
        for name in set(re.findall(r"""(?:run|Popen)\(\s*\[\s*["']([\w-]+)["']""", text)) & tools.TOOLS.keys():
            asked = re.search(rf"""tools\.(needed|require)\("{name}"\)""", text)
            assert asked, f"{path} starts {name} without asking whether it is there"
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert {tool.package for tool in tools.TOOLS.values()} <= set(re.findall(r"[\w-]+", script))
    assert shutil.which("sh")
