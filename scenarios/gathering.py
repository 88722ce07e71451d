"""What a run's folder says, read once and checked: scenario, summary, rounds, and every silo's ledger, verified.

A report is of ledgers as they were when it was made. Verified later, a ledger may have grown, by an approval that a
person entered since, or by another run: then the entries that it had are read, and it has to extend the signed head
that the report keeps.

Does NOT take a figure of privacy from `summary.json`: `scenarios.reporting` compares that with the ledgers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fedmodel import merkle
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, FedmodelError, LedgerError, LedgerTampered
from fedmodel.heads import open_head
from fedmodel.ledger import Entry, Run, Scope, Standing, Verified, origin_of, verify_ledger
from fedmodel.mechanisms import DpSgdEvent
from fedmodel.provision import is_kit, read_law, scenario_hash
from fedmodel.report.document import LedgerHead, Report
from scenarios.audit_entries import AUDIT_FILE, PLAN_FILE
from scenarios.officer import Place
from scenarios.summary import read_metrics

SUMMARY: Final = "summary.json"
SCENARIO: Final = "scenario.toml"
METRICS: Final = "metrics.jsonl"
_MODELS: Final = ("model.safetensors", "model.safetensors.age")
_FILES: Final = (SCENARIO, SUMMARY, METRICS, *_MODELS, "charges.json", PLAN_FILE, AUDIT_FILE)


@dataclass(frozen=True)
class SiloLedger:
    """One silo's ledger, whole and verified, up to the entries that a report is of.

    Attributes:
        silo: Whose.
        entries: Oldest first.
        standing: After them.
        root: Of the Merkle tree over them.
        note: The newest signed head that was found beside it, None where none was.
        vouched: Whether a roster, or a report that is signed, says whose key it is.
        newer: Entries that it has besides.
        run: The run of the report; None where it has none.
    """

    silo: str
    entries: tuple[Entry, ...]
    standing: Standing
    root: bytes
    note: bytes | None
    vouched: bool
    newer: int
    run: str | None = None

    @property
    def own(self) -> Run | None:
        """What the ledger holds of the report's run."""
        return None if self.run is None else self.standing.runs[self.run]

    @property
    def scope(self) -> Scope | None:
        """The budget that the report's run is charged to."""
        return None if self.own is None else self.standing.scopes[self.own.scope]

    @property
    def events(self) -> list[DpSgdEvent]:
        """What the report's run was charged for."""
        return [] if self.own is None else self.own.events

    def times(self, run: Run) -> list[str]:
        """Return when each charge of a run was entered, oldest first."""
        return [self.entries[sequence - 1].time for sequence in run.charges]

    def audits(self, subject: str | None = None) -> Iterator[Entry]:
        """Go through what people and audits entered, of one subject where one is given."""
        for entry in self.entries:
            if entry.kind == "audit" and subject in (None, entry.content["subject"]):
                yield entry


@dataclass(frozen=True)
class Gathered:
    """What a run's folder says.

    Attributes:
        run_dir: The folder.
        scenario: What was done.
        summary: What `summary.json` says.
        lines: Of `metrics.jsonl`.
        ledgers: By silo; a silo that never opened one is not in it.
        audit: What `audit.json` says, None where there is none.
        signer: The key of the run's server, as the silos' laws have it; None where no law is at hand.
    """

    run_dir: Path
    scenario: Scenario
    summary: dict[str, Any]
    lines: list[dict[str, Any]]
    ledgers: Mapping[str, SiloLedger]
    audit: dict[str, Any] | None
    signer: bytes | None

    @property
    def simulated(self) -> bool:
        """Whether all silos shared one process's machine, with keys that lie open."""
        return bool(self.summary["engine"] != "deployment")

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of the folder's files, by name."""
        return {name: file_hash(self.run_dir / name) for name in _FILES if (self.run_dir / name).is_file()}


def read_run(run_dir: Path, stored: Report | None = None) -> Gathered:
    """Read a run's folder, and verify its ledgers.

    Args:
        run_dir: The folder.
        stored: The report that is verified; its ledgers are read up to what it says.

    Raises:
        ConfigError: When it is no folder of a run that has ended, or holds no ledger.
        LedgerTampered: When a ledger is not as it was written, or does not extend a head that is known.
    """
    for name in (SCENARIO, SUMMARY, METRICS):
        if not (run_dir / name).is_file():
            raise ConfigError(f"{run_dir}: holds no {name}, so it is not the folder of a run that has ended")
    scenario = read_scenario(str(run_dir / SCENARIO))
    kept = {} if stored is None else {head.silo: head for head in stored.integrity.ledgers}
    ledgers = {}
    for silo in scenario.federation.silos:
        path = run_dir / "ledgers" / f"{silo}.sqlite"
        if path.exists():
            ledgers[silo] = _read_ledger(run_dir, path, kept.get(silo))
        elif silo in kept:
            raise LedgerTampered(f"{path}: is gone, and the report is of its {kept[silo].entries} entries")
    if not ledgers:
        raise ConfigError(
            f"{run_dir}: holds no ledger, and a report is computed from ledgers; put copies of the"
            f" silos' at {run_dir / 'ledgers'}/NAME.sqlite"
        )
    summary = _read_json(run_dir / SUMMARY)
    if not {"engine", "device", "parameters", "privacy", "timing", "code_hash"} <= summary.keys():
        raise ConfigError(f"{run_dir / SUMMARY}: is no summary of a run")
    return Gathered(
        run_dir,
        scenario,
        summary,
        read_metrics(run_dir / METRICS),
        _of_the_run(ledgers, scenario),
        _read_json(run_dir / AUDIT_FILE) if (run_dir / AUDIT_FILE).exists() else None,
        _signer(run_dir, scenario, summary["code_hash"]),
    )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return sha256(path.read_bytes()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LedgerError(f"{path}: cannot be read as JSON ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise LedgerError(f"{path}: is no JSON object")
    return document


def _read_ledger(run_dir: Path, path: Path, stored: LedgerHead | None) -> SiloLedger:
    """Verify a ledger against every head that is known, and read the entries that a report is of."""
    place = Place.of(path)
    server = run_dir / "kits" / "server" / "heads" / path.stem
    beside = place.heads() + ([server.read_bytes()] if server.is_file() else [])
    kept = [stored.head.encode()] if stored is not None and stored.head is not None else []
    key = place.key()
    known = bytes.fromhex(stored.key) if key is None and stored is not None else key
    found = verify_ledger(path, known, beside + kept)
    size = found.head.size if stored is None else stored.entries
    if size > found.head.size:
        raise LedgerTampered(f"{path}: its newest entries are gone: the report is of {size}", found.head.size + 1)
    if stored is None:
        notes = [note for _, note in sorted(zip(found.heads, beside, strict=False), key=lambda pair: pair[0])]
        note, vouched = (notes[-1] if notes else None), key is not None
    else:
        # Of a folder that was handed on without its kits, the signed report says whose key it is.
        note, vouched = (kept[0] if kept else None), key is not None or stored.key_from == "roster"
    standing, root = _up_to(found, size)
    entries = found.entries[:size]
    return SiloLedger(path.stem, entries, standing, root, note, vouched, found.head.size - size)


def _up_to(found: Verified, size: int) -> tuple[Standing, bytes]:
    """Return where a ledger stood after its first entries, and the root over them."""
    if size == found.head.size:
        return found.standing, found.head.root
    standing, nodes = Standing(), dict[tuple[int, int], bytes]()
    for entry in found.entries[:size]:
        standing.apply(entry)
        leaf = merkle.leaf_hash(entry.document)
        made = merkle.new_nodes(entry.sequence - 1, leaf, lambda level, position: nodes[level, position])
        nodes.update({(level, position): value for level, position, value in made})
    return standing, merkle.root(size, lambda level, position: nodes[level, position])


def _of_the_run(ledgers: Mapping[str, SiloLedger], scenario: Scenario) -> dict[str, SiloLedger]:
    """Find the run of a scenario in the ledgers: the newest that is of it, the same in all of them."""
    wanted = scenario_hash(scenario).hex()
    newest: dict[str, str] = {}  # by run, when it was reserved
    for ledger in ledgers.values():
        for name, run in ledger.standing.runs.items():
            if run.scenario == wanted:
                newest[name] = max(newest.get(name, ""), ledger.entries[run.sequence - 1].time)
    if not newest:
        raise LedgerError(
            f"no ledger holds a run of {SCENARIO} (hash {wanted[:16]}...): one of the two is another run's, or of"
            " another version of fedmodel"
        )
    name = max(newest, key=newest.__getitem__)
    return {
        silo: replace(ledger, run=name if name in ledger.standing.runs else None) for silo, ledger in ledgers.items()
    }


def _signer(run_dir: Path, scenario: Scenario, code: str) -> bytes | None:
    """Return the server's key that the laws of all silos at hand name; hold them to the code that ran."""
    keys: set[str] = set()
    for silo, folder in _kits(run_dir, scenario.federation.silos):
        law = read_law(folder)
        if law.code and code not in law.code:
            raise LedgerTampered(f"{run_dir / SUMMARY}: says that code {code[:16]}... ran, which silo {silo} refuses")
        keys.update(law.servers)
    if len(keys) > 1:
        raise LedgerTampered(f"{run_dir}: the silos' laws name {len(keys)} keys of servers, and a run has one")
    return bytes.fromhex(keys.pop()) if keys else None


def _kits(run_dir: Path, silos: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for silo in silos:
        for above in (run_dir / "silos", run_dir / "kits" / "silos"):
            if is_kit(above / silo):
                yield silo, above / silo


def head_of(ledger: SiloLedger) -> int | None:
    """Return how many entries the head beside a ledger is of.

    Raises:
        LedgerTampered: When it is none of the silo's.
    """
    if ledger.note is None:
        return None
    try:
        return open_head(ledger.note, origin_of(ledger.standing.silo), ledger.standing.key).size
    except LedgerError:
        raise
    except FedmodelError as error:
        raise LedgerTampered(f"the head of {ledger.silo}: {error}") from error
