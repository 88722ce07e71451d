"""A deployed run's reports: the server's of what silos reported, and each silo's own, held to its ledger and signed."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedmodel.config import read_scenario, scenario_to_toml
from fedmodel.crypto import SigningKey
from fedmodel.errors import ClaimRefuted, ConfigError, FedmodelError, LedgerError, LedgerTampered, PolicyRefused
from fedmodel.learning.description import describe
from fedmodel.ledger import Ledger
from fedmodel.provision import (
    authority_fingerprint,
    read_authority,
    read_federation_roster,
    read_identity,
    scenario_hash,
)
from scenarios.report import build, copies, deployed
from scenarios.report.anchors import Anchors
from scenarios.report.document import Report
from scenarios.report.gather import SERVER_REPORT, file_hash
from scenarios.report.page import signing
from scenarios.report.page.passive import BEGINNING
from scenarios.report.page.render import render
from scenarios.report.verifier import verify as verifier
from tests.deployments import RUN, SILOS
from tests.deployments import deployed as deployment
from tests.federations import Federation


def page(report: Report, pictures: Mapping[str, str]) -> str:
    del pictures
    return f"{BEGINNING}<title>{report.run.scenario} {report.run.copy_for} {report.claim.sentence}</title>"


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation whose server made its report, and north its own."""
    made = deployment(tmp_path_factory).copy(tmp_path_factory.mktemp("deployed") / "kits")
    made.unlock("server")
    made.unlock("north")
    deployed.server_report(made.kit("server"), RUN, page)
    deployed.silo_report(made.kit("north"), copy_of(made, "north"), page)
    return made


@pytest.fixture
def kits(reported: Federation, tmp_path: Path) -> Federation:
    """The same, for one test to change."""
    return reported.copy(tmp_path / "kits")


def run_of(made: Federation) -> Path:
    return made.kit("server") / "runs" / RUN


def copy_of(made: Federation, silo: str) -> Path:
    return run_of(made) / "copies" / silo


def own_of(made: Federation, silo: str) -> Path:
    (folder,) = (made.kit(silo) / "reports").iterdir()
    return folder


def anchors(made: Federation) -> Anchors:
    kit = made.kit("authority")
    roster = read_federation_roster(made.kit("server"))
    return Anchors.of(authority_fingerprint(roster.federation, read_authority(kit)), ())


def north_again(made: Federation) -> Path:
    """Make north's report anew, from what was handed over."""
    made.unlock("north")
    shutil.rmtree(made.kit("north") / "reports")
    return deployed.silo_report(made.kit("north"), copy_of(made, "north"), page)


def sign_again(folder: Path, report: Report, key: SigningKey, name: str = "report.json") -> None:
    """Sign a report as it is now, with the hashes of the files that lie there now."""
    files = tuple(
        one.model_copy(update={"sha256": file_hash(folder / one.name)}) for one in report.integrity.files
        if (folder / one.name).is_file()
    )  # fmt: skip
    changed = report.model_copy(update={"integrity": report.integrity.model_copy(update={"files": files})})
    (folder / name).write_bytes(signing.seal(changed, key))


# The server's


def test_a_servers_report_is_of_what_silos_reported_and_says_so(reported: Federation) -> None:
    checked = build.verify(run_of(reported), render=page, anchors=anchors(reported))
    report = checked.report
    assert (report.run.reported, report.run.copy_for) == (True, None)
    assert report.claim.sentence.startswith("By what silos reported to the server, all that left the silos of tiny")
    assert report.claim.rests_on.startswith("No ledger was at hand")
    assert [(row.silo, row.steps, row.epsilon_all_runs) for row in report.claim.silos] == [
        (silo, 4, None) for silo in SILOS
    ]
    assert (report.scope.budgets, report.scope.largest_bound) == ((), None)
    assert {row.silo: row.entries for row in report.integrity.ledgers}.keys() == set(SILOS)
    assert (checked.whole, checked.not_countersigned) == (False, SILOS)  # only silos' own reports can be whole
    assert all("NOT here" in found for item, found in checked.items if item.startswith("ledger"))


def test_a_run_is_called_by_its_servers_name_beside_its_number(kits: Federation) -> None:
    """In the server's report, and in copies of it; a report of before, which had no name, verifies as it was."""
    kits.unlock("server")
    key, folder = read_identity(kits.kit("server")), run_of(kits)
    for place in (folder, copy_of(kits, "north")):
        assert build.read_report(place).report.run.name == RUN
        assert build.verify(place, render=page).report.run.name == RUN
        verifier.verify(place)
    report = build.read_report(folder).report
    sign_again(folder, report.model_copy(update={"run": report.run.model_copy(update={"name": None})}), key)
    assert "name" not in json.loads((folder / "report.json").read_bytes())["report"]["run"]
    assert build.verify(folder, render=page).report.run.name is None
    verifier.verify(folder)
    sign_again(folder, report.model_copy(update={"run": report.run.model_copy(update={"name": "another"})}), key)
    with pytest.raises(ClaimRefuted, match="name"):
        build.verify(folder, render=page)
    with pytest.raises(ClaimRefuted, match=r"run\.name: is not the name in run\.json"):
        verifier.verify(folder)


def test_a_silos_own_report_says_by_its_law_who_answers_for_its_records(kits: Federation) -> None:
    """The server has no silo's law, and its report says nothing of it; whoever verifies has the silo's word for it."""
    with (kits.kit("north") / "silo.toml").open("a", encoding="utf-8") as law:
        law.write('\n[controller]\nname = "North Trust"\ncontact = "officer@north.example"\n')
    north_again(kits)
    own = own_of(kits, "north")
    purpose = build.read_report(own).report.purpose
    assert purpose is not None
    assert [(one.silo, one.name, one.contact, one.retention) for one in purpose.silos] == [
        ("north", "North Trust", "officer@north.example", None)
    ]
    assert "silo.toml" not in {path.name for path in own.rglob("*")}  # the rest of a law is no one else's
    checked = build.verify(own, render=page, anchors=anchors(kits))
    assert checked.report.purpose == purpose
    verifier.verify(own)
    assert build.read_report(copy_of(kits, "north")).report.purpose is None


def test_the_kit_that_a_rehearsal_left_reports_a_rehearsal(kits: Federation) -> None:
    """The server's, its copies, and a silo's own: one account on one machine owned all tables."""
    kits.unlock("server")
    folder = run_of(kits)
    assert build.read_report(folder).report.run.setting == "deployed"
    told = json.loads((folder / "run.json").read_bytes())
    (folder / "run.json").write_text(json.dumps({**told, "network": "loopback"}), encoding="utf-8")
    (folder / "summary.json").unlink()
    deployed.server_report(kits.kit("server"), RUN, page)
    north_again(kits)
    for place in (folder, copy_of(kits, "north"), own_of(kits, "north")):
        report = build.read_report(place).report
        assert report.run.setting == "rehearsed"
        assert any("this was a rehearsal" in one for one in report.not_protected.statements)


def test_its_figures_are_those_of_the_ledgers_it_never_saw(reported: Federation) -> None:
    servers, own = build.read_report(run_of(reported)).report, build.read_report(own_of(reported, "north")).report
    (by_ledger,) = own.claim.silos
    by_report = next(row for row in servers.claim.silos if row.silo == "north")
    assert by_report.model_copy(update={"epsilon_all_runs": by_ledger.epsilon_all_runs}) == by_ledger
    assert servers.training == own.training.model_copy(update={"budgets": ()})


def test_a_report_needs_a_run_that_has_ended(kits: Federation) -> None:
    kits.unlock("server")
    (run_of(kits) / "outcome.json").unlink()
    with pytest.raises(ConfigError, match="has not ended"):
        deployed.server_report(kits.kit("server"), RUN, page)
    with pytest.raises(ConfigError, match=f"has no run 'other'; known: {RUN}"):
        deployed.server_report(kits.kit("server"), "other", page)


def own_code_in(made: Federation, noted: object) -> Path:
    """Have the run be one of a strategy of the user's own, with what was noted of it; return the run's folder."""
    folder = run_of(made)
    scenario = read_scenario(str(folder / "scenario.toml"), ["federation.strategy=ownsteps.steps:Half"])
    (folder / "scenario.toml").write_text(scenario_to_toml(scenario), encoding="utf-8")
    (folder / "model.json").write_bytes(describe(scenario, scenario_hash(scenario)).written())
    told = json.loads((folder / "run.json").read_bytes())
    (folder / "run.json").write_text(json.dumps(told | {"checked": noted}), encoding="utf-8")
    (folder / "summary.json").unlink()
    return folder


def test_a_report_names_code_as_it_was_handed_in_and_imports_none(
    kits: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By now other code lies under the strategy's name, which nobody listed."""
    (tmp_path / "ownsteps").mkdir()
    (tmp_path / "ownsteps" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    parameters = json.loads((run_of(kits) / "summary.json").read_bytes())["parameters"]
    row = {"key": "federation.strategy", "use": "ownsteps.steps:Half", "package": "own-steps", "version": "0.3"}
    noted = {"parameters": parameters, "own_code": [row | {"sha256": "ab" * 32}]}
    folder = own_code_in(kits, noted)
    kits.unlock("server")
    deployed.server_report(kits.kit("server"), RUN, page)
    assert json.loads((folder / "summary.json").read_bytes())["own_code"] == noted["own_code"]
    checked = build.verify(folder, render=page)
    (said,) = (one for one in checked.report.limits.statements if "ownsteps.steps:Half" in one)
    assert f"of package own-steps 0.3, SHA-256 {'ab' * 32}" in said
    assert "but for those of a strategy, which ran at the server alone, by its own file" in said
    assert "ownsteps" not in sys.modules


@pytest.mark.parametrize("noted", [None, {"parameters": 5}, {"own_code": []}, {"parameters": "many", "own_code": []}])
def test_code_of_which_nothing_was_noted_is_one_line(noted: object, kits: Federation) -> None:
    folder = own_code_in(kits, noted)
    kits.unlock("server")
    with pytest.raises(
        ConfigError, match=r"run\.json: does not say what code 'ownsteps.steps:Half' was when"
    ) as refused:
        deployed.server_report(kits.kit("server"), RUN, page)
    assert "\n" not in str(refused.value)
    assert not (folder / "summary.json").exists()


def test_it_is_found_by_its_number_and_made_again(kits: Federation) -> None:
    kits.unlock("server")
    number = build.read_report(run_of(kits)).report.run.run
    assert number is not None
    assert deployed.server_report(kits.kit("server"), number, page) == run_of(kits) / "report.html"


@pytest.mark.parametrize("change", ["fewer", "more", "none", "event"])
def test_what_silos_reported_cannot_be_less_than_the_sums_have(kits: Federation, change: str) -> None:
    path = run_of(kits) / "charges.json"
    told = json.loads(path.read_bytes())
    told["south"] = {
        "fewer": {**told["south"], "rounds": 1},
        "more": {**told["south"], "rounds": 3},
        "none": {"rounds": 2},
        "event": {**told["south"], "event": "{}"},
    }[change]
    path.write_text(json.dumps(told), encoding="utf-8")
    kits.unlock("server")
    with pytest.raises(FedmodelError, match=r"silo south|south reported|more than its plan"):
        deployed.server_report(kits.kit("server"), RUN, page)


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ("steps", 1),
        ("sample_rate", 0.25),
        ("denominator", 3),
        ("max_records", 2),
        ("noise_multiplier", 200.0),
        ("noise_multiplier", 2.0000001),
        ("max_grad_norm", 0.001),
        ("mechanism", "gaussian"),
        ("noise_source", "seeded-unsafe"),
        ("realised_sample_rate", 0.6),
    ],
)
def test_an_event_that_is_not_the_scenarios_is_refused(kits: Federation, figure: str, said: object) -> None:
    """Fewer steps, smaller lots and more noise would have a smaller epsilon."""
    path = run_of(kits) / "charges.json"
    told = json.loads(path.read_bytes())
    event = json.loads(told["south"]["event"])
    assert event[figure] != said
    rate = {"realised_sample_rate": said} if figure == "sample_rate" else {}
    told["south"]["event"] = json.dumps({**event, figure: said, **rate}, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps(told), encoding="utf-8")
    kits.unlock("server")
    with pytest.raises(LedgerTampered, match=f"silo south charged {figure} {said} for a round, where the scenario has"):
        deployed.server_report(kits.kit("server"), RUN, page)
    assert_not_signed_elsewhere(kits, f"charges.json: south: {figure} {said} stands, and scenario.toml says ")


def assert_not_signed_elsewhere(kits: Federation, words: str) -> None:
    """A folder that a server of other code signed all the same, with hashes that fit, is refused by both verifiers."""
    folder = run_of(kits)
    sign_again(folder, build.read_report(folder).report, kits.unlock("server").identity)
    with pytest.raises(FedmodelError):
        build.verify(folder, render=page)
    with pytest.raises(FedmodelError, match=re.escape(words)):
        verifier.verify(folder)


@pytest.mark.parametrize("form", ["by silo", "together", "under the label"])
def test_an_epsilon_in_a_rounds_line_is_that_of_the_charges(kits: Federation, form: str) -> None:
    path = run_of(kits) / "metrics.jsonl"
    *lines, last = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    true = last["epsilon"]["north"]
    lies: dict[str, dict[str, object]] = {
        "by silo": {"epsilon": {**last["epsilon"], "north": 0.0123}},
        "together": {"epsilon": [[true, 2], [0.0123, 1]]},
        "under the label": {"epsilon_if_noise_were_secret": {"north": true}},
    }
    for told, holds in (({"epsilon": [[true, 3]]}, True), (lies[form], False)):
        text = "".join(f"{json.dumps(line)}\n" for line in (*lines, {**last, **told}))
        path.write_text(text, encoding="utf-8")
        kits.unlock("server")
        if holds:
            deployed.server_report(kits.kit("server"), RUN, page)
            verifier.verify(run_of(kits))
            continue
        with pytest.raises(ClaimRefuted, match=r"metrics\.jsonl: round 2: epsilon.* is not what follows"):
            deployed.server_report(kits.kit("server"), RUN, page)
        assert_not_signed_elsewhere(kits, "metrics.jsonl: round 2: epsilon")


def test_a_scenario_that_was_changed_with_the_charges_is_found_by_the_silo_alone(kits: Federation) -> None:
    """Nothing in the server's folder that a silo signed names the scenario: `docs/report.md` says so."""
    folder = run_of(kits)
    scenario = read_scenario(str(folder / "scenario.toml"), ["privacy.noise_multiplier=20.0"])
    (folder / "scenario.toml").write_text(scenario_to_toml(scenario), encoding="utf-8")
    (folder / "model.json").write_bytes(describe(scenario, scenario_hash(scenario)).written())
    told = json.loads((folder / "charges.json").read_bytes())
    for said in told.values():
        event = {**json.loads(said["event"]), "noise_multiplier": 20.0}
        said["event"] = json.dumps(event, sort_keys=True, separators=(",", ":"))
    (folder / "charges.json").write_text(json.dumps(told), encoding="utf-8")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    text = "".join(f"{json.dumps({**line, 'epsilon': {}})}\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    (folder / "summary.json").unlink()
    kits.unlock("server")
    deployed.server_report(kits.kit("server"), RUN, page)
    epsilon = build.verify(folder, render=page).report.claim.epsilon
    assert epsilon is not None
    assert epsilon < 0.2
    verifier.verify(folder)
    with pytest.raises(LedgerError, match=r"its ledger holds no run .* of this scenario"):
        north_again(kits)


def test_a_head_that_the_silo_did_not_sign_is_refused(kits: Federation) -> None:
    heads = kits.kit("server") / "heads"
    shutil.copy2(heads / "north", heads / "south")
    kits.unlock("server")
    with pytest.raises(LedgerTampered, match="south"):
        deployed.server_report(kits.kit("server"), RUN, page)


def test_the_page_claims_nothing_that_needs_a_ledger(reported: Federation) -> None:
    html = render(build.read_report(run_of(reported)).report)
    assert "not known" in html
    assert "no ledger was at hand" in html
    for claimed in ("These ledgers hold", "Budgets, by silo", "ledgers hold no", "No budget in these ledgers"):
        assert claimed not in html
    own = render(build.read_report(own_of(reported, "north")).report)
    assert "These ledgers hold" in own
    assert "Signed by, silo north" in own


# What is handed over


def test_a_copy_names_no_other_silo_but_as_the_scenario_does(reported: Federation) -> None:
    folder = copy_of(reported, "north")
    for path in sorted(folder.rglob("*")):
        # The roster and the scenario name every silo; so does how many records the scenario supposes each to have.
        if path.is_file() and path.name not in ("scenario.toml", "roster.json", "authority.pem", "usefulness.json"):
            text = path.read_text(encoding="utf-8")
            if path.name == "report.json":
                document = json.loads(text)
                assert document["report"]["run"].pop("silos") == list(SILOS)
                text = json.dumps(document)
            assert "south" not in text, path
            assert "west" not in text, path
    assert {path.name for path in (folder / "server" / "heads").iterdir()} == {"north"}
    line = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (line["cohort"], line["others"]) == (["north"], {"asked": 3, "gone": 0, "worth": 3.0})
    whole = build.read_report(run_of(reported)).report
    told = build.read_report(folder).report
    assert told.training == whole.training
    assert told.trust == whole.trust


def test_of_silos_that_left_or_dropped_out_a_copy_has_the_number(reported: Federation) -> None:
    """The line of a round, for a silo that was in its sum and for one that had left."""
    scenario = read_scenario(str(run_of(reported) / "scenario.toml"))
    left = {"west": {"round": 1, "code": "budget-exceeded"}}
    line = {
        "round": 2, "cohort": ["north", "south"], "dropouts": {"south": "lost"}, "withdrawn": left, "summed": 1,
        "epsilon": {"north": 1.0, "south": 2.0, "west": 3.0}, "seconds": 0.1,
    }  # fmt: skip
    others = {"asked": 2, "gone": 1, "worth": 1.0}
    for_north = copies._line_for(scenario, line, "north")
    assert for_north == {
        **line, "cohort": ["north"], "dropouts": {}, "withdrawn": {}, "epsilon": {"north": 1.0}, "others": others
    }  # fmt: skip
    for_west = copies._line_for(scenario, line, "west")
    assert for_west == {
        **line, "cohort": [], "dropouts": {}, "withdrawn": left, "epsilon": {"west": 3.0}, "others": others
    }  # fmt: skip


def test_a_copy_that_names_others_is_refused(kits: Federation) -> None:
    folder = copy_of(kits, "north")
    shutil.copy2(run_of(kits) / "metrics.jsonl", folder / "metrics.jsonl")
    with pytest.raises(LedgerTampered, match=r"does not say what summary\.json is a copy of"):
        build.gather(folder)


# The silo's own


def test_a_silos_report_is_whole_under_the_authority(reported: Federation) -> None:
    folder = own_of(reported, "north")
    checked = build.verify(folder, render=page, anchors=anchors(reported))
    assert checked.whole
    report = checked.report
    assert (report.run.reported, report.run.copy_for) == (False, "north")
    assert report.integrity.signer == reported.unlock("north").identity.public.hex()
    assert SERVER_REPORT in {file.name for file in report.integrity.files}
    assert report.claim.rests_on.startswith("north countersigned its ledger")
    assert [budget.silo for budget in report.scope.budgets] == ["north"]
    assert (folder / SERVER_REPORT).read_bytes() == (copy_of(reported, "north") / "report.json").read_bytes()
    assert dict(checked.items)[SERVER_REPORT].endswith("every figure of it follows, and silo north agrees")


def test_a_ledger_that_grows_later_is_no_fault(kits: Federation) -> None:
    kit = kits.kit("north")
    own = kits.unlock("north").identity
    with Ledger(kit / "ledgers" / "north.sqlite", "north", own, kit / "ledger.head") as ledger:
        ledger.audit({"subject": "looked", "by": "officer"})
    page_again = north_again(kits)
    assert build.read_report(page_again.parent).report.integrity.ledgers[0].entries > 11
    assert build.verify(page_again.parent, render=page, anchors=anchors(kits)).whole


def test_the_copy_of_another_silo_or_of_all_is_refused(kits: Federation) -> None:
    kits.unlock("north")
    for folder, whose in ((copy_of(kits, "south"), "is silo south's report"), (run_of(kits), "is a whole run's")):
        with pytest.raises(ConfigError, match=whose):
            deployed.silo_report(kits.kit("north"), folder, page)


def test_a_server_that_the_law_does_not_name_gets_no_signature(kits: Federation) -> None:
    kits.unlock("north")
    law = kits.kit("north") / "silo.toml"
    named = kits.unlock("server").identity.public.hex()
    law.write_text(law.read_text().replace(named, SigningKey(bytes(32)).public.hex()), encoding="utf-8")
    with pytest.raises(PolicyRefused, match=r"silo\.toml does not name"):
        deployed.silo_report(kits.kit("north"), copy_of(kits, "north"), page)


@pytest.mark.parametrize("lie", ["claim", "summary", "rounds", "model", "signature", "page"])
def test_a_server_whose_word_contradicts_the_ledger_gets_no_signature(kits: Federation, lie: str) -> None:
    """It signs whatever it likes, with hashes that fit; the silo finds where it does not agree, and leaves nothing."""
    folder, server = copy_of(kits, "north"), kits.unlock("server").identity
    report = build.read_report(folder).report
    summary = json.loads((folder / "summary.json").read_bytes())
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    if lie == "claim":
        (row,) = report.claim.silos
        low = row.model_copy(update={"epsilon": (row.epsilon or 0) / 2})
        report = report.model_copy(update={"claim": report.claim.model_copy(update={"silos": (low,)})})
    elif lie == "summary":
        summary["privacy"][0]["epsilon"] /= 2
    elif lie == "rounds":
        lines.append(lines[-1].replace('"round": 2', '"round": 3'))
        text = (folder / "scenario.toml").read_text(encoding="utf-8")
        (folder / "scenario.toml").write_text(text.replace("rounds = 2", "rounds = 3", 1), encoding="utf-8")
    elif lie == "model":
        summary["model_sha256"] = "ab" * 32
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sign_again(folder, report, server)
    if lie == "signature":
        text = (folder / "report.json").read_text(encoding="utf-8")
        (folder / "report.json").write_text(text.replace('"seconds"', '"seconds" ', 1), encoding="utf-8")
    expected = {"claim": ClaimRefuted, "summary": ClaimRefuted, "page": None}.get(lie, LedgerError)
    if expected is None:  # the server's page is not the silo's, which makes its own
        (folder / "report.html").write_text("<p>anything</p>", encoding="utf-8")
        assert north_again(kits).is_file()
        return
    shutil.rmtree(kits.kit("north") / "reports")
    kits.unlock("north")
    with pytest.raises(expected):
        deployed.silo_report(kits.kit("north"), folder, page)
    assert list((kits.kit("north") / "reports").iterdir()) == []


@pytest.mark.parametrize("number", ["12/3", "..", "", "1" * 21, "x\x1b[2J"])
def test_a_run_that_a_server_calls_by_no_number_is_refused(number: str, kits: Federation) -> None:
    """A folder of the silo's kit has the run's number for a name, and the server says it."""
    copy = copy_of(kits, "north")
    report = build.read_report(copy).report
    forged = report.model_copy(update={"run": report.run.model_copy(update={"run": number})})
    sign_again(copy, forged, kits.unlock("server").identity)
    kits.unlock("north")
    before = sorted(kits.kit("north").rglob("*"))
    with pytest.raises(ConfigError, match=r"a run's number is 1 to 20 digits; nothing is signed$"):
        deployed.silo_report(kits.kit("north"), copy, page)
    assert sorted(kits.kit("north").rglob("*")) == before


def test_a_silos_report_is_made_of_known_names_alone(kits: Federation) -> None:
    """A server that lists a file outside of the folder has nothing written there."""
    folder, server = copy_of(kits, "north"), kits.unlock("server").identity
    report = build.read_report(folder).report
    (folder.parent / "evil").write_text("evil", encoding="utf-8")
    listed = (*report.integrity.files, report.integrity.files[0].model_copy(update={"name": "../evil"}))
    changed = report.model_copy(update={"integrity": report.integrity.model_copy(update={"files": listed})})
    sign_again(folder, changed, server)
    with pytest.raises(
        LedgerTampered,
        match=r"^server-report\.json: \.\./evil: is missing, or no plain file of the folder: one was signed",
    ):
        north_again(kits)
    assert not list(kits.kit("north").rglob("evil"))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (SERVER_REPORT, LedgerTampered),
        ("ledgers/north.sqlite", LedgerTampered),
        ("charges.json", LedgerTampered),
        ("summary.json", LedgerTampered),
        ("server/heads/north", LedgerError),
        ("report.html", LedgerTampered),
        ("report.json", LedgerTampered),
    ],
)
def test_whatever_is_changed_in_a_silos_folder_is_found(kits: Federation, name: str, error: type[Exception]) -> None:
    path = own_of(kits, "north") / name
    data = bytearray(path.read_bytes())
    # Of a signed file its signature, lest what is changed depend on where its middle is.
    place = data.rindex(b'"signature": "') + 20 if name in (SERVER_REPORT, "report.json") else len(data) // 2
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(error) as found:
        build.verify(own_of(kits, "north"), render=page, anchors=anchors(kits))
    if name == "report.html":
        assert str(found.value).startswith("report.html: is a changed page")


def test_a_silo_cannot_sign_beside_a_servers_report_of_other_figures(kits: Federation) -> None:
    """A silo that has its own key alone cannot change what the server said of it."""
    folder = own_of(kits, "north")
    own = kits.unlock("north").identity
    server = signing.open_report((folder / SERVER_REPORT).read_bytes()).report
    (row,) = server.claim.silos
    low = row.model_copy(update={"epsilon": (row.epsilon or 0) / 2})
    forged = server.model_copy(update={"claim": server.claim.model_copy(update={"silos": (low,)})})
    (folder / SERVER_REPORT).write_bytes(signing.seal(forged, own))
    sign_again(folder, build.read_report(folder).report, own)
    with pytest.raises(LedgerTampered, match="signed by another key than the server's"):
        build.verify(folder, render=page, anchors=anchors(kits))


def test_a_silos_report_is_of_the_servers(kits: Federation) -> None:
    """What the silo did not sign could be put there later."""
    folder, own = own_of(kits, "north"), kits.unlock("north").identity
    report = build.read_report(folder).report
    kept = tuple(one for one in report.integrity.files if one.name != SERVER_REPORT)
    sign_again(
        folder, report.model_copy(update={"integrity": report.integrity.model_copy(update={"files": kept})}), own
    )
    for look in (build.verify, verifier.verify):
        with pytest.raises(LedgerTampered, match=r"is of no server-report\.json"):
            look(folder)


def test_the_servers_key_alone_cannot_sign_a_silos_report(kits: Federation) -> None:
    folder = own_of(kits, "north")
    sign_again(folder, build.read_report(folder).report, kits.unlock("server").identity)
    with pytest.raises(LedgerTampered, match="signed by another key"):
        build.verify(folder, render=page, anchors=anchors(kits))
