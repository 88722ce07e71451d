"""A run without messages, kits or ledgers: the same rounds as with them, and a book in the place of ledgers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ClaimRefuted, ConfigError, DataError, LedgerError, LedgerTampered
from scenarios.cli.main import app
from scenarios.report import build
from scenarios.report.gather import read_run
from scenarios.report.page.render import render
from scenarios.runs.event_book import BOOK, EventBook, read_book, read_booked
from scenarios.runs.summary import read_metrics
from scenarios.simulation.prepared import prepare
from scenarios.simulation.resuming import held_folder
from scenarios.simulation.simulate import simulate
from scenarios.simulation.stacked_trainer import Stacked
from scenarios.simulation.trainers import OneByOne
from tests.conftest import TINY
from tests.scenarios.simulation.test_resuming import KILLED, Doom

SEEDED = ["privacy.noise=seeded-unsafe"]
DROPPING = ['model={kind="mlp",hidden=[3],dropout=0.5}']  # which is trained one by one
FOUR = ['federation.silos=["north","south","west","east"]', "data.partition.min_records=10"]
LOST = ["faults.train=0.4", "federation.tolerated_failures=9", "federation.min_silos=1", "rounds=4"]
CARRIED = ["training.keep_optimizer_state=true", "training.optimizer=adam", "training.learning_rate=0.05"]


def run(engine: str, folder: Path, *settings: str, text: str = TINY) -> dict[str, Any]:
    """Run a scenario in a folder, and return its summary."""
    file = folder.with_suffix(".toml")
    file.write_text(text, encoding="utf-8")
    prepared = prepare(file, settings, engine, "cpu", folder)
    with prepared.held() as run_dir:
        return prepared.run(run_dir, nullcontext())


def told(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's rounds, without what a clock says."""
    return [
        {key: one for key, one in line.items() if key != "seconds"} for line in read_metrics(run_dir / "metrics.jsonl")
    ]


@pytest.mark.parametrize(
    "settings",
    [
        [*FOUR, "federation.cohort=3", *LOST, *CARRIED],
        ["federation.strategy=median", "federation.min_silos=3", "training.proximal=0.1", "federation.update_rank=2"],
        [
            "federation.strategy=fedadam",
            "training.ema_decay=0.5",
            "federation.weights.north=3.0",
            "federation.update_share=0.5",
        ],
        [
            "privacy.unit=person",
            "privacy.max_records=2",
            "data.records_per_person=3",
            "privacy.noise_multiplier=4.0",
            "data.partition.min_records=5",
        ],
        ["privacy.baseline=no-noise-no-clip"],
    ],
    ids=["lost and carried", "median", "fedadam", "persons", "baseline"],
)
def test_a_run_whose_silos_train_one_by_one_is_that_of_the_apps_with_ledgers_to_the_last_bit(
    settings: Sequence[str], tmp_path: Path
) -> None:
    both = {name: run(name, tmp_path / name, *SEEDED, *DROPPING, *settings) for name in ("in-process", "vectorised")}
    one, other = both["in-process"], both["vectorised"]
    assert told(tmp_path / "vectorised") == told(tmp_path / "in-process")
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in both]
    assert models[0] == models[1]
    for name in ("metrics", "dropouts", "rounds_completed", "rounds_failed", "withdrawn", "encryption"):
        assert other[name] == one[name]
    own = {"source", "budget"}
    for ledger, book in zip(one["privacy"], other["privacy"], strict=True):
        assert {key: book[key] for key in book if key not in own} == {
            key: ledger[key] for key in ledger if key not in own
        }
        assert book["source"] == "book"
    assert not (tmp_path / "vectorised" / "ledgers").exists()


def test_what_was_charged_is_in_the_book_before_anybody_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = Stacked.round, []

    def look(self: Stacked, number: int, silos: Sequence[str], *rest: Any) -> Any:
        seen.append((number, read_book(tmp_path / "r" / BOOK).rounds[-1]))
        assert seen[-1][1] == (number, tuple(sorted(silos)))
        return real(self, number, silos, *rest)

    monkeypatch.setattr(Stacked, "round", look)
    run("vectorised", tmp_path / "r", "model.hidden=[3]")
    assert [number for number, _ in seen] == [1, 2]


def test_a_silo_whose_training_fails_costs_its_own_part_and_stays_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OneByOne._update

    def update(self: OneByOne, silo: str, *rest: Any) -> Any:
        if silo == "north":
            raise DataError("it has a record that is no number")
        return real(self, silo, *rest)

    monkeypatch.setattr(OneByOne, "_update", update)
    summary = run("vectorised", tmp_path / "r", *DROPPING)
    assert summary["dropouts"] == [{"silo": "north", "code": DataError.code, "rounds": 2}]
    assert [line["summed"] for line in told(tmp_path / "r")] == [2, 2]
    assert {row["silo"]: row["steps"] for row in summary["privacy"]} == dict.fromkeys(("north", "south", "west"), 4)
    assert "it has a record that is no number" in (tmp_path / "r" / "server.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["encryption.secure_aggregation=on", "encryption.bound=4.0"], "encryption.secure_aggregation"),
        (["encryption.secure_aggregation=simulated", "encryption.bound=4.0"], "encryption.secure_aggregation"),
        (["budgets.north=9.0"], "budgets"),
        (["besides.label-counts={noise_multiplier=5.0,bound=9.0}"], "besides"),
        (["training.lots=[{from_round=2,times=2}]"], "training.lots"),
    ],
)
def test_what_it_does_not_take_is_refused_by_name_before_anything_is_written(
    settings: list[str], key: str, tmp_path: Path, tiny: Scenario, tiny_file: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}.*: --engine vectorised does not take it: .*--engine in-process$"):
        prepare(tiny_file, ["federation.min_silos=3", *settings], "vectorised", "cpu", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_no_book_is_written_or_read_of_lots_that_grow(tiny_file: Path, tmp_path: Path) -> None:
    grown = read_scenario(str(tiny_file), ["training.lots=[{from_round=2,times=2}]"])
    for refused in (lambda: EventBook(tmp_path, grown, "7", bytes(32)), lambda: read_booked(tmp_path, grown)):
        with pytest.raises(LedgerError, match="a book charges all of a silo's steps at one rate"):
            refused()
    assert not (tmp_path / BOOK).exists()


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, with a report, that nobody changes."""
    folder = tmp_path_factory.mktemp("ended") / "run"
    run("vectorised", folder, "federation.cohort=2", "rounds=3")
    build.build(folder, render)
    return folder


def test_its_report_says_that_no_ledger_was_kept_and_what_was_not_checked(ended: Path) -> None:
    checked = build.verify(ended, render=render)
    report, items = checked.report, dict(checked.items)
    assert report.run.booked
    assert report.claim.sentence.startswith("Simulated, and no ledger was kept: all that left")
    assert report.claim.rests_on.startswith("Simulated: no ledger was kept.")
    assert "NOT checked" in items["ledgers"]
    assert not checked.whole
    assert not checked.outside
    assert "Simulated: no ledger was kept." in (ended / "report.html").read_text(encoding="utf-8")
    assert report.claim.protects
    rows = {row["silo"]: row for row in json.loads((ended / "summary.json").read_bytes())["privacy"]}
    assert {one.silo: one.epsilon for one in report.claim.silos} == {silo: row["epsilon"] for silo, row in rows.items()}
    assert sum(row["steps"] for row in rows.values()) == 3 * 2 * 2  # rounds, silos of a cohort, steps
    assert build.verify(ended, report.integrity.signer).outside
    done = CliRunner().invoke(app, ["report", "verify", str(ended)])
    assert done.exit_code == 6
    assert "no ledger was kept" in done.output


def test_a_verifier_without_torch_says_that_it_computed_no_figure_again(ended: Path) -> None:
    from scenarios.report.verifier.verify import verify

    found = verify(ended)
    assert found.claim == "NOT computed again"
    assert any("NO figure was computed again" in gap for gap in found.gaps)


def line(text: str, place: int, change: Callable[[dict[str, Any]], object]) -> str:
    """Return a book of which a line was changed."""
    lines = text.splitlines()
    found = json.loads(lines[place])
    change(found)
    lines[place] = json.dumps(found, sort_keys=True)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: line(text, 0, lambda book: book["plans"][0]["event"].update(noise_multiplier=9.0)), "otherwise"),
        (lambda text: line(text, 0, lambda book: book.update(scenario="0" * 64)), "another"),
        (lambda text: line(text, 0, lambda book: book["plans"][0]["silos"].pop()), "other silos"),
        (lambda text: line(text, 1, lambda one: one["charged"].pop()), "has no charge for that"),
        (lambda text: line(text, 1, lambda one: one["charged"].append(one["charged"][0])), "twice"),
        (lambda text: line(text, 1, lambda one: one["charged"].append("nobody")), "no silo"),
        (lambda text: line(text, 1, lambda one: one.update(round=9)), "round 9"),
        (lambda text: line(text, 0, lambda book: book.update(format="another")), "format"),
        (lambda text: text[:-9], "no event book"),
    ],
)
def test_a_book_that_does_not_follow_from_its_scenario_and_rounds_is_refused(
    change: Callable[[str], str], why: str, ended: Path, tmp_path: Path
) -> None:
    for name in ("scenario.toml", "summary.json", "metrics.jsonl", "model.safetensors", "model.json"):
        (tmp_path / name).write_bytes((ended / name).read_bytes())
    (tmp_path / BOOK).write_text(change((ended / BOOK).read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(LedgerError, match=why):
        build.gather(tmp_path)


def test_a_summary_that_says_other_figures_than_the_book_is_refused(ended: Path, tmp_path: Path) -> None:
    for name in ("scenario.toml", "summary.json", "metrics.jsonl", "model.safetensors", "model.json", BOOK):
        (tmp_path / name).write_bytes((ended / name).read_bytes())
    assert build.gather(tmp_path).run.booked
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    for key, value in (("epsilon", 0.1), ("steps", 1), ("source", "ledger")):
        changed = [{**row, key: value} for row in summary["privacy"]]
        (tmp_path / "summary.json").write_text(json.dumps({**summary, "privacy": changed}), encoding="utf-8")
        with pytest.raises(ClaimRefuted, match=rf"{key}.* from {BOOK}"):
            build.gather(tmp_path)


def test_a_book_is_of_one_run_and_charges_nobody_twice_for_a_round(tiny: Scenario, tmp_path: Path) -> None:
    key = bytes(range(32))
    book = EventBook(tmp_path, tiny, "7", key)
    book.charge(1, ["west", "north"])
    with pytest.raises(LedgerError, match="round 3 is none of the 2"):
        book.charge(3, ["north"])
    (tmp_path / BOOK).write_bytes((tmp_path / BOOK).read_bytes() + b'{"charged": ["so')  # a kill
    again = EventBook(tmp_path, tiny, "7", key)
    again.charge(1, ["north", "south"])
    assert read_book(tmp_path / BOOK).rounds == ((1, ("north", "west")), (1, ("south",)))
    with pytest.raises(LedgerTampered, match="another run"):
        EventBook(tmp_path, tiny, "8", key)


def begun(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Do what the command does once a scenario was checked."""
    with held_folder(scenario, folder, "vectorised", "cpu") as run_dir:
        return simulate(scenario, 15, "vectorised", "cpu", run_dir, nullcontext())


def killed(scenario: Scenario, folder: Path, at: int) -> int:
    """Run it in a process of its own, which ends at a durable step; return its status."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException), Doom(at).counting():
            begun(scenario, folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_run_that_was_killed_goes_on_as_if_it_never_was(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), [*SEEDED, "rounds=3"])
    whole = begun(scenario, tmp_path / "whole")
    at, statuses = 1, []
    while not statuses or statuses[-1] == KILLED:
        folder = tmp_path / f"killed-{at}"
        statuses.append(killed(scenario, folder, at))
        if statuses[-1] == KILLED:
            summary = begun(scenario, folder)
            assert told(folder) == told(tmp_path / "whole"), at
            assert summary["privacy"] == whole["privacy"], at
            assert (folder / "model.safetensors").read_bytes() == (
                tmp_path / "whole" / "model.safetensors"
            ).read_bytes()
        at += 11
    assert statuses.count(KILLED) > 5
    assert statuses[-1] == 0


def test_a_run_whose_book_is_gone_is_not_taken_up(tiny_file: Path, tmp_path: Path) -> None:
    """A new one would have none of the rounds that were whole."""
    scenario = read_scenario(str(tiny_file), [*SEEDED, "rounds=3"])
    at = 30
    while killed(scenario, tmp_path / str(at), at) == KILLED:
        if read_metrics(tmp_path / str(at) / "metrics.jsonl"):
            (tmp_path / str(at) / "book.jsonl").unlink()
            with pytest.raises(LedgerTampered, match="the book of who was charged for it is gone"):
                begun(scenario, tmp_path / str(at))
            assert not (tmp_path / str(at) / "book.jsonl").exists()
            return
        at += 7
    pytest.fail("no run was killed after a round")


def test_a_book_does_not_hide_ledgers(ended: Path, tmp_path: Path) -> None:
    shutil.copytree(ended, tmp_path / "run")
    (tmp_path / "run" / "ledgers").mkdir()
    with pytest.raises(LedgerTampered, match="holds ledgers, and a book"):
        read_run(tmp_path / "run")


def test_a_run_whose_optimisers_state_is_gone_is_not_taken_up(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), ["rounds=3", "training.keep_optimizer_state=true"])
    at = 60
    while killed(scenario, tmp_path / str(at), at) == KILLED:
        if read_metrics(tmp_path / str(at) / "metrics.jsonl"):
            with pytest.raises(ConfigError, match=r"keep_optimizer_state.*begin again in a new folder"):
                begun(scenario, tmp_path / str(at))
            return
        at += 10
    pytest.fail("no kill came after the first round")
