"""A silo whose files are lost or put back in the middle of a run, over the real apps: the steps of `docs/deploy.md`.

The restore that is documented: kit and newest ledger, without `aggregation-*.state` and `outbox`. Whatever else
somebody puts back is tried too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message

from fedmodel import wire
from fedmodel.config import read_scenario
from fedmodel.errors import LedgerTampered, Rule
from fedmodel.ledger import Ledger, verify_ledger
from fedmodel.ledger.entries import AGGREGATION_SUBJECT
from fedmodel.ledger.entries import progress_of as read_progress
from fedmodel.provision import read_kit
from fedmodel.secagg import Progress
from server.server_app import run_federation
from tests.fakes import FaultyGrid, charged
from tests.server.aggregation.test_masked import NODE, ON

CPU = torch.device("cpu")
SILO = "west"
OFTEN = [*ON, "rounds=6", "encryption.window=2", "budgets={north=30.0,south=30.0,west=30.0,east=30.0}"]


def own_files(run_dir: Path) -> dict[str, list[Path]]:
    """Return what a silo keeps besides its kit, by what the table of backups calls it."""
    folder = run_dir / "silos" / SILO
    return {
        "state": sorted(folder.glob("aggregation-*.state")),
        "outbox": [folder / "outbox"],
        "ledger": [run_dir / "ledgers" / f"{SILO}.sqlite"],
        "head": [folder / "ledger.head"],
    }


class Backup:
    """A grid's hand that copies a silo's files at one answer, and puts some back, or takes them away, at another."""

    def __init__(self, run_dir: Path, restore: Callable[[Path, Path], None]) -> None:
        self.run_dir, self.restore, self.copied, self.done = run_dir, restore, run_dir / "backup", False

    def __call__(self, node: int, reply: Message) -> Message:
        at = (reply.metadata.message_type, reply.metadata.group_id)
        if node == NODE[SILO] and at == (wire.TRAIN, "1"):
            self.copied.mkdir()
            for files in own_files(self.run_dir).values():
                for path in files:
                    shutil.copy2(path, self.copied / path.name)
        if node == NODE[SILO] and at == (wire.TRAIN, "3") and not self.done:
            self.done = True
            self.restore(self.run_dir, self.copied)
        return reply


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def older(*which: str) -> Callable[[Path, Path], None]:
    def restore(run_dir: Path, copied: Path) -> None:
        for what in which:
            for path in own_files(run_dir)[what]:
                shutil.copy2(copied / path.name, path)
        own_files(run_dir)["ledger"][0].with_name(f"{SILO}.sqlite-wal").unlink(missing_ok=True)

    return restore


def without(*which: str) -> Callable[[Path, Path], None]:
    def restore(run_dir: Path, _: Path) -> None:
        for what in which:
            for path in own_files(run_dir)[what]:
                path.unlink()

    return restore


def progress_of(run_dir: Path) -> list[Progress]:
    """Return what a silo's ledger says of its secure aggregation, oldest first; all of it is verified."""
    key = read_kit(run_dir / "silos" / SILO).identity.public
    entries = verify_ledger(run_dir / "ledgers" / f"{SILO}.sqlite", key).entries
    return [
        read_progress(entry)
        for entry in entries
        if entry.kind == "audit" and entry.content["subject"] == AGGREGATION_SUBJECT
    ]


@pytest.mark.parametrize(
    ("restore", "sits_out"),
    [
        pytest.param(without("state", "outbox"), True, id="as documented"),
        pytest.param(without("state"), True, id="no state"),
        pytest.param(without("outbox"), False, id="no outbox"),
        pytest.param(older("state"), True, id="older state"),
        pytest.param(older("state", "outbox"), True, id="older state and outbox"),
    ],
)
def test_a_silo_that_was_restored_in_mid_round_sits_out_its_window_and_is_back(
    restore: Callable[[Path, Path], None], sits_out: bool, tiny_file: Path, tmp_path: Path
) -> None:
    """Its update of round 3 was masked and is in the sum; the others bring that sum about without it."""
    scenario = read_scenario(str(tiny_file), OFTEN)
    run_federation(FaultyGrid(scenario, tmp_path, Backup(tmp_path, restore)), scenario, tmp_path, CPU)
    told = lines(tmp_path)
    assert [SILO in line["dropouts"] for line in told] == [False, False, False, sits_out, False, False]
    assert not any(line.get("failed") for line in told)
    log = tmp_path / "logs" / f"{SILO}.log"
    assert (log.is_file() and Rule.STALE.value in log.read_text(encoding="utf-8")) == sits_out
    lists = [(found.round, found.attempt, found.signed) for found in progress_of(tmp_path) if found.signed]
    assert len({(number, attempt) for number, attempt, _ in lists}) == len(set(lists))
    assert len(charged(tmp_path / "ledgers" / f"{SILO}.sqlite")) == 6 - sits_out


@pytest.mark.parametrize("which", [("ledger",), ("ledger", "state", "outbox"), ("ledger", "head", "state", "outbox")])
def test_an_older_ledger_is_refused_by_whoever_kept_a_newer_head(
    which: tuple[str, ...], tiny_file: Path, tmp_path: Path
) -> None:
    """By the silo's own head; with that put back too, by the server's, before anything is charged or released."""
    scenario = read_scenario(str(tiny_file), OFTEN)
    run_federation(FaultyGrid(scenario, tmp_path, Backup(tmp_path, older(*which))), scenario, tmp_path, CPU)
    told = lines(tmp_path)
    assert [SILO in line["dropouts"] for line in told[3:]] == [True, True, True]
    assert told[4]["dropouts"][SILO] == LedgerTampered.code
    assert "newer ones are gone" in (tmp_path / "logs" / f"{SILO}.log").read_text(encoding="utf-8")
    if "head" not in which:
        return
    # A whole silo as it was in round 1: a server that kept the newer head does not let it join either.
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    again = lines(tmp_path)[-1]
    assert SILO in again["dropouts"]
    assert SILO not in again["cohort"]


def test_a_ledger_from_before_goes_on(tiny_file: Path, tmp_path: Path) -> None:
    """A run in which nothing of the kind was entered yet: what is done from now on is."""
    scenario = read_scenario(str(tiny_file), OFTEN)
    FaultyGrid(scenario, tmp_path)
    kit = read_kit(tmp_path / "silos" / SILO)
    (tmp_path / "ledgers").mkdir()
    with Ledger(
        tmp_path / "ledgers" / f"{SILO}.sqlite", SILO, kit.identity, tmp_path / "silos" / SILO / "ledger.head"
    ) as ledger:
        assert ledger.progress("7") == Progress()
        ledger.audit({"subject": "silo.toml", "by": "somebody"})
        assert ledger.progress("7") == Progress()
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    assert len(progress_of(tmp_path)) == 6 * 2 + 3  # a round's mask and list, a window's dealing
