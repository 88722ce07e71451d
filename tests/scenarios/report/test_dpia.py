"""The draft of a DPIA: each answer cites what is there, or is for a person; it asks every question, and is no HTML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmodel.errors import ConfigError
from fedmodel.ledger import Entry
from scenarios.report import build, document
from scenarios.report.citations import line_of
from scenarios.report.dpia import NAME, draft, text, write_draft
from scenarios.report.gather import Gathered, read_run
from scenarios.report.page.catalogue import Catalogue, catalogue
from scenarios.report.page.passive import BEGINNING
from tests.runs import SILOS, copied, stated
from tests.scenarios.report.test_catalogue import loud, shouted

__all__ = ["loud", "stated"]

PARTS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def run(stated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copied(stated, tmp_path_factory.mktemp("dpia") / "run")
    build.build(run, lambda report, pictures: f"{BEGINNING}<title>{report.run.scenario}</title>")
    return run


@pytest.fixture(scope="module")
def report(run: Path) -> document.Report:
    return build.read_report(run).report


@pytest.fixture(scope="module")
def gathered(run: Path, report: document.Report) -> Gathered:
    return read_run(run, report)


@pytest.fixture(scope="module")
def drafted(gathered: Gathered, report: document.Report) -> str:
    return draft(gathered, report, catalogue())


def answers(drafted: str) -> list[str]:
    """Return the draft's answers, each with its question."""
    return [f"**{one}" for one in re.split(r"\n\*\*(?=[A-Z])", drafted)[1:]]


def test_every_answer_cites_something_or_is_for_a_person(drafted: str) -> None:
    found = answers(drafted)
    assert len(found) == 25 + 11
    for one in found:
        assert "[Rests on: " in one or "For a person to answer" in one, one
    assert sum("[Rests on: " in one for one in found) > 20
    assert sum(one.rstrip().split("\n")[-1].startswith("For a person") for one in found) > 10
    for part in PARTS:
        assert f"### ({part}) " in drafted


def test_every_entry_that_is_cited_is_one_of_that_kind(drafted: str, gathered: Gathered) -> None:
    cited = re.findall(r"entry (\d+) \((\w+)\) in the ledger of ([a-z, ]+?)[;.]", drafted)
    kinds = set()
    for number, kind, silos in cited:
        for silo in re.split(r", | and ", silos):
            entry: Entry = gathered.ledgers[silo].entries[int(number) - 1]
            assert (entry.sequence, entry.kind) == (int(number), kind)
            kinds.add(kind)
    assert kinds == {"create", "reserve", "charge", "audit"}
    reserved = next(number for number, kind, _ in cited if kind == "reserve")
    assert gathered.ledgers["north"].entries[int(reserved) - 1].run == gathered.ledgers["north"].run


def test_every_line_that_is_cited_has_that_key(drafted: str, run: Path) -> None:
    cited = re.findall(r"line (\d+) \(`([\w.-]+)`\) of (scenario\.toml|the law of [a-z, ]+?)[;.]", drafted)
    keys = set()
    for number, key, where in cited:
        silos = re.split(r", | and ", where.removeprefix("the law of "))
        files = [run / where] if where == "scenario.toml" else [run / "silos" / silo / "silo.toml" for silo in silos]
        for file in files:
            line = file.read_text(encoding="utf-8").splitlines()[int(number) - 1]
            assert line.startswith(f"{key.rpartition('.')[2]} = ")
        keys.add(key)
    assert {"purpose.statement", "controller.name", "least_noise_multiplier", "encryption.secure_aggregation"} <= keys
    assert any(key.startswith("budgets.") for key in keys)


def test_what_is_not_stated_is_for_a_person(drafted: str) -> None:
    said = {one.split("**")[1]: one for one in answers(drafted)}
    assert "Find masses for a second reading." in said["What is the processing for?"]
    assert said["How is that party reached?"].endswith("- Not stated.\n\nFor a person to answer.\n")
    assert "contact: not stated; kept until: ten years" in said["Who answers for the records of each silo?"]


def test_every_question_of_nist_is_asked(drafted: str, report: document.Report) -> None:
    asked = [
        question
        for section in (report.claim, report.scope, report.trust, report.mechanism, report.accounting, report.training,
                        report.not_protected, report.integrity, report.limits)
        for question in section.nist
    ]  # fmt: skip
    asked += document.Audit.model_fields["nist"].default + document.Purpose.model_fields["nist"].default
    assert len(asked) > 25
    for question in asked:
        assert question in drafted


def test_words_of_people_become_neither_html_nor_a_link(drafted: str) -> None:
    assert r"North Trust \<b\>" in drafted
    assert "<" not in drafted.replace("\\<", "")
    evil = (
        "<script>x</script> [a](javascript:x) ![p](//evil.example) https://evil.example www.evil.example a@b # h\n* i"
    )
    safe = text(evil)
    for raw in ("<", ">", "[", "]", "!", "@", "#", "*"):
        assert raw not in safe.replace(f"\\{raw}", "")
    assert "https://" not in safe
    assert "www." not in safe
    assert "evil.example" not in safe
    assert "\n" not in safe


@pytest.mark.parametrize(
    ("words", "safe"),
    [
        ("---", r"\---"), ("- x", r"\- x"), ("+ x", r"\+ x"), ("===", r"\==="),
        ("1. y", r"1\. y"), ("12) y", r"12\) y"),
        ("    code", "code"), ("\t- x ", r"\- x"), (" \u00a0 # h", r"\# h"), ("> q", r"\> q"),
        ("1.5 years", "1.5 years"),
    ],
)  # fmt: skip
def test_words_of_people_begin_no_list_no_rule_and_no_code(words: str, safe: str) -> None:
    assert text(words) == safe


def test_what_a_report_says_of_its_making_is_escaped_too(gathered: Gathered, report: document.Report) -> None:
    """When and with what it was made is taken as stored: whoever signs a report words it."""
    evil = report.built.model_copy(update={"fedmodel": "<img> [a](x)", "at": "<b>"})
    head = draft(gathered, report.model_copy(update={"built": evil}), catalogue()).partition("\n## ")[0]
    assert "<" not in head.replace("\\<", "")
    assert r"\<img\> \[a\](x)" in head


# What is of files, of code and of ledgers, and no sentence.
_NAMED = re.compile(
    r"`[^`]*`|\((create|reserve|charge|audit)\)|\b(scenario|metrics|report|audit)\.(toml|jsonl|json)|[0-9a-f]{64}|"
    + "|".join(SILOS)
)


def test_another_catalogue_changes_every_sentence_of_the_draft(
    gathered: Gathered, report: document.Report, loud: Catalogue
) -> None:
    lines = [_NAMED.sub("", line) for line in draft(gathered, shouted(report), loud).splitlines()]
    questions = (
        " ".join(document.Audit.model_fields["nist"].default),
        " ".join(document.Purpose.model_fields["nist"].default),
    )
    assert [line for line in lines if line != line.upper() and line.strip("*") not in questions] == []


def test_a_draft_that_is_there_is_never_written_over(gathered: Gathered, report: document.Report, run: Path) -> None:
    path = write_draft(run, gathered, report)
    assert path == run / NAME
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("finished by people", encoding="utf-8")
    with pytest.raises(ConfigError, match="people may have changed it"):
        write_draft(run, gathered, report)
    assert path.read_text(encoding="utf-8") == "finished by people"
    assert NAME in dict(build.verify(run).items)["not compared"]
    path.unlink()


@pytest.mark.parametrize(
    ("lines", "key", "line"),
    [
        (["[a]", "b = 1"], "a.b", 2),
        (["b = 1", "[a]", "c = 1"], "a.b", None),
        (['[budgets."x-y"]', "epsilon = 1"], "budgets.x-y.epsilon", 2),
        (["# b = 1", "b=2"], "b", 2),
        (["[[a]]", "b = 1"], "a.b", None),
        (["[[a]]", "b = 1"], "b", None),
    ],
)
def test_a_key_is_found_where_it_stands(lines: list[str], key: str, line: int | None) -> None:
    assert line_of(lines, key) == line
