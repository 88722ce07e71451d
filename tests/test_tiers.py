"""What starts processes is a tier of its own, that `make test-quick` leaves out and `make test` runs."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.conftest import ROOT, STARTERS, starts_processes


def item(path: str, *fixtures: str) -> Any:
    return SimpleNamespace(path=ROOT / path, fixturenames=[*fixtures])


def test_the_tier_is_the_folder_and_whoever_uses_a_fixture_that_starts_a_program() -> None:
    assert starts_processes(item("tests/integration/test_kills.py"))
    assert starts_processes(item("tests/scenarios/report/test_page.py", "tmp_path", "browser"))
    assert not starts_processes(item("tests/scenarios/report/test_page.py", "tmp_path"))
    assert not starts_processes(SimpleNamespace(path=ROOT / "fedmodel" / "inert.py"))  # type: ignore[arg-type]


def test_every_fixture_that_asks_for_a_program_is_known() -> None:
    """`tests.chromium.start` asks for the browser."""
    found = set()
    for path in sorted((ROOT / "tests").glob("**/test_*.py")):
        if path.name == "test_tools.py" or "integration" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        asks = r"tools\.require\(" + (r"|\bstart\(\)" if "tests.chromium import" in text else "")
        if not re.search(asks, text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])
                if re.search(asks, body):
                    found.add(node.name)
    assert found == STARTERS


def test_make_leaves_out_markers_that_there_are_and_the_whole_run_leaves_none_of_this_tier_out() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    markers = {line.split(":")[0] for line in options["markers"]}
    text = Path(ROOT / "Makefile").read_text(encoding="utf-8")
    (quick,) = re.findall(r"^QUICK := (.*)$", text, flags=re.MULTILINE)
    left_out = set(quick.replace("not ", "").split(" and "))
    assert "processes" in left_out <= markers
    (whole,) = re.findall(r"^test: install\n\t(.*)$", text, flags=re.MULTILINE)
    assert "-m pytest --numprocesses" in whole
    assert "processes" not in whole.replace("--numprocesses", "")
    assert "processes" not in " ".join(options["addopts"])
