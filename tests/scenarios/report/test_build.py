"""A report follows from its run's folder: whatever is changed, in it or in the folder, is found and named."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from fedmodel.audit.plan import plan_hash
from fedmodel.config.schedule import ScheduleConfig
from fedmodel.crypto import SigningKey
from fedmodel.errors import ClaimRefuted, ConfigError, FedmodelError, LedgerError, LedgerTampered
from fedmodel.ledger import Asked, Ledger, Standing
from fedmodel.privacy.accounting import epsilon
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.rounding import up
from fedmodel.provision import read_identity, read_kit
from fedmodel.system.kinds import described
from scenarios.report import build, compute, document, page_check, sections
from scenarios.report.anchors import Anchors
from scenarios.report.audited import audit as audited_section
from scenarios.report.diff import changes, differences
from scenarios.report.document import Report
from scenarios.report.gather import read_run
from scenarios.report.page import accountants, registry, schema, signing
from scenarios.report.page.catalogue import Catalogue, catalogue
from scenarios.report.page.passive import BEGINNING, beginning
from scenarios.report.page.render import render, this_run
from scenarios.report.page.told import Told
from scenarios.report.verifier import renyi
from scenarios.runs import inspection
from scenarios.runs.audit_entries import PLAN_SUBJECT, RESULT_SUBJECT, result_hash
from tests.ledgers import budget_of
from tests.runs import MASKED, SILOS, copied, masked, roomy, simulated, stated

__all__ = ["masked", "roomy", "stated"]

# What a machine says of itself when it builds: its signature alone vouches for it.
VOLATILE = ("built.at", "built.python", "built.libraries.", "built.page")


def page(report: Report, pictures: Mapping[str, str]) -> str:
    del pictures
    return f"{BEGINNING}<title>{report.run.scenario}</title>"


@pytest.fixture(scope="module")
def built(masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copied(masked, tmp_path_factory.mktemp("report") / "run")
    build.build(run, page)
    return run


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder, to spoil."""
    return copied(built, tmp_path / "run")


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Read a folder once, for a test that changes the report alone; again where that says else of ledgers."""

    def prepare(folder: Path) -> None:
        stored = build.read_report(folder).report
        gathered = read_run(folder, stored)

        def read(run_dir: Path, changed: Report) -> Any:
            return gathered if changed.integrity.ledgers == stored.integrity.ledgers else read_run(run_dir, changed)

        for module in (compute, build):
            monkeypatch.setattr(module, "check_summary", lambda gathered: ())
        monkeypatch.setattr(build, "read_run", read)

    return prepare


def silo_anchors(run: Path) -> Anchors:
    return Anchors(silos={silo: read_identity(run / "silos" / silo).public for silo in SILOS})


def told(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report.json").read_text(encoding="utf-8")))


def forge(run: Path, report: dict[str, Any], key: SigningKey | None = None) -> None:
    """Write a report that says something else, signed as the true one is, or by another key."""
    identity = read_identity(run / "server") if key is None else key
    read = Report.model_validate_json(json.dumps(report))
    (run / "report.json").write_bytes(signing.seal(read, identity))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Callable[[Any, Any], None], Any]]:
    """Go through all leaves of a document: name, how to set it in a copy, what is there."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, found in inside:
        name = f"{path}[{key}]" if isinstance(value, list) else f"{path}.{key}".lstrip(".")
        if isinstance(found, dict | list):
            yield from (
                (deeper, lambda root, new, key=key, put=put: put(root[key], new), leaf)
                for deeper, put, leaf in leaves(found, name)
            )
        else:
            yield name, lambda root, new, key=key: root.__setitem__(key, new), found


def another(leaf: Any) -> list[Any]:
    """Return other values of a leaf, of which the first that the model takes is one that somebody could have put."""
    if isinstance(leaf, bool):
        return [not leaf]
    if isinstance(leaf, int):
        return [leaf + 1]
    if isinstance(leaf, float):
        return [leaf * 0.99 - 1e-4 if leaf < 1e-3 else leaf * 0.99]
    if isinstance(leaf, str) and re.fullmatch("[0-9a-f]+", leaf):
        return [("0" if leaf[0] != "0" else "1") + leaf[1:]]
    if isinstance(leaf, str):
        return [
            leaf + "!",
            "digits",
            "person",
            "off",
            "simulated",
            "seeded-unsafe",
            "filter",
            "plan",
            "ledger",
            "rdp",
            "prv",
        ]
    return ["none", 1, 1.5]


def changed(report: dict[str, Any], put: Callable[[Any, Any], None], leaf: Any) -> dict[str, Any] | None:
    """Return a copy with another value at a leaf, None where the model takes none there."""
    for value in another(leaf):
        if value == leaf:
            continue
        copied = copy.deepcopy(report)
        put(copied, value)
        try:
            Report.model_validate_json(json.dumps(copied))
        except ValidationError:
            continue
        return copied
    return None


def refusal(run: Path, key: str | None = None) -> FedmodelError:
    with pytest.raises(FedmodelError) as caught:
        build.verify(run, key)
    return caught.value


# What is built


def test_a_report_is_built_and_verified(built: Path) -> None:
    checked = build.verify(built)
    assert {item for item, _ in checked.items} >= {"ledger north", "epsilon", "files", "code", "signature"}
    assert {file.name for file in checked.report.integrity.files} == {
        "scenario.toml", "summary.json", "metrics.jsonl", "model.safetensors", "usefulness.json", "report.html",
        "registry.yaml",
    }  # fmt: skip
    assert (built / "report.html").read_text(encoding="utf-8") == page(checked.report, {})


def test_its_figures_are_those_of_the_ledgers(built: Path) -> None:
    report = build.read_report(built).report
    event = DpSgdEvent(2.0, 1.0, 0.5, 4, 10)
    assert report.claim.epsilon == epsilon([event], 1e-3) == report.scope.largest_bound
    assert [(row.steps, row.steps_reserved) for row in report.claim.silos] == [(4, 4)] * 3
    assert {row.epsilon_of_steps_taken for row in report.claim.silos} == {report.claim.epsilon}
    assert ([row.odometer for row in report.claim.silos], report.claim.early) == ([None] * 3, None)
    for row in report.accounting.silos:
        assert row.pld is not None
        assert row.prv is not None
        assert row.pld - 0.01 < row.prv < row.pld + 0.03 < row.rdp
        assert [point.delta for point in row.curve] == sorted((point.delta for point in row.curve), reverse=True)
    for line in report.training.budgets:
        assert [point.epsilon for point in line.points] == [epsilon([event_of(2)], 1e-3, 1e-3), report.claim.epsilon]
        assert {point.cap for point in line.points} == {read_run(built).ledgers[line.silo].scope.epsilon}  # type: ignore[union-attr]
    assert report.trust.secure_aggregation.threshold == 3
    assert report.claim.protects
    assert f"epsilon {officer_up(report.claim.epsilon)}" in report.claim.sentence


def event_of(steps: int) -> DpSgdEvent:
    return DpSgdEvent(2.0, 1.0, 0.5, steps, 10)


def officer_up(figure: float | None) -> str:

    assert figure is not None
    return up(figure)


def test_the_published_schema_is_that_of_the_models_and_takes_the_report(built: Path) -> None:
    published = Path(schema.__file__).with_name("report.schema.json").read_text(encoding="utf-8")
    assert published == schema.schema_text()
    described = json.loads(published)
    assert described["$id"] == "report.schema.json"
    jsonschema.Draft202012Validator.check_schema(described)
    report = told(built)["report"]
    jsonschema.Draft202012Validator(described).validate(report)
    for spoilt in ({**report, "more": 1}, {**report, "claim": None}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(described).validate(spoilt)


def test_every_section_names_the_questions_it_answers(built: Path) -> None:
    report = told(built)["report"]
    named = set(report) - {"format", "built", "run", "audit"}
    assert named >= {"claim", "scope", "trust", "mechanism", "accounting", "not_protected", "integrity", "limits"}
    for section in named:
        assert all(question.endswith("?") for question in report[section]["nist"])
    assert set(Report.model_fields["audit"].annotation.__args__) == {document.Audit, type(None)}  # type: ignore[union-attr]


def test_the_registry_entry_follows_the_registry_and_says_what_a_person_has_to_add(built: Path) -> None:
    entry = yaml.safe_load((built / "registry.yaml").read_text(encoding="utf-8"))
    deployment = entry["deployment"]
    assert set(deployment) == {
        "product", "dp_flavor", "privacy_loss", "model", "accounting", "implementation", "resources",
    }  # fmt: skip
    report = build.read_report(built).report
    assert deployment["privacy_loss"]["privacy_parameters"] == {"epsilon": report.claim.epsilon, "delta": 1e-3}
    for path in entry["to_complete"]:
        found = entry
        for step in path.split("."):
            found = found[step]
        assert found is None, path
    assert registry.to_yaml(report) == (built / "registry.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("records", "rate"), [(1, 1.0), (1, 0.01), (4, 0.5)])
def test_the_accountants_beside_agree_or_say_why_not(records: int, rate: float) -> None:
    event = DpSgdEvent(4.0, 1.0, rate, 20, 10, max_records=records)
    pld, (prv, reason), (rdp, order) = (
        epsilon([event], 1e-3),
        accountants.prv([event], 1e-3),
        renyi.rdp([event], 1e-3),
    )
    assert rdp >= pld
    assert order in renyi.ORDERS
    if records == 1:
        assert prv is not None
        assert reason is None
        assert abs(prv - pld) < 0.03
    else:
        assert prv is None
        assert "several" in str(reason)


def test_prv_is_not_told_where_its_rounding_may_exceed_its_error() -> None:
    figure, reason = accountants.prv([DpSgdEvent(900.0, 1.0, 0.9, 10**6, 10)], 1e-12)
    assert figure is None
    assert "its rounding, which it does not count, may exceed its error" in str(reason)


def test_nothing_released_is_nothing_spent() -> None:
    assert accountants.prv([], 1e-3) == (None, "nothing was released")
    assert renyi.rdp([], 1e-3) == (0.0, None)


# What is changed in the report


def test_every_figure_that_is_changed_is_found_though_it_is_signed(
    read_once: Callable[[Path], None], built: Path, run: Path
) -> None:
    read_once(built)
    report = told(built)["report"]
    tried, by_signature_alone, kinds = 0, set(), {ClaimRefuted: 0, LedgerTampered: 0}
    for name, put, leaf in leaves(report):
        spoilt = changed(report, put, leaf)
        if spoilt is None:
            assert isinstance(leaf, str | None), name  # one of one word, or nothing where nothing else is possible
            continue
        tried += 1
        forge(run, spoilt)
        if name.startswith(VOLATILE):
            assert build.verify(run).report != build.read_report(built).report
            by_signature_alone.add(name)
            continue
        error = refusal(run)
        assert type(error) in kinds, (name, error)
        kinds[type(error)] += 1  # type: ignore[index]
        assert error.exit_status == (4 if name.startswith(("integrity.", "format")) else 3), (name, error)
        if name.startswith(("claim.", "scope.", "accounting.", "mechanism.", "training.", "run.")):
            assert f" {name}: " in str(error), (name, error)
    assert tried > 600
    assert min(kinds.values()) > 30
    assert len(by_signature_alone) == 11


def test_every_figure_that_is_changed_and_not_signed_is_found(
    read_once: Callable[[Path], None], built: Path, run: Path
) -> None:
    read_once(built)
    file = told(built)
    tried = 0
    for name, put, leaf in list(leaves(file["report"]))[::7] + [
        one for one in leaves(file["report"]) if "built" in one[0]
    ]:
        spoilt = changed(file["report"], put, leaf)
        if spoilt is None:
            continue
        (run / "report.json").write_text(json.dumps({**file, "report": spoilt}, indent=2) + "\n", encoding="utf-8")
        assert refusal(run).exit_status in (3, 4), name
        tried += 1
    assert tried > 90


def test_the_message_names_field_what_stands_and_what_follows(built: Path, run: Path) -> None:
    report = told(built)["report"]
    report["accounting"]["silos"][2]["pld"] = 0.5
    forge(run, report)
    error = refusal(run)
    assert isinstance(error, ClaimRefuted)
    follows = told(built)["report"]["accounting"]["silos"][2]["pld"]
    assert str(error) == (
        f"report.json: accounting.silos[2].pld: 0.5 stands, {follows} follows from the ledger of 'west'"
    )


@pytest.mark.parametrize("spoil", ["add", "drop", "nan", "twice", "empty", "list", "huge"])
def test_what_is_no_report_is_refused_in_a_line(run: Path, spoil: str) -> None:
    path, file = run / "report.json", told(run)
    texts = {
        "add": json.dumps({**file, "report": {**file["report"], "more": 1}}),
        "drop": json.dumps({**file, "report": {key: file["report"][key] for key in file["report"] if key != "claim"}}),
        "nan": path.read_text().replace('"seconds": ', '"seconds": NaN, "was": ', 1),
        "twice": path.read_text().replace('  "report": {', '  "report": {"format": "fedmodel-report/3",', 1),
        "empty": "",
        "list": "[]",
        "huge": " " * (64 * 2**20 + 1),
    }
    path.write_text(texts[spoil], encoding="utf-8")
    error = refusal(run)
    assert isinstance(error, LedgerTampered)
    assert str(error).startswith("report.json: is over" if spoil == "huge" else "report.json: is ")
    assert "\n" not in str(error)


def test_a_report_of_another_format_is_told_from_one_that_was_changed(run: Path) -> None:
    path = run / "report.json"
    path.write_text(path.read_text(encoding="utf-8").replace(document.FORMAT, "fedmodel-report/2"), encoding="utf-8")
    assert "is of another format than fedmodel-report/3" in str(refusal(run))


def test_another_form_of_the_same_document_is_not_the_file_that_was_signed(run: Path) -> None:
    (run / "report.json").write_text(json.dumps(told(run)), encoding="utf-8")
    assert "one form" in str(refusal(run))


@pytest.mark.parametrize("part", ["key", "signature"])
def test_a_signature_that_is_changed_is_refused(run: Path, part: str) -> None:
    file = told(run)
    file["signature"][part] = ("0" if file["signature"][part][0] != "0" else "1") + file["signature"][part][1:]
    (run / "report.json").write_text(json.dumps(file, indent=2) + "\n", encoding="utf-8")
    assert isinstance(refusal(run), LedgerTampered)


def test_a_report_of_another_key_is_forged_whatever_it_says_of_its_signer(built: Path, run: Path) -> None:
    other = SigningKey.generate()
    report = told(built)["report"]
    forge(run, report, other)
    assert "another key than that of the run's server" in str(refusal(run))
    report["integrity"]["signer"] = other.public.hex()
    forge(run, report, other)
    error = refusal(run)
    assert isinstance(error, LedgerTampered)
    assert "integrity.signer" in str(error)
    with pytest.raises(LedgerTampered, match="another server's key than --key"):
        build.verify(run, other.public.hex())


def test_a_folder_without_kits_is_verified_under_the_key_that_is_given_and_no_other(built: Path, run: Path) -> None:
    """What another party gets: no kit, and the server's key by another way."""
    signer = build.read_report(built).key.hex()
    for folder in ("silos", "server"):
        shutil.rmtree(run / folder)
    assert isinstance(refusal(run), ConfigError)
    assert build.verify(run, signer).report == build.read_report(built).report
    error = refusal(run, SigningKey.generate().public.hex())
    assert isinstance(error, LedgerTampered)
    assert "integrity.signer" in str(error)
    for none in ("xyz", "ab"):
        with pytest.raises(ConfigError, match="--key is a public key"):
            build.verify(run, none)


# What is changed in the folder


def rows(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])


@pytest.mark.parametrize("silo", SILOS)
def test_every_ledger_row_that_is_changed_is_found(built: Path, run: Path, silo: str) -> None:
    path = run / "ledgers" / f"{silo}.sqlite"
    for sequence in range(1, rows(path) + 1):
        shutil.copy2(built / "ledgers" / path.name, path)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("DROP TRIGGER entries_never_update")
        connection.execute("UPDATE entries SET body = replace(body, 'e', 'f') WHERE sequence = ?", (sequence,))
        sql = (
            sqlite3.connect(built / "ledgers" / path.name)
            .execute("SELECT sql FROM sqlite_schema WHERE name = 'entries_never_update'")
            .fetchone()[0]
        )
        connection.execute(sql)
        connection.close()
        error = refusal(run)
        assert isinstance(error, LedgerTampered)
        assert error.exit_status == 4
        assert silo in str(error)


def test_a_ledger_that_is_gone_is_missed(run: Path) -> None:
    (run / "ledgers" / "south.sqlite").unlink()
    assert "is gone" in str(refusal(run))


def test_a_ledger_that_another_key_wrote_again_is_refused(built: Path, run: Path, tmp_path: Path) -> None:
    """Everything in it is well signed, and nothing of it is the silo's; heads and kits that would tell are gone."""
    (tmp_path / "other").mkdir()
    other = simulated(tmp_path / "other", MASKED)
    for folder in ("silos", "server"):
        shutil.rmtree(run / folder)
    shutil.copy2(other / "ledgers" / "south.sqlite", run / "ledgers" / "south.sqlite")
    error = refusal(run, build.read_report(built).key.hex())
    assert isinstance(error, LedgerTampered)
    assert "south" in str(error)


@pytest.mark.parametrize(
    "name", ["scenario.toml", "summary.json", "metrics.jsonl", "model.safetensors", "report.html", "registry.yaml"]
)
def test_every_file_that_is_changed_or_gone_is_found(run: Path, name: str) -> None:
    path = run / name
    path.write_bytes(path.read_bytes() + (b"\n" if name != "report.html" else b" "))
    error = refusal(run)
    assert isinstance(error, LedgerTampered)
    what, says = ("page", "what it says") if name == "report.html" else ("file", "it")
    (signed,) = (one.sha256 for one in build.read_report(run).report.integrity.files if one.name == name)
    assert str(error) == (
        f"{name}: is a changed {what}: its SHA-256 is {build.file_hash(path)[:16]}..., and the {what} that was signed"
        f" has {signed[:16]}...; do not rely on {says}, and ask whoever signed it for theirs"
    )
    path.unlink()
    error = refusal(run)
    assert error.exit_status == 4
    assert str(error) == (
        f"{name}: is missing, or no plain file of the folder: one was signed whose SHA-256 is {signed[:16]}...; nothing"
        " is verified without it, so ask whoever signed it for the whole folder"
    )


def test_a_model_of_no_use_is_said_in_the_report_and_on_its_page(run: Path) -> None:
    found = json.loads((run / "usefulness.json").read_bytes())
    knows_nothing = {**found, "one_class": "malignant", "loss": found["base_loss"]}
    (run / "usefulness.json").write_text(json.dumps(knows_nothing), encoding="utf-8")
    assert "usefulness.json" in str(refusal(run))
    build.build(run, render)
    line = build.read_report(run).report.training.usefulness
    assert line is not None
    assert line.startswith("The model predicts 'malignant' of every held-out record, and is of no use.")
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "The model predicts &#39;malignant&#39; of every held-out record" in html
    (run / "usefulness.json").write_text('{"one_class": null}', encoding="utf-8")
    with pytest.raises(LedgerError, match=r"usefulness\.json: is not as a run writes it"):
        build.build(run, page)


def test_a_report_of_before_that_line_verifies_as_it_was(run: Path) -> None:
    report = told(run)["report"]
    report["integrity"]["files"] = [one for one in report["integrity"]["files"] if one["name"] != "usefulness.json"]
    assert "usefulness" not in report["training"]
    forge(run, report)
    assert "usefulness.json" in dict(build.verify(run).items)["not compared"]


def test_a_file_that_is_added_is_found(run: Path) -> None:
    (run / "charges.json").write_text("{}", encoding="utf-8")
    assert "charges.json: lies here, and is none of the files that were signed" in str(refusal(run))


def test_an_entry_that_does_not_follow_from_the_report_is_found_though_its_hash_is_right(run: Path) -> None:
    path = run / "registry.yaml"
    path.write_text(path.read_text().replace("tier: null", "tier: 1"), encoding="utf-8")
    report = told(run)["report"]
    for file in report["integrity"]["files"]:
        if file["name"] == "registry.yaml":
            file["sha256"] = build.file_hash(path)
    forge(run, report)
    assert isinstance(refusal(run), ClaimRefuted)


def test_a_report_of_no_page_is_none(run: Path) -> None:
    report = told(run)["report"]
    report["integrity"]["files"] = [one for one in report["integrity"]["files"] if one["name"] != "report.html"]
    (run / "report.html").unlink()
    forge(run, report)
    assert "is of no report.html" in str(refusal(run))


def test_a_summary_that_tells_another_epsilon_than_the_ledgers_makes_no_report(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["privacy"][1]["epsilon"] /= 2
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    with pytest.raises(ClaimRefuted, match=r"summary.json: privacy\[1\].epsilon: "):
        build.build(run, page)


def test_a_summary_of_code_that_the_silos_refuse_makes_no_report(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["code_hash"] = "0" * 64
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    with pytest.raises(LedgerTampered, match="refuses"):
        build.build(run, page)


def test_a_scenario_of_another_run_makes_no_report(run: Path) -> None:
    text = (run / "scenario.toml").read_text(encoding="utf-8")
    (run / "scenario.toml").write_text(text.replace("learning_rate = 0.5", "learning_rate = 0.6"), encoding="utf-8")
    with pytest.raises(LedgerError, match="no ledger holds a run of"):
        build.build(run, page)


def test_a_key_that_is_not_the_servers_signs_no_report(run: Path) -> None:
    with pytest.raises(ConfigError, match="another server"):
        build.build(run, page, SigningKey.generate())


# What changes since


def test_what_is_entered_after_the_report_leaves_it_as_it_is_and_a_new_one_says_it(run: Path) -> None:
    kit = run / "silos" / "north"
    inspection.sign_off(inspection.LedgerFiles.of(run / "ledgers" / "north.sqlite"), read_kit(kit).law, "Ada")
    checked = dict(build.verify(run).items)
    assert "; 1 newer entry is not in the report" in checked["ledger north"]
    before = build.read_report(run).report
    inspection.override(
        inspection.LedgerFiles.of(run / "ledgers" / "north.sqlite"), "synthetic/record", 9.0, "a study", "Ada"
    )
    build.verify(run)
    build.build(run, page)
    after = build.verify(run).report
    assert [(one.silo, one.by, one.subject) for one in after.limits.approvals] == [("north", "Ada", "silo.toml")]
    assert [(one.by, one.reason, one.epsilon) for one in after.integrity.overrides] == [("Ada", "a study", 9.0)]
    assert before.limits.approvals == before.integrity.overrides == ()
    assert after.scope.budgets[0].cap == 9.0
    # One plan took the first cap whole. Under the new one others fit, and neither page nor command says otherwise.
    assert (before.scope.budgets[0].taken_whole, after.scope.budgets[0].taken_whole) == (True, False)
    assert [one["taken_whole"] for one in inspection.spent(run / "ledgers" / "north.sqlite")["scopes"]] == [False]
    assert [one["taken_whole"] for one in inspection.spent(run / "ledgers" / "south.sqlite")["scopes"]] == [True]
    assert {point.cap for point in after.training.budgets[0].points} == {before.scope.budgets[0].cap}


def test_a_prior_run_is_in_the_scope_and_in_what_was_spent_in_all(roomy: Path, tmp_path: Path) -> None:
    """A ledger that another run was charged to before, as a deployed silo's is."""
    run = copied(roomy, tmp_path / "run")
    with Ledger(
        run / "ledgers" / "north.sqlite", "north", read_kit(run / "silos" / "north").identity,
        run / "silos" / "north" / "ledger.head",
    ) as ledger:  # fmt: skip
        earlier = DpSgdEvent(8.0, 1.0, 0.5, 2, 10)
        ledger.reserve(
            Asked(budget_of(ledger, "synthetic/record"), "77", earlier, 1, scenario="ab" * 32, name="wards-1")
        )
        ledger.charge("77", 1, 2, "earlier")
    report = sections.scope(read_run(run))
    north = next(budget for budget in report.budgets if budget.silo == "north")
    assert report.prior_runs == 1
    assert [(one.run == "77", one.this, one.steps) for one in north.runs] == [(False, True, 4), (True, False, 2)]
    assert [one.name for one in north.runs] == [None, "wards-1"]
    assert "wards-1</code>" in this_run(north.runs[1], catalogue())
    assert "</code> <code>" not in this_run(north.runs[0], catalogue())
    assert [one.name for one in sections.scope(read_run(run), named=False).budgets[0].runs] == [None, None]
    assert north.spent == epsilon([event_of(4), DpSgdEvent(8.0, 1.0, 0.5, 2, 10)], 1e-3)
    # Another may yet be chosen by what these two released: the cap is what holds.
    assert north.bound == 9.0 == report.largest_bound
    claim = sections._silo_claim(read_run(run), "north")
    assert claim.epsilon == epsilon([event_of(4)], 1e-3)
    assert claim.epsilon_all_runs == 9.0


def test_a_run_of_several_parts_has_a_row_for_each_and_an_epsilon_that_is_of_all(
    roomy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(roomy, tmp_path / "run")
    plan, statistic = DpSgdEvent(8.0, 1.0, 0.5, 2, 10), DpSgdEvent(12.0, 2.0, 1.0, 1, 1)
    with Ledger(
        run / "ledgers" / "north.sqlite", "north", read_kit(run / "silos" / "north").identity,
        run / "silos" / "north" / "ledger.head",
    ) as ledger:  # fmt: skip
        ledger.reserve(
            Asked(budget_of(ledger, "synthetic/record"), "77", plan, 1, besides=(statistic,), scenario="ab" * 32)
        )
        ledger.charge("77", 1, 1, "statistic", part=1)
    gathered = read_run(run)
    (north, *_) = sections.scope(gathered).budgets
    own, other = north.runs
    assert own.parts == ()
    assert "parts" not in own.model_dump()
    figures = [(one.part, one.steps, one.reserved_steps, one.noise_multiplier, one.sample_rate) for one in other.parts]
    assert figures == [(1, 0, 2, 8.0, 0.5), (2, 1, 1, 12.0, 1.0)]
    assert [one.epsilon_alone for one in other.parts] == [epsilon([one], 1e-3) for one in (plan, statistic)]
    assert other.epsilon == epsilon([plan, statistic], 1e-3)
    assert other.epsilon is not None
    assert max(one.epsilon_alone or 0.0 for one in other.parts) < other.epsilon
    # The claim of a report whose own run it is, and the page.
    of_it = {**gathered.ledgers, "north": replace(gathered.ledgers["north"], run="77")}
    claim = sections._silo_claim(replace(gathered, ledgers=of_it), "north")
    assert (claim.parts, claim.epsilon, claim.steps, claim.steps_reserved) == (2, other.epsilon, 0, 2)
    report = build.gather(run)
    assert {one.parts for one in report.claim.silos} == {1}
    claims = report.claim.model_copy(update={"silos": (claim, *report.claim.silos[1:])})
    monkeypatch.setattr("scenarios.report.page.render.figures", lambda report, said: {})
    shown = render(report.model_copy(update={"claim": claims}))
    assert shown.count(f"{Told(catalogue()).epsilon(other.epsilon)}, 2 parts composed") == 2
    assert len(re.findall(r"\d alone\b", shown)) == 2
    for said in ("0 of 2, of the plan", "part 1 of it, its plan", "part 2 of it", "1 of 1", "by part"):
        assert said in shown


def test_the_kinds_that_were_used_are_named_in_the_words_of_their_own_files(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = build.read_report(built).report
    assert [(one.what, one.name, one.settings) for one in report.training.used or ()] == [
        ("model", "mlp", 'hidden = [], activation = "relu", dropout = 0.0'),
        ("gradients", "auto", ""),
        ("strategy", "fedavg", ""),
    ]
    monkeypatch.setattr("scenarios.report.page.render.figures", lambda report, said: {})
    shown = render(report)
    for said in (
        "Fully connected layers.",
        "The first of book-keeping, hooks",
        "Federated averaging: the weighted mean",
    ):
        assert said in shown
    assert "FedProx" not in shown


def test_a_report_names_options_fedprox_and_how_the_rate_went(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = read_run(built)
    federation = {"strategy": "fedadam", "strategy_options": {"eta": 0.25}}
    scenario = gathered.scenario.model_copy(
        update={
            "federation": gathered.scenario.federation.model_copy(update=federation),
            "training": gathered.scenario.training.model_copy(
                update={"proximal": 0.01, "schedule": ScheduleConfig(decay="cosine"), "ema_decay": 0.875}
            ),
        }
    )
    found = sections.training(replace(gathered, scenario=scenario), sections.told_of(gathered), named=True)
    assert found.proximal == 0.01
    monkeypatch.setattr("scenarios.report.page.render.figures", lambda report, said: {})
    shown = render(build.read_report(built).report.model_copy(update={"training": found}))
    for said in (
        "eta = 0.25, tau = 0.001, beta_1 = 0.9, beta_2 = 0.99",
        "FedProx with mu = 0.01",
        "fedadam",
        "with a decay of 0.875 for each",
        "The learning rate fell on half a cosine&#39;s wave, to 0.1 of its height in the last round.",
    ):
        assert said in shown


STRATEGIES = {
    "fedavg": "Federated averaging: the weighted mean of the silos' updates is added to the model.",
    "fedavgm": "Federated averaging with momentum at the server: the model moves by a running sum of the means, older"
    " ones less.",
    "fedadam": "FedAdam: the model moves by an average of recent means, each coordinate over the root of an average of"
    " its squares.",
    "fedyogi": "FedYogi: as FedAdam, with an average of squares that grows and shrinks by shares of the new square"
    " alone.",
    "fedadagrad": "FedAdagrad: the model moves by the mean, each coordinate over the root of the sum of its squares so"
    " far.",
    "median": "The median of the silos' updates, coordinate by coordinate, is added to the model; no weights are"
    " counted.",
    "trimmed-mean": "The mean of the silos' updates less the largest and the smallest of each coordinate is added; no"
    " weights are counted.",
    "krum": "Krum: the one update that is nearest to most of the others is added to the model, and all others are left"
    " out.",
}


def test_what_kinds_say_of_themselves_is_as_reports_have_it() -> None:
    """A report is compared with what the code says now: with other words here, none of before would verify."""
    assert {name: described(room, name) for room, name in (
        ("fedmodel.kinds.models", "mlp"), ("fedmodel.kinds.models", "cnn"),
        ("fedmodel.learning.gradients", "per-sample"), *(("server.strategies", name) for name in STRATEGIES),
    )} == STRATEGIES | {
        "mlp": "Fully connected layers.",
        "cnn": "A small convolutional network for images.",
        "per-sample": "The gradient of each record in memory, from Opacus's GradSampleModule; the clip, the cut and the"
        " sum are our own.",
    }  # fmt: skip


def test_a_report_from_before_kinds_were_named_verifies_as_it_was(run: Path) -> None:
    report = told(run)["report"]
    del report["training"]["used"]
    forge(run, report)
    assert build.verify(run).report.training.used is None


def test_a_summary_that_names_another_strategy_than_the_scenario_makes_no_report(run: Path) -> None:
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    assert summary["used"] == {"model": "mlp", "gradients": "auto", "strategy": "fedavg"}
    path.write_text(json.dumps({**summary, "used": {**summary["used"], "strategy": "median"}}))
    with pytest.raises(ClaimRefuted, match="the scenario names"):
        build.build(run, page)
    del summary["used"]  # as a summary from before
    path.write_text(json.dumps(summary))
    build.build(run, page)


def test_an_earlier_run_of_seeded_noise_leaves_no_cumulative_figure(roomy: Path, tmp_path: Path) -> None:
    """Whoever knows the seed subtracts that run's noise, so nothing bounds what all runs together tell."""
    run = copied(roomy, tmp_path / "run")
    with Ledger(
        run / "ledgers" / "north.sqlite", "north", read_kit(run / "silos" / "north").identity,
        run / "silos" / "north" / "ledger.head",
    ) as ledger:  # fmt: skip
        ledger.reserve(
            Asked(
                budget_of(ledger, "synthetic/record"),
                "77",
                DpSgdEvent(8.0, 1.0, 0.5, 2, 10, "seeded-unsafe"),
                1,
                scenario="ab" * 32,
            )
        )
        ledger.charge("77", 1, 2, "earlier")
    report = build.gather(run)
    north, south = (next(one for one in report.scope.budgets if one.silo == silo) for silo in ("north", "south"))
    assert (north.protects, north.spent, north.bound) == (False, None, None)
    assert south.protects
    assert south.spent is not None
    assert [(one.this, one.noise_source, one.epsilon is None) for one in north.runs] == [
        (True, "os", False), (False, "seeded-unsafe", True),
    ]  # fmt: skip
    assert (report.scope.protects, report.scope.largest_bound) == (False, None)
    assert [one.epsilon_all_runs is None for one in report.claim.silos] == [True, False, False]
    assert [point.epsilon is None for point in report.training.budgets[0].points] == [False, False, True]
    assert report.claim.protects
    assert report.claim.silos[0].epsilon is not None


def test_noise_that_was_seeded_claims_nothing(tmp_path: Path) -> None:
    report = told_of(simulated(tmp_path, MASKED, "privacy.noise=seeded-unsafe"))
    assert not report.claim.protects
    assert "Nothing is claimed" in report.claim.sentence
    assert any("Noise was seeded" in one for one in report.not_protected.statements)


def told_of(run: Path) -> Report:
    build.build(run, page)
    return build.verify(run).report


def test_units_of_several_records_say_why_there_is_no_prv(tmp_path: Path) -> None:
    report = told_of(
        simulated(
            tmp_path, MASKED, "privacy.unit=person", "privacy.max_records=3", "data.records_per_person=3",
            "data.partition.min_records=5", "data.records=360",
            "encryption.secure_aggregation=off", "privacy.noise_multiplier=4.0",
        )
    )  # fmt: skip
    assert {row.prv for row in report.accounting.silos} == {None}
    assert all("several" in str(row.prv_reason) for row in report.accounting.silos)
    assert "person with at most 3 records" in report.claim.sentence
    assert report.trust.secure_aggregation.mode == "off"
    assert any("Single updates: the server sees each" in one for one in report.not_protected.statements)


# An audit

PLAN = {"canaries": 20, "test": "by hand"}


def enter(run: Path, silo: str, finding: dict[str, str]) -> None:
    kit = run / "silos" / silo
    (run / "ledgers").mkdir(exist_ok=True)
    with Ledger(run / "ledgers" / f"{silo}.sqlite", silo, read_kit(kit).identity, kit / "ledger.head") as ledger:
        ledger.audit(finding)


def enter_plan(run: Path) -> None:
    for silo in SILOS:
        enter(run, silo, {"subject": PLAN_SUBJECT, "plan": plan_hash(PLAN), "coins": "00"})


def conclude(run: Path, **says: Any) -> None:
    """Write what an audit found, and enter its hash."""
    found = {
        "plan": PLAN, "plan_hash": plan_hash(PLAN), "claimed_epsilon": epsilon([event_of(4)], 1e-3), "delta": 1e-3,
        "claimed_mu": 0.5, "power": 0.9, "power_test": {"against": "half the noise", "least": 0.8, "runs": 5},
        "lower_bounds": {"fdp": {"epsilon": 0.4, "confidence": 0.95, "assumption": "none", "mu": 0.1}},
        "gauges": [{"name": "finite", "silo": None, "measured": None, "expected": 1.0, "low": 1.0, "high": 1.0,
                    "passed": False, "explanation": "none"}],
        "unmeasured": [{"name": "lot_rate", "silo": "north"}],
        "membership": {"loss_threshold": {"auc": 0.5, "tpr_at_1pct_fpr": 0.01, "epsilon_estimate": 0.1}, "rmia": None,
                       "note": "by hand"},
        "exposure": {"mean": 1.5, "largest": 6.25, "by_chance": 1.375, "most": 7.5, "canaries": 93, "among": 180},
        "scores": {"included": [1.0], "excluded": [0.5]},
        "guesses": {"canaries": 20, "made": 10, "correct": 5, "needed": 9}, "verdict": "not-refuted", "reasons": [],
        **says,
    }  # fmt: skip
    (run / "audit.json").write_text(json.dumps(found), encoding="utf-8")
    for silo in SILOS:
        enter(run, silo, {"subject": RESULT_SUBJECT, "document": result_hash(run), "observations": "00"})


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("audited"), MASKED, kits_ready=enter_plan)


@pytest.fixture
def attacked(audited: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(audited, tmp_path / "attacked"))


def test_an_audit_stands_in_the_report_with_its_place_in_every_ledger(
    read_once: Callable[[Path], None], attacked: Path
) -> None:
    conclude(attacked)
    build.build(attacked, page)
    checked = build.verify(attacked, None, page, silo_anchors(attacked))
    # What the silos' audits saw is not here: the result is the word of those who entered it.
    assert (checked.rendered, checked.evaluated, checked.whole) == (True, False, False)
    audit = checked.report.audit
    assert audit is not None
    assert [entry.silo for entry in audit.entered] == list(SILOS)
    assert all(one.plan_entry < (one.first_charge_entry or 0) < (one.result_entry or 0) for one in audit.entered)
    assert audit.power.power == 0.9
    assert audit.exposure is not None
    assert (audit.exposure.canaries, audit.exposure.largest) == (93, 6.25)
    assert "audit.json" in {file.name for file in checked.report.integrity.files}
    read_once(attacked)
    report = told(attacked)["report"]
    for name, put, leaf in leaves(report["audit"], "audit"):
        spoilt = copy.deepcopy(report)
        put(spoilt["audit"], next(value for value in another(leaf)))
        try:
            forge(attacked, spoilt)
        except ValidationError:
            continue
        assert f" {name}: " in str(refusal(attacked)), name


def test_a_report_without_an_audit_says_that_none_was_tried(built: Path) -> None:
    report = build.read_report(built).report
    assert report.audit is None
    assert any("none was tried" in one for one in report.limits.statements)


def test_an_audit_that_was_planned_and_has_no_result_is_said(audited: Path) -> None:
    report = build.gather(audited)
    assert report.audit is None
    assert any("its result is not here" in one for one in report.limits.statements)


def test_a_result_that_displeases_cannot_be_left_away(attacked: Path) -> None:
    conclude(attacked)
    (attacked / "audit.json").unlink()
    with pytest.raises(LedgerTampered, match="is missing"):
        build.build(attacked, page)


def test_a_result_that_was_written_again_is_not_the_one_entered(attacked: Path) -> None:
    conclude(attacked, verdict="refuted")
    path = attacked / "audit.json"
    path.write_text(path.read_text().replace("refuted", "not-refuted"), encoding="utf-8")
    with pytest.raises(LedgerTampered, match="as the result"):
        build.build(attacked, page)


def test_another_plan_than_the_one_entered_is_refused(attacked: Path) -> None:
    other = {**PLAN, "canaries": 10}
    conclude(attacked, plan=other, plan_hash=plan_hash(other))
    with pytest.raises(LedgerTampered, match="does not hold the audit's plan"):
        build.build(attacked, page)


def test_a_plan_that_is_not_of_its_hash_is_refused(attacked: Path) -> None:
    conclude(attacked, plan={**PLAN, "canaries": 10})
    with pytest.raises(LedgerTampered, match="is not the hash of its plan"):
        build.build(attacked, page)


def test_a_plan_that_was_entered_after_the_first_charge_is_none(run: Path) -> None:
    enter_plan(run)
    conclude(run)
    with pytest.raises(LedgerTampered, match="planned afterwards"):
        build.build(run, page)


def test_of_two_plans_none_was_fixed(tmp_path: Path) -> None:
    def twice(run: Path) -> None:
        enter_plan(run)
        enter(run, "west", {"subject": PLAN_SUBJECT, "plan": "ab" * 32, "coins": "00"})

    run = simulated(tmp_path, MASKED, kits_ready=twice)
    conclude(run)
    with pytest.raises(LedgerTampered, match="silo west's ledger does not hold the audit's plan"):
        build.build(run, page)


def test_an_audit_attacks_the_claim_of_the_report_its_cap_and_its_delta(
    attacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the budget's cap is under the accountant's figure of the plan, the claim is the cap."""
    cap = 0.5 * epsilon([event_of(4)], 1e-3)
    with monkeypatch.context() as patch:
        patch.setattr(Standing, "cap_of", lambda self, run: cap)
        conclude(attacked, claimed_epsilon=cap)
        gathered = read_run(attacked)
        found = audited_section(gathered)
        assert found is not None
        assert found.claimed_epsilon == cap == sections._silo_claim(gathered, "north").epsilon
    with pytest.raises(ClaimRefuted, match=r"audit\.claimed_epsilon: .* follows from the ledgers"):
        audited_section(gathered)


def test_an_audit_at_another_delta_is_of_another_claim(attacked: Path) -> None:
    conclude(attacked, delta=1e-4)
    with pytest.raises(ClaimRefuted, match=r"audit\.delta: 0\.0001 stands, 0\.001 follows from the ledger of north"):
        audited_section(read_run(attacked))


def test_an_audit_of_another_claim_is_refuted(attacked: Path) -> None:
    conclude(attacked, claimed_epsilon=9.0)
    with pytest.raises(ClaimRefuted, match=r"audit.claimed_epsilon: 9\.0 stands"):
        build.build(attacked, page)


def test_an_audit_of_another_form_is_refused_by_the_name_of_the_field(attacked: Path) -> None:
    conclude(attacked, verdict="passed")
    with pytest.raises(LedgerTampered, match=r"audit.json: verdict: "):
        build.build(attacked, page)


# Two runs


def test_two_runs_differ_where_they_do(built: Path, tmp_path: Path) -> None:
    other = simulated(tmp_path, MASKED, "privacy.noise_multiplier=3.0", "rounds=3")
    build.build(other, page)
    found = {one.path: one for one in build.diff(built, other)}
    rounds = found["mechanism.rounds_planned"]
    assert (rounds.one, rounds.other, rounds.by, rounds.section) == (2, 3, 1.0, "mechanism")
    assert found["mechanism.silos[west].noise_multiplier"].by == 1.0
    assert found["accounting.silos[north].pld"].by is not None
    assert found["training.rounds"].one == "2 rows"
    assert "claim.unit" not in found
    assert build.diff(built, built) == []


def test_a_report_that_was_changed_is_not_compared(built: Path, run: Path) -> None:
    file = told(run)
    file["report"]["claim"]["epsilon"] = 0.1
    (run / "report.json").write_text(json.dumps(file, indent=2) + "\n", encoding="utf-8")
    with pytest.raises(LedgerTampered, match="signature"):
        build.diff(built, run)


def test_differences_are_found_in_order_and_rows_are_matched_by_name() -> None:
    assert [one.path for one in differences({"b": [1, 2], "a": 1}, {"a": 2, "b": [1]})] == ["b[1]", "a"]
    assert not list(differences({"pld": 1.0}, {"pld": 1.0 + 1e-10}))
    assert list(differences({"pld": 1.0}, {"pld": 1.0 + 1e-8}))
    assert list(differences({"pld": 1}, {"pld": True}))
    one, other = [{"silo": "a", "x": 1}, {"silo": "b", "x": 2}], [{"silo": "b", "x": 3}]
    assert {change.path for change in changes(one, other)} == {"[a]", "[b].x"}


# ---------------------------------------------------------------- whose it is, and what for


@pytest.fixture(scope="module")
def of_purpose(stated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copied(stated, tmp_path_factory.mktemp("stated") / "run")
    build.build(run, page)
    return run


def test_a_report_of_a_run_that_states_nothing_is_the_document_of_before(built: Path) -> None:
    assert "purpose" not in told(built)["report"]


def test_a_purpose_and_who_answers_follow_from_scenario_and_laws(of_purpose: Path, tmp_path: Path) -> None:
    run = copied(of_purpose, tmp_path / "run")
    said = build.verify(run).report.purpose
    assert said is not None
    assert (said.statement, said.contact) == ("Find masses for a second reading.", None)
    assert [(one.silo, one.name, one.retention) for one in said.silos] == [("north", "North Trust", "ten years")]
    law = run / "silos" / "north" / "silo.toml"
    law.write_text(law.read_text(encoding="utf-8").replace("ten years", "for ever"), encoding="utf-8")
    with pytest.raises(ClaimRefuted, match=r"purpose\.silos\[0\]\.retention"):
        build.verify(run)


@pytest.mark.parametrize("key", ["statement", "controller", "decision"])
def test_a_purpose_that_somebody_put_into_a_report_is_refused(of_purpose: Path, tmp_path: Path, key: str) -> None:
    run = copied(of_purpose, tmp_path / "run")
    report = told(run)["report"]
    report["purpose"][key] = "Anything at all."
    forge(run, report)
    with pytest.raises(ClaimRefuted, match=rf"purpose\.{key}"):
        build.verify(run)


def test_who_answers_is_the_signers_word_where_the_law_is_not_at_hand(of_purpose: Path, tmp_path: Path) -> None:
    run = copied(of_purpose, tmp_path / "run")
    shutil.rmtree(run / "silos")
    checked = build.verify(run, key=read_identity(run / "server").public.hex())
    assert dict(checked.items)["who answers"].startswith("NOT compared for north")
    assert "who answers" not in dict(build.verify(of_purpose).items)


def test_a_page_is_rendered_again_in_the_language_that_it_is_in(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Catalogue({**catalogue().texts, "front.lang": "xx", "front.eyebrow": "Another word"})

    def titled(report: Report, pictures: Mapping[str, str], said: Catalogue | None = None) -> str:
        said = other if said is None else said  # whoever builds it chose this one
        return f"{beginning(said.language)}<title>{said.say('front.eyebrow')}</title>"

    build.build(run, titled)
    with pytest.raises(LedgerTampered, match="is in language 'xx', of which there are no sentences here"):
        build.verify(run, render=titled)
    monkeypatch.setattr(page_check, "languages", lambda: ("en", "xx"))
    monkeypatch.setattr(page_check, "catalogue", lambda language: other)
    assert build.verify(run, render=titled).rendered
    monkeypatch.setattr(page_check, "catalogue", lambda language: catalogue())
    with pytest.raises(ClaimRefuted, match=r"report\.html"):
        build.verify(run, render=titled)
