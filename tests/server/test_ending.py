"""A run's end, countersigned by each silo for one model; and folders made up by whoever has the server's key alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message

from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import LedgerError, LedgerTampered
from fedmodel.ledger import Asked, Ledger, Standing, read_ledger, verify_ledger
from fedmodel.ledger.entries import COUNTERSIGNED, countersigned_body
from fedmodel.ledger.heads import sign_head
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import read_identity, read_kit, read_roster, scenario_hash
from scenarios.cli.report import NOT_VOUCHED_FOR
from scenarios.report import build, gather
from scenarios.report.anchors import Anchors, hold
from scenarios.report.countersigned import countersigned, without
from scenarios.report.gather import file_hash, read_run
from scenarios.report.page.render import render
from server.server_app import run_federation
from tests.clients.test_client_app import ask, joined, model
from tests.fakes import FaultyGrid
from tests.federations import Federation, pristine
from tests.ledgers import budget_of, make_budget
from tests.runs import MASKED, SILOS, copied, masked, simulated
from tests.scenarios.cli.test_main import Run
from tests.scenarios.report.test_build import told
from tests.scenarios.report.test_hostile import anchor, cut, told_again

__all__ = ["masked", "pristine"]

MODEL, OTHER = b"\x11" * 32, b"\x22" * 32


# At a silo


def countersign(grid: FaultyGrid, model: bytes = MODEL) -> Message:
    return ask(grid, wire.countersign_request(wire.CountersignRequest(model)), wire.COUNTERSIGN)


def entries_of(folder: Path) -> list[Any]:
    return list(verify_ledger(folder / "ledgers" / "north.sqlite").entries)


def test_a_silo_enters_the_end_of_a_run_once_and_for_one_model(tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    assert not ask(grid, wire.train_request(wire.TrainRequest(1, model(tiny))), wire.TRAIN).has_error()
    before = len(entries_of(tmp_path))
    first = countersign(grid)
    assert not first.has_error()
    entry = entries_of(tmp_path)[-1]
    assert (entry.sequence, entry.kind, entry.run) == (before + 1, "audit", str(grid.run.run_id))
    assert entry.content["subject"] == COUNTERSIGNED
    assert entry.content["model"] == MODEL.hex()
    assert entry.content["scenario"] == scenario_hash(tiny).hex()
    # Asked again for the same, it stands; for another, nothing is entered.
    assert wire.read_countersign_reply(countersign(grid)) == wire.read_countersign_reply(first)
    assert wire.refusal_code(countersign(grid, OTHER).error) == LedgerError.code
    assert len(entries_of(tmp_path)) == before + 1


def test_a_silo_countersigns_no_run_that_it_does_not_know(tiny: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(tiny, tmp_path)
    assert wire.refusal_code(countersign(grid).error) == LedgerError.code
    assert [entry.kind for entry in entries_of(tmp_path)] == ["create"]


def test_a_silo_countersigns_no_run_that_it_gave_nothing_to(tiny: Scenario, tmp_path: Path) -> None:
    """Else a server opens a second run, trains nothing in it, and has the model of the first signed for epsilon 0."""
    grid = joined(tiny, tmp_path)
    before = entries_of(tmp_path)
    assert wire.refusal_code(countersign(grid).error) == LedgerError.code
    assert entries_of(tmp_path) == before


@pytest.mark.parametrize("hash_", [b"", b"\x11" * 31, b"\x11" * 33, b"\x11" * 4096])
def test_a_silo_signs_no_other_words(hash_: bytes, tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    before = entries_of(tmp_path)
    assert wire.refusal_code(countersign(grid, hash_).error) == "protocol-violated"
    assert entries_of(tmp_path) == before


def test_no_round_is_charged_or_trained_after_the_end(tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    request = wire.train_request(wire.TrainRequest(1, model(tiny)))
    update = ask(grid, request, wire.TRAIN)
    assert not update.has_error()
    assert not countersign(grid).has_error()
    ended = entries_of(tmp_path)
    # What was paid for is given again, and nothing more.
    assert ask(grid, request, wire.TRAIN).content["fedmodel.arrays"] == update.content["fedmodel.arrays"]
    later = ask(grid, wire.train_request(wire.TrainRequest(2, model(tiny))), wire.TRAIN)
    assert wire.refusal_code(later.error) == LedgerError.code
    assert entries_of(tmp_path) == ended


# In a ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    from fedmodel.ledger import Scope

    found = Ledger(tmp_path / "l.sqlite", "north", SigningKey.generate(), tmp_path / "head")
    make_budget(found, Scope("data", "record", 1, 1e-3, 8.0, 8))
    found.reserve(Asked(budget_of(found, "data/record"), "7", DpSgdEvent(8.0, 1.0, 0.5, 4, 10), 2, scenario="ab" * 32))
    found.charge("7", 1, 2, "k" * 64)
    return found


def test_the_end_of_a_run_is_the_last_of_it_in_every_readers_eyes(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no reservation for this scenario"):
        ledger.countersign("7", "cd" * 32, "11" * 32, "22" * 32)
    ledger.countersign("7", "ab" * 32, "11" * 32, "22" * 32)
    with pytest.raises(LedgerError, match="was countersigned for model 1111"):
        ledger.countersign("7", "ab" * 32, "33" * 32, "22" * 32)
    with pytest.raises(LedgerError, match="has ended"):
        ledger.charge("7", 2, 2, "l" * 64)
    with pytest.raises(LedgerError, match="while its run goes on"):
        ledger.void_charge("7", 1, "nothing left")
    run = read_ledger(ledger.path).runs["7"]
    assert (run.ended, run.model, run.code, run.taken) == (5, "11" * 32, "22" * 32, 2)
    ledger.release("7", "the rest is not taken")  # a person's deed, and no charge
    assert verify_ledger(ledger.path).standing.runs["7"].ended == 5


def test_the_end_of_a_run_of_which_no_charge_stands_is_no_entry(ledger: Ledger) -> None:
    ledger.void_charge("7", 1, "nothing left")
    before = verify_ledger(ledger.path).entries
    with pytest.raises(LedgerError, match="nothing that was charged for run 7 stands"):
        ledger.countersign("7", "ab" * 32, "11" * 32, "22" * 32)
    assert verify_ledger(ledger.path).entries == before
    # A reader holds it to the same, whatever wrote it.
    standing = ledger.standing()
    last = before[-1]
    forged = replace(
        last,
        sequence=len(before) + 1,
        scope=None,
        round=None,
        kind="audit",
        body=countersigned_body("ab" * 32, "11" * 32, "22" * 32),
        previous=last.hash,
    )
    with pytest.raises(LedgerTampered, match="where a charge of it stands"):
        standing.apply(forged)


@pytest.mark.parametrize(
    "body",
    [
        countersigned_body("cd" * 32, "11" * 32, "22" * 32),
        countersigned_body("ab" * 32, "11" * 31, "22" * 32),
        countersigned_body("ab" * 32, "11" * 32, "ZZ" * 32),
        json.dumps({"subject": COUNTERSIGNED}),
    ],
)
def test_an_end_of_another_form_is_no_entry(body: str, ledger: Ledger) -> None:
    standing, entries = Standing(), verify_ledger(ledger.path).entries
    for entry in entries:
        standing.apply(entry)
    last = entries[-1]
    forged = replace(
        last, sequence=len(entries) + 1, scope=None, round=None, kind="audit", key=None, body=body, previous=last.hash
    )
    with pytest.raises(LedgerTampered):
        standing.apply(forged)
    with pytest.raises(LedgerTampered):
        standing.apply(replace(forged, body=countersigned_body("ab" * 32, "11" * 32, "22" * 32), run="8"))


# At the server


def federated(tmp_path: Path, lost: str | None = None) -> Path:
    """Run a federation in which one silo's countersignature never comes."""
    (tmp_path / "scenario.toml").write_text(MASKED, encoding="utf-8")
    scenario = read_scenario(
        str(tmp_path / "scenario.toml"), ["federation.min_silos=3", "federation.round_timeout_s=2"]
    )
    nodes = {silo: 2 + number for number, silo in enumerate(scenario.federation.silos)}

    def fault(node: int, reply: Message) -> Message | None:
        ends = reply.metadata.message_type == wire.COUNTERSIGN
        return None if ends and lost is not None and node == nodes[lost] else reply

    run = tmp_path / "run"
    run.mkdir()
    grid = FaultyGrid(scenario, run, fault)
    run_federation(grid, scenario, run, torch.device("cpu"))
    return run


def test_a_run_ends_without_the_countersignature_of_a_silo_that_is_gone(tmp_path: Path) -> None:
    run = federated(tmp_path, lost="south")
    named = {silo: read_ledger(run / "ledgers" / f"{silo}.sqlite").runs for silo in SILOS}
    hashes = {next(iter(runs.values())).model for runs in named.values()}
    assert hashes == {file_hash(run / "model.safetensors")}
    heads = {silo: (run / "server" / "heads" / silo).read_text().splitlines()[1] for silo in SILOS}
    assert int(heads["north"]) > int(heads["south"])  # its answer was lost: the server has an earlier head


# A report


@pytest.fixture(scope="module")
def run_a(masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = copied(masked, tmp_path_factory.mktemp("a") / "run")
    build.build(found, render, pictures={})
    return found


@pytest.fixture(scope="module")
def run_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of more noise: its epsilon is smaller, and its model is another."""
    found = simulated(tmp_path_factory.mktemp("b"), MASKED, "privacy.noise_multiplier=4.0")
    build.build(found, render, pictures={})
    return found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv("COLUMNS", "200")
    return Run(monkeypatch, capsys, tmp_path)


def silo_keys(folder: Path) -> list[str]:
    """The silos' keys, as they themselves told them."""
    keys = [(silo, read_identity(folder / "silos" / silo).public.hex()) for silo in SILOS]
    return [word for silo, key in keys for word in ("--silo-key", f"{silo}={key}")]


FOLLOWS = ("scenario.toml", "summary.json", "metrics.jsonl")


def handed(to: Path, run: Path, model: Path) -> Path:
    """What a server hands on of a run, with a model of its choice; no kit, no law."""
    (to / "server").mkdir(parents=True)
    for name in FOLLOWS:
        shutil.copy2(run / name, to / name)
    shutil.copy2(model / "model.safetensors", to / "model.safetensors")
    shutil.copytree(run / "ledgers", to / "ledgers")
    shutil.copytree(run / "server" / "heads", to / "server" / "heads")
    for name in ("roster", "administrator.pub"):
        shutil.copy2(run / "server" / name, to / "server" / name)
    return to


def sign_as_the_server(folder: Path, server: Path) -> str:
    """Sign a folder's report without asking whether its model is countersigned for; return the key."""
    key = read_identity(server / "server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "check_models", lambda *_: None)
        build.build(folder, render, key=key, pictures={})
    return key.public.hex()


def another_runs_ledgers(to: Path, a: Path, b: Path) -> None:
    handed(to, b, model=a)


def another_run_whole(to: Path, a: Path, b: Path) -> None:
    del a
    handed(to, b, model=b)


def another_runs_model(to: Path, a: Path, b: Path) -> None:
    handed(to, a, model=b)


def a_roster_of_its_own(to: Path, a: Path, b: Path) -> None:
    """The other run's silos, in a roster that the server's own authority signs."""
    handed(to, b, model=b)
    authority = SigningKey.generate()
    (to / "server" / "roster").write_bytes(read_roster(b / "server").sign(authority))
    (to / "server" / "administrator.pub").write_text(authority.public.hex() + "\n", encoding="ascii")
    del a


def the_true_roster_and_other_ledgers(to: Path, a: Path, b: Path) -> None:
    handed(to, b, model=b)
    for name in ("roster", "administrator.pub"):
        shutil.copy2(a / "server" / name, to / "server" / name)


def the_true_authority_beside_another_roster(to: Path, a: Path, b: Path) -> None:
    handed(to, b, model=b)
    shutil.copy2(a / "server" / "administrator.pub", to / "server" / "administrator.pub")


ATTACKS = (
    another_runs_ledgers,
    another_run_whole,
    another_runs_model,
    a_roster_of_its_own,
    the_true_roster_and_other_ledgers,
    the_true_authority_beside_another_roster,
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_folder_that_the_servers_key_alone_can_make_verifies_under_an_anchor(
    attack: Callable[[Path, Path, Path], None], run: Run, run_a: Path, run_b: Path
) -> None:
    folder = run.folder / "handed"
    attack(folder, run_a, run_b)
    key = read_identity(run_a / "server").public.hex()
    try:
        sign_as_the_server(folder, run_a)
    except LedgerTampered:  # not even its own build takes it: a report that was signed before lies there
        shutil.copy2(run_b / "report.json", folder / "report.json")
    for anchors in (anchor(run_a), silo_keys(run_a), [*anchor(run_a), *silo_keys(run_a)]):
        status = run("report", "verify", "handed", "--key", key, *anchors)
        assert status == 4, (status, run.out)
        assert run.out == ""
        assert len(run.err.strip().splitlines()) == 1
    assert run("report", "verify", "handed", "--key", key) in (4, NOT_VOUCHED_FOR)


def test_a_run_that_nobody_was_charged_for_claims_no_model(run: Run) -> None:
    """The same scenario again, of which silos reserve the plan and no more: epsilon 0.0000 for the model of before."""
    whole = simulated(run.folder, MASKED, *(f"budgets.{silo}=9.0" for silo in SILOS))
    folder = handed(run.folder / "handed", whole, model=whole)
    scenario = read_scenario(str(whole / "scenario.toml"))
    for silo in SILOS:
        head = folder / "server" / "heads" / silo
        with Ledger(folder / "ledgers" / f"{silo}.sqlite", silo, read_kit(whole / "silos" / silo).identity, head) as it:
            plan = next(iter(it.standing().runs.values())).plan
            scope, said = budget_of(it, "synthetic/record"), scenario_hash(scenario).hex()
            it.reserve(Asked(scope, "77", plan, scenario.rounds, scenario=said))
            with pytest.raises(LedgerError):
                it.countersign("77", scenario_hash(scenario).hex(), file_hash(folder / "model.safetensors"), "22" * 32)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    gone = {"dropouts": dict.fromkeys(SILOS, "late"), "summed": 0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line | gone) + "\n" for line in lines), encoding="utf-8")
    told_again(folder)
    assert {row["epsilon"] for row in json.loads((folder / "summary.json").read_text())["privacy"]} == {0.0}
    with pytest.raises(LedgerTampered, match="a model that nobody was charged for has no claim"):
        sign_as_the_server(folder, whole)


def test_an_end_that_a_silo_was_not_charged_for_is_no_countersignature(run_a: Path) -> None:
    ledger = read_run(run_a).ledgers["north"]
    assert countersigned({"north": ledger}) == {"north": file_hash(run_a / "model.safetensors")}
    assert ledger.own is not None
    ledger.own.charges.clear()
    assert countersigned({"north": ledger}) == {}
    assert without(["north"], {"north": ledger}) == ["north"]


def test_what_was_run_verifies_under_its_anchors_and_under_no_others(run: Run, run_a: Path, run_b: Path) -> None:
    shutil.copytree(run_a, run.folder / "a")
    for anchors in (anchor(run_a), silo_keys(run_a), [*anchor(run_a), *silo_keys(run_a)]):
        assert run("report", "verify", "a", *anchors) == 0, run.err
        assert "NOT all" not in run.out
    for anchors in (anchor(run_b), silo_keys(run_b), [*anchor(run_a), *silo_keys(run_b)]):
        assert run("report", "verify", "a", *anchors) == 4
    assert run("report", "verify", "a") == NOT_VOUCHED_FOR
    assert run.out.splitlines()[0].startswith("NOT checked against anything outside this folder")
    some = silo_keys(run_a)[:2]
    assert run("report", "verify", "a", *some) == NOT_VOUCHED_FOR
    first = run.out.splitlines()[0]
    assert "vouches for the key of silo south; nothing from outside vouches for the key of silo west" in first
    assert "silo north" not in first


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--authority", "12345"], "12 groups of 5 digits"),
        (["--authority", "zz" * 32], "12 groups of 5 digits"),
        (["--silo-key", "north"], "NAME=HEX"),
        (["--silo-key", "north=00"], "NAME=HEX"),
        (["--silo-key", "east=" + SigningKey(b"\x01" * 32).public.hex()], "is no silo of the run"),
        (["--model", "nowhere"], "cannot be read"),
    ],
)
def test_an_anchor_that_is_none_is_a_mistake(given: list[str], words: str, run: Run, run_a: Path) -> None:
    shutil.copytree(run_a, run.folder / "a")
    assert run("report", "verify", "a", *given) == 2
    assert words in run.err


def test_an_authority_without_a_roster_to_vouch_for_is_a_mistake(run: Run, run_a: Path) -> None:
    shutil.copytree(run_a, run.folder / "a")
    for name in ("roster", "administrator.pub"):
        (run.folder / "a" / "server" / name).unlink()
    assert run("report", "verify", "a", *anchor(run_a)) == 2
    assert "holds no roster that --authority could vouch for" in run.err
    assert run("report", "verify", "a", *silo_keys(run_a)) == 0, run.err


@pytest.mark.parametrize("older_head", [False, True])
def test_a_ledger_that_was_cut_is_of_a_silo_that_countersigned_nothing(older_head: bool, run: Run, run_a: Path) -> None:
    """Its end is taken away: the newest head goes with it, or an older one stands in its place."""
    folder = handed(run.folder / "handed", run_a, model=run_a)
    north = folder / "ledgers" / "north.sqlite"
    size = len(verify_ledger(north).entries)
    kit = read_kit(run_a / "silos" / "north")
    cut(north, size - 1)
    if older_head:
        (folder / "server" / "heads" / "north").write_bytes(sign_head(verify_ledger(north).head, kit.identity))
    if not older_head:
        with pytest.raises(LedgerTampered, match="newest entries are gone"):
            sign_as_the_server(folder, run_a)
        (folder / "server" / "heads" / "north").unlink()
    key = sign_as_the_server(folder, run_a)
    assert run("report", "verify", "handed", "--key", key, *anchor(run_a)) == NOT_VOUCHED_FOR
    assert "no countersignature of silo north" in run.out.splitlines()[0]
    report = told(folder)["report"]
    assert report["integrity"]["not_countersigned"] == ["north"]
    assert "There is no countersignature of north" in report["claim"]["rests_on"]
    assert report["claim"]["rests_on"] in unescape((folder / "report.html").read_text(encoding="utf-8"))


def test_a_silo_that_is_gone_at_the_end_is_named_by_report_and_verification(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = Ledger.countersign

    def gone(self: Ledger, *told: str) -> None:
        if self.path.stem == "west":
            raise OSError("killed")
        enter(self, *told)

    monkeypatch.setattr(Ledger, "countersign", gone)
    folder = simulated(run.folder, MASKED)
    assert "no countersignature of west (internal)" in (folder / "server.log").read_text(encoding="utf-8")
    build.build(folder, render, pictures={})
    assert told(folder)["report"]["integrity"]["not_countersigned"] == ["west"]
    assert run("report", "verify", "run", *anchor(folder), "--json") == NOT_VOUCHED_FOR
    answered = json.loads(run.out)
    assert (answered["anchored"], answered["not_countersigned"]) == (True, ["west"])
    (end,) = (row["found"] for row in answered["checked"] if row["item"] == "run's end")
    assert end.endswith("; no countersignature of silo west")
    assert "for model " + file_hash(folder / "model.safetensors") in end


def test_the_word_of_a_complete_run_is_the_silos_own(run_a: Path) -> None:
    report = told(run_a)["report"]
    assert report["integrity"]["not_countersigned"] == []
    ends = {one["silo"]: one["countersigned"] for one in report["integrity"]["ledgers"]}
    assert set(ends) == set(SILOS)
    assert {one["model"] for one in ends.values()} == {file_hash(run_a / "model.safetensors")}
    assert report["claim"]["rests_on"].startswith("north, south and west countersigned their ledger")
    assert "server alone" not in report["claim"]["rests_on"]


def test_a_model_that_lies_sealed_is_compared_where_it_is_given_opened(run: Run, run_a: Path, run_b: Path) -> None:
    folder = run.folder / "sealed"
    shutil.copytree(run_a, folder)
    (folder / "model.safetensors").rename(folder / "model.safetensors.age")
    build.build(folder, render, pictures={})
    assert run("report", "verify", "sealed", *anchor(run_a)) == NOT_VOUCHED_FOR
    assert "the model lies here sealed" in run.out.splitlines()[0]
    opened = ("--model", str(run_a / "model.safetensors"))
    checked = build.verify(folder, None, render, Anchors.of(anchor(run_a)[1], ()), Path(opened[1]))
    assert checked.whole
    unasked = build.verify(folder, anchors=Anchors.of(anchor(run_a)[1], ()), model=Path(opened[1]))
    assert (unasked.rendered, unasked.whole) == (False, False)
    with pytest.raises(LedgerTampered, match="these ledgers are not of this model"):
        build.verify(folder, anchors=Anchors.of(anchor(run_a)[1], ()), model=run_b / "model.safetensors")


def test_the_roster_of_a_deployed_federation_is_held_to_its_fingerprint_or_key(
    pristine: Federation, run_a: Path, tmp_path: Path
) -> None:
    """With the post-quantum key that the fingerprint covers; ledgers of the run are of other silos' keys."""
    scenario = read_scenario(str(run_a / "scenario.toml"))
    (tmp_path / "server").mkdir()
    for name in ("roster.json", "authority.pem", "authority.mldsa65"):
        shutil.copy2(pristine.kit("server") / name, tmp_path / "server" / name)
    digits = pristine.change.fingerprints["authority"]
    for told_as in (digits, digits.replace(" ", "-"), digits.replace(" ", ""), pristine.change.keys.identity.hex()):
        held = hold(tmp_path, scenario, {}, Anchors.of(told_as, ()))
        assert set(held.silos) == set(SILOS)
        assert held.server == bytes.fromhex(pristine.roster.server.identity)
    with pytest.raises(LedgerTampered, match="it is not this silo's"):
        hold(tmp_path, scenario, read_run(run_a).ledgers, Anchors.of(digits, ()))
    for other in (pristine.change.fingerprints["server"], pristine.change.fingerprints["north"], "00" * 32):
        with pytest.raises(LedgerTampered, match="signed by another authority"):
            hold(tmp_path, scenario, {}, Anchors.of(other, ()))
    path = tmp_path / "server" / "roster.json"
    path.write_bytes(path.read_bytes().replace(b'"serial":1', b'"serial":2'))
    with pytest.raises(LedgerTampered, match="not as an authority signed it"):
        hold(tmp_path, scenario, {}, Anchors.of(digits, ()))
