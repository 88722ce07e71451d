"""Every call that changes a disk, of every command that makes any, gone wrong: one line, nothing half-written.

What is tried is found by tracing each command, and the commands by asking the program for its verbs. After each fault

    the command ends with one line that begins with "error:", says a path and a reason, and with a status of its own
    every file under its final name is whole, and no file is open to more people than without the fault
    nothing is left of what was written beside a file, unless the process was killed or may not erase, but for heads
    that could not be put away: the server's next process takes them up
    every ledger verifies
    the same command works once the fault is over, or says in one line which folder to take away first
    after a verb of the authority's, all kits have the newest roster and list

Which faults are tried. A call's site is its kind (write, rename, ...), the file by its name without chance and without
the silo's, and the four innermost lines of the program on the stack. Sites of one kind with the same two innermost
lines are one group.

    exhaustive   at every site of every command: a disk that is full, read-only, or without file descriptors from that
                 call on, a kill before it, and a write torn by a kill, each where a call of its kind can have it; in
                 every group: each single error of the system, and a short write
    sampled      which of a site's calls it is, and at which of a group's sites the single errors
    dear         `simulate` and `audit run`: in every group every fault of its kind, and at every site one of them; in a
                 group of `audit run` that `simulate` has too, at every site one of them alone
    left out     a kill before a call that only reads: it leaves what the next call finds that a kill comes before

What is sampled is drawn from a seed: FAULTS_SEED, or 1; it is printed with what is found. The default suite tries six
faults of a few commands, `-m slow` all of them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shutil
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import safetensors.torch
import typer
import yaml
from PIL import Image
from sklearn.datasets import load_breast_cancer

from fedmodel.config import read_scenario
from fedmodel.errors import LedgerError
from fedmodel.provision import read_federation_roster, scenario_hash
from fedmodel.system.packages import code_hash
from scenarios.cli.main import app
from scenarios.runs import inspection
from server import known_heads
from tests import tools
from tests.conftest import TINY
from tests.deployments import deployed
from tests.federations import MASKED, federation_toml
from tests.injecting import CHANGING, KINDS, Call, Fault, Injector, Outcome, faults_of, injector, plain

_KEYS = "kits/keys/authority.key"
_LEDGER = "run/ledgers/north.sqlite"
_WARD = """source = "table"
name = "ward"
label = "ill"
labels = ["no", "yes"]
columns = [{name = "age", type = "float", range = [0.0, 9.0]}]"""
_SCANS = 'source = "images"\nname = "scans"\nlabels = ["no", "yes"]\nsize = [2, 2]'
_WARD_LAW = """name = "north"
scenarios = ["SCENARIO"]
code = ["CODE"]
min_silos = 2
encryption = {secure_aggregation = "off"}
budgets = {ward = {unit = "record", delta = 1e-3, epsilon = 99.0}}

[tables.ward]
csv = "ward.csv"
"""


@dataclass(frozen=True)
class Trial:
    """A command that is tried.

    Attributes:
        argv: Its arguments.
        needs: What it finds in its folder.
        status: What it ends with where nothing goes wrong.
        dear: Whether a run takes too long to try every fault at every site.
        like: A dear command that calls the same program for the most part.
        done: What it may say where it was done before, or which folder is in the way.
    """

    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    status: int = 0
    dear: bool = False
    done: str = "no such words"
    like: str | None = None


def _of(line: str, *needs: str, **more: Any) -> Trial:
    return Trial(tuple(line.split()), needs, **more)


# Every verb, by its name; a verb that is missing here makes `test_every_verb_is_tried` fail.
TRIALS = {
    "simulate": _of("simulate tiny.toml --out made --set federation.min_silos=3", "tiny.toml", dear=True),
    "provision": _of("provision federation.toml --out made", "tiny.toml", "federation.toml"),
    "authority add": _of(
        f"authority add kits east --scenario east.toml --key-file {_KEYS}",
        "kits",
        "east.toml",
        done="is a member already",
    ),
    "authority rotate": _of(f"authority rotate kits north --key-file {_KEYS}", "kits"),
    "authority renew": _of(f"authority renew kits --key-file {_KEYS}", "kits"),
    "authority revoke": _of(f"authority revoke kits north --reason left --key-file {_KEYS}", "kits"),
    "authority show": _of("authority show kits", "kits"),
    "ledger checkpoint": _of(f"ledger checkpoint {_LEDGER} --to notary", "run"),
    "ledger override": _of(
        f"ledger override {_LEDGER} synthetic/record --epsilon 9 --reason asked --by officer", "run"
    ),
    "ledger void": _of(
        "ledger void cut/ledgers/north.sqlite RUN --round 1 --reason killed", "cut", done="no other is voided"
    ),
    "ledger verify": _of(f"ledger verify {_LEDGER}", "run"),
    "ledger copy": _of(f"ledger copy {_LEDGER} copied.sqlite", "run", done="is there already"),
    "ledger export": _of(f"ledger export {_LEDGER}", "run"),
    "silo policy": _of("silo policy kits/silos/west --sign-off officer --key-file kits/keys/west.key", "kits"),
    "silo withdraw": _of(
        "silo withdraw tabled/silos/west ids.csv --key-file tabled/keys/west.key", "tabled", "ids.csv"
    ),
    "silo hold-out": _of(
        "silo hold-out tabled/silos/west persons.toml made.csv --key-file tabled/keys/west.key",
        "tabled",
        "persons.toml",
        done="is there already",
    ),
    "silo start": _of("silo start kits/silos/west --key-file kits/keys/west.key", "kits", status=130),
    "server start": _of("server start kits/server --key-file kits/keys/server.key", "kits", status=130),
    "server submit": _of("server submit kits/server tiny.toml", "kits", "tiny.toml", status=1),
    "server report": _of(
        "server report deployed/server tiny-1 --key-file deployed/keys/server.key",
        "deployed",
        dear=True,
        like="report build",
    ),
    "silo report": _of(
        "silo report handed/silos/north handed/server/runs/tiny-1/copies/north --key-file handed/keys/north.key",
        "handed",
        dear=True,
        like="report build",
    ),
    "server status": _of("server status kits/server", "kits"),
    "deploy-local": _of("deploy-local tiny.toml --out made --loopback --no-report", "tiny.toml", status=1),
    "report build": _of("report build run", "run"),
    "report verify": _of("report verify run", "run", status=6),
    "report verifier": _of("report verifier --out made.pyz"),
    "report diff": _of("report diff run run", "run"),
    "demo inversion": _of("demo inversion --out made"),
    "new": _of(
        "new --from ward/ward.csv --out made --label ill --labels no,yes --person record --range age=0:9"
        " --leave-out day --silos north,south,west --records 3:9 --epsilon 8",
        "ward",
        done="is there already",
    ),
    "data check": _of("data check tabled.toml --silo ward --fix", "tabled.toml", "ward"),
    "predict": _of("predict named rows.csv --out made.csv", "named", "rows.csv", done="is there already"),
    "explain": _of("explain named --table rows.csv --out made", "named", "rows.csv", done="is there already"),
    "export": _of("export run --format safetensors --out made", "run"),
    "audit run": _of("audit run audited.toml --canaries 600 --out made", "audited.toml", dear=True, like="simulate"),
    "audit plan": _of("audit plan audited.toml --canaries 600", "audited.toml"),
    "budget show": _of(f"budget show {_LEDGER}", "run"),
    "budget forecast": _of(f"budget forecast {_LEDGER} tiny.toml", "run", "tiny.toml"),
    "budget epsilon": _of("budget epsilon --noise-multiplier 2 --sample-rate 1 --steps 2 --delta 1e-3"),
    "budget calibrate": _of("budget calibrate --epsilon 2 --sample-rate 1 --steps 2 --delta 1e-3"),
    "scenarios": _of("scenarios"),
    "scenarios show": _of("scenarios show digits"),
    "graph": _of("graph --silos 9 --colluding 2 --dropping 1"),
    "silo schema": _of("silo schema"),
    "report schema": _of("report schema"),
}
# Verbs that write otherwise where the data are others, by a name of each.
OTHERWISE = {
    "explain, of a run": _of("explain named", "named", done="is there already"),
    "silo hold-out, of files": _of(
        "silo hold-out filed/silos/west pictures.toml made --key-file filed/keys/west.key",
        "filed",
        "pictures.toml",
        done="is there already",
    ),
}
ALL = TRIALS | OTHERWISE
# It writes in temporary folders alone, and there what `audit run` writes, for minutes.
ELSEWHERE = {"audit selftest"}
# What a slice takes: the commands that make folders, replace files in one, and append to a ledger.
SLICE = ("simulate", "provision", "authority rotate", "ledger checkpoint", "server submit")


@dataclass(frozen=True)
class Tried:
    """A command without a fault: what it finds, what calls it makes, and what it leaves.

    Attributes:
        trial: The command.
        base: The folder that its needs are copied from.
        folder: Where it runs, the same each time.
        calls: The calls that change a disk.
        reads: All calls, those that open for reading too.
        left: Modes of the files that it leaves, by name without chance.
        known: Groups that another command has, in which all faults are tried.
    """

    trial: Trial
    base: Path
    folder: Path
    calls: tuple[Call, ...]
    reads: tuple[Call, ...]
    left: dict[str, int]
    known: frozenset[tuple[str, int]] = frozenset()


@pytest.fixture(scope="module")
def injecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injector]:
    with injector(tools.require("cc"), tmp_path_factory.mktemp("injecting")) as found:
        yield found


@pytest.fixture(scope="module")
def base(injecting: Injector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What commands find: scenarios, a federation's kits, a run, and one that was killed between charge and update."""
    folder = tmp_path_factory.mktemp("base")
    # With all records in each step, whose epsilon is found in no time.
    whole = TINY.replace("rate = 0.5\nexpected_batch_size = 10", "rate = 1.0\nexpected_batch_size = 20")
    (folder / "tiny.toml").write_text(whole + MASKED)
    (folder / "east.toml").write_text(TINY.replace('"west"]', '"west", "east"]') + MASKED)
    (folder / "federation.toml").write_text(federation_toml())
    audited = whole.replace("noise_multiplier = 2.0", "noise_multiplier = 1.5").replace("rounds = 2", "rounds = 1")
    audited = audited.replace("min_silos = 2", "min_silos = 3")  # a silo that a fault keeps out ends it
    (folder / "audited.toml").write_text(audited)
    _expect(injecting.run(["provision", "federation.toml", "--out", "kits"], folder), 0)
    injecting.warm(["simulate", "tiny.toml", "--out", "run"], folder)
    named = 'source = "breast-cancer"\nheld_out = 0.25\nreference_range = [0.0, 100.0]'
    (folder / "named.toml").write_text(re.sub(r'source = "synthetic"(\n.*){4}', named, whole))
    injecting.warm(["simulate", "named.toml", "--out", "named", "--no-report"], folder)
    records = load_breast_cancer()
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([records.feature_names, *records.data[:3]])
    (folder / "tabled.toml").write_text(re.sub(r'source = "synthetic"(\n.*){7}', _WARD, whole))
    (folder / "ward").mkdir()
    admitted = scenario_hash(read_scenario(str(folder / "tabled.toml"))).hex()
    law = _WARD_LAW.replace("SCENARIO", admitted).replace("CODE", code_hash())
    (folder / "ward" / "silo.toml").write_text(law)
    (folder / "ward" / "silo.toml").chmod(0o600)  # as a kit has it
    (folder / "ward" / "ward.csv").write_text("age;ill;day\n1.5;yes;1.2.2024\n2.5;no;2.2.2024\n3;no;3.2.2024\n")
    shutil.copytree(folder / "kits", folder / "tabled")
    with (folder / "tabled" / "silos" / "west" / "silo.toml").open("a") as law:
        law.write('\n[tables.ward]\ncsv = "ward.csv"\nperson = "patient"\nheld_out = 0.5\n')
    rows = [f"{number},1.5,yes" for number in (0, 1, 3)]  # all of whom are held out
    (folder / "tabled" / "silos" / "west" / "ward.csv").write_text("\n".join(["patient,age,ill", *rows, ""]))
    persons = f'{_WARD}\nperson = "patient"'
    (folder / "persons.toml").write_text(re.sub(r'source = "synthetic"(\n.*){7}', persons, whole))
    (folder / "ids.csv").write_text("0\n1\n3\n7\n")
    shutil.copytree(folder / "kits", folder / "filed")
    with (folder / "filed" / "silos" / "west" / "silo.toml").open("a") as law:
        law.write('\n[tables.scans]\nfiles = "scans"\nheld_out = 0.5\n')
    for number in range(6):
        place = folder / "filed" / "silos" / "west" / "scans" / ("no", "yes")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), 40 * number).save(place / f"{number}.png")
    (folder / "pictures.toml").write_text(re.sub(r'source = "synthetic"(\n.*){7}', _SCANS, whole))
    shutil.copytree(deployed(tmp_path_factory).root, folder / "deployed")
    shutil.copytree(folder / "deployed", folder / "handed")
    make = "server report handed/server tiny-1 --key-file handed/keys/server.key"
    injecting.warm(make.split(), folder)
    (folder / "bare.toml").write_text(whole)
    calls = injecting.run(["simulate", "bare.toml", "--out", "whole"], folder).calls
    kept = [
        number
        for number, call in enumerate(calls, 1)
        if call.kind == "create" and call.path == "/whole/silos/north/outbox.partial"
    ]
    killed = injecting.run(["simulate", "bare.toml", "--out", "cut"], folder, Fault("kill", kept[1]))
    assert killed.was_killed  # charged for a round, and nothing left
    for partial in (folder / "cut").rglob("*.partial"):
        partial.unlink()
    return folder


def _expect(outcome: Outcome, status: int) -> None:
    assert outcome.status == status, outcome.err


def try_whole(name: str, base: Path, folder: Path, injecting: Injector) -> Tried:
    """Run a command without a fault, twice: what it calls, and what it reads besides."""
    trial = ALL[name]
    run = json.loads((base / "cut" / "run.json").read_bytes())["run"]
    trial = replace(trial, argv=tuple(run if word == "RUN" else word for word in trial.argv))
    if trial.dear:
        lay_out(trial, base, folder)
        injecting.warm(trial.argv, folder)
    traces = []
    for counted in (CHANGING, KINDS):
        lay_out(trial, base, folder)
        outcome = injecting.run(list(trial.argv), folder, Fault(counted=counted))
        _expect(outcome, trial.status)
        traces.append(outcome.calls)
    assert wrong_files(folder, {}, killed=False) == []
    left = modes(folder)
    known = [] if trial.like is None else try_whole(trial.like, base, folder, injecting).reads
    groups = frozenset((call.kind, call.line) for call in known)
    return Tried(trial, base, folder, traces[0], traces[1], left, groups)


def lay_out(trial: Trial, base: Path, folder: Path) -> None:
    """Give a command its folder, as if nothing had been done there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for need in trial.needs:
        (shutil.copytree if (base / need).is_dir() else shutil.copy2)(base / need, folder / need)


def faults_to_try(tried: Tried, seed: int) -> list[tuple[Call, Fault]]:
    """Return which faults a command is tried with, each with its call, by the rule at the top."""
    drawing = random.Random(f"{seed} {tried.trial.argv[:2]}")  # noqa: S311
    groups: dict[tuple[str, int], dict[tuple[str, int], list[int]]] = {}
    for calls, counted in ((tried.calls, CHANGING), (tried.reads, KINDS)):
        for number, call in enumerate(calls, 1):
            if (call.kind == "read") == (counted is KINDS):  # each kind by the trace that is for it
                sites = groups.setdefault((call.kind, call.line), {})
                sites.setdefault((call.role, call.stack), []).append(number)
    found = []
    for (kind, line), sites in groups.items():
        calls, counted = (tried.reads, KINDS) if kind == "read" else (tried.calls, CHANGING)
        faults, numbers = faults_of(kind, counted), [*sites.values()]
        if tried.trial.dear:
            first = drawing.randrange(len(faults))
            pairs = [(those, faults[turn % len(faults)]) for turn, those in enumerate(numbers, first)]
        else:
            pairs = [(those, fault) for those in numbers for fault in faults if at_every_site(fault)]
        if (kind, line) not in tried.known:
            tried_here = {fault for _, fault in pairs}
            pairs += [(drawing.choice(numbers), fault) for fault in faults if fault not in tried_here]
        for those, fault in pairs:
            number = drawing.choice(those)
            found.append((calls[number - 1], replace(fault, at=number)))
    return found


def at_every_site(fault: Fault) -> bool:
    """Return whether a fault is one of the four that a disk or a machine is known for."""
    return bool(fault.lasting) or fault.how in {"kill", "torn"}


def fails(tried: Tried, call: Call, fault: Fault, injecting: Injector) -> list[str]:
    """Run a command with a fault, and return what is wrong with how it ended, what it left, and what follows."""
    lay_out(tried.trial, tried.base, tried.folder)
    outcome = injecting.run(list(tried.trial.argv), tried.folder, fault)
    met = outcome.calls[fault.at - 1].role if len(outcome.calls) >= fault.at else "no call"
    found = [] if met == call.role else [f"met {met}"]
    killed = outcome.was_killed
    found += [] if killed else wrong_words(outcome, tried.trial.status)
    cannot_erase = call.kind == "unlink" or {"unlink", "read"} & {*fault.lasting}
    # What is told to be left for the next change, `wrong_kits` sees erased by it.
    is_stuck = killed or bool(cannot_erase) or "the next change erases" in outcome.err
    found += wrong_files(tried.folder, tried.left, killed=is_stuck, failed=outcome.status != tried.trial.status)
    if not killed and outcome.status == tried.trial.status and fault.how != "fail":
        missing = tried.left.keys() - modes(tried.folder).keys()
        found += [f"said to be done, and not there: {sorted(missing)}"] if missing else []
    found += wrong_again(tried, injecting)
    if tried.trial.argv[0] == "authority":
        found += wrong_kits(tried.folder / "kits")
    lasting = f" on {'/'.join(fault.lasting)}" if fault.lasting else ""
    told = f"{fault.how} {fault.error}{lasting} at {fault.at}: {call.kind} {call.path}"
    return [f"{told}: {one}" for one in found]


# Reasons: of the system, of SQLite, of Flower.
_REASONS = re.compile(
    r"No space left|quota|Input/output|Read-only|Too many open|Permission denied|readonly|disk I/O|disk is full"
    r"|unable to open|cannot be"
)
_ACCUSES = re.compile(r"is changed|was changed|cannot be read as a ledger|put back|is gone|are gone")
_PATH = re.compile(
    r"\b(run|cut|named|kits|tabled|filed|deployed|handed|made|tmp|ward|\w+\.toml|\w+\.csv|made\.pyz|copied\.sqlite)\b|/place:"
)


def wrong_words(outcome: Outcome, whole: int) -> list[str]:
    """Return what is wrong with what a command said and ended with."""
    if outcome.status == whole and "Traceback" not in outcome.err:
        return []
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    if "Traceback" in outcome.err or outcome.status not in (1, 2, 4):
        return [f"status {outcome.status}, {lines[-1] if lines else 'nothing said'!r} after {len(lines)} lines"]
    told = [line for line in lines if line.startswith("error: ")]
    if told != lines[-1:]:  # what comes before it is what a run logged of its rounds
        return [f"does not end with one line: {lines}"]
    if _ACCUSES.search(told[0]):
        return [f"takes a fault of the disk for a change: {told[0]!r}"]
    if not _PATH.search(told[0]) or not _REASONS.search(told[0]):
        return [f"no path or no reason: {told[0]!r}"]
    return []


def modes(folder: Path) -> dict[str, int]:
    """Return every file's mode by its name without chance, but for what SQLite keeps beside a file."""
    return {
        plain("/" + str(path.relative_to(folder))): path.stat().st_mode & 0o777
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm", "-journal"))
    }


def wrong_files(folder: Path, left: dict[str, int], *, killed: bool, failed: bool = False) -> list[str]:
    """Return which files are not whole, are open to more people than they should be, or should not be there."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = plain("/" + str(path.relative_to(folder)))
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") and part != ".simulated" for part in parts)
        passing = hidden or parts[0] == "tmp" or any(part.endswith(".partial") for part in parts)
        if passing:
            # What could not be put away is taken up by the next process.
            stays = killed or (failed and parts[-1] == known_heads.COMING)
            found += [] if stays else [f"left behind: {name}"]
            continue
        try:
            check_whole(path, killed=killed)
        except Exception as error:  # of any reader
            found.append(f"half-written or changed: {name}: {type(error).__name__}: {error}"[:300])
        mode = path.stat().st_mode & 0o777
        if mode & ~left.get(name, 0o777):
            found.append(f"{name}: mode {mode:o}, not {left[name]:o}")
    return found


def _check_ledger(path: Path, data: bytes) -> None:
    """A ledger verifies; or nothing was ever entered into it, and no head says otherwise."""
    heads = [*path.parents[1].glob(f"silos/{path.stem}/ledger.head"), *path.parents[1].glob("ledger.head")]
    try:
        if data or heads:
            inspection.verify(inspection.LedgerFiles.of(path), [], None)
    except LedgerError as error:
        if heads or "nothing was ever entered into it" not in str(error):
            raise


def _lines(data: bytes) -> None:
    for line in data.splitlines():
        json.loads(line)


def _rows(data: bytes) -> None:
    head, *rows = csv.reader(io.StringIO(data.decode()))
    assert [len(row) for row in rows] == 3 * [len(head)]


def _holds(word: bytes) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        assert word in data, f"no {word!r} in it"

    return check


READERS: dict[str, Callable[[bytes], object]] = {
    ".json": json.loads,
    ".jsonl": _lines,
    ".pyz": lambda data: zipfile.ZipFile(io.BytesIO(data)).testzip(),
    ".toml": lambda data: tomllib.loads(data.decode()),
    ".yaml": yaml.safe_load,
    ".html": _holds(b"</html>"),
    ".png": _holds(b"IEND"),
    ".csv": _rows,
    ".safetensors": safetensors.torch.load,
    ".npy": lambda data: np.load(io.BytesIO(data)),
    ".npz": lambda data: np.load(io.BytesIO(data)).files,
    ".pem": _holds(b"-----END"),
    ".age": _holds(b"age-encryption.org/v1"),
    ".pub": lambda data: bytes.fromhex(data.decode().strip()),
    ".head": _holds("\n\N{EM DASH} ".encode()),
    ".service": _holds(b"WantedBy"),
    ".md": _holds(b"\n"),
    ".number": int,
    "coins": json.loads,
    "states": _holds(b"\n"),
    "identity.key": lambda data: bytes.fromhex(data.decode()[:64])[31],
    "roster": _holds(b"north"),
    "outbox": lambda _: None,  # may be empty: what it is sealed with shows the rest, when the silo goes on
    "running.lock": lambda _: None,
}
# Heads with their ledger, the others when the run goes on.
_READ_LATER = {"heads", "answers", "checkpoint", "window", ".simulated"}
_GROWS = (".log", ".lock", ".state", "-wal", "-shm", "-journal")


def check_whole(path: Path, *, killed: bool) -> None:
    """Raise unless a file under its final name is all that it should be."""
    data = path.read_bytes()
    if path.name.endswith(_GROWS) or {path.name, path.parent.name} & _READ_LATER:
        return
    if path.suffix == ".sqlite":
        _check_ledger(path, data)
    elif path.suffix == ".key" and path.name != "identity.key":
        _holds(b"AGE-SECRET-KEY" if path.parent.name == "keys" else b"-----END")(data)
    else:
        if path.suffix == ".jsonl" and killed:  # a line that a kill cut off is not read, and cut away by what goes on
            data = data[: data.rfind(b"\n") + 1]
        READERS[path.name if path.name in READERS else path.suffix](data)


def wrong_again(tried: Tried, injecting: Injector) -> list[str]:
    """Return what is wrong with the same command once nothing fails any more."""
    again = injecting.run(list(tried.trial.argv), tried.folder)
    if again.status == tried.trial.status and "Traceback" not in again.err:
        return []
    lines = again.err.strip().splitlines()
    told = lines[0] if len(lines) == 1 else f"{len(lines)} lines, {lines[-1:]}"
    if len(lines) == 1 and re.search(tried.trial.done, told):
        return []
    made = tried.folder / "made"
    if again.status == 2 and len(lines) == 1 and made.exists() and str(made.name) in told:
        return []  # it says which folder is in the way
    return [f"the same command afterwards: status {again.status}, {told}"]


def wrong_kits(root: Path) -> list[str]:
    """Return which kits have another roster or list than the authority, and what it left of its change."""
    roster = read_federation_roster(root / "authority")
    handed = [(root / "silos" / silo.name, "roster.json") for silo in roster.silos]
    handed += [(root / "server", name) for name in ("roster.json", "revoked.pem")]
    found = [
        f"{kit.name} has another {name} than the authority"
        for kit, name in handed
        if (kit / name).read_bytes() != (root / "authority" / name).read_bytes()
    ]
    left = [*root.rglob("*.partial"), *(root / "authority").glob("change/*"), *(root / "authority").glob(".draft/*")]
    return found + [f"left for good: {path}" for path in left]


def verbs() -> set[str]:
    """Return every verb that the program has."""
    found = set()

    def walk(command: click.Command, words: tuple[str, ...]) -> None:
        if not isinstance(command, click.Group):
            found.add(" ".join(words))
            return
        if command.invoke_without_command:  # a noun that is a verb by itself
            found.add(" ".join(words))
        for name, below in command.commands.items():
            walk(below, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def test_every_verb_is_tried() -> None:
    assert verbs() == TRIALS.keys() | ELSEWHERE
    assert all(" ".join(trial.argv).startswith(name.partition(",")[0]) for name, trial in ALL.items())


@pytest.mark.parametrize("name", ["ledger verify", "ledger export", "budget show", "authority show", "server status"])
def test_what_only_looks_writes_nothing(name: str, base: Path, injecting: Injector, tmp_path: Path) -> None:
    assert try_whole(name, base, tmp_path / "place", injecting).calls == ()


SEED = int(os.environ.get("FAULTS_SEED", "1"))
# A dear command's faults are halved, so that two workers can share them.
HALVES = [(name, half) for name, trial in ALL.items() for half in ((0, 1) if trial.dear else (0,))]


@pytest.mark.slow
@pytest.mark.timeout(6000)
@pytest.mark.parametrize(("name", "half"), HALVES)
def test_no_fault_of_a_disk(name: str, half: int, base: Path, injecting: Injector, tmp_path: Path) -> None:
    tried = try_whole(name, base, tmp_path / "place", injecting)
    faults = faults_to_try(tried, SEED)[half :: 2 if tried.trial.dear else 1]
    found = [line for call, fault in faults for line in fails(tried, call, fault, injecting)]
    assert not found, f"{len(found)} wrong after {len(faults)} faults, FAULTS_SEED={SEED}:\n" + "\n".join(found)


@pytest.mark.parametrize("name", SLICE)
def test_some_faults_of_a_disk(name: str, base: Path, injecting: Injector, tmp_path: Path) -> None:
    tried = try_whole(name, base, tmp_path / "place", injecting)
    faults = faults_to_try(tried, SEED)
    some = random.Random(SEED).sample(faults, min(6, len(faults)))  # noqa: S311
    found = [line for call, fault in some for line in fails(tried, call, fault, injecting)]
    assert not found, f"FAULTS_SEED={SEED}:\n" + "\n".join(found)
