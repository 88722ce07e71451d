"""What `make check` runs is what was changed, and never everything or nothing by mistake."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests import choose


def chosen(*paths: str) -> list[str]:
    return [str(path) for path in choose.of_changes(map(Path, paths))]


def test_a_module_is_tested_by_the_tests_that_bear_its_name_or_its_rooms() -> None:
    assert "tests/fedmodel/secagg/test_shamir.py" in chosen("fedmodel/secagg/shamir.py")
    assert chosen("fedmodel/secagg/silo.py") == ["tests/fedmodel/secagg/test_silo.py"]
    assert "tests/scenarios/report/test_page.py" in chosen(
        "scenarios/report/page/plots.py"
    )  # whose folder has no tests
    room = {"tests/fedmodel/secagg/test_silo.py", "tests/fedmodel/secagg/test_server.py"}
    assert room <= set(chosen("fedmodel/secagg/tally.py"))  # whose name no test bears
    assert "tests/fedmodel/ledger/test_book.py" in chosen("fedmodel/ledger/book.py")


def test_a_module_that_few_of_its_room_import_is_tested_by_those_too() -> None:
    room = choose.room_of(Path("fedmodel/secagg/shamir.py"), choose.files_of_tests())
    found = choose.importers(Path("fedmodel/secagg/shamir.py"), room)
    assert 1 < len(found) <= 6
    assert {str(path) for path in found} == set(chosen("fedmodel/secagg/shamir.py"))


def test_a_module_whose_folders_have_no_tests_is_tested_by_those_that_import_it(tmp_path: Path) -> None:
    for name, text in (("test_one.py", "from odd.place import thing"), ("test_two.py", "import other")):
        (tmp_path / "tests" / "far").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / "far" / name).write_text(text)
    tests = choose.files_of_tests(tmp_path)
    assert choose.of_module(Path("odd/place.py"), tests, tmp_path) == {Path("tests/far/test_one.py")}


def test_what_everybody_imports_does_not_choose_everything() -> None:
    assert len(choose.importers(Path("fedmodel/errors.py"), choose.files_of_tests())) > 20
    assert len(chosen("fedmodel/errors.py")) < 10


def test_a_changed_test_is_run_and_a_file_of_no_code_runs_none() -> None:
    assert chosen("tests/integration/test_kills.py") == ["tests/integration/test_kills.py"]
    assert chosen("README.md", "scenarios/hospitals.toml", "tests/test_gone.py") == []


def test_every_room_has_tests_and_nobody_elses() -> None:
    for room in ("secagg", "ledger", "accounting", "report", "crypto"):
        assert choose.of_room(room), room
    assert choose.of_room("no-room") == []
    assert Path("tests/fedmodel/ledger/test_book.py") not in choose.of_room("secagg")
    assert Path("tests/fedmodel/ledger/test_faults.py") in choose.of_room("ledger")


def test_changes_are_those_since_the_last_commit_and_else_the_last_commits(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("")
        git("add", name)
        git("commit", "-m", name)
    assert choose.changed(tmp_path) == [Path("two.py")]
    (tmp_path / "one.py").write_text("x = 1")
    (tmp_path / "three.py").write_text("")
    assert choose.changed(tmp_path) == [Path("one.py"), Path("three.py")]
