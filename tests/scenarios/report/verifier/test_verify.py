"""The verifier that needs little: what is changed is found, and what it did not look at is said."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedmodel import plans
from fedmodel.config import Scenario, scenario_from_json, scenario_to_toml
from fedmodel.crypto import SigningKey
from fedmodel.errors import ClaimRefuted, ConfigError, FedmodelError, LedgerTampered
from fedmodel.ledger import Asked, Ledger
from fedmodel.privacy.events import Event, event_to_json
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import read_identity, read_kit
from scenarios.report import build, deployed
from scenarios.report.page import signing
from scenarios.report.page_check import PAGE
from scenarios.report.verifier import ledgers, planned, program, signed, verify
from scenarios.report.verifier.holding import Found
from scenarios.runs import reported as of_server
from tests.deployments import RUN, SILOS
from tests.deployments import deployed as deployment
from tests.federations import Federation
from tests.ledgers import budget_of
from tests.runs import MASKED, copied, masked, roomy, simulated
from tests.scenarios.report.test_build import changed, forge, leaves, page, told
from tests.scenarios.report.test_deployed import anchors, copy_of, own_of, run_of, sign_again
from tests.scenarios.report.test_deployed import page as any_page

__all__ = ["masked", "roomy"]


@pytest.fixture(scope="module")
def built(masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copied(masked, tmp_path_factory.mktemp("verifier") / "run")
    build.build(run, page)
    return run


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    """The same, to spoil."""
    return copied(built, tmp_path / "run")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation whose server and whose silo north made their reports."""
    made = deployment(tmp_path_factory).copy(tmp_path_factory.mktemp("verifier") / "kits")
    made.unlock("server")
    made.unlock("north")
    deployed.server_report(made.kit("server"), RUN, any_page)
    deployed.silo_report(made.kit("north"), copy_of(made, "north"), any_page)
    return made


@pytest.fixture
def kits(reported: Federation, tmp_path: Path) -> Federation:
    return reported.copy(tmp_path / "kits")


def administrator(run: Path) -> str:
    return (run / "server" / "administrator.pub").read_text(encoding="ascii").strip()


def server_key(run: Path) -> str:
    return read_identity(run / "server").public.hex()


def refusal(folder: Path, **given: Any) -> FedmodelError:
    with pytest.raises(FedmodelError) as caught:
        verify.verify(folder, **given)
    return caught.value


# What holds


def test_a_run_holds_and_is_vouched_for_by_its_anchors(built: Path) -> None:
    found = verify.verify(built, administrator(built), key=server_key(built))
    assert found.gaps == []
    assert {"ledger north", "ledger south", "ledger west", "run's end", "figures", "files"} <= dict(found.items).keys()
    assert found.claim.startswith("epsilon at most ")
    assert verify.verify(built).gaps == [
        "the server's key was NOT checked: give --key, or a federation's --authority",
        *(f"nothing from outside vouches for the key of silo {silo}" for silo in SILOS),
    ]
    alone = verify.verify(built, silo_keys=[f"north={read_identity(built / 'silos' / 'north').public.hex()}"])
    assert len(alone.gaps) == 3


def test_a_silos_own_report_holds_under_the_authority_and_the_servers_lacks_ledgers(reported: Federation) -> None:
    authority = anchors(reported).authority
    assert verify.verify(own_of(reported, "north"), authority).gaps == []
    for folder in (run_of(reported), copy_of(reported, "west")):
        found = verify.verify(folder, authority)
        assert found.gaps == ["no ledger is here: the figures are what silos reported to the server"]
        assert "NOT here" in dict(found.items)["ledger west"]


def test_jobs_besides_training_are_held_to_the_ledgers_too(tmp_path: Path) -> None:
    run = simulated(tmp_path, MASKED + "\n[besides.label-counts]\nnoise_multiplier = 8.0\nbound = 400.0\n")
    build.build(run, page)
    assert len(verify.verify(run).gaps) == 4
    line = json.loads((run / "besides.jsonl").read_text(encoding="utf-8"))
    for other, why in (
        ({"round": 9}, "besides.jsonl: has round 9, and scenario.toml plans 1 there, from 3"),
        ({"charged": ["north", "west"]}, "silo south: its update is in round 3 of besides.jsonl, which does not say"),
    ):
        (run / "besides.jsonl").write_text(json.dumps({**line, **other}) + "\n", encoding="utf-8")
        sign_again(run, build.read_report(run).report, read_identity(run / "server"))
        assert why in str(refusal(run))


def test_constants_are_those_of_the_report(built: Path) -> None:
    assert (signing.LABEL, told(built)["report"]["format"]) == (signed.LABEL, signed.FORMAT)
    assert (signed.REPORT, signed.PAGE) == (signing.NAME, PAGE)


# What is found


# Of the sections on privacy, what follows from the scenario, another library's accountant, or nothing at all. That
# nothing is claimed where something could be is no claim.
NOT_HELD = {
    "claim.protects", "claim.sentence", "claim.meaning", "claim.early", "claim.adjacency", "claim.rests_on",
    "target_epsilon", "mu_floor", "prv", "prv_reason", "adjacency", "scope.data_sets", "nist", "verifier_key",
    "key_from", "head", "head_entries", "accounting.composition", "accounting.methods", "dependencies",
    "integrity.code_hash", "dependencies_hash",
}  # fmt: skip


def held_leaves(report: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Go through the leaves that the verifier holds; of the many points of a curve, two."""
    for section in ("claim", "scope", "accounting", "integrity"):
        for name, put, leaf in leaves(report[section], section):
            parts = name.replace("[", ".").replace("]", "").split(".")
            if ".curve[" in name and parts[4] not in ("3", "40"):
                continue
            if not NOT_HELD & {*parts, ".".join(parts[:2])}:
                yield name, lambda root, new, put=put, section=section: put(root[section], new), leaf


def test_every_figure_that_is_changed_and_signed_again_is_found(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever has the server's key: each figure of privacy that follows from a ledger is held to it."""
    report = told(run)["report"]
    kept = {path.name: ledgers.verify_ledger(path) for path in (run / "ledgers").glob("*.sqlite")}  # once is enough
    monkeypatch.setattr(ledgers, "verify_ledger", lambda path, public, heads: kept[path.name])
    passed, tried = [], 0
    for name, put, leaf in held_leaves(report):
        other = changed(report, put, leaf)
        if other is None:
            continue
        tried += 1
        forge(run, other, SigningKey(bytes(32)) if name == "integrity.signer" else None)
        try:
            verify.verify(run, administrator(run), key=server_key(run))
        except FedmodelError:
            continue
        passed.append(name)
    assert passed == []
    assert tried > 150


def test_rows_that_are_left_out_are_found(run: Path) -> None:
    report = told(run)["report"]
    for section, rows in (("scope", "budgets"), ("claim", "silos"), ("accounting", "silos")):
        kept = report[section][rows]
        report[section][rows] = kept[1:]
        forge(run, report)
        assert refusal(run).exit_status in (3, 4), section
        report[section][rows] = kept


def test_a_changed_page_is_called_a_changed_page(run: Path) -> None:
    (run / "report.html").write_text("<p>epsilon 0.1</p>", encoding="utf-8")
    assert str(refusal(run)).startswith("report.html: is a changed page: ")


@pytest.mark.parametrize("name", ["metrics.jsonl", "report.html", "summary.json", "model.safetensors"])
def test_a_report_is_of_every_file_that_is_read(run: Path, name: str) -> None:
    """Else whoever hands the folder on could change that file under a good signature."""
    report = told(run)["report"]
    report["integrity"]["files"] = [one for one in report["integrity"]["files"] if one["name"] != name]
    forge(run, report)
    assert f"is of no {name}" in str(refusal(run))


@pytest.mark.parametrize(
    "name", ["ledgers/north.sqlite", "server/heads/north", "server/roster", "metrics.jsonl", "report.json"]
)
def test_a_changed_byte_is_found(run: Path, name: str) -> None:
    path = run / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert refusal(run, authority=administrator(run)).exit_status in (3, 4)


def test_an_update_that_nobody_paid_for_is_found(run: Path) -> None:
    """A silo is in a sum that its ledger has no charge for, by whoever signs the report with hashes that fit."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines[-1]["round"] = 3
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    text = (run / "scenario.toml").read_text(encoding="utf-8")
    (run / "scenario.toml").write_text(text.replace("rounds = 2", "rounds = 3", 1), encoding="utf-8")
    report = build.read_report(run).report
    rows = tuple(row.model_copy(update={"steps_planned": 6}) for row in report.mechanism.silos)
    longer = report.model_copy(update={"mechanism": report.mechanism.model_copy(update={"silos": rows})})
    sign_again(run, longer, read_identity(run / "server"))
    assert "its update is in round 3, and no charge for it is here" in str(refusal(run))


def test_another_model_than_was_countersigned_is_found(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    assert "countersigned the run's end for another model" in str(refusal(run, model=tmp_path / "other"))


def test_a_roster_of_another_authority_or_another_servers_key_is_refused(run: Path) -> None:
    other = SigningKey(bytes(range(32))).public.hex()
    assert isinstance(refusal(run, authority=other), LedgerTampered)
    assert "another key than the run's server's" in str(refusal(run, key=other))
    assert isinstance(refusal(run, silo_keys=[f"north={other}"]), LedgerTampered)
    assert isinstance(refusal(run, authority="12"), ConfigError)
    assert isinstance(refusal(run / "nowhere"), ConfigError)


def test_a_server_that_contradicts_the_silos_ledger_is_found(kits: Federation) -> None:
    """Signed by both: a silo whose software did not look, beside a server that lies."""
    folder = own_of(kits, "north")
    server = signing.open_report((folder / signed.SERVER_REPORT).read_bytes()).report
    (row,) = server.claim.silos
    low = row.model_copy(update={"epsilon": (row.epsilon or 0) / 2})
    lie = server.model_copy(update={"claim": server.claim.model_copy(update={"silos": (low,)})})
    (folder / signed.SERVER_REPORT).write_bytes(signing.seal(lie, kits.unlock("server").identity))
    sign_again(folder, build.read_report(folder).report, kits.unlock("north").identity)
    error = refusal(folder)
    assert isinstance(error, ClaimRefuted)
    assert str(error).startswith("server-report.json: claim.epsilon: ")


def test_a_silos_report_that_the_server_signed_is_refused(kits: Federation) -> None:
    folder = own_of(kits, "north")
    sign_again(folder, build.read_report(folder).report, kits.unlock("server").identity)
    assert refusal(folder).exit_status == 4


def test_reported_charges_that_are_too_few_or_changed_are_found(kits: Federation) -> None:
    folder = run_of(kits)
    charges = json.loads((folder / "charges.json").read_bytes())
    charges["south"]["rounds"] = 1
    (folder / "charges.json").write_text(json.dumps(charges), encoding="utf-8")
    sign_again(folder, build.read_report(folder).report, kits.unlock("server").identity)
    assert "south" in str(refusal(folder))


OTHER_PLANS = {
    "rounds": ("rounds = 2", "rounds = 3", "claim.silos[north].epsilon"),
    "delta": ("delta = 0.001", "delta = 1e-06", "claim.silos[north].epsilon"),
    "unit": ('unit = "record"', 'unit = "client"', "claim.unit"),
    "records": ('unit = "record"', 'unit = "person"\nmax_records = 3', "charges.json: north: max_records 1 stands"),
    "steps": ("local_steps = 2", "local_steps = 4", "charges.json: north: steps 2 stands, and scenario.toml says 4"),
    "rate": ("sample_rate = 0.5", "sample_rate = 0.6", "charges.json: north: sample_rate 0.5 stands"),
    "divisor": ("expected_batch_size = 10", "expected_batch_size = 5", "charges.json: north: denominator 10 stands"),
    "one silo's delta": (
        "[privacy]", "[privacy.silo.south]\ndelta = 1e-06\n\n[privacy]", "claim.silos[south].epsilon"
    ),
    "noise": ("noise_multiplier = 2.0", "noise_multiplier = 1.0", "charges.json: north: noise_multiplier 2.0 stands"),
    "target": ("noise_multiplier = 2.0", "epsilon = 9.0", "noise_multiplier 2.0 stands, more than the target epsilon"),
    "one silo's noise": (
        "[privacy]", "[privacy.silo.south]\nnoise_multiplier = 1.0\n\n[privacy]", "charges.json: south: noise_mult"
    ),
    "clip": ("max_grad_norm = 1.0", "max_grad_norm = 5.0", "charges.json: north: max_grad_norm 1.0 stands"),
    "mechanism": ("[privacy]", '[privacy]\nmechanism = "gaussian"', "charges.json: north: mechanism dp-sgd stands"),
    "source": ('noise = "os"', 'noise = "seeded-unsafe"', "charges.json: north: noise_source os stands"),
    "baseline": ("[privacy]", '[privacy]\nbaseline = "no-noise"', "charges.json: north: mechanism dp-sgd stands"),
}  # fmt: skip


@pytest.mark.parametrize("plan", OTHER_PLANS)
def test_a_servers_report_of_another_plan_than_the_scenarios_is_found(plan: str, kits: Federation) -> None:
    """No ledger is here: a server that reserves less, or takes a larger delta or another unit, would claim less."""
    was, would, why = OTHER_PLANS[plan]
    folder = run_of(kits)
    text = (folder / "scenario.toml").read_text(encoding="utf-8")
    assert was in text
    (folder / "scenario.toml").write_text(text.replace(was, would, 1), encoding="utf-8")
    sign_again(folder, build.read_report(folder).report, kits.unlock("server").identity)
    error = refusal(folder)
    assert isinstance(error, ClaimRefuted)
    assert why in str(error)


@pytest.mark.parametrize("said", [{"noise": "seeded-unsafe"}, {"noise": "experiment"}, {"baseline": "no-noise"}])
@pytest.mark.parametrize("protects", [True, False])
def test_of_noise_that_is_known_or_left_out_nothing_is_claimed(
    said: dict[str, str], protects: bool, built: Path
) -> None:
    """Whatever the ledgers say of it."""
    report, scenario = told(built)["report"], tomllib.loads((built / "scenario.toml").read_text(encoding="utf-8"))
    verify._check_claim(report, {}, scenario)
    scenario["privacy"] |= said
    report["claim"]["protects"] = protects
    with pytest.raises(ClaimRefuted, match="claim: says that it protects, and by scenario"):
        verify._check_claim(report, {}, scenario)


def test_a_scenario_of_seeded_noise_beside_a_claim_is_found(run: Path) -> None:
    text = (run / "scenario.toml").read_text(encoding="utf-8")
    (run / "scenario.toml").write_text(text.replace('noise = "os"', 'noise = "seeded-unsafe"', 1), encoding="utf-8")
    sign_again(run, build.read_report(run).report, read_identity(run / "server"))
    assert "claim: says that it protects" in str(refusal(run))


def test_of_a_seeded_run_its_servers_report_claims_nothing(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Silos' charges that say another source are refused, whatever the report says; the honest report holds."""
    made = deployment(tmp_path_factory, ["privacy.noise=seeded-unsafe"]).copy(tmp_path / "kits")
    key, folder = made.unlock("server").identity, run_of(made)
    deployed.server_report(made.kit("server"), RUN, any_page)
    assert verify.verify(folder).claim == "nothing: no noise was added, it was seeded, or there is no bound"
    report = build.read_report(folder).report
    protects = report.model_copy(update={"claim": report.claim.model_copy(update={"protects": True})})
    sign_again(folder, protects, key)
    assert "claim.protects: true stands" in str(refusal(folder))
    charges = json.loads((folder / "charges.json").read_bytes())
    for said in charges.values():
        event = {**json.loads(said["event"]), "noise_source": "os"}
        said["event"] = json.dumps(event, sort_keys=True, separators=(",", ":"))
    (folder / "charges.json").write_text(json.dumps(charges), encoding="utf-8")
    for claimed in (report, protects):
        sign_again(folder, claimed, key)
        assert "noise_source os stands, and scenario.toml says seeded-unsafe" in str(refusal(folder))
    with pytest.raises(LedgerTampered, match="charged noise_source os for a round"):
        build.verify(folder, render=any_page)


def test_a_round_past_the_scenarios_last_is_found(kits: Federation) -> None:
    """It is in no phase, and so is checked against no charge."""
    folder = run_of(kits)
    *_, last = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**json.loads(last), "round": 3}) + "\n")
    sign_again(folder, build.read_report(folder).report, kits.unlock("server").identity)
    assert str(refusal(folder)) == "metrics.jsonl: has round 3, and scenario.toml plans 2 there, from 1"


PLANS = {
    "declared": "",
    "a target": "noise_multiplier=-\nepsilon=4.0",
    "a silo's own target": "[privacy.silo.south]\nepsilon = 3.0\nsample_rate = 0.3",
    "a silo's own noise": "noise_multiplier=-\nepsilon=4.0\n[privacy.silo.south]\nnoise_multiplier = 1.5",
    "seeded": 'noise = "seeded-unsafe"\nsample_rate = 0.3',
    "another mechanism": 'mechanism = "gaussian"',
    "without noise": 'baseline = "no-noise"',
    "without noise or clip": 'baseline = "no-noise-no-clip"\nnoise_multiplier=-\nepsilon=4.0',
    "jobs besides": (
        'noise_multiplier=-\nepsilon=4.0\nunit = "person"\nmax_records = 3\n[besides.label-counts]\n'
        "noise_multiplier=19.0\nbound=40.0"
    ),
    "lots that grow": "noise_multiplier=-\nepsilon=4.0\n[training]\nlots = [{from_round = 2, times = 1.5}]",
}


def test_silos_whom_nobody_knows_pay_for_nobody(kits: Federation) -> None:
    """Else sums of theirs would leave a model for which no silo of the claim was charged."""
    folder, key = run_of(kits), kits.unlock("server").identity
    charges = json.loads((folder / "charges.json").read_bytes())
    ghosts = {f"ghost-{silo}": said for silo, said in charges.items()}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    told = "".join(f"{json.dumps({**line, 'cohort': sorted(ghosts), 'epsilon': {}})}\n" for line in lines)
    (folder / "charges.json").write_text(json.dumps(ghosts), encoding="utf-8")
    sign_again(folder, build.read_report(folder).report, key)
    assert "charges.json: has ghost-north, of whom this report is not" in str(refusal(folder))
    (folder / "metrics.jsonl").write_text(told, encoding="utf-8")
    sign_again(folder, build.read_report(folder).report, key)
    assert "round 1 has ghost-north in its cohort, of whom this report is not" in str(refusal(folder))


@pytest.mark.parametrize("times", [3, -1, 1.5, True, "2", [2, 0], []])
def test_silos_report_no_more_rounds_than_the_scenario_has(times: object, kits: Federation) -> None:
    folder = run_of(kits)
    charges = json.loads((folder / "charges.json").read_bytes())
    charges["south"]["rounds"] = times
    (folder / "charges.json").write_text(json.dumps(charges), encoding="utf-8")
    sign_again(folder, build.read_report(folder).report, kits.unlock("server").identity)
    assert f"charges.json: south: {times} rounds stand, and scenario.toml plans [2]" in str(refusal(folder))


@pytest.mark.parametrize("whose", ["run_of", "copy_of", "own_of"])
def test_what_was_done_at_a_silo_and_the_summary_are_those_of_the_charges(whose: str, kits: Federation) -> None:
    folder = run_of(kits) if whose == "run_of" else {"copy_of": copy_of, "own_of": own_of}[whose](kits, "north")
    key = kits.unlock("north" if whose == "own_of" else "server").identity
    report, summary = build.read_report(folder).report, json.loads((folder / "summary.json").read_bytes())
    first, *rest = report.mechanism.silos
    for name, other in (
        ("noise_multiplier", 200.0), ("noise_multiplier_planned", 200.0), ("max_grad_norm", 0.1), ("sampler", None),
        ("sample_rate_planned", 0.1), ("steps_planned", 1), ("steps_charged", 1), ("denominator", 1),
        ("noise_source", "seeded-unsafe"), ("mechanism", "gaussian"), ("max_grad_norm_planned", 2.0),
    ):  # fmt: skip
        rows = (first.model_copy(update={name: other}), *rest)
        lie = report.model_copy(update={"mechanism": report.mechanism.model_copy(update={"silos": rows})})
        sign_again(folder, lie, key)
        assert f"mechanism.silos[north].{name}: {other or 'nothing'} stands" in str(refusal(folder))
    summary["privacy"][0]["epsilon"] /= 2
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    sign_again(folder, report, key)
    assert re.match(r"summary\.json: .*epsilon", str(refusal(folder)))
    summary["privacy"][0]["epsilon"] *= 4
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    sign_again(folder, report, key)
    if whose == "own_of":  # a cap may bound what a ledger claims, and a server knows none
        verify.verify(folder)
    else:
        assert re.match(r"summary\.json: .*epsilon", str(refusal(folder)))


@pytest.mark.parametrize("plan", PLANS)
def test_the_event_that_silos_plan_is_passed_and_one_of_more_noise_is_not(plan: str, tmp_path: Path) -> None:
    """By both verifiers, whatever a scenario says of noise."""
    settings = PLANS[plan]
    scenario = scenario_of(settings)
    plain, path = tomllib.loads(scenario_to_toml(scenario)), tmp_path / "charges.json"
    asked = scenario.plan("south")
    first, *_ = whole = plans.planned_parts(scenario, "south")
    event = first.times(asked.steps_per_round)

    def checks(said: Event) -> Iterator[Callable[[], object]]:
        reported = {"event": event_to_json(said), "rounds": [1, 1] if asked.lots else 2}
        yield lambda: planned.check_event(plain, "south", said)
        yield lambda: of_server._run(path, scenario, "south", reported)

    for check in checks(event):
        check()
    assert [*planned.parts(plain, "south", event), *planned.besides(plain)] == list(whole)
    if event.noise_multiplier:
        for check in checks(replace(event, noise_multiplier=1.001 * event.noise_multiplier)):
            with pytest.raises(FedmodelError, match=r"south.* noise_multiplier"):
                check()
    secret = DpSgdEvent(
        9.0, 1.0, asked.sample_rate, asked.steps_per_round, asked.expected_batch_size, max_records=asked.max_records
    )
    for check in checks(secret):
        with pytest.raises(
            FedmodelError, match=r"south.* (noise_multiplier|noise_source|realised_sample_rate|mechanism)"
        ):
            check()


def scenario_of(more: str) -> Scenario:
    """Return the masked scenario with some lines of privacy, where "-" takes a key away, and of other sections."""
    text = tomllib.loads(MASKED)
    added = tomllib.loads("[privacy]\n" + more.replace("=-", '="-"'))
    for section, keys in added.items():
        text[section] = {key: said for key, said in {**text.get(section, {}), **keys}.items() if said != "-"}
    return scenario_from_json(json.dumps(text))


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        ("[training]\nlocal_steps = 4", [4]),
        ("[training]\nlocal_epochs = 3", [6]),
        ("[training]\nlocal_epochs = 3\n[privacy.silo.south]\nsample_rate = 0.02", [150]),
        ("rounds = 7\n[training]\nlocal_epochs = 1\nlots = [{from_round = 3, times = 1.3}, {from_round = 6, times = 2}]"
         "\n[privacy.silo.south]\nsample_rate = 0.1\nexpected_batch_size = 7", [10, 8, 5]),
    ],
)  # fmt: skip
def test_a_plan_is_read_as_the_scenario_reads_it(more: str, steps: list[int]) -> None:
    text, added = tomllib.loads(MASKED), tomllib.loads(more)
    del text["training"]["local_steps"]
    text["training"] |= added["training"]
    text["privacy"] |= added.get("privacy", {})
    scenario = scenario_from_json(json.dumps(text | {"rounds": added.get("rounds", text["rounds"])}))
    plain = tomllib.loads(scenario_to_toml(scenario))
    asked, found = scenario.plans("south"), planned.phases(plain, "south")
    assert [one.steps for one in found] == [plan.steps_per_round for plan in asked] == steps
    assert [(one.first, one.rounds) for one in found] == [phase[:2] for phase in scenario.phases]
    assert [(one.sample_rate, one.divisor) for one in found] == [
        (plan.sample_rate, plan.expected_batch_size) for plan in asked
    ]
    first, *_ = whole = plans.planned_parts(scenario, "south")
    assert planned.parts(plain, "south", first.times(steps[0])) == list(whole)
    assert planned.delta(plain, "south") == scenario.plan("south").delta
    assert planned.whose(plain) == {"unit": asked[0].unit, "max_records": asked[0].max_records}


# What it says


def test_it_says_what_it_did_not_compute_and_never_ends_with_0(
    reported: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(own_of(reported, "north"))
    assert program.main([folder, "--authority", anchors(reported).authority]) == program.HOLDS == 6
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Every key is known from outside this folder, and nothing was missing"
    assert lines[-2].startswith("NOT recomputed: PRV")
    assert lines[-1].startswith("Claim: epsilon at most")
    assert program.main([folder, "--json"]) == 6
    answer = json.loads(capsys.readouterr().out)
    assert (answer["valid"], answer["anchored"]) == (True, False)
    assert answer["not_recomputed"] == list(verify.NOT_RECOMPUTED)
    assert program.main([f"{folder}/nowhere", "--json"]) == 2
    streams = capsys.readouterr()
    assert json.loads(streams.out)["valid"] is False
    assert len(streams.err.splitlines()) == 1


def test_what_a_person_reads_has_no_character_that_acts(capsys: pytest.CaptureFixture[str]) -> None:
    found = Found(claim="a\x1b[31mb", signer="00")
    assert "\x1b" not in program._lines(found)


def test_a_folder_of_nonsense_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = told(run)["report"]
    shutil.rmtree(run / "ledgers")
    assert program.main([str(run)]) == 4
    (run / "report.json").write_text(json.dumps({"report": report}), encoding="utf-8")
    assert program.main([str(run)]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 2


# ---------------------------------------------------------------- what servers call runs


@pytest.mark.parametrize("place", ["of the run", "of one before"])
def test_a_run_that_is_called_otherwise_than_by_its_ledger_is_refused(roomy: Path, tmp_path: Path, place: str) -> None:
    """The run itself has no name, as a simulation's; one before it has, as a deployment's."""
    run = copied(roomy, tmp_path / "run")
    kit = run / "silos" / "north"
    with Ledger(run / "ledgers" / "north.sqlite", "north", read_kit(kit).identity, kit / "ledger.head") as ledger:
        earlier = DpSgdEvent(8.0, 1.0, 0.5, 2, 10)
        scope = budget_of(ledger, "synthetic/record")
        ledger.reserve(Asked(scope, "77", earlier, 1, scenario="ab" * 32, name="wards-1"))
    build.build(run, page)
    verify.verify(run)
    report = told(run)["report"]
    (row,) = [one for budget in report["scope"]["budgets"] for one in budget["runs"] if one["run"] == "77"]
    assert row["name"] == "wards-1"
    (row if place == "of one before" else report["run"])["name"] = "wards-2"
    forge(run, report)
    with pytest.raises(ClaimRefuted, match="has another in the ledger"):
        verify.verify(run)
