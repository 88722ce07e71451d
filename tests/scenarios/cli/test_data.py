"""`fedmodel data check`, as a silo's own people meet it: what is told, what is written, what a server would hear."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from fedmodel.config import read_scenario, read_silo_file
from fedmodel.provision import scenario_hash
from fedmodel.system.packages import code_hash
from scenarios.cli import silo
from scenarios.deployment import tables
from tests.scenarios.cli.test_main import Run
from tests.scenarios.models.tables import HEADER, SCENARIO, rows, write_table

SILO = """name = "north"
min_silos = 2
encryption = {secure_aggregation = "off"}

[tables.admissions]
csv = "ward.csv"

[budgets.admissions]
unit = "record"
delta = 1e-3
epsilon = 8.0
"""
# As a hospital's program writes it: semicolons, decimal commas, a date, an id, words for yes and no.
EXPORT = "id;age;visits;smoker;stage;outcome;admitted\n" + "".join(
    f"{number};{20 + number},5;{number % 9};{'ja' if number % 2 else 'nein'};I;"
    f"{'benign' if number % 3 else 'malignant'};0{1 + number % 9}.03.2024\n"
    for number in range(60)
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    (tmp_path / "s.toml").write_text(SCENARIO.replace("FOLDER", "tables"))
    (tmp_path / "kit").mkdir()
    hashed = scenario_hash(read_scenario(str(tmp_path / "s.toml"))).hex()
    admits = f'scenarios = ["{hashed}"]\ncode = ["{code_hash()}"]\n'
    (tmp_path / "kit" / "silo.toml").write_text(admits + SILO)
    return Run(monkeypatch, capsys, tmp_path)


def test_an_export_of_another_country_is_mended_by_one_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kit" / "ward.csv").write_text(EXPORT)
    assert run("data", "check", "s.toml", "--silo", "kit") == 2
    assert "its header has no comma but semicolons" in run.out
    assert "settled by: separator under [tables.admissions] in silo.toml (--fix writes it)" in run.out
    assert "A run REFUSES this table." in run.out
    assert "fewer records than a lot" not in run.out
    assert run.err.startswith("error: ")
    assert "ward.csv: its header has no comma but semicolons" in run.err
    assert "is told: not ready" in run.out
    assert (tmp_path / "kit" / "silo.toml").read_text().endswith(SILO)

    assert run("data", "check", "s.toml", "--silo", "kit", "--fix") == 0, run.out
    law = read_silo_file(tmp_path / "kit" / "silo.toml").tables["admissions"]
    assert (law.separator, law.decimal, law.encoding) == (";", ",", "utf-8")
    assert (law.yes, law.no, law.leave_out) == (("ja",), ("nein",), ("id", "admitted"))
    assert "silo.toml: these keys were entered" in run.out
    assert "A run reads 60 records in it, and uses 60." in run.out

    assert run("data", "check", "s.toml", "--silo", "kit") == 0
    assert "is told: ready" in run.out
    assert "smoker: boolean; yes and no found" in run.out


def test_values_are_told_by_row_and_act_on_no_terminal(run: Run, tmp_path: Path) -> None:
    made = rows(60, seed=1)
    made[4][0], made[7][4] = "200", "ben\x1b[2Jign"
    write_table(tmp_path / "kit" / "ward.csv", made)
    assert run("data", "check", "s.toml", "--silo", "kit") == 2
    assert "column 'age': a value is outside its declared limits [0.0, 120.0]; rows: 1 (5); found: '200'" in run.out
    assert "column 'outcome': a value is none of the declared labels: benign, malignant" in run.out
    assert "rows: 1 (8)" in run.out
    assert run.err.endswith("; 1 more finding refuses it, as is said above\n")
    assert "\x1b" not in run.out + run.err
    assert not any(word in run.err for word in ("200", "2J", "[2J"))
    # Values are nothing that a server hears of.
    assert "is told: ready" in run.out
    assert run("data", "check", "s.toml", "--silo", "kit", "--json") == 2


def test_how_many_records_there_are_is_compared_with_what_the_scenario_asks(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "kit" / "ward.csv", rows(20, seed=1))
    document = run.json("data", "check", "s.toml", "--silo", "kit")
    (table,) = document["tables"]
    assert (table["records"], table["used"], document["ready"]) == (20, 20, True)
    (note,) = table["findings"]
    assert "fewer records than a lot" in note["what"]
    assert "privacy.silo.north.expected_batch_size" in note["settled_by"]
    write_table(tmp_path / "kit" / "ward.csv", rows(1200, seed=1))
    assert run("data", "check", "s.toml", "--silo", "kit") == 0
    assert "steps are far too large" in run.out
    assert "privacy.delta = 0.001 is not under one over the records" in run.out


def test_a_table_is_named_or_those_of_a_simulation_are_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for party in ("north", "south", "west", "held-out"):
        write_table(tmp_path / "tables" / f"{party}.csv", rows(60, seed=2))
    assert run("data", "check", "s.toml") == 0
    assert run.out.count("A run reads 60 records in it, and uses 60.") == 4
    (tmp_path / "export.csv").write_text(EXPORT)
    for name in ("admissions", "west", "held-out"):
        assert run("data", "check", "s.toml", "--table", f"{name}=export.csv", "--fix") == 0
        assert '[tables.admissions]\nseparator = ";"\ndecimal = ","\n' in run.out
        assert ("[data.csv." in run.out) == (name != "admissions")
    for words, rule in (
        (("--table", "east=export.csv"), "expected NAME=PATH, NAME being 'admissions' or one of north, south"),
        (("--table", "west"), "expected NAME=PATH"),
        (("--table", "west=x", "--silo", "kit"), "give one of --silo and --table"),
        (("--silo", "nowhere"), "a silo acts by its own law"),
        (
            ("--set", "data.folder=none"),
            "none: neither of north.csv and north.parquet there; exactly one is read; nor is that folder: a relative"
            " one begins where the command is run\n",
        ),
    ):
        assert run("data", "check", "s.toml", *words) == 2 or rule.startswith("neither")
        assert rule in run.err
    assert run("data", "check", "quickstart") == 2
    assert "is not read from a table" in run.err


def test_a_file_that_is_not_there_is_one_finding(run: Run) -> None:
    assert run("data", "check", "s.toml", "--silo", "kit") == 2
    assert "ward.csv: cannot be read: No such file" in run.out
    assert run("data", "check", "s.toml", "--silo", "kit", "--fix") == 2
    assert run.out == ""
    assert "ward.csv: cannot be read: No such file" in run.err


def test_persons_whose_ids_look_alike_are_told_of_by_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        (tmp_path / "s.toml").read_text()
        .replace('unit = "record"', 'unit = "person"\nmax_records = 1')
        .replace('label = "outcome"', 'label = "outcome"\nperson = "id"')
    )  # fmt: skip
    made = [[f"P-{number % 40}", *row] for number, row in enumerate(rows(60, seed=3))]
    made[59][0] = "p-7"
    write_table(tmp_path / "ward.csv", made, ["id", *HEADER])
    document = run.json("data", "check", "p.toml", "--table", "north=ward.csv")
    (table,) = document["tables"]
    assert (table["records"], table["used"]) == (60, 41)
    assert [one["values"] for one in table["findings"]] == [
        [f"row 8 of {tmp_path / 'ward.csv'}, row 60 of {tmp_path / 'ward.csv'}"]
    ]


def test_a_table_with_codes_of_its_own_is_told_that_a_class_has_no_record(run: Run, tmp_path: Path) -> None:
    """1 and 2 in place of 0 and 1, the 2 left out: whoever was a 0 elsewhere is a 1 here."""
    coded = (tmp_path / "s.toml").read_text().replace('labels = ["benign", "malignant"]', 'labels = ["0", "1"]')
    (tmp_path / "coded.toml").write_text(coded)
    (tmp_path / "drop.toml").write_text(
        coded.replace('labels = ["0", "1"]', 'labels = ["0", "1"]\nunknown_label = "drop"')
    )
    made = rows(60, seed=1)
    codes = {"benign": "1", "malignant": "2"}
    write_table(tmp_path / "ward.csv", [[*row[:-1], codes[row[-1]]] for row in made])
    assert run("data", "check", "coded.toml", "--table", "north=ward.csv") == 2
    assert (
        'settled by: mend the spelling, or data.labels, or data.unknown_label = "drop"; if the source has codes of its'
        " own, translate all of them, since one of them may mean another class here\n"
    ) in run.out
    assert run("data", "check", "drop.toml", "--table", "north=ward.csv") == 0
    assert (
        "  to know: column 'outcome': no record that a run has is of these classes: 0\n"
        "    settled by: nothing, where that is so; if the source has codes of its own, such as 1 and 2 for 0 and 1,"
        " translate all of them: a code that is declared is read as the declared class\n"
    ) in run.out
    write_table(tmp_path / "ward.csv", [[*row[:-1], str(int(codes[row[-1]]) - 1)] for row in made])
    assert run("data", "check", "drop.toml", "--table", "north=ward.csv") == 0
    assert "of these classes" not in run.out
    write_table(tmp_path / "ward.csv", [])
    assert run("data", "check", "drop.toml", "--table", "north=ward.csv") == 0
    assert "of these classes" not in run.out  # of a table without a record that is no news


def test_dates_in_place_of_ids_are_told_of(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        (tmp_path / "s.toml").read_text()
        .replace('unit = "record"', 'unit = "person"\nmax_records = 1')
        .replace('label = "outcome"', 'label = "outcome"\nperson = "seen"')
    )  # fmt: skip
    made = rows(60, seed=3)
    write_table(
        tmp_path / "ward.csv", [[f"{1 + n % 28:02}.03.2025", *row] for n, row in enumerate(made)], ["seen", *HEADER]
    )
    assert run("data", "check", "p.toml", "--table", "north=ward.csv") == 0
    assert (
        f"  to know: {tmp_path / 'ward.csv'}: column 'seen': the ids look like dates, so that all records of one day"
        " would be one person's\n"
        "    settled by: person in the scenario and in silo.toml: the column that says whose a record is\n"
    ) in run.out
    write_table(tmp_path / "ward.csv", [[f"P{n}", *row] for n, row in enumerate(made)], ["seen", *HEADER])
    assert run("data", "check", "p.toml", "--table", "north=ward.csv") == 0
    assert "look like dates" not in run.out


@pytest.fixture
def started(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A kit that names a scenario, of which it has a copy, and the command, which starts nothing."""
    scenario = tmp_path / "kit" / "scenarios" / "tabled.toml"
    scenario.parent.mkdir()
    scenario.write_text((tmp_path / "s.toml").read_text())
    monkeypatch.setattr(silo, "_become", lambda words: typer.echo("started"))
    return run


@pytest.mark.parametrize("watched", [True, False])
def test_a_silo_looks_at_its_tables_before_it_starts_and_tells_no_log(
    watched: bool, started: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silo, "_is_watched", lambda: watched)
    made = rows(60, seed=1)
    made[4][0] = "200"
    write_table(tmp_path / "kit" / "ward.csv", made)
    assert started("silo", "start", "kit") == 0
    assert started.out == "started\n"
    assert ("found: '200'" in started.err) == ("REFUSES" in started.err) == ("60 rows" in started.err) == watched
    assert "is told: ready" in started.err
    unwatched = started.err
    write_table(tmp_path / "kit" / "ward.csv", made[:1])
    assert started("silo", "start", "kit") == 0
    assert (started.err == unwatched) != watched

    write_table(tmp_path / "kit" / "ward.csv", made, ["Age", *HEADER[1:]])
    assert started("silo", "start", "kit") == 0
    assert "is told: not ready, and no more. The reasons stay here:\n" in started.err
    assert "column 'age' is missing" in started.err


def test_a_silo_starts_whatever_its_tables_are(started: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kit" / "scenarios" / "tabled.toml").write_text(SCENARIO)  # with another hash
    assert started("silo", "start", "kit") == 0
    assert started.err == (
        "Table admissions is not looked at: kit/scenarios has no scenario of it that the law names.\n"
    )
    (tmp_path / "kit" / "scenarios" / "tabled.toml").write_text("SESAME")
    assert started("silo", "start", "kit") == 0
    assert "could not be looked at: tabled.toml: not valid TOML" in started.err

    def fail(*_: object) -> None:
        raise ValueError("SESAME")

    monkeypatch.setattr(tables, "tables_at_start", fail)
    assert started("silo", "start", "kit") == 0
    assert started.err == "The silo's tables could not be looked at (ValueError).\n"
    assert started("silo", "start", "nowhere") == 0
    assert (started.out, started.err) == ("started\n", "")


def test_law_and_code_keep_a_silo_from_being_ready_and_all_reasons_are_said(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "kit" / "ward.csv", rows(60, seed=1))
    found = run.json("data", "check", "s.toml", "--silo", "kit")
    assert (found["ready"], found["why_not_ready"]) == (True, [])
    law = tmp_path / "kit" / "silo.toml"
    law.write_text(SILO.replace("min_silos = 2", "least_noise_multiplier = 4.0"))
    assert run("data", "check", "s.toml", "--silo", "kit") == 2
    assert "A run reads 60 records in it, and uses 60." in run.out
    for reason in ("does not name the hash of the scenario", "which silo.toml does not name", "noise multiplier"):
        assert reason in run.out
    assert "not name the hash of the scenario" in run.err


def test_what_a_run_does_besides_training_is_held_to_the_law_before_a_silo_is_called_ready(
    run: Run, tmp_path: Path
) -> None:
    """What the silo refuses when a run begins, a dry run tells it: a mechanism, noise, or a job that is none."""
    write_table(tmp_path / "kit" / "ward.csv", rows(60, seed=1))
    scenario, law = tmp_path / "s.toml", tmp_path / "kit" / "silo.toml"

    def why_not(job: str, noise: float, keys: str) -> list[str]:
        text = SCENARIO.replace("FOLDER", "tables")
        scenario.write_text(f"{text}\n[besides.{job}]\nnoise_multiplier = {noise}\nbound = 100.0\n")
        admits = f'scenarios = ["{scenario_hash(read_scenario(str(scenario))).hex()}"]\ncode = ["{code_hash()}"]\n'
        law.write_text(admits + keys + SILO)
        return tables.why_not_ready(read_scenario(str(scenario)), tmp_path / "kit")

    (reason,) = why_not("label-counts", 4.0, "")
    assert "mechanism 'gaussian' is none of this silo's: dp-sgd" in reason
    both = 'mechanisms = ["dp-sgd", "gaussian"]\nleast_noise_multiplier = 1.0\n'
    assert why_not("label-counts", 4.0, both) == []
    (reason,) = why_not("label-counts", 0.5, both)
    assert "noise multiplier 0.5 is under this silo's minimum 1" in reason
    (reason,) = why_not("head-count", 4.0, both)
    assert "head-count" in reason


def test_files_are_looked_at_as_a_run_would_read_them(run: Run, tmp_path: Path) -> None:
    begin, _, _ = SCENARIO.partition("[data]")
    data = '[data]\nsource = "json-lines"\nname = "admissions"\nlabels = ["benign", "malignant"]\nlength = 4\n'
    (tmp_path / "s.toml").write_text(begin.replace('unit = "person"\n', 'unit = "record"\n') + data)
    lines = [f'{{"text": "n{place}", "label": "{("benign", "malignant")[place % 3 > 0]}"}}' for place in range(60)]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "kit" / "silo.toml").write_text(SILO.replace('csv = "ward.csv"', 'files = "../notes"'))
    silo = read_scenario(str(tmp_path / "s.toml")).federation.silos[0]
    for words, whose in (
        (f"--table={silo}=notes", f" of {silo}"),
        ("--table=admissions=notes", ""),
        ("--silo=kit", " of north"),
    ):
        run("data", "check", "s.toml", words)
        assert f"Data set admissions{whose}: 60 records." in run.out
        assert "benign: a label; 20 records found" in run.out
        assert "A run reads 60 records in it" in run.out
    (tmp_path / "notes" / "a.jsonl").write_text('{"text": "hidden-word", "label": "unsure"}')
    assert run("data", "check", "s.toml", "--table=admissions=notes") == 2
    assert "a.jsonl: column 'label': 'label' is none of data.labels: benign, malignant; rows: 1 (1)" in run.out
    assert "A run REFUSES this data set." in run.out
    assert "unsure" not in run.out + run.err
    assert run("data", "check", "s.toml") == 2
    assert "name a folder to look at, as in --table admissions=FOLDER" in run.err


def test_files_that_no_run_reads_are_said_to_their_owner(run: Run, tmp_path: Path) -> None:
    begin, _, _ = SCENARIO.partition("[data]")
    data = '[data]\nsource = "json-lines"\nname = "admissions"\nlabels = ["benign", "malignant"]\nlength = 4\n'
    (tmp_path / "s.toml").write_text(begin.replace('unit = "person"\n', 'unit = "record"\n') + data)
    notes = tmp_path / "notes"
    (notes / "more").mkdir(parents=True)
    line = '{"text": "n", "label": "benign"}\n'
    (notes / "more" / "b.jsonl").write_text(line * 60)
    run("data", "check", "s.toml", "--table=admissions=notes")
    assert "Data set admissions: 0 records." in run.out
    assert "notes: holds no record" in run.out
    (notes / "A.JSONL").write_text(line * 60)
    for name in ("x.json", "y.json", "README", "._A.JSONL"):
        (notes / name).write_text("no line of any")
    assert run("data", "check", "s.toml", "--table=admissions=notes") == 0
    assert "Data set admissions: 60 records." in run.out
    for kind, names in (
        ("that end in .jsonl, which are not read: 1", "'more/b.jsonl'"),
        ("that end in .json, which are not read: 2", "'x.json', 'y.json'"),
        ("without an ending, which are not read: 1", "'README'"),
        ("whose names begin with a dot, which are not read: 1", "'._A.JSONL'"),
    ):
        assert f"to know: {notes}: files {kind}; found: {names}\n" in run.out
    assert run.out.count("settled by: files that end in .jsonl, in the folder itself, are read") == 4
    assert "holds no record" not in run.out
