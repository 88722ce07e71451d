"""A folder in the hands of whoever holds the server's key, or is careless: what is found, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmodel.config import read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import ConfigError, LedgerError
from fedmodel.ledger import Asked, Ledger, verify_ledger
from fedmodel.ledger.tables import PAGE_SIZE, insert, prepare
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import read_kit
from fedmodel.system.durable import replace_file
from scenarios.cli.report import NOT_VOUCHED_FOR
from scenarios.report import build
from scenarios.report.page.passive import BEGINNING
from scenarios.report.page.render import render
from scenarios.runs.summary import rows_from_ledgers
from tests.ledgers import budget_of
from tests.runs import SILOS, copied, masked, roomy
from tests.scenarios.cli.test_main import Run
from tests.scenarios.report.test_build import forge, told
from tests.scenarios.report.test_page import picture

__all__ = ["masked", "roomy"]


@pytest.fixture(scope="module")
def finished(masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copied(masked, tmp_path_factory.mktemp("hostile") / "run")
    build.build(run, render, pictures={"One digit, three ways.": picture()})
    return run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, finished: Path) -> Run:
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(finished, tmp_path / "r")
    return Run(monkeypatch, capsys, tmp_path)


def refused(run: Run, verb: str, status: int, words: str) -> None:
    """A command ends with a status, and one line that has these words."""
    assert run("report", verb, "r") == status, run.err
    assert words in run.err
    assert len(run.err.strip().splitlines()) == 1


def answered(run: Run, *options: str) -> Any:
    """What a folder is found to be that nothing from outside vouches for."""
    assert run("report", "verify", "r", *options, "--json") == NOT_VOUCHED_FOR, run.err
    return json.loads(run.out)


def found(run: Run, *options: str) -> dict[str, str]:
    return {row["item"]: row["found"] for row in answered(run, *options)["checked"]}


def anchor(folder: Path) -> tuple[str, str]:
    """The authority's key, as it was told by another way."""
    return "--authority", (folder / "server" / "administrator.pub").read_text(encoding="ascii").strip()


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def without_heads(folder: Path) -> None:
    shutil.rmtree(folder / "server" / "heads")
    for silo in SILOS:
        (folder / "silos" / silo / "ledger.head").unlink()


def cut(path: Path, size: int) -> None:
    """Take away a ledger's newest entries: what is left is signed by its silo, byte for byte as it once was."""
    kept = verify_ledger(path).entries[:size]
    nodes = {
        (level, position): value for level, position, value in sqlite3.connect(path).execute("SELECT * FROM nodes")
    }
    path.unlink()
    again = sqlite3.connect(path, isolation_level=None)
    again.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    again.execute("PRAGMA journal_mode = WAL")
    again.execute("BEGIN")
    prepare(again)
    for entry in kept:
        insert(again, entry, lambda level, position: nodes[level, position])
    again.execute("COMMIT")
    again.close()


def told_again(folder: Path) -> None:
    """Write the summary that follows from the ledgers as they are now."""
    scenario = read_scenario(str(folder / "scenario.toml"))
    paths = {silo: folder / "ledgers" / f"{silo}.sqlite" for silo in SILOS}
    edit(folder / "summary.json", lambda summary: summary.update(privacy=rows_from_ledgers(scenario, paths)))


# Charges that are gone


def test_ledgers_cut_short_do_not_make_a_run_that_spent_nothing(run: Run) -> None:
    folder = run.folder / "r"
    for silo in SILOS:
        cut(folder / "ledgers" / f"{silo}.sqlite", 3)
    without_heads(folder)
    told_again(folder)
    assert {row["epsilon"] for row in json.loads((folder / "summary.json").read_text())["privacy"]} == {0.0}
    refused(run, "build", 4, "ledger.head: is gone")
    shutil.rmtree(folder / "silos")
    refused(run, "build", 4, "silo north: its update is in round 1 of metrics.jsonl, and its ledger, or the book")


def test_a_ledger_that_is_gone_does_not_make_a_silo_that_spent_nothing(run: Run) -> None:
    folder = run.folder / "r"
    (folder / "ledgers" / "south.sqlite").unlink()
    told_again(folder)
    refused(run, "build", 4, "silo south: its update is in round 1 of metrics.jsonl, and no ledger is here")


GONE = dict.fromkeys(SILOS, "late")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cohort": [], "summed": 4}, "round 1 has 4 updates in its sum, and 0 silos of its cohort did not drop out"),
        ({"summed": 4}, "round 1 has 4 updates in its sum, and 3 silos of its cohort did not drop out"),
        ({"summed": 0}, "round 1 has 0 updates in its sum, and 3 silos"),
        ({"summed": None}, "round 1 has no number of updates in its sum, and 3 silos"),
        ({"dropouts": {"north": "late"}}, "round 1 has 3 updates in its sum, and 2 silos"),
        ({"dropouts": {"north": "late"}, "summed": 2}, "is whole with 2 silos in its sum, and the scenario asks for 3"),
        (
            {"dropouts": GONE, "summed": 0},
            "is whole with 0 silos in its sum, and the scenario asks for 3: a model",
        ),
        ({"dropouts": GONE, "summed": None}, "round 1 has no number of updates in its sum, and 0 silos"),
        ({"cohort": [], "summed": 0}, "is whole with 0 silos in its sum"),
        ({"cohort": ["north"] * 3}, "round 1 has 3 updates in its sum, and 1 silo of"),
        ({"cohort": ["north", "south", "east"]}, "silo east: its update is in round 1 of metrics.jsonl, and no ledger"),
    ],
)
def test_a_whole_round_is_a_sum_of_enough_silos_that_were_charged_for_it(
    change: dict[str, Any], words: str, run: Run
) -> None:
    folder = run.folder / "r"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, **change}) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    refused(run, "build", 4, words)
    resign(folder, "metrics.jsonl")
    refused(run, "verify", 4, words)


def test_a_summary_of_fewer_parameters_does_not_make_floating_point_add_less(run: Run) -> None:
    edit(run.folder / "r" / "summary.json", lambda summary: summary.update(parameters=1))
    refused(run, "build", 3, "summary.json: parameters: 1 stands, 5 follows from scenario.toml")
    resign(run.folder / "r", "summary.json")
    refused(run, "verify", 3, "parameters: 1 stands")


def test_that_no_head_is_at_hand_is_said_and_whose_are(run: Run) -> None:
    folder = run.folder / "r"
    assert "no entry of a signed head is missing, as kept by silo and server" in found(run)["ledger north"]
    shutil.rmtree(folder / "server" / "heads")
    assert "as kept by silo;" not in found(run)["ledger north"]
    assert "server" not in found(run)["ledger north"]
    shutil.rmtree(folder / "silos")
    key = build.read_report(folder).key.hex()
    assert "NO head of it is here but the report's own, of " in found(run, "--key", key)["ledger north"]
    assert run("report", "build", "r") == 0, run.err
    assert "NO signed head of it is here: entries taken away" in found(run, "--key", key)["ledger north"]
    assert {head["head"] for head in told(folder)["report"]["integrity"]["ledgers"]} == {None}


# What is handed on


def test_what_may_be_handed_on_verifies_under_the_key_that_is_given(run: Run) -> None:
    """The set of docs/report.md, and nothing of it secret."""
    whole, handed = run.folder / "r", run.folder / "handed"
    shutil.copytree(whole / "ledgers", handed / "ledgers")
    shutil.copytree(whole / "server" / "heads", handed / "server" / "heads")
    for name in ("roster", "administrator.pub"):
        shutil.copy2(whole / "server" / name, handed / "server" / name)
    for name in (
        "report.html", "report.json", "registry.yaml", "pictures.json", "scenario.toml", "summary.json",
        "metrics.jsonl", "usefulness.json", "model.safetensors",
    ):  # fmt: skip
        shutil.copy2(whole / name, handed / name)
    assert not [path for path in handed.rglob("*") if path.suffix in (".key", ".age")]
    key = build.read_report(whole).key.hex()
    assert run("report", "verify", "handed") == 2
    assert "give --key" in run.err
    assert run("report", "verify", "handed", "--key", key) == NOT_VOUCHED_FOR, run.err
    assert run("report", "verify", "handed", "--key", key, *anchor(whole)) == 0, run.err
    assert run.out.splitlines()[-1] == "handed: every figure of its report follows from the folder"


# Other runs in the ledgers, and what silos reported


def charge_before(folder: Path, event: DpSgdEvent) -> None:
    kit = folder / "silos" / "north"
    with Ledger(folder / "ledgers" / "north.sqlite", "north", read_kit(kit).identity, kit / "ledger.head") as ledger:
        ledger.reserve(Asked(budget_of(ledger, "synthetic/record"), "77", event, 1, scenario="ab" * 32))
        ledger.charge("77", 1, event.steps, "earlier")


def test_a_run_of_other_noise_in_a_ledger_is_no_fault(run: Run, roomy: Path, tmp_path: Path) -> None:
    charge_before(copied(roomy, tmp_path / "other"), DpSgdEvent(8.0, 1.0, 0.5, 2, 10))
    assert run("report", "build", "other") == 0, run.err
    assert run("report", "verify", "other", *anchor(tmp_path / "other")) == 0, run.err
    report = told(tmp_path / "other")["report"]
    summary = json.loads((tmp_path / "other" / "summary.json").read_text())
    assert report["claim"]["silos"][0]["epsilon"] == summary["privacy"][0]["epsilon"]
    assert report["claim"]["silos"][0]["epsilon_all_runs"] > summary["privacy"][0]["epsilon"]


def reported(folder: Path, steps: int) -> None:
    def change(summary: dict[str, Any]) -> None:
        summary["engine"] = "deployment"
        for row in summary["privacy"]:
            row |= {"source": "reported", "budget": None}
        summary["privacy"][1]["steps"] = steps

    edit(folder / "summary.json", change)


def test_what_silos_reported_is_held_to_the_ledgers_that_were_copied_in(run: Run) -> None:
    folder = run.folder / "r"
    reported(folder, 4)
    assert run("report", "build", "r") == 0, run.err
    assert found(run)["summary.json"] == "its figures of privacy follow from the ledgers"
    reported(folder, 2)
    assert run("report", "build", "r") == 0, run.err
    assert "south had charged more than the server was told" in found(run)["summary.json"]
    reported(folder, 5)
    refused(run, "build", 3, "privacy[1].steps: 5 stands, 4 follows")


def test_a_simulation_reports_nothing_by_hearsay(run: Run) -> None:
    edit(run.folder / "r" / "summary.json", lambda summary: summary["privacy"][0].update(source="reported", steps=0))
    refused(run, "build", 3, "privacy[0].")


# The page


def resign(folder: Path, *names: str) -> None:
    """Sign the folder's files as they are now, as whoever holds the server's key can."""
    report = told(folder)["report"]
    for file in report["integrity"]["files"]:
        if file["name"] in names:
            file["sha256"] = build.file_hash(folder / file["name"])
    forge(folder, report)


def test_a_page_of_other_figures_is_refuted_though_it_is_signed(run: Run) -> None:
    folder = run.folder / "r"
    assert found(run)["page"] == "rendered again from the report, and the same byte for byte"
    page = folder / "report.html"
    page.write_text(page.read_text(encoding="utf-8").replace("epsilon", "epsi1on", 1), encoding="utf-8")
    resign(folder, "report.html")
    refused(run, "verify", 3, "report.html: is not the page that follows from the report")


def test_another_picture_makes_another_page(run: Run) -> None:
    folder = run.folder / "r"
    edit(folder / "pictures.json", lambda pictures: pictures.update({"Another.": picture()}))
    refused(run, "verify", 4, "pictures.json: is a changed file: its SHA-256 is")
    resign(folder, "pictures.json")
    refused(run, "verify", 3, "report.html: is not the page")
    (folder / "pictures.json").write_text('{"caption": "<p>none</p>"}', encoding="utf-8")
    resign(folder, "pictures.json")
    refused(run, "verify", 4, "pictures.json: a picture is an SVG")


def test_a_page_of_other_versions_is_said_not_to_be_rendered_again(run: Run) -> None:
    folder = run.folder / "r"
    report = told(folder)["report"]
    report["built"]["libraries"]["matplotlib"] = "3.0"
    forge(folder, report)
    assert found(run)["page"] == "NOT rendered again: matplotlib here is another version than made it"
    report["built"]["page"] = "0" * 64
    forge(folder, report)
    assert "matplotlib, the code that renders it here" in found(run)["page"]


def forged_page(folder: Path, page: str) -> None:
    """A page of the signer's own, said to be drawn by a version that nobody has."""
    (folder / "report.html").write_text(page, encoding="utf-8")
    report = told(folder)["report"]
    report["built"]["libraries"]["matplotlib"] = "9.9.9"
    forge(folder, report)
    resign(folder, "report.html")


def test_a_page_of_the_signers_own_is_never_vouched_for(run: Run) -> None:
    folder = run.folder / "r"
    assert run("report", "verify", "r", *anchor(folder)) == 0, run.err
    forged_page(folder, f"{BEGINNING}<title>digits</title></head><body><h1>epsilon 0.0001</h1></body></html>")
    assert run("report", "verify", "r", *anchor(folder)) == NOT_VOUCHED_FOR
    for line in (run.out.splitlines()[0], run.out.splitlines()[-1]):
        assert "the page was NOT rendered again and may say anything" in line.replace("The", "the")
    assert run.out.splitlines()[0].startswith("NOT all of it is vouched for from outside this folder: the page was NOT")
    assert run("report", "verify", "r", *anchor(folder), "--json") == NOT_VOUCHED_FOR
    said = json.loads(run.out)
    assert (said["anchored"], said["page_rendered"], said["audit_evaluated"]) == (True, False, None)
    assert run("report", "verify", "r") == NOT_VOUCHED_FOR
    assert "the page was NOT rendered again" in run.out.splitlines()[0]


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (f"{BEGINNING}<script>alert(1)</script>", "has an element 'script'"),
        (f'{BEGINNING}<meta http-equiv="refresh" content="0; url=https://example.org">', "acts or points elsewhere"),
        ("<!DOCTYPE html><title>epsilon 0.0001</title>", "does not begin with the policy"),
    ],
)
def test_a_page_of_the_signers_own_that_acts_is_refused(page: str, words: str, run: Run) -> None:
    forged_page(run.folder / "r", page)
    refused(run, "verify", 4, f"report.html: {words}" if words.startswith(("has an el", "does")) else words)


def test_a_page_made_again_shows_the_pictures_of_before(run: Run) -> None:
    assert run("report", "build", "r") == 0, run.err
    assert "One digit, three ways." in (run.folder / "r" / "report.html").read_text(encoding="utf-8")
    assert run("report", "verify", "r", *anchor(run.folder / "r")) == 0, run.err


# What is no file of a run


GARBAGE = b"\xff\xfe garbage \x00"


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "summary.json", "scenario.toml", "report.html", "registry.yaml", "silos/north/silo.toml",
     "silos/north/roster", "silos/north/administrator.pub", "silos/north/ledger.head", "server/heads/north"],
)  # fmt: skip
@pytest.mark.parametrize("gone", [False, True])
def test_whatever_is_spoilt_ends_verification_in_a_line_and_with_4(run: Run, name: str, gone: bool) -> None:
    path = run.folder / "r" / name
    if gone:
        path.unlink()
    else:
        path.write_bytes(GARBAGE)
    status = run("report", "verify", "r")
    if gone and name in ("silos/north/silo.toml", "silos/north/roster", "server/heads/north"):
        assert status in (NOT_VOUCHED_FOR, 4)  # what is not there says nothing, and `found` says that it is not
    else:
        assert status == 4, run.err
    assert len(run.err.strip().splitlines()) == (status == 4)


@pytest.mark.parametrize(
    "text", [GARBAGE.decode("latin1"), "{}\n", "[1]\n", '{"round": 1}\n', "", '{"round": NaN}\n', "nul"]
)
def test_rounds_of_another_form_make_no_report_and_are_verified_by_none(run: Run, text: str) -> None:
    path = run.folder / "r" / "metrics.jsonl"
    path.write_text(text, encoding="latin1")
    refused(run, "build", 4, "metrics.jsonl")
    resign(run.folder / "r", "metrics.jsonl")
    refused(run, "verify", 4, "metrics.jsonl")


@pytest.mark.parametrize(
    ("name", "value"),
    [("timing", {}), ("parameters", 1.5), ("code_hash", 7), ("privacy", [1]), ("privacy", 3), ("engine", None)],
)
def test_a_summary_of_another_form_makes_no_report_and_is_verified_by_none(run: Run, name: str, value: Any) -> None:
    edit(run.folder / "r" / "summary.json", lambda summary: summary.update({name: value}))
    refused(run, "build", 4, "summary.json: is not as a run writes it: " + name)
    resign(run.folder / "r", "summary.json")
    refused(run, "verify", 4, "summary.json")


def test_rounds_without_what_encryption_needs_make_no_report(run: Run) -> None:
    path = run.folder / "r" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"threshold": 3', '"threshold": null'), encoding="utf-8")
    refused(run, "build", 4, "metrics.jsonl: is not as a run writes it")


def test_an_older_summary_that_tells_less_is_no_false_one(run: Run) -> None:
    def older(summary: dict[str, Any]) -> None:
        for row in summary["privacy"]:
            del row["mu_floor"]

    edit(run.folder / "r" / "summary.json", older)
    assert run("report", "build", "r") == 0, run.err
    assert run("report", "verify", "r", *anchor(run.folder / "r")) == 0, run.err


def test_a_report_that_cannot_be_written_ends_in_a_line(run: Run) -> None:
    (run.folder / "r" / "report.html").unlink()
    (run.folder / "r" / "report.html").mkdir()
    refused(run, "build", 2, "cannot be written")


def test_a_build_that_is_cut_off_leaves_no_report_beside_another_page(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def cut_off(path: Path, data: bytes) -> None:
        if path.name == "report.html":
            raise KeyboardInterrupt
        written.append(path.name)
        replace_file(path, data)

    monkeypatch.setattr(build, "replace_file", cut_off)
    with pytest.raises(KeyboardInterrupt):
        build.build(run.folder / "r", render)
    assert written == ["registry.yaml"]
    assert not (run.folder / "r" / "report.json").exists()


# What the words say


def test_without_a_key_from_elsewhere_it_says_so_and_names_the_key(run: Run) -> None:
    key = build.read_report(run.folder / "r").key.hex()
    assert run("report", "verify", "r") == NOT_VOUCHED_FOR
    assert f"compare {key} with the server's key" in run.out.splitlines()[-1]
    assert "…" not in run.out
    assert answered(run)["key_given"] is False
    assert "NOT checked against anything outside this folder" in found(run)["signature"]
    assert answered(run, "--key", key)["key_given"] is True
    assert found(run, "--key", key)["signature"] == f"of {key}, the key that --key gives"


def test_a_roster_that_is_gone_vouches_for_no_key(run: Run) -> None:
    assert "its key is the roster's;" in found(run)["ledger north"]
    for path in (run.folder / "r").rglob("roster"):
        path.unlink()
    assert "NO roster is here: the report alone says" in found(run)["ledger north"]


def test_a_ledger_of_nobody_is_refused(run: Run) -> None:
    ledgers = run.folder / "r" / "ledgers"
    shutil.copy2(ledgers / "north.sqlite", ledgers / "east.sqlite")
    refused(run, "verify", 4, "east.sqlite: is a ledger of no silo of the run")
    refused(run, "build", 4, "east.sqlite")


def test_what_was_not_compared_is_named(run: Run) -> None:
    folder = run.folder / "r"
    laws = "silos' laws, but for the server's key, the code and who answers for records"
    assert found(run)["not compared"] == laws
    assert "NOT compared" not in found(run)["ledger west"]
    (folder / "notes.txt").write_text("x", encoding="utf-8")
    (folder / "ledgers" / "north.bak").write_text("x", encoding="utf-8")
    (folder / "ledgers" / "west.sqlite-wal").write_bytes(os.urandom(64))
    assert found(run)["not compared"].endswith("; of the folder, notes.txt, ledgers/north.bak")
    assert "its bytes that hold no entry were NOT compared" in found(run)["ledger west"]


# Two reports


def test_a_report_that_its_own_server_did_not_sign_is_not_compared(run: Run) -> None:
    shutil.copytree(run.folder / "r", run.folder / "o")
    report = told(run.folder / "o")["report"]
    other = SigningKey.generate()
    forge(run.folder / "o", report, other)
    assert run("report", "diff", "r", "o") == 4
    assert "another key than that of the run's server" in run.err
    report["integrity"]["signer"] = other.public.hex()
    forge(run.folder / "o", report, other)
    assert run("report", "diff", "r", "o") == 0
    key = build.read_report(run.folder / "r").key.hex()
    assert run.out.splitlines()[0] == f"two servers signed them: {key} and {other.public.hex()}"


def test_figures_that_differ_are_printed_so_that_they_do(run: Run) -> None:
    shutil.copytree(run.folder / "r", run.folder / "o")
    report = told(run.folder / "o")["report"]
    report["claim"]["epsilon"] += 5e-9
    forge(run.folder / "o", report)
    assert run("report", "diff", "r", "o") == 0
    (line,) = (line for line in run.out.splitlines() if line.strip().startswith("epsilon: "))
    one, _, other = line.partition(": ")[2].partition(" (")[0].partition(" -> ")
    assert float(one) == build.read_report(run.folder / "r").report.claim.epsilon
    assert float(other) == report["claim"]["epsilon"]


def test_a_key_file_of_another_server_builds_nothing(run: Run) -> None:
    with pytest.raises(ConfigError, match="another server"):
        build.build(run.folder / "r", render, SigningKey.generate())
    assert (run.folder / "r" / "report.json").exists()


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda lines: [*lines, {**lines[-1], "round": lines[-1]["round"] + 1}], "and the scenario"),
        (lambda lines: [*lines, lines[-1]], "do not rise"),
        (lambda lines: [{**lines[0], "failed": False}, *lines[1:]], "failed"),
        (lambda lines: [{**lines[0], "round": 0}, *lines[1:]], "do not rise"),
    ],
    ids=["past the scenario", "twice", "failed, and not", "before the first"],
)
def test_rounds_that_no_run_has_make_no_report(change: Any, refusal: str, run: Run) -> None:
    folder = run.folder / "r"
    path = folder / "metrics.jsonl"
    lines = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(LedgerError, match=refusal):
        build.gather(folder)
