"""The verbs of a report as a user meets them: what is printed, one line for a mistake, exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scenarios.report.page.schema import schema_text
from tests.runs import MASKED, masked, simulated
from tests.scenarios.cli.test_main import Run
from tests.scenarios.report.test_build import told

__all__ = ["masked"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, masked: Path) -> Run:
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(masked, tmp_path / "r")
    return Run(monkeypatch, capsys, tmp_path)


def test_a_report_is_built_verified_and_compared(run: Run) -> None:
    assert run("report", "build", "r") == 0, run.err
    authority = (run.folder / "r" / "server" / "administrator.pub").read_text().strip()
    assert run.out.splitlines()[-2:] == [
        f"Report is verified by: fedmodel report verify r --authority {authority}",
        f"Report: {Path('r/report.html')}",
    ]
    assert "differentially private" in run.out
    assert "<svg" in (run.folder / "r" / "report.html").read_text(encoding="utf-8")
    assert run("report", "verify", "r") == 6, run.err
    assert run.out.splitlines()[0].startswith("NOT checked against anything outside this folder")
    key = told(run.folder / "r")["report"]["integrity"]["signer"]
    follows = "r: every figure of its report follows from the folder"
    nobody = (
        f"{follows}. Who made the folder was NOT checked: only --authority, or --silo-key for each silo, does that."
        f" --key checks no more than the signature: compare {key} with the server's key"
    )
    assert run.out.splitlines()[-1] == nobody
    assert run("report", "verify", "r", "--key", key) == 6, run.err
    assert run.out.splitlines()[-1] == nobody
    assert run("report", "verify", "r", "--authority", authority, "--key", key) == 0, run.err
    assert run.out.splitlines()[-1] == follows
    assert run("report", "verify", "r", "--authority", authority) == 0, run.err
    assert run.out.splitlines()[-1] == (
        f"{follows}. It is signed with the key {key}, of which nothing outside this folder says that it is the"
        " server's. Figures of privacy do not rest on that; how good the model is does. --key checks it"
    )
    assert run.out.splitlines()[0] == (
        "Every ledger is of a key known from outside this folder, and every silo countersigned this run and model"
    )
    for item in ("ledger north", "ledger south", "epsilon", "files", "signature"):
        assert item in run.out
    assert max(map(len, run.out.splitlines()[1:-1])) <= 80
    assert run("report", "diff", "r", "r") == 0
    assert run.out.strip() == "nothing differs"


def test_a_draft_of_a_dpia_is_written_beside_a_report_and_not_over_anothers_work(run: Run) -> None:
    built = run.json("report", "build", "r", "--dpia")
    draft = run.folder / "r" / "dpia.md"
    assert built["dpia"] == str(Path("r/dpia.md"))
    assert "For a person to answer." in draft.read_text(encoding="utf-8")
    before = (run.folder / "r" / "report.json").read_bytes()
    assert run("report", "build", "r", "--dpia") == 2
    assert "people may have changed it" in run.err
    assert (run.folder / "r" / "report.json").read_bytes() == before
    assert run("report", "verify", "r") == 6  # the draft is none of what is verified


def test_answers_for_machines(run: Run) -> None:
    built = run.json("report", "build", "r")
    assert set(built) == {"report", "signer", "claim", "verify"}
    assert run("report", "verify", "r", "--key", built["signer"], "--json") == 6
    verified = json.loads(run.out)
    assert (verified["valid"], verified["anchored"]) == (True, False)
    assert verified["not_anchored"] == ["north", "south", "west"]
    verified = run.json(*built["verify"].split()[1:], "--key", built["signer"])
    assert (verified["valid"], verified["anchored"]) == (True, True)
    assert verified["not_anchored"] == verified["not_countersigned"] == []
    assert verified["model_compared"] is True
    assert verified["signer"] == built["signer"]
    assert {row["item"] for row in verified["checked"]} >= {"ledger west", "epsilon", "signature"}
    assert run.json("report", "diff", "r", "r") == {"changes": []}
    assert run("report", "schema") == 0
    assert run.out == schema_text()


@pytest.mark.parametrize(("what", "status", "code"), [("figure", 3, "claim-refuted"), ("ledger", 4, "ledger-tampered")])
def test_what_does_not_follow_ends_with_its_status_and_one_line(run: Run, what: str, status: int, code: str) -> None:
    assert run("report", "build", "r") == 0
    folder = run.folder / "r"
    if what == "figure":
        text = (folder / "report.json").read_text().replace('"steps_charged": 4', '"steps_charged": 3', 1)
        (folder / "report.json").write_text(text, encoding="utf-8")
    else:
        path = folder / "ledgers" / "north.sqlite"
        path.write_bytes(path.read_bytes().replace(b'"steps":2', b'"steps":1'))
    assert run("report", "verify", "r") == status
    assert run.out == ""
    assert len(run.err.strip().splitlines()) == 1
    assert ("mechanism.silos[0].steps_charged: 3 stands, 4 follows" if what == "figure" else "north") in run.err
    assert run("report", "verify", "r", "--json") == status
    found = json.loads(run.out)
    assert (found["valid"], found["code"]) == (False, code)


def test_changes_between_two_runs_are_printed_by_section(run: Run, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    simulated(tmp_path / "o", MASKED, "privacy.noise_multiplier=3.0")
    assert run("report", "build", "r") == run("report", "build", "o/run") == 0
    assert run("report", "diff", "r", "o/run") == 0
    lines = run.out.splitlines()
    assert lines.index("claim") < lines.index("mechanism") < lines.index("accounting") < lines.index("integrity")
    assert "  silos[north].noise_multiplier: 2 -> 3 (+1)" in lines
    changes = run.json("report", "diff", "r", "o/run")["changes"]
    (noise,) = (one for one in changes if one["path"] == "mechanism.silos[north].noise_multiplier")
    assert noise == {"section": "mechanism", "path": noise["path"], "one": 2.0, "other": 3.0, "by": 1.0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "nowhere"), "holds no server's kit"),
        (("verify", "nowhere"), "cannot be read"),
        (("verify", "r"), "`fedmodel report build r` makes one"),
        (("diff", "r", "nowhere"), "cannot be read"),
        (("verify", "r", "--key", "xyz"), "report.json"),
    ],
)
def test_a_mistake_is_one_line(run: Run, arguments: tuple[str, ...], words: str) -> None:
    assert run("report", *arguments) == 2
    assert words in run.err
    assert len(run.err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_a_file_in_place_of_its_folder_is_answered_by_the_folder(run: Run, name: str) -> None:
    (run.folder / "r" / name).touch()
    for words in (("verify", f"r/{name}"), ("diff", f"r/{name}", "r")):
        assert run("report", *words) == 2
        assert run.err == f"error: r/{name}: is a file, and a report is read as a whole folder; name that: r\n"


def test_a_folder_that_is_no_run_any_more_is_refused(run: Run) -> None:
    assert run("report", "build", "r") == 0
    (run.folder / "r" / "metrics.jsonl").unlink()
    assert run("report", "verify", "r") == 4
    assert (
        "error: metrics.jsonl: is missing, or no plain file of the folder: one was signed whose SHA-256 is" in run.err
    )
    assert told(run.folder / "r")["report"]["format"] == "fedmodel-report/3"
    shutil.rmtree(run.folder / "r" / "ledgers")
    (run.folder / "r" / "metrics.jsonl").touch()
    (run.folder / "r" / "report.json").unlink()
    assert run("report", "build", "r") == 2
    assert "holds no ledger" in run.err
