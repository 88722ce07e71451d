"""`fedmodel deploy-local`: the commands of a deployment, as a person runs them, and what they leave behind.

With seeded noise a deployment must end with the very model of a simulation: same apps, same sums, whatever carried the
messages. It protects nobody, which the table says; the accuracy that is promised follows from it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import load, load_file

from fedmodel.crypto.sealed import opener_from_key_file, opener_from_secret, read_sealed
from fedmodel.provision import read_server_law, unlock
from scenarios.cli.deploy_local import opening_of
from tests import packaged, tools
from tests.conftest import TINY
from tests.fedmodel.data.test_tokenizer import laid
from tests.fedmodel.system.test_environment import COMMAND, HOSTILE, ODD
from tests.server.strategies.test_listed import FILES as STRATEGY
from tests.server.strategies.test_listed import USE as STEP
from tests.tracing import in_no_hash, traced, tracer

SEEDED = ["hospitals", "--set", "rounds=2", "--set", "privacy.noise=seeded-unsafe", "--json"]
SILOS = ("aurora", "borealis", "cascade", "dune")


def fedmodel(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False,
        timeout=800,
    )  # fmt: skip


def started_from(folder: Path) -> list[str]:
    """Processes that have a rehearsal's kit in their command."""
    lines = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(folder / "kits") in line]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The same two rounds, rehearsed and simulated: the folder, and both summaries.

    They are rehearsed among variables that would lead each party astray, and what silos import is noted.
    """
    folder = tmp_path_factory.mktemp("rehearsal")
    hostile = HOSTILE | ODD | {"SSLKEYLOGFILE": str(folder / "keys.log"), "PYTHONPATH": str(tracer(folder / "trace"))}
    done = fedmodel("deploy-local", *SEEDED, "--out", "deployed", folder=folder, **hostile)
    assert done.returncode == 0, done.stderr
    beside = fedmodel("simulate", *SEEDED, "--no-report", "--out", "simulated", folder=folder)
    assert beside.returncode == 0, beside.stderr
    return folder, json.loads(done.stdout), json.loads(beside.stdout)


def opened(folder: Path) -> bytes:
    own = unlock(folder / "kits" / "server", opener_from_key_file(folder / "kits" / "keys" / "server.key"))
    return read_sealed(folder / "model.safetensors.age", opener_from_secret(own.age_secret))


def test_a_deployment_ends_with_the_model_of_a_simulation(
    rehearsed: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, deployed, simulated = rehearsed
    ours, theirs = load(opened(folder / "deployed")), load_file(folder / "simulated" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert np.array_equal(tensor, theirs[name]), name
    assert deployed["metrics"] == simulated["metrics"]
    assert simulated.keys() <= deployed.keys()
    for ours_row, theirs_row in zip(deployed["privacy"], simulated["privacy"], strict=True):
        assert ours_row == theirs_row
    assert deployed["encryption"] == simulated["encryption"]
    assert (deployed["engine"], deployed["rounds_failed"], deployed["dropouts"]) == ("deployment", 0, [])
    assert not (folder / "keys.log").exists()  # of TLS


def test_silos_train_and_mask_with_the_code_that_their_law_names_and_with_no_other(
    rehearsed: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    found = traced(rehearsed[0] / "trace")
    assert found.processes >= 3 * len(SILOS)  # supervisor, supernode, executor
    assert {
        "clients.answering",
        "fedmodel.learning.jobs.training",
        "clients.hiding",
        "clients.supernode",
        "fedmodel.secagg.masking",
    } <= found.modules
    assert in_no_hash(found) == set()
    assert found.forked == set()  # all was imported, and its hash taken, before a supervisor forked them
    assert len(found.paths) == 1  # no folder of a bundle, of a kit or of a run is ever looked into
    assert not [entry for path in found.paths for entry in path if entry.startswith(str(rehearsed[0] / "deployed"))]


def test_a_rehearsals_folder_is_a_runs_and_its_ledgers_verify(
    rehearsed: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder = rehearsed[0] / "deployed"
    assert {"summary.json", "metrics.jsonl", "scenario.toml", "ledgers", "server.log"} <= {
        path.name for path in folder.iterdir()
    }
    assert not (folder / "model.safetensors").exists()
    for silo in SILOS:
        done = fedmodel("ledger", "verify", str(folder / "ledgers" / f"{silo}.sqlite"), "--json", folder=folder)
        found = json.loads(done.stdout)
        assert (done.returncode, found["valid"], found["silo"]) == (0, True, silo)
        assert found["key_from"] == "the roster or the command line"
        assert found["heads"] != []


def test_a_rehearsals_report_is_written_as_a_simulations(
    rehearsed: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder = rehearsed[0] / "deployed"
    assert {"report.html", "report.json", "registry.yaml"} <= {path.name for path in folder.iterdir()}
    done = fedmodel("report", "verify", str(folder), "--json", folder=folder)
    found = json.loads(done.stdout)
    assert (done.returncode, found["valid"], found["not_countersigned"]) == (6, True, [])  # no key from outside
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))["report"]
    assert report["run"]["rehearsal"] is True
    assert report["trust"]["access"].startswith("This was a rehearsal: one account owned all tables")
    assert "It was a rehearsal: one account on one machine" in (folder / "report.html").read_text(encoding="utf-8")


def lay_table(folder: Path, at: int) -> None:
    rows = [f"P-{i},{20 + i},{('no', 'yes')[(i + at) % 3 > 0]}" for i in range(60)]
    folder.with_suffix(".csv").write_text("\n".join(["patient,age,ill", *rows, ""]))


def lay_images(folder: Path, at: int) -> None:
    draw = np.random.default_rng(at)
    for place, label in enumerate(("no", "yes")):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(90 * place, 90 * place + 160, (6, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "lay"),
    [
        (
            'source = "table"\nlabel = "ill"\nperson = "patient"\n'
            'columns = [{ name = "age", type = "integer", range = [0, 120] }]\n',
            lay_table,
        ),
        ('source = "images"\nsize = [6, 4]\n', lay_images),
    ],
)
def test_a_rehearsal_of_ones_own_data_ends_as_their_simulation(
    data: str, lay: Callable[[Path, int], None], tmp_path: Path
) -> None:
    text = TINY.partition("[data]")[0] + f'[data]\nname = "ward"\nlabels = ["no", "yes"]\n{data}'
    (tmp_path / "ward.toml").write_text(text)
    (tmp_path / "own").mkdir()
    for at, name in enumerate(("north", "south", "west", "held-out")):
        lay(tmp_path / "own" / name, at)
    words = ["ward.toml", "--set", "privacy.noise=seeded-unsafe", "--no-report", "--json", "--out"]
    deployed = fedmodel("deploy-local", *words, "deployed", "--tables", "own", folder=tmp_path)
    assert deployed.returncode == 0, deployed.stderr
    simulated = fedmodel("simulate", *words, "simulated", "--set", "data.folder=own", folder=tmp_path)
    assert json.loads(deployed.stdout)["metrics"] == json.loads(simulated.stdout)["metrics"]
    assert "folder" not in (tmp_path / "deployed" / "scenario.toml").read_text()


READER = """
from torch import nn


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(10, 8), nn.Linear(8, 1)

    def forward(self, tokens, mask):
        weight = mask[:, :, None].float()
        return self.out((self.embed(tokens) * weight).sum(1) / weight.sum(1).clamp(min=1))
"""


def lay_texts(folder: Path) -> str:
    """Save a set of texts for each party as Hugging Face's library does, with a tokenizer; return the section."""
    known = laid(folder / "tokenizer.json").sha256
    names = datasets.ClassLabel(names=["no", "yes"])
    for at, party in enumerate(("north", "south", "west", "held-out")):
        texts = [("the left arm", "pain in the arm", "pains")[(place + at) % 3] for place in range(60)]
        columns = {"text": texts, "label": [int(text.startswith("pain")) for text in texts]}
        datasets.Dataset.from_dict(columns).cast_column("label", names).save_to_disk(folder / party)
    return (
        '[data]\nsource = "saved-texts"\nname = "notes"\nlabels = ["no", "yes"]\nlength = 6\n'
        f'tokenizer = {{ sha256 = "{known}", vocabulary = 10 }}\n'
    )


@pytest.mark.slow
def test_packages_of_ones_own_train_and_step_where_they_are_as_each_file_says_and_a_byte_more_is_refused(
    tmp_path: Path,
) -> None:
    """Saved texts by a tokenizer, too; silo west has the package with one byte more, by what its Python runs first."""
    site, other = tmp_path / "site", tmp_path / "other"
    files = packaged.FILES | {"ownpackage/reader.py": READER}
    packaged.install(site, files=files)
    packaged.install(site, "own-steps", "0.3", STRATEGY)
    packaged.install(other, files=files | {"ownpackage/layers.py": packaged.LAYERS + "\n"})
    west = f"import sys\nif 'silos/west' in ' '.join(sys.orig_argv):\n    sys.path.insert(0, {str(other)!r})\n"
    (site / "sitecustomize.py").write_text(west)
    (tmp_path / "own").mkdir()
    own = TINY.partition("[data]")[0].replace('kind = "mlp"', 'use = "ownpackage.reader:Reader"')
    (tmp_path / "s.toml").write_text(own + lay_texts(tmp_path / "own"))
    words = ["s.toml", "--json", "--set", f"federation.strategy={STEP}", "--set", "privacy.noise=seeded-unsafe"]
    rehearsal = ["deploy-local", *words, "--set", "rounds=1", "--loopback", "--tables", "own", "--out", "r"]
    done = fedmodel(*rehearsal, folder=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["packages"] == {"own-package": "1.2"}  # whose files are in the hash that silos' laws name
    assert [(row["key"], row["package"], row["version"]) for row in summary["own_code"]] == [
        ("model.use", "own-package", "1.2"), ("federation.strategy", "own-steps", "0.3"),
    ]  # fmt: skip
    kits = tmp_path / "r" / "kits"
    (step,) = read_server_law(kits / "server").strategy_packages.values()
    assert step.sha256 == summary["own_code"][1]["sha256"]
    assert [(one["silo"], one["code"]) for one in summary["dropouts"]] == [("west", "policy-refused")]
    assert [row["silo"] for row in summary["privacy"] if row["steps"]] == ["north", "south"]
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))["report"]
    countersigned = {one["silo"]: one["countersigned"] for one in report["integrity"]["ledgers"]}
    assert {countersigned[silo]["code"] for silo in ("north", "south")} == {summary["code_hash"]}
    assert not (tmp_path / "r" / "ledgers" / "west.sqlite").exists()  # nothing was charged, or begun
    log = (kits / "silos" / "west" / "logs").glob("*.log")
    assert any("which silo.toml does not name" in path.read_text(encoding="utf-8") for path in log)
    told = fedmodel("report", "verify", "r", folder=tmp_path, PYTHONPATH=str(site), COLUMNS="300").stdout
    assert f"{summary['code_hash'][:16]}..., as installed here" in told
    told = fedmodel("report", "verify", "r", folder=tmp_path, COLUMNS="300").stdout  # which never imports it
    assert f"{summary['code_hash'][:16]}..., NOT what is installed here" in told
    simulated = ["simulate", *words, "--set", "rounds=1", "--set", "data.folder=own", "--no-report", "--out", "s"]
    without = ["--set", 'federation.silos=["north", "south"]']
    beside = fedmodel(*simulated, *without, folder=tmp_path, PYTHONPATH=str(site))
    assert beside.returncode == 0, beside.stderr
    assert summary["metrics"] == json.loads(beside.stdout)["metrics"]


def test_nothing_of_a_rehearsal_is_left_running(rehearsed: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    assert started_from(rehearsed[0] / "deployed") == []


@tools.needed("age")
def test_the_ordinary_tool_opens_the_model(
    rehearsed: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    """As `deploy-local` tells a person to do it."""
    folder = rehearsed[0] / "deployed"
    command = (
        f"age -d -i {folder}/kits/keys/server.key {folder}/kits/server/identity.age |"
        f" age -d -i - {folder}/model.safetensors.age > model.safetensors"
    )
    assert opening_of(folder) == command
    named = tmp_path / "a ward's run (ü) $HOME"  # a link: the folder may be called anything
    named.symlink_to(folder)
    subprocess.run(["sh", "-c", opening_of(named)], cwd=tmp_path, check=True)
    assert (tmp_path / "model.safetensors").read_bytes() == opened(folder)


def test_a_status_says_how_server_silos_and_runs_stand(
    rehearsed: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    kit = rehearsed[0] / "deployed" / "kits" / "server"
    found = json.loads(fedmodel("server", "status", str(kit), "--json", folder=kit).stdout)
    assert (found["federation"], found["running"], found["warnings"]) == ("hospitals", False, [])
    assert [silo["silo"] for silo in found["silos"]] == list(SILOS)
    assert all(silo["ledger_entries"] >= 4 for silo in found["silos"])
    (run,) = found["runs"]
    assert (run["state"], run["rounds"], run["rounds_planned"]) == ("completed", 2, 2)
    shown = fedmodel("server", "status", str(kit), folder=kit)
    assert "does NOT run" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_a_run_is_not_handed_to_a_server_that_does_not_run(
    rehearsed: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    kit = rehearsed[0] / "deployed" / "kits" / "server"
    before = sorted(path.name for path in (kit / "runs").iterdir())
    done = fedmodel("server", "submit", str(kit), "hospitals", folder=kit)
    assert done.returncode == 2
    assert "no server runs from" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (kit / "runs").iterdir()) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_rehearsal_that_ends_early_leaves_nothing_running(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "deploy-local", "hospitals", "--out", "r", "--loopback"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    logs = tmp_path / "r" / "kits" / "silos" / "dune" / "logs" / "supernode.log"
    deadline = time.monotonic() + 300
    while not logs.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in err
    deadline = time.monotonic() + 300
    while started_from(tmp_path / "r"):
        assert time.monotonic() < deadline, started_from(tmp_path / "r")
        time.sleep(0.2)


def test_the_parties_make_reports_of_it_that_verify(rehearsed: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    """What a real server and real silos leave in their kits is what `tests.deployments` makes up for other tests."""
    folder, _, _ = rehearsed
    kits = folder / "deployed" / "kits"
    (run,) = (kits / "server" / "runs").iterdir()
    opened = ("--key-file", str(kits / "keys" / "server.key"), "--json")
    made = fedmodel("server", "report", str(kits / "server"), run.name, *opened, folder=folder)
    assert made.returncode == 0, made.stderr
    opened = ("--key-file", str(kits / "keys" / "aurora.key"), "--json")
    copy = str(run / "copies" / "aurora")
    own = fedmodel("silo", "report", str(kits / "silos" / "aurora"), copy, *opened, folder=folder)
    assert own.returncode == 0, own.stderr
    told = json.loads(own.stdout)
    verified = fedmodel(*told["verify"].split()[1:], "--json", folder=folder)
    assert (verified.returncode, verified.stderr) == (0, "")
    found = json.loads(verified.stdout)
    assert (found["anchored"], found["not_countersigned"], found["model_compared"]) == (True, [], True)
