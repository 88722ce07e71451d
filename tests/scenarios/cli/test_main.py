"""The command as a user meets it: answers, one line for a mistake, nothing written, exit status."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import norm

from fedmodel.config import builtin_scenarios, read_scenario
from fedmodel.ledger import read_ledger
from scenarios.cli import entry, main
from scenarios.runs.usefulness import told_of
from scenarios.simulation.simulate import check_scenario
from tests.fakes import charged

SUMMARY_KEYS = {
    "scenario", "engine", "device", "rounds_completed", "clients", "parameters", "metrics", "privacy", "encryption",
    "rounds_failed", "dropouts", "withdrawn", "ended_early", "timing", "code_hash", "seed", "class_weights",
    "used",
}  # fmt: skip
PRIVACY_KEYS = {
    "silo", "unit", "epsilon", "delta", "accountant", "noise_multiplier", "max_grad_norm", "sample_rate", "steps",
    "max_records", "budget", "mu", "mu_floor", "advantage",
}  # fmt: skip


class Run:
    """Call the command in this process, and keep what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._patch, self._capsys, self.folder = monkeypatch, capsys, folder
        monkeypatch.chdir(folder)

    def __call__(self, *arguments: str) -> int:
        if arguments[0] == "simulate" and "--report" not in arguments:
            arguments = (*arguments, "--no-report")  # it takes longer than a small run
        self._patch.setattr(sys, "argv", ["fedmodel", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        self.out, self.err = self._capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0

    def json(self, *arguments: str) -> Any:
        assert self(*arguments, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return Run(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize(
    ("verb", "at", "told"),
    [
        (("simulate", "quickstart"), "scenarios.simulation.prepared.prepare",
         "interrupted before the run began; this command spent nothing\n"),
        (("audit", "plan", "quickstart"), "scenarios.audit.planning.planned", "interrupted\n"),
        (("simulate", "quickstart", "--show-partition"), "scenarios.simulation.prepared.resolve", "interrupted\n"),
    ],
)  # fmt: skip
def test_an_interrupt_before_anything_was_begun_is_said_and_leaves_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], at: str, told: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(at, interrupted)
    assert run(*verb) == 130
    assert (run.out, run.err) == ("", told)
    assert list(run.folder.iterdir()) == []


def test_an_interrupt_while_the_command_is_imported_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def interrupted() -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(entry, "loading", interrupted)
    monkeypatch.setattr(sys, "argv", ["fedmodel", "scenarios"])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted before anything began\n")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["privacy.expected_batch_size=2"],
            ["north, south, west: lots have some 11.5, 13, 20.5 records, and their sums are divided by"
             " privacy.expected_batch_size = 2, so their steps are far too large; set privacy.silo.NAME.sample_rate ="
             " 0.087, 0.077, 0.049, or privacy.silo.NAME.expected_batch_size = 12, 13, 20, in this order of silos"],
        ),
        (
            ["privacy.sample_rate=0.01"],
            ["north, south, west: lots have some 0.23, 0.26, 0.41 records, and their sums are divided by"
             " privacy.expected_batch_size = 10, so their steps are tiny; set privacy.silo.NAME.sample_rate = 0.43,"
             " 0.38, 0.24, or privacy.silo.NAME.expected_batch_size = 1, in this order of silos"],
        ),
        (
            ["privacy.silo.north.sample_rate=0.01", "privacy.silo.west.expected_batch_size=5"],
            ["west: a lot has some 20.5 records, and its sums are divided by privacy.expected_batch_size = 5, so its"
             " steps are far too large; set privacy.silo.west.sample_rate = 0.12, or"
             " privacy.silo.west.expected_batch_size = 20",
             "north: a lot has some 0.23 records, and its sums are divided by privacy.expected_batch_size = 10, so its"
             " steps are tiny; set privacy.silo.north.sample_rate = 0.43, or privacy.silo.north.expected_batch_size ="
             " 1"],
        ),
        (["privacy.expected_batch_size=12"], []),
    ],
)  # fmt: skip
def test_lots_far_from_what_their_sums_are_divided_by_are_said_at_once_with_the_keys_that_mend_them(
    tiny_file: Path, settings: list[str], words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    check_scenario(read_scenario(str(tiny_file), settings))
    assert caplog.messages == words


def test_a_run_leaves_the_promised_folder(run: Run, tiny_file: Path) -> None:
    summary = run.json("simulate", str(tiny_file), "--report", "--out", "r")
    folder = run.folder / "r"
    assert summary.pop("usefulness") == told_of(folder)
    assert set(summary) == SUMMARY_KEYS
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert summary["rounds_completed"] == len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert {path.name for path in folder.iterdir()} == {
        "summary.json", "metrics.jsonl", "model.safetensors", "ledgers", "scenario.toml", "server.log",
        "server", "silos", "report.html", "report.json", "registry.yaml", "pictures.json",
        "run.json", "run.lock", "serving.lock", "model.json", "usefulness.json",
    }  # fmt: skip
    assert sorted(path.name for path in (folder / "ledgers").iterdir()) == [
        "north.sqlite",
        "south.sqlite",
        "west.sqlite",
    ]
    # Noise decides whether the model predicts a class at all, so whether these two are defined.
    assert set(summary["metrics"]) - {"precision", "f1"} == {"accuracy", "recall", "auroc", "loss"}
    assert [row["silo"] for row in summary["privacy"]] == ["north", "south", "west"]
    assert all(set(row) >= PRIVACY_KEYS for row in summary["privacy"])
    for row in summary["privacy"]:
        assert 0 < row["epsilon"] <= row["budget"]
        assert 0 < row["advantage"] < 1
        assert (row["unit"], row["max_records"]) == ("record", 1)
    assert (summary["withdrawn"], summary["ended_early"]) == ([], None)
    assert summary["encryption"] == {"secure_aggregation": "off", "threshold": None, "bits": 32}
    assert summary["clients"] == 3
    assert summary["parameters"] == 5
    assert re.fullmatch("[0-9a-f]{64}", summary["code_hash"])
    assert run.err == ""


def test_class_weights_and_figures_that_are_not_defined_are_said_everywhere(run: Run, tiny_file: Path) -> None:
    """A model that begins at zero and hardly moves predicts class 0 alone: of class 1, recall is 0, and defined."""
    settings = ("training.class_weights=[1, 9]", "model.init=zero", "training.learning_rate=1e-12", "rounds=1")
    more = [word for setting in settings for word in ("--set", setting)]
    assert run("simulate", str(tiny_file), *more, "--report", "--out", "r") == 0
    said, folder = " ".join(run.out.split()), run.folder / "r"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["class_weights"] == [1, 9]
    assert set(summary["metrics"]) == {"accuracy", "recall", "auroc", "loss"}
    assert summary["metrics"]["recall"] == 0.0
    assert not {"precision", "f1"} & set(json.loads((folder / "metrics.jsonl").read_text()))
    training = json.loads((folder / "report.json").read_text())["report"]["training"]
    assert (training["class_weights"], set(training["figures"])) == ([1, 9], set(summary["metrics"]))
    page = " ".join((folder / "report.html").read_text().split())
    for where in (said, page):
        assert "Precision is left out, as it is not defined: a class, the positive one of two, was predicted" in where
        assert "F1 is left out" in where
        assert "Recall is left out" not in where
    assert "tiny: 1 round, 3 silos, 5 parameters, " in said
    assert "Class weights in training: 1, 9; the loss above is without" in said
    assert "by a public weight of its class, before the clip: 1, 9, in the order of labels" in page
    assert run("report", "verify", str(folder)) == 6  # whole, and no key from outside was named
    assert run("report", "diff", str(folder), str(folder)) == 0
    assert run("simulate", str(tiny_file), "--set", "training.class_weights=[1,2,3]", "--out", "s") == 2
    assert "training.class_weights has 3 weights, and the data has 2 classes; give one for each class" in run.err
    assert not (run.folder / "s").exists()


ON = ["encryption.secure_aggregation=on", "encryption.bound=9.0", "encryption.colluding=0"]


def test_a_run_says_how_updates_were_hidden(run: Run, tiny_file: Path) -> None:
    settings = [word for setting in ON for word in ("--set", setting)]
    summary = run.json("simulate", str(tiny_file), *settings, "--out", "r")
    assert summary["encryption"] == {
        "secure_aggregation": "on", "threshold": 2, "bits": 32, "bound": 9.0, "least_silos_in_a_sum": 3,
        "least_effective_silos_in_a_sum": 3.0,
        "colluding_tolerated": 0, "suite": "classic", "consistency": "commit",
    }  # fmt: skip
    assert run("simulate", str(tiny_file), *settings, "--out", "r2") == 0
    assert "saw sums of at least 3 silos' updates and no single one" in " ".join(run.out.split())
    for mode, words in (("simulated", "was simulated, without its masks"), ("off", "are not aggregated under")):
        more = [*settings, "--set", f"encryption.secure_aggregation={mode}"]
        assert run("simulate", str(tiny_file), *more, "--out", mode) == 0
        assert words in " ".join(run.out.split())
        assert "and no single one" not in run.out
    assert run("simulate", str(tiny_file), *settings, "--set", "encryption.consistency=quorum", "--out", "q") == 0
    assert "shows all silos one list" in " ".join(run.out.split())


def test_rounds_that_failed_closed_are_counted_and_said(run: Run, tiny_file: Path) -> None:
    """Seven silos lose many an exchange; the run goes on as long as the scenario says."""
    silos = 'federation.silos=["a","b","c","d","e","f","g"]'
    more = [*ON, silos, "rounds=12", "faults.reveal=0.3", "federation.tolerated_failures=12", "encryption.colluding=0",
            "data.partition.min_records=5", "privacy.expected_batch_size=5"]  # fmt: skip
    settings = [word for setting in more for word in ("--set", setting)]
    assert run("simulate", str(tiny_file), *settings, "--out", "r") == 0
    summary = json.loads((run.folder / "r" / "summary.json").read_text())
    assert summary["rounds_failed"] > 0
    assert summary["rounds_completed"] + summary["rounds_failed"] == 12
    assert f"{summary['rounds_failed']} rounds failed closed" in run.out


def test_the_graph_of_a_cohort_is_told(run: Run) -> None:
    options = ("--silos", "1000", "--colluding", "200", "--dropping", "100")
    assert run.json("graph", *options, "--bits", "40") == {
        "silos": 1000, "graph": "ring", "neighbours": 158, "threshold": 115, "failure": "2^-40",
        "failure_of_run": "2^-40.0", "failure_after_2^50_tries": "2^-0.0", "false_shares_found": 21,
    }  # fmt: skip
    assert run("graph", *options, "--rounds", "1000") == 0
    said = " ".join(run.out.split())
    assert "threshold 149, 198 neighbours each (ring)" in said
    assert "a probability of 2^-80 a window, of 2^-73.0 in a run of 1,000 rounds, and of 2^-29.9 against" in said
    assert "up to 24 false shares of a secret are found" in said
    assert run("graph", "--silos", "100", "--colluding", "19", "--dropping", "0") == 0
    assert "with up to 19 colluding, with certainty; up to 20 false shares" in " ".join(run.out.split())
    assert run("graph", "--silos", "4", "--colluding", "2", "--dropping", "2") == 2
    assert "at least 3 silos" in run.err


def test_the_resolved_scenario_repeats_the_run(run: Run, tiny_file: Path) -> None:
    settings = ["--set", "privacy.noise=seeded-unsafe"]
    run.json("simulate", str(tiny_file), *settings, "--out", "a")
    run.json("simulate", "a/scenario.toml", "--out", "b")
    assert (run.folder / "a/model.safetensors").read_bytes() == (run.folder / "b/model.safetensors").read_bytes()
    run.json("simulate", "a/scenario.toml", "--set", "seed=6", "--out", "c")
    assert (run.folder / "a/model.safetensors").read_bytes() != (run.folder / "c/model.safetensors").read_bytes()


def test_one_seed_does_not_repeat_the_noise(run: Run, tiny_file: Path) -> None:
    for name in "ab":
        run.json("simulate", str(tiny_file), "--out", name)
    assert (run.folder / "a/model.safetensors").read_bytes() != (run.folder / "b/model.safetensors").read_bytes()


def test_each_epsilon_is_recomputed_from_the_ledger_by_a_closed_form(run: Run, tiny_file: Path) -> None:
    """Independently of our accountant: Balle and Wang's closed form on the rows that the ledger holds."""
    summary = run.json(
        "simulate", str(tiny_file), "--out", "r", "--set", "privacy.sample_rate=1.0",
        "--set", "privacy.noise_multiplier=", "--set", "privacy.epsilon=2.5",
    )  # fmt: skip
    for row in summary["privacy"]:
        path = run.folder / "r" / "ledgers" / f"{row['silo']}.sqlite"
        (scope,), events = read_ledger(path).scopes.values(), charged(path)
        assert [event.sample_rate for event in events] == [1.0, 1.0]
        mu = math.sqrt(sum(event.steps / event.noise_multiplier**2 for event in events))
        epsilon = row["epsilon"]
        delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        assert delta <= scope.delta == 1e-3
        assert delta == pytest.approx(1e-3, rel=1e-3)
        assert 2.49 < epsilon <= 2.5


def test_seeded_noise_is_said_in_table_summary_and_ledger(run: Run, tiny_file: Path) -> None:
    assert run("simulate", str(tiny_file), "--out", "r", "--set", "privacy.noise=seeded-unsafe") == 0
    assert "These epsilons protect nobody" in " ".join(run.out.split())
    summary = json.loads((run.folder / "r/summary.json").read_text())
    assert {row["noise_source"] for row in summary["privacy"]} == {"seeded-unsafe"}
    assert {event.noise_source for event in charged(run.folder / "r/ledgers/west.sqlite")} == {"seeded-unsafe"}
    lines = [json.loads(line) for line in (run.folder / "r/metrics.jsonl").read_text().splitlines()]
    assert {line["noise"] for line in lines} == {"seeded-unsafe"}
    assert b"seeded-unsafe" in (run.folder / "r/model.safetensors").read_bytes()
    assert "seeded-unsafe" in (run.folder / "r/server.log").read_text()
    assert run("simulate", str(tiny_file), "--out", "s") == 0
    assert "protect nobody" not in " ".join(run.out.split())


def test_the_table_fits_and_names_the_folder(run: Run, tiny_file: Path) -> None:
    assert run("simulate", str(tiny_file), "--report", "--out", "r") == 0
    for word in ("accuracy", "recall", "epsilon", "delta", "north", "south", "west", "2 rounds"):
        assert word in run.out
    assert f"Run folder: {run.folder / 'r'}" in run.out
    assert run.out.endswith(f"Report: {run.folder / 'r' / 'report.html'}\n")
    assert max(len(line) for line in run.out.splitlines() if not line.startswith(("Run folder", "Report"))) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "privacy.epsilonn=1"], "privacy.epsilonn is not a known key; did you mean 'epsilon'?"),
        (["--set", "rounds='2'"], "rounds = '2' is not accepted"),
        (["--set", "privacy.delta="], "privacy.delta is missing"),
        (["--set", "privacy.noise_multiplier="], "exactly one of epsilon and noise_multiplier"),
        (["--set", "privacy.delta=2.0"], "privacy.delta = 2.0 is not accepted"),
        (["--set", "model.kind=mlpp"], "unknown model 'mlpp'; did you mean 'mlp'?"),
        (["--set", "privacy.expected_batch_size=25"], "it, privacy.silo.north.expected_batch_size, or set data.part"),
        (["--set", "privacy.expected_batch_size=60"], "for it, privacy.silo.north.expected_batch_size\n"),
        (["--set", "privacy.delta=0.5"], "is not under one over the records of silo"),
        (["--set", "model.kind=cnn"], "needs images"),
        (["--set", "data.partition.min_records=80"], "cannot give 3 silos 80 each"),
        (["--set", "data.reference_range="], "data.reference_range is missing"),
        (["--set", "model.hidden=[65536,65536]"], "the model would have 4,295,"),
        (["--set", "data.held_out=0.001"], "data.held_out = 0.001 leaves a part without every label"),
        (["--set", "privacy.noise_multiplier=0.2", "--set", "rounds=1000"], "no epsilon is computed"),
        (["--engine", "flwr"], "Invalid value for '--engine'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line_and_nothing_written(
    run: Run, tiny_file: Path, arguments: list[str], words: str
) -> None:
    assert run("simulate", str(tiny_file), "--out", "r", *arguments) == 2
    assert words in run.err
    assert "Traceback" not in run.err
    assert run.out == ""
    assert [path.name for path in run.folder.iterdir()] == ["tiny.toml"]
    if "Usage" not in run.err:
        assert run.err.count("\n") == 1


def test_a_folder_with_brackets_in_its_name_is_named_as_it_is(run: Run, tiny_file: Path) -> None:
    assert run("simulate", str(tiny_file), "--out", "x[") == 0
    assert run("simulate", str(tiny_file), "--out", "x[/b]y") == 0
    assert "x[/b]y" in run.out


def test_a_missing_file_is_named(run: Run) -> None:
    assert run("simulate", "x" * 5000) == 2
    assert "is not the name of a file" in run.err
    assert run("simulate", "nowhere.toml") == 2
    assert "nowhere.toml: no such file" in run.err


def test_cuda_asked_for_and_absent(run: Run, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("simulate", str(tiny_file), "--device", "cuda", "--out", "r") == 2
    assert "no CUDA device is available here" in run.err
    assert not (run.folder / "r").exists()


def test_a_run_never_writes_over_another(run: Run, tiny_file: Path) -> None:
    run.json("simulate", str(tiny_file), "--out", "r")
    before = (run.folder / "r/summary.json").read_bytes()
    assert run("simulate", str(tiny_file), "--out", "r") == 2
    assert "never writes over another" in run.err
    assert (run.folder / "r/summary.json").read_bytes() == before


def test_a_run_that_fails_says_why_and_where(run: Run, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise RuntimeError("patient Ada Lovelace")

    monkeypatch.setattr("clients.silo.Silo.records", nothing)
    assert run("simulate", str(tiny_file), "--out", "r") == 1
    assert "0 silos are too few to begin" in run.err
    assert "Lovelace" not in run.err + run.out
    assert "Ada" in (run.folder / "r/logs/north.log").read_text()


def test_dropouts_are_in_table_and_summary(run: Run, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clients.silo import Silo

    real = Silo.records

    def west_fails(self: Silo) -> object:
        if self.name == "west":
            raise RuntimeError
        return real(self)

    monkeypatch.setattr(Silo, "records", west_fails)
    assert run("simulate", str(tiny_file), "--out", "r") == 0
    assert "west dropped out of 2 rounds: internal" in run.out
    summary = json.loads((run.folder / "r/summary.json").read_text())
    assert summary["dropouts"] == [{"silo": "west", "code": "internal", "rounds": 2}]
    row = summary["privacy"][2]
    assert set(row) >= PRIVACY_KEYS
    assert (row["epsilon"], row["steps"], row["noise_multiplier"]) == (0.0, 0, None)


def test_scenarios_are_listed_and_each_passes_its_checks(run: Run) -> None:
    listed = run.json("scenarios")
    assert set(listed) >= {"hospitals", "quickstart", "digits"}
    assert run("scenarios") == 0
    for name, summary in listed.items():
        assert name in run.out
        assert summary in run.out  # a line each, unbroken at 80 columns


def test_a_built_in_scenario_is_shown_as_it_is_and_a_copy_of_it_is_the_same(run: Run) -> None:
    for name, path in builtin_scenarios().items():
        assert run("scenarios", "show", name) == 0
        assert run.out == path.read_text(encoding="utf-8")
    (run.folder / "mine.toml").write_text(run.json("scenarios", "show", "digits")["toml"], encoding="utf-8")
    assert read_scenario(str(run.folder / "mine.toml")) == read_scenario("digits")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "digit"], "digit: is no built-in scenario; they are"),
        (["show", "../digits"], "../digits: is no built-in scenario; they are"),
        (["--json", "show", "digits"], "--json goes to the end: fedmodel scenarios show NAME --json"),
        (["show"], "Missing argument 'NAME'"),
    ],
)
def test_what_is_no_built_in_scenario_is_not_shown(words: list[str], said: str, run: Run) -> None:
    assert run("scenarios", *words) == 2
    assert run.out == ""
    assert said in run.err


def test_budget_epsilon_and_calibrate(run: Run) -> None:
    plan = ["--sample-rate", "1", "--steps", "50", "--delta", "1e-5"]
    answers = [run.json("budget", "epsilon", "--noise-multiplier", "8", *plan, *fine) for fine in ((), ("--fine",))]
    mu = math.sqrt(50) / 8  # what full lots are: one Gaussian mechanism (Dong et al. 2022)
    for answer in answers:
        assert round(answer["epsilon"], 3) == 3.797
        assert mu <= answer["mu"] < 1.01 * mu
        assert answer["advantage"] == pytest.approx(2 * norm.cdf(mu / 2) - 1, abs=1e-4)
        assert answer["advantage"] >= 2 * norm.cdf(mu / 2) - 1
        assert (answer["delta"], answer["mu_floor"], answer["accountant"]) == (1e-5, 1e-9, "pld")
        for epsilon, delta in answer["curve"]:
            exact = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
            assert exact <= delta * (1 + 1e-3)
            assert delta <= exact * 1.1 + 1e-12  # far below the floor, what accounting truncates is all there is
    assert answers[1] == answers[0]  # of full lots the closed form is known, and no grid is needed
    sampled = ["--noise-multiplier", "2", "--sample-rate", "0.1", "--steps", "50", "--delta", "1e-5"]
    coarse, fine = (run.json("budget", "epsilon", *sampled, *more)["epsilon"] for more in ((), ("--fine",)))
    assert fine < coarse < 1.01 * fine  # the finer grid is closer
    answer = run.json("budget", "calibrate", "--epsilon", "3.797", *plan)
    assert answer["noise_multiplier"] == pytest.approx(8.0, abs=2e-3)
    assert run("budget", "epsilon", "--noise-multiplier", "8", *plan) == 0
    assert run.out.startswith("epsilon 3.7966; no attack's advantage is over 0.3415; 0.88")
    assert run.out.endswith("-GDP wherever delta is over 10⁻⁹\n")


def test_the_fine_grid_is_closer_and_no_grid_is_under(run: Run) -> None:
    """On the README's example; Opacus and dp-accounting agree (`tests/fedmodel/privacy/test_accounting.py`)."""
    plan = ["--noise-multiplier", "1", "--sample-rate", "0.0128", "--steps", "1560", "--delta", "1e-5"]
    fine, coarse = run.json("budget", "epsilon", *plan, "--fine"), run.json("budget", "epsilon", *plan)
    assert round(fine["epsilon"], 3) == 2.988
    assert fine["epsilon"] <= coarse["epsilon"] < fine["epsilon"] + 2e-3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["epsilon", "--noise-multiplier", "0", "--sample-rate", "1", "--steps", "1", "--delta", "1e-5"],
            "noise_multiplier",
        ),
        (
            ["epsilon", "--noise-multiplier", "1", "--sample-rate", "2", "--steps", "1", "--delta", "1e-5"],
            "sample_rate",
        ),
        (["epsilon", "--noise-multiplier", "1", "--sample-rate", "1", "--steps", "1", "--delta", "1"], "delta"),
        (["epsilon", "--noise-multiplier", "1", "--sample-rate", "1", "--steps", "0", "--delta", "1e-5"], "--steps"),
        (["calibrate", "--epsilon", "-1", "--sample-rate", "1", "--steps", "1", "--delta", "1e-5"], "epsilon"),
        (["calibrate", "--epsilon", "1", "--sample-rate", "1e-12", "--steps", "1", "--delta", "1e-5"], "sample rate"),
        (["calibrate", "--epsilon", "1", "--sample-rate", "1", "--steps", "10000000", "--delta", "1e-5"], "steps"),
        (["calibrate", "--epsilon", "x", "--sample-rate", "1", "--steps", "1", "--delta", "1e-5"], "--epsilon"),
    ],
)
def test_budget_refuses_what_is_out_of_range(run: Run, arguments: list[str], words: str) -> None:
    assert run("budget", *arguments) == 2
    assert words in run.err
    assert run.out == ""


def test_printed_figures_of_privacy_are_rounded_up(run: Run) -> None:
    """Four decimals of the noise that suffices must suffice, four of an epsilon that holds must hold."""
    plan = ["--sample-rate", "0.01", "--steps", "5", "--delta", "1e-2"]
    exact = run.json("budget", "calibrate", "--epsilon", "1e-4", *plan)["noise_multiplier"]
    assert run("budget", "calibrate", "--epsilon", "1e-4", *plan) == 0
    assert exact <= float(run.out.split()[-1]) < exact + 1e-4
    plan = ["--sample-rate", "0.3", "--steps", "7", "--delta", "1e-5", "--noise-multiplier", "2.3"]
    exact = run.json("budget", "epsilon", *plan)
    assert run("budget", "epsilon", *plan) == 0
    line = r"epsilon (\S+); no attack's advantage is over (\S+); (\S+)-GDP wherever delta is over 10⁻⁹\n"
    found = re.fullmatch(line, run.out)
    assert found is not None
    for name, printed in zip(("epsilon", "advantage", "mu"), found.groups(), strict=True):
        assert exact[name] <= float(printed) < exact[name] + 1e-4


def test_a_plan_without_an_epsilon_worth_claiming_is_refused_quickly(run: Run) -> None:
    plan = ["--sample-rate", "0.5", "--steps", "1000000", "--delta", "1e-5", "--noise-multiplier", "0.2"]
    assert run("budget", "epsilon", *plan) == 2
    assert "no epsilon is computed" in run.err


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["hospitals", "digits"])
def test_scenarios_train_on_a_gpu(run: Run, name: str) -> None:
    summary = run.json("simulate", name, "--device", "cuda", "--out", "r")
    assert summary["device"] == "cuda"
    assert summary["metrics"]["accuracy"] > 0.8
