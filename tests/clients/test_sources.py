"""A budget is of data: no way to write, link or copy a source gives it a second budget."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clients import policy
from clients.party import take_part
from clients.sentences import sentences
from clients.silo import HELD, Silo
from fedmodel import plans
from fedmodel.config import Scenario, SiloFile, TableSource, read_scenario, read_silo_file, silo_file_to_toml
from fedmodel.config.same_source import same_by_text
from fedmodel.crypto import digest
from fedmodel.data import access, check_sources, marks, tables
from fedmodel.errors import ConfigError, DataError, PolicyRefused, PrivacyBudgetExceeded, ProtocolError
from fedmodel.ledger import Scope, Standing, clock
from fedmodel.ledger.entries import told_time
from fedmodel.privacy import accounting
from fedmodel.provision import scenario_hash
from scenarios.runs import inspection
from tests.conftest import TINY
from tests.federations import issued

CSV = "patient,age\n1,50\n"
PG = "postgresql://reader@db.example.org/ward"
QUERY = "SELECT * FROM ward"


def law_of(
    tables: dict[str, dict[str, Any]], covers: list[str] | None = None, budgets: tuple[str, ...] | None = None
) -> SiloFile:
    """A law with a budget for each table, or one for several of them."""
    figures = {"unit": "record", "delta": 1e-5, "epsilon": 3.0}
    names = [name for name in (tables if budgets is None else budgets) if covers is None or name not in covers]
    found: dict[str, Any] = dict.fromkeys(names, figures)
    if covers is not None:
        found["both"] = {**figures, "covers": covers}
    off = {"secure_aggregation": "off"}
    return SiloFile.model_validate({"name": "a", "budgets": found, "tables": tables, "encryption": off})


def pg(url: str = PG, query: str = QUERY, **more: Any) -> dict[str, Any]:
    return {"url": url, "query": query, **more}


SAME_BY_TEXT = [
    ({"csv": "/srv/x.csv"}, {"csv": "/srv/x.csv"}, "are the same path"),
    ({"csv": "/srv/x.csv"}, {"csv": "/srv/./x.csv"}, "are the same path"),
    ({"csv": "/srv/x.csv"}, {"csv": "/srv//x.csv"}, "are the same path"),
    ({"csv": "x.csv"}, {"csv": "./x.csv"}, "are the same path"),
    ({"parquet": "x"}, {"csv": "x"}, "are the same path"),
    ({"folder": "/srv/ward"}, {"folder": "/srv/ward/"}, "are the same path"),
    ({"folder": "/srv/ward"}, {"csv": "/srv/ward/x.csv"}, "are a file and the folder that it lies in"),
    ({"parquet": "ward/x.PARQUET"}, {"folder": "ward"}, "are a file and the folder that it lies in"),
    ({"url": "sqlite:///w.db", "query": QUERY}, {"url": "sqlite:///./w.db", "query": "SELECT 1"},
     "are queries of the same database"),
    (pg(), pg(), "are the same query"),
    (pg(), pg(query="SELECT * FROM ward WHERE age > 50"), "are queries of the same database"),
    (pg(disjoint=True), pg(query="SELECT * FROM ward WHERE age > 50"), "are queries of the same database"),
    (pg(disjoint=True), pg(query="select  *\nfrom WARD;", disjoint=True), "are the same query"),
    *[(pg(), pg(url), "are the same query") for url in (
        "postgresql+psycopg://reader@db.example.org/ward", "postgresql://reader@db.example.org:5432/ward",
        "postgresql://other@DB.Example.ORG/ward", "postgresql://reader@db.example.org./ward",
        "postgresql://db.example.org/ward?connect_timeout=5&sslmode=verify-full",
        "postgresql://reader@db.example.org/w%61rd", "postgresql://reader@/ward?port=5432&host=db.example.org",
    )],
    *[(pg("postgresql://localhost/ward"), pg(url), "are the same query") for url in (
        "postgresql://127.0.0.1/ward", "postgresql://[::1]/ward", "postgresql:///ward?host=/var/run/postgresql",
        "postgresql://x@LOCALHOST:5432/ward", "postgresql://[0:0:0:0:0:0:0:1]/ward", "postgresql://127.0.0.2/ward",
    )],
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "way"), SAME_BY_TEXT)
def test_one_source_under_two_names_is_refused_when_the_file_is_read(
    one: dict[str, Any], other: dict[str, Any], way: str, tmp_path: Path
) -> None:
    for first, second in ((one, other), (other, one)):
        tables = {"ward": first, "ward-again": second}
        with pytest.raises(ValueError, match=f"tables.ward and tables.ward-again are .*{way.removeprefix('are ')}"):
            law_of(tables)
        law_of(tables, covers=["ward", "ward-again"])  # one budget counts both
        law_of(tables, budgets=("ward",))  # the other is not trained on
    budget = "unit = 'record'\ndelta = 1e-5\nepsilon = 3.0\n"
    sections = {"encryption": "secure_aggregation = 'off'\n", "budgets.u": budget, "budgets.v": budget}
    for name, source in (("tables.u", one), ("tables.v", other)):
        sections[name] = "".join(f"{key} = {json.dumps(value)}\n" for key, value in source.items())
    text = 'name = "a"\n' + "".join(f"[{name}]\n{keys}" for name, keys in sections.items())
    (tmp_path / "silo.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_silo_file(tmp_path / "silo.toml")
    assert "\n" not in str(refused.value)
    assert 'as in [budgets.u] covers = ["u", "v"]' in str(refused.value)
    assert ("disjoint = true of both" in str(refused.value)) == ("queries of" in way)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"csv": "/srv/x.csv"}, {"csv": "/srv/y.csv"}),
        ({"csv": "/srv/ward/x.txt"}, {"folder": "/srv/ward"}),
        ({"csv": "/srv/ward/deep/x.csv"}, {"folder": "/srv/ward"}),
        ({"folder": "/srv/ward"}, {"folder": "/srv/ward/deep"}),
        (pg(), pg("postgresql://db.example.org/lab")),
        (pg(), pg("postgresql://db.example.org:5433/ward")),
        (pg(), pg("postgresql://db2.example.org/ward")),
        (pg(disjoint=True), pg(query="SELECT * FROM lab", disjoint=True)),
        (pg(query="SELECT 'A'", disjoint=True), pg(query="SELECT 'a'", disjoint=True)),
        ({"csv": "/srv/x.csv"}, pg()),
    ],
)
def test_other_sources_have_budgets_of_their_own(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert same_by_text(TableSource.model_validate(one), TableSource.model_validate(other)) is None
    law_of({"ward": one, "lab": other})


def test_disjoint_is_said_of_queries() -> None:
    with pytest.raises(ValueError, match="disjoint is given with url and query"):
        TableSource(csv="a.csv", disjoint=True)
    said = " ".join(sentences(law_of({"ward": pg(disjoint=True), "lab": pg(query="SELECT 1", disjoint=True)})))
    assert "That the queries of ward, lab give nobody's record whom another" in said
    assert "is this silo's own word: no program checks it" in said


# What only the file system knows.


def linked(make: Callable[[Path, Path], object]) -> Callable[[Path], None]:
    def lay(folder: Path) -> None:
        (folder / "x.csv").write_text(CSV)
        make(folder / "x.csv", folder / "y.csv")

    return lay


@pytest.mark.parametrize(
    ("make", "way"),
    [
        (lambda old, new: new.symlink_to(old), "one file"),
        (lambda old, new: os.link(old, new), "one file"),
        (lambda old, new: shutil.copyfile(old, new), "copies of one file"),
    ],
)
def test_a_link_and_a_copy_are_the_same_source(make: Callable[[Path, Path], object], way: str, tmp_path: Path) -> None:
    linked(make)(tmp_path)
    tables = {"ward": {"csv": "x.csv"}, "again": {"csv": "y.csv"}}
    with pytest.raises(
        PolicyRefused, match=f"tables.ward and tables.again are {way}, .*x.csv and .*y.csv, and a budget"
    ):
        check_sources(law_of(tables), tmp_path)
    check_sources(law_of(tables, covers=["ward", "again"]), tmp_path)
    check_sources(law_of(tables, budgets=("again",)), tmp_path)


def test_ways_to_write_a_path_lead_to_one_file(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "x.csv").write_text(CSV)
    (tmp_path / "door").symlink_to(tmp_path / "kit", target_is_directory=True)
    for path in ("../kit/x.csv", str(tmp_path / "kit" / "x.csv"), str(tmp_path / "door" / "x.csv"), "../door/x.csv"):
        with pytest.raises(PolicyRefused, match=r"are one file|are the same path"):
            check_sources(law_of({"ward": {"csv": "x.csv"}, "again": {"csv": path}}), tmp_path / "kit")
    with pytest.raises(PolicyRefused, match="are one file"):
        check_sources(law_of({"ward": {"folder": "."}, "again": {"folder": "../door"}}), tmp_path / "kit")
    with pytest.raises(PolicyRefused, match="are one file"):
        check_sources(law_of({"ward": {"csv": "x.csv"}, "again": {"folder": "../door"}}), tmp_path / "kit")


def test_folders_that_share_a_file_are_the_same_source(tmp_path: Path) -> None:
    law = law_of({"ward": {"folder": "one"}, "again": {"folder": "two"}})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.csv").write_text(CSV.replace("50", {"one": "51", "two": "52"}[name]))
        (tmp_path / name / "empty.csv").write_text("patient,age\n")  # a header alone is nobody's record
        (tmp_path / name / "notes.txt").write_text("alike, and not read")
        (tmp_path / name / "deep").mkdir()
    shutil.copyfile(tmp_path / "one" / "one.csv", tmp_path / "two" / "deep" / "one.csv")
    check_sources(law, tmp_path)
    os.link(tmp_path / "one" / "one.csv", tmp_path / "two" / "three.csv")
    with pytest.raises(PolicyRefused, match=r"are one file, .*one.csv and .*three.csv"):
        check_sources(law, tmp_path)


def test_a_sqlite_file_is_one_database_by_whatever_name(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "w.db")
    database.execute("CREATE TABLE ward (patient TEXT)")
    database.commit()
    database.close()
    (tmp_path / "l.db").symlink_to(tmp_path / "w.db")
    shutil.copyfile(tmp_path / "w.db", tmp_path / "c.db")

    def law(other: str, query: str, **more: Any) -> SiloFile:
        return law_of({
            "ward": {"url": "sqlite:///w.db", "query": QUERY, **more},
            "again": {"url": f"sqlite:///{other}", "query": query, **more},
        })  # fmt: skip

    for other in ("l.db", "c.db", f"{tmp_path}/w.db"):
        with pytest.raises(PolicyRefused, match="queries of the same database"):
            check_sources(law(other, "SELECT 1"), tmp_path)
        with pytest.raises(PolicyRefused, match="the same query"):
            check_sources(law(other, QUERY, disjoint=True), tmp_path)
        check_sources(law(other, "SELECT 1", disjoint=True), tmp_path)


def test_what_is_not_there_yet_is_no_source_and_what_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    law = law_of({"ward": {"csv": "x.csv"}, "again": {"folder": "no"}, "third": {"csv": "x.csv/y.csv"}})
    check_sources(law, tmp_path)
    (tmp_path / "x.csv").write_text(CSV)
    check_sources(law, tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"loop: cannot be read .*nobody can tell"):
        check_sources(law_of({"ward": {"csv": "x.csv"}, "again": {"csv": "loop"}}), tmp_path)


# At a deployed silo: before every charge, and after every reading.

TABLE = """
[data]
source = "table"
name = "ward"
label = "ill"
labels = ["no", "yes"]

[[data.columns]]
name = "age"
type = "float"
range = [0.0, 100.0]
"""


class Ward:
    """A deployed silo with two tables, and scenarios that ask for one or the other."""

    def __init__(self, folder: Path) -> None:
        scenario = TINY[: TINY.index("[data]")] + TABLE
        self._federation = issued(folder, scenario=scenario)
        self._federation.unlock("north")
        self.kit = self._federation.kit("north")
        self._first = read_scenario(str(folder / "tiny.toml"))
        for name, age in (("x", 50), ("y", 51)):
            (self.kit / f"{name}.csv").write_text(f"age,ill\n{age},no\n{age},yes\n")
        self.tables = {"ward": {"csv": "x.csv"}, "again": {"csv": "y.csv"}}
        self.figures = {"unit": "record", "delta": 1e-3, "epsilon": 5.0}

    def scenario(self, data: str) -> Scenario:
        return self._first.model_copy(update={"data": self._first.data.model_copy(update={"name": data})})

    def law(self, budgets: dict[str, Any], **keys: Any) -> None:
        document = read_silo_file(self.kit / "silo.toml").model_dump()
        law = SiloFile.model_validate({**document, "budgets": budgets, "tables": self.tables, **keys})
        (self.kit / "silo.toml").write_text(silo_file_to_toml(law), encoding="utf-8")

    def silo(self, data: str, run: int) -> Silo:
        return Silo("north", self.scenario(data), str(run), "cpu", self.kit, self.kit)

    def join(self, data: str, run: int) -> int:
        """Reserve a run, and return how many steps of it were admitted."""
        silo = self.silo(data, run)
        with silo.ledger() as ledger:
            return silo.reserve(ledger, plans.planned_event(silo.plan)).steps

    def standing(self) -> Standing:
        with self.silo("ward", 1).ledger() as ledger:
            return ledger.standing()

    def ready(self, data: str, run: int) -> None:
        """Refuse what `join` would refuse."""
        silo = self.silo(data, run)
        with silo.ledger() as ledger:
            silo.check_reserves(ledger, plans.planned_event(silo.plan))

    def train(self, data: str, run: int) -> None:
        """Charge a round, after what is checked before a charge."""
        silo = self.silo(data, run)
        with silo.ledger() as ledger:
            silo.reserved(ledger)
            ledger.charge(silo.run, 1, silo.plan.steps_per_round, f"{run:064d}")


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


@pytest.fixture
def hour(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The silo's clock, which goes only when this is called: on by as long as a reservation is held."""
    now = [datetime.now(UTC)]
    monkeypatch.setattr(clock, "now", lambda: now[0])

    def passes() -> None:
        now[0] += HELD + timedelta(seconds=1)

    return passes


def test_a_deployed_silo_is_ready_by_its_tables_header_and_holds_what_it_reserves_for_an_hour(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that no run could read is found when it joins; whether it is there, and its columns, before."""
    ward.law({"ward": ward.figures, "again": ward.figures})
    silo, table = ward.silo("ward", 1), ward.kit / "x.csv"
    whole = table.read_text()
    for text, ready in (
        (whole, True),
        ("age,ill\n", True),
        ("age,ill\nold,perhaps\n", True),
        ("years,ill\n50,no\n", False),
    ):
        table.write_text(text)
        with nullcontext() if ready else pytest.raises(DataError):
            silo.check_data()
    table.unlink()
    with pytest.raises(DataError):
        silo.check_data()
    table.write_text(whole)
    event = plans.planned_event(silo.plan)
    with silo.ledger() as ledger:
        size = ledger.standing().size
        silo.check_reserves(ledger, event)
        (ward.kit / "y.csv").unlink()
        (ward.kit / "y.csv").symlink_to("x.csv")
        with pytest.raises(PolicyRefused, match="are one file"):
            silo.check_reserves(ledger, event)
        assert ledger.standing().size == size
    (ward.kit / "y.csv").unlink()
    now = datetime.now(UTC)
    monkeypatch.setattr(clock, "now", lambda: now)
    ward.join("ward", 1)
    (run,) = ward.standing().runs.values()
    assert run.until == told_time(now + HELD)


def test_a_link_that_comes_later_is_found_before_anything_is_charged(ward: Ward) -> None:
    ward.law({"ward": ward.figures, "again": ward.figures})
    assert ward.join("ward", 1) == 4
    (ward.kit / "y.csv").unlink()
    (ward.kit / "y.csv").symlink_to("x.csv")
    with pytest.raises(PolicyRefused, match="are one file"):
        ward.join("again", 2)
    silo = ward.silo("ward", 1)
    with silo.ledger() as ledger, pytest.raises(PolicyRefused, match="are one file"):
        silo.reserved(ledger)
    assert list(ward.standing().runs) == ["1"]
    with pytest.raises(PolicyRefused, match="are one file"):
        inspection.law_of(ward.kit)
    with pytest.raises(PolicyRefused, match="are one file"):
        take_part(ward.kit, ward._federation.opener("north"))


def test_a_file_that_is_put_in_anothers_place_while_it_is_read_is_found(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.law({"ward": ward.figures, "again": ward.figures})
    assert len(ward.silo("again", 2).records()) == 2
    read = tables.table_records

    def swapped(*arguments: Any) -> Any:
        shutil.copyfile(ward.kit / "x.csv", ward.kit / "y.csv")
        return read(*arguments)

    monkeypatch.setattr(access, "table_records", swapped)
    with pytest.raises(PolicyRefused, match="are copies of one file"):
        ward.silo("again", 2).records()


def test_a_budget_that_covers_two_data_sets_counts_both_in_one_scope(ward: Ward) -> None:
    event = plans.planned_event(ward.silo("ward", 1).plan)
    cost = Scope("ward", "record", 1, 1e-3, 5.0, 8).cost(event) / 1_000_000
    epsilon = accounting.renyi_to_epsilon(2.5 * cost, 8, 1e-3)
    ward.tables["again"] = {"csv": "./x.csv"}
    ward.law({"ward": {**ward.figures, "epsilon": epsilon, "order": 8, "covers": ["ward", "again"]}})
    assert (ward.join("ward", 1), ward.join("again", 2)) == (4, 4)
    with pytest.raises(PrivacyBudgetExceeded, match="budget of ward/record"):
        ward.join("again", 3)
    standing = ward.standing()
    assert list(standing.scopes) == ["ward/record"]
    assert [run.scope for run in standing.runs.values()] == ["ward/record"] * 2
    _, sentences = inspection.law_of(ward.kit)
    assert any(said.startswith("On ward and again together, at most epsilon") for said in sentences)
    ledger = inspection.ledger_of(ward.kit, "north")
    assert inspection.forecast(ledger, ward.scenario("again"), None)["scope"] == "ward/record"
    assert inspection.forecast(ledger, ward.scenario("again"), None)["runs"] == 0


def test_what_a_ledger_holds_goes_on_under_a_budget_that_covers_more(ward: Ward) -> None:
    ward.law({"ward": ward.figures})
    ward.join("ward", 1)
    ward.law({"ward": {**ward.figures, "covers": ["ward", "again"]}})
    ward.join("again", 2)
    assert {run.scope for run in ward.standing().runs.values()} == {"ward/record"}


def test_what_was_spent_under_a_budget_of_its_own_is_not_forgotten(ward: Ward) -> None:
    ward.law({"ward": ward.figures, "again": ward.figures})
    ward.join("again", 1)
    for name in ("ward", "both"):
        ward.law({name: {**ward.figures, "covers": ["ward", "again"]}})
        for data in ("ward", "again"):
            with pytest.raises(PolicyRefused, match="holds runs on it under again/record, a budget of its own"):
                ward.join(data, 2)
    ward.law({"again": {**ward.figures, "covers": ["ward", "again"]}})
    assert ward.join("ward", 2) == 4
    assert {run.scope for run in ward.standing().runs.values()} == {"again/record"}


def test_a_data_set_is_counted_by_one_budget(ward: Ward) -> None:
    for budgets in (
        {"ward": ward.figures, "both": {**ward.figures, "covers": ["ward", "again"]}},
        {"a": {**ward.figures, "covers": ["again"]}, "b": {**ward.figures, "covers": ["again"]}},
        {"a": {**ward.figures, "covers": ["again", "again"]}},
    ):
        with pytest.raises(ValueError, match="is counted by two budgets, or twice by one"):
            ward.law(budgets)
    ward.law({"both": {**ward.figures, "covers": ["ward"]}})
    policy.check_admitted(admitting(ward, "ward"), ward.scenario("ward"))
    with pytest.raises(PolicyRefused, match="data set 'again' has no budget"):
        policy.check_admitted(admitting(ward, "again"), ward.scenario("again"))


def admitting(ward: Ward, data: str) -> SiloFile:
    hashes = (scenario_hash(ward.scenario(data)).hex(),)
    return read_silo_file(ward.kit / "silo.toml").model_copy(update={"scenarios": hashes})


# What was charged before is known again.


def test_a_table_that_got_another_name_has_no_second_budget(ward: Ward) -> None:
    ward.law({"ward": ward.figures})
    ward.join("ward", 1)
    ward.tables = {"again": ward.tables["ward"]}
    ward.law({"again": ward.figures})
    with pytest.raises(PolicyRefused, match=r"what tables.again is read from was charged to ward/record before"):
        ward.join("again", 2)
    (ward.kit / "x.csv").write_text("age,ill\n60,no\n")  # other records at the same place
    with pytest.raises(PolicyRefused, match=r"let \[budgets.ward\] cover 'again', or lay other records at"):
        ward.join("again", 2)
    ward.law({"ward": {**ward.figures, "covers": ["again"]}})
    assert ward.join("again", 2) == 4
    assert list(ward.standing().scopes) == ["ward/record"]


def test_a_file_that_was_moved_under_another_tables_name_is_known_again(ward: Ward) -> None:
    """As where last month's file is kept under another name, and this month's takes its place."""
    ward.law({"ward": ward.figures, "again": ward.figures})
    ward.join("ward", 1)
    (ward.kit / "x.csv").rename(ward.kit / "y.csv")
    (ward.kit / "x.csv").write_text("age,ill\n60,no\n")
    with pytest.raises(PolicyRefused, match=r"what tables.again is read from was charged to ward/record before"):
        ward.join("again", 2)
    assert ward.join("ward", 3) == 4
    (ward.kit / "y.csv").write_text("age,ill\n70,no\n")
    assert ward.join("again", 4) == 4
    silo = ward.silo("again", 4)
    (ward.kit / "x.csv").rename(ward.kit / "y.csv")
    with silo.ledger() as ledger, pytest.raises(PolicyRefused, match="was charged to ward/record before"):
        silo.reserved(ledger)


def test_what_spent_nothing_is_no_bar(ward: Ward) -> None:
    ward.law({"ward": ward.figures, "again": ward.figures})
    ward.join("ward", 1)
    with ward.silo("ward", 1).ledger() as ledger:
        ledger.release("1", "nothing left")
    ward.tables = {"again": ward.tables["ward"]}
    ward.law({"again": ward.figures})
    assert ward.join("again", 2) == 4


def test_a_run_that_joins_again_after_a_lapse_is_remembered_by_what_it_reads_by_then(
    ward: Ward, hour: Callable[[], None]
) -> None:
    """Else one file were charged to two budgets: by that run, and by whichever reads it next."""
    (ward.kit / "old.csv").write_text("age,ill\n10,no\n11,yes\n")
    ward.tables["ward"] = {"csv": "old.csv"}
    ward.law({"ward": ward.figures, "again": ward.figures})
    for run in (1, 2):
        assert ward.join("ward", run) == 4
        hour()
    ward.tables["ward"] = {"csv": "x.csv"}
    ward.law({"ward": ward.figures, "again": ward.figures})
    for _ in range(2):  # asked again, nothing more is entered
        assert ward.join("ward", 1) == 4
    ward.train("ward", 1)
    with ward.silo("ward", 1).ledger() as ledger:
        reserved = ledger.reservations("1")
        assert [entry["of"] for entry in ledger.audits("source")] == ["1", "2", f"1/{reserved[-1]}"]
    assert len(reserved) == 2
    ward.tables = {"again": {"csv": "x.csv"}, "ward": {"csv": "y.csv"}}
    ward.law({"ward": ward.figures, "again": ward.figures})
    for asks in (ward.ready, ward.join):
        with pytest.raises(PolicyRefused, match=r"what tables.again is read from was charged to ward/record before"):
            asks("again", 9)


def test_what_lapsed_and_was_never_charged_is_no_bar_to_another_budget(ward: Ward, hour: Callable[[], None]) -> None:
    """Whether another counts its data, or covers it. Until it is given back it may be charged, and bars."""
    ward.law({"ward": ward.figures, "again": ward.figures})
    ward.join("ward", 1)
    ward.tables = {"again": {"csv": "x.csv"}, "ward": {"csv": "y.csv"}}
    ward.law({"ward": ward.figures, "again": ward.figures})
    for asks in (ward.ready, ward.join):
        with pytest.raises(PolicyRefused, match="was charged to ward/record before"):
            asks("again", 2)
    hour()
    size = ward.standing().size
    ward.ready("again", 2)
    assert ward.standing().size == size
    assert ward.join("again", 2) == 4
    assert ward.standing().runs["1"].lapsed
    with pytest.raises(ProtocolError, match="what this silo reserved for the run was given back"):
        ward.train("ward", 1)
    ward.tables = {"ward": {"csv": "x.csv"}, "again": {"csv": "y.csv"}}
    ward.law({"ward": ward.figures, "again": ward.figures})
    with pytest.raises(PolicyRefused, match="was charged to again/record before"):
        ward.join("ward", 1)  # nor does it join again with what is another budget's by now


def test_a_budget_may_cover_what_lapsed_and_was_never_charged(ward: Ward, hour: Callable[[], None]) -> None:
    ward.law({"ward": ward.figures, "again": ward.figures})
    ward.join("ward", 1)
    ward.law({"both": {**ward.figures, "covers": ["ward", "again"]}})
    for asks in (ward.ready, ward.join):
        with pytest.raises(PolicyRefused, match="holds runs on it under ward/record, a budget of its own"):
            asks("again", 2)
    assert list(ward.standing().scopes) == ["ward/record"]  # what is refused makes no budget
    hour()
    with pytest.raises(ProtocolError, match="another scenario"):  # its own reservation is another budget's
        ward.train("ward", 1)
    ward.ready("again", 2)
    assert ward.join("again", 2) == 4
    assert ward.join("ward", 1) == 4
    assert {run.scope for run in ward.standing().runs.values()} == {"both/record"}


def test_what_was_charged_bars_another_budget_however_long_ago(ward: Ward, hour: Callable[[], None]) -> None:
    ward.law({"ward": ward.figures, "again": ward.figures})
    ward.join("ward", 1)
    ward.train("ward", 1)
    hour()
    ward.tables = {"again": {"csv": "x.csv"}, "ward": {"csv": "y.csv"}}
    ward.law({"ward": ward.figures, "again": ward.figures})
    with pytest.raises(PolicyRefused, match="was charged to ward/record before"):
        ward.join("again", 2)
    ward.law({"both": {**ward.figures, "covers": ["ward", "again"]}})
    with pytest.raises(PolicyRefused, match="holds runs on it under ward/record, a budget of its own"):
        ward.join("again", 2)


def test_a_run_has_one_entry_of_its_source_whatever_becomes_of_the_files(ward: Ward) -> None:
    """A server sees how many entries a ledger has: that the data changed is not its to know."""

    def entered(changes: bool) -> list[str]:
        for run in (1, 2):
            for part in "join", "charge":
                if changes:
                    (ward.kit / "x.csv").write_text(f"age,ill\n{run},{'no' if part == 'join' else 'yes'}\n")
                silo = ward.silo("ward", 10 * changes + run)
                with silo.ledger() as ledger:
                    if part == "join":
                        silo.reserve(ledger, plans.planned_event(silo.plan))
                    silo.reserved(ledger)
        with silo.ledger() as ledger:
            return [entry["of"] for entry in ledger.audits("source")]

    ward.law({"ward": {**ward.figures, "epsilon": 100.0}})
    assert entered(False) == ["1", "2"]
    assert entered(True) == ["1", "2", "11", "12"]


def test_marks_in_a_ledger_tell_nobody_else_what_was_read(ward: Ward) -> None:
    ward.law({"ward": ward.figures})
    ward.join("ward", 1)
    with ward.silo("ward", 1).ledger() as ledger:
        (entry,) = ledger.audits("source")
    kept = entry["marks"].split()
    everything, telling = marks(TableSource(csv=str(ward.kit / "x.csv")))
    assert everything == telling
    assert len(kept) == len(everything) == 2  # where it lies, and what it holds
    for mark in everything:
        guesses = (mark, digest(b"fedmodel/v1/source-mark", mark), hashlib.sha256(mark).digest())
        assert not {guess.hex()[:32] for guess in guesses} & set(kept)


def test_of_a_disjoint_query_the_query_alone_is_anothers_bar() -> None:
    for url in ("sqlite:////srv/w.db", PG):
        plain, other = (TableSource(url=url, query=query) for query in (QUERY, "SELECT 1"))
        apart = TableSource(url=url, query="SELECT 1", disjoint=True)
        everything, telling = marks(plain)
        assert everything == telling
        assert set(everything) & set(marks(other)[1])
        assert not set(everything) & set(marks(apart)[1])
        assert set(marks(other)[0]) >= set(marks(apart)[1]) != set()


def test_marks_of_files_are_of_their_ends_their_size_and_their_place(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    body = b"age\n" + b"1\n" * 100_000
    for name, content in (("a.csv", body), ("b.csv", b"age\n"), ("c.csv", b"")):
        (tmp_path / "one" / name).write_bytes(content)
    first = set(marks(TableSource(folder=str(tmp_path / "one")))[0])
    assert len(first) == 1 + 3 + 1  # the folder, each file, and what the one with records holds
    (tmp_path / "one").rename(tmp_path / "two")
    assert len(first & set(marks(TableSource(folder=str(tmp_path / "two")))[0])) == 1
    for change in (b"2" + body[1:], body[:-2] + b"2\n", body + b"1\n"):
        (tmp_path / "two" / "a.csv").write_bytes(change)
        assert not first & set(marks(TableSource(folder=str(tmp_path / "two")))[0])
