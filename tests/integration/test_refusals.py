"""Who and what a deployed federation refuses: real processes, started as people start them, and what they are told.

Every refusal is held to four things: one line on standard error, without a traceback, that says what to do; an exit
status that is not 0; the same line in the log of the kit that refused; and nothing in a ledger.

Elsewhere: a kit that others can read, one that runs already, another party's kit or key, a revoked silo and a server
with old keys (`test_start`); a SuperNode that has a key twice or a signature of another hour (`test_runtime`); all that
can be wrong with a certificate (`tests/fedmodel/crypto/test_transport.py`).

One server and three silos serve all tests of this file. The last two tests start other servers in its place. The first
silo trains in two processes, so that the code of those is looked at too.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w

from clients.silo import ledger_path
from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto.sealed import opener_from_key_file
from fedmodel.errors import CryptoError, DropoutError, PolicyRefused
from fedmodel.ledger import verify_ledger
from fedmodel.provision.authority import add, issue, renew
from tests import tools
from tests.conftest import TINY
from tests.integration.chaos import COMMAND, SERVER, TREE, Deployment, Party, federation_of, stopped_at_last
from tests.integration.deployed import free_port, wait_until
from tests.integration.replaying import REPLAYED
from tests.tracing import in_no_hash, traced, tracer

NAMES = ("north", "south", "west")
PUBLIC = ("roster.json", "revoked.pem")
# Each takes a process that imports everything, or two: what another test says of the same refusal is enough every day.
SLOW = pytest.mark.slow
SETTINGS = ["federation.round_timeout_s=20.0", "training.max_physical_batch=4"]
LONG_AGO = datetime.now(UTC) - timedelta(days=500)


def scenario_of(folder: Path, *settings: str) -> Scenario:
    """Return the small scenario, of which silos' budgets pay for some runs."""
    path = folder / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    budgets = ",".join(f"{name}=200.0" for name in NAMES)
    return read_scenario(str(path), [f"budgets={{{budgets}}}", *SETTINGS, *settings])


class Served:
    """A server with three silos that are up, one of which knows another server; and a fourth silo's kit.

    One of them trains in two processes, in which each step has several physical batches.
    """

    def __init__(self, folder: Path) -> None:
        scenario = scenario_of(folder)
        self.folder, self.deployment = folder, Deployment(folder, scenario, beside=tracer(folder / "trace"))
        self.kits = self.deployment.kits
        self.file = folder / "scenario.toml"
        told = scenario.model_dump(mode="json", exclude_none=True)
        self.file.write_text(tomli_w.dumps(told), encoding="utf-8")
        self._add_east(scenario)
        law = self.kit("north") / "silo.toml"
        law.write_text(f"processes = 2\n{law.read_text()}")
        law = self.kit("west") / "silo.toml"
        text = law.read_text()
        law.write_text(re.sub(r'servers = \[\s*"[0-9a-f]{64}"', f'servers = ["{"5a" * 32}"', text, count=1))
        assert law.read_text() != text

    def _add_east(self, scenario: Scenario) -> None:
        """Make a silo that is in no roster but its own."""
        kits = self.copy("with-east")
        federation = scenario.federation.model_copy(update={"silos": (*NAMES, "east")})
        naming = scenario.model_copy(update={"name": "wider", "federation": federation})
        add(kits, "east", opener_from_key_file(kits / "keys" / "authority.key"), scenarios=[naming])
        shutil.copytree(kits / "silos" / "east", self.kit("east"))
        shutil.copy2(kits / "keys" / "east.key", self.key("east"))

    def kit(self, name: str) -> Path:
        return self.kits / SERVER if name == SERVER else self.kits / "silos" / name

    def key(self, name: str) -> Path:
        return self.kits / "keys" / f"{name}.key"

    def copy(self, name: str) -> Path:
        """Return all kits once more, as they were handed out."""
        kits = self.folder / name
        shutil.copytree(self.kits, kits, ignore=shutil.ignore_patterns("logs", "ledgers", "runs", "heads", "*.lock"))
        return kits

    def renewed_long_ago(self, party: str) -> Path:
        """Return all kits once more, one party's certificate long over."""
        kits = self.copy(f"late-{party}")
        public = {path: path.read_bytes() for name in PUBLIC for path in kits.rglob(name)}
        renew(kits, [party], opener_from_key_file(kits / "keys" / "authority.key"), now=LONG_AGO)
        for path, data in public.items():
            path.write_bytes(data)
        return kits

    def connected(self, *names: str, times: int = 1) -> None:
        for name in names:
            party = self.deployment.parties[name]
            wait_until(
                lambda party=party: party.log("supernode").count("connected to the server") >= times,  # type: ignore[misc]
                90,
                lambda party=party: party.said.read_text(),  # type: ignore[misc]
            )

    def charges(self) -> dict[str, int]:
        """Return how many charges every silo's ledger has."""
        return {name: charges_in(self.kit(name), name) for name in NAMES}

    def logged(self, silo: str) -> str:
        """Return what a silo's own log says of the messages that it refused."""
        path = self.kit(silo) / "logs" / f"{silo}.log"
        return path.read_text() if path.exists() else ""

    def restart(self, command: list[str], tree: Path = TREE) -> None:
        """Put another server in the place of the one that is up."""
        party = self.deployment.parties[SERVER]
        assert party.process is not None
        party.process.terminate()
        party.process.wait(300)
        times = {name: self.deployment.parties[name].log("supernode").count("connected to") for name in NAMES}
        self.deployment.launch(SERVER, command, tree)
        for name in NAMES:
            self.connected(name, times=times[name] + 1)


def charges_in(kit: Path, name: str) -> int:
    path = ledger_path(kit, name)
    return sum(entry.kind == "charge" for entry in verify_ledger(path).entries) if path.exists() else 0


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="fm-") as name:
        found = Served(Path(name))
        with stopped_at_last(found.deployment):
            found.deployment.start()
            found.connected(*NAMES)
            yield found


def refused(
    served: Served, kits: Path, silo: str, prefix: tuple[str, ...] = (*COMMAND, "silo", "start"), status: int = 2
) -> str:
    """Start a silo that is refused for good; return the one line that it says."""
    kit = kits / "silos" / silo
    done = served.deployment.cli(str(kit), "--key-file", str(kits / "keys" / f"{silo}.key"), prefix=prefix)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    said = line.removeprefix("error: ")
    assert said in (kit / "logs" / "supervisor.log").read_text()
    assert charges_in(kit, silo) == 0
    return said


def test_a_kit_that_others_can_read_and_a_key_of_anothers(served: Served) -> None:
    """What is refused before anything is started stands in the kit's log too: nobody may have seen it said."""
    kits = served.copy("open")
    kit, key = kits / "silos" / "north", kits / "keys" / "north.key"
    kit.chmod(0o755)
    assert "has mode 0755" in refused(served, kits, "north")
    kit.chmod(0o700)
    (kit / "identity.age").chmod(0o644)
    assert re.search(r"identity\.age: has mode 0644.*chmod 600", refused(served, kits, "north"))
    (kit / "identity.age").chmod(0o600)
    key.write_bytes((kits / "keys" / "south.key").read_bytes())
    assert "sealed to another key than the one given" in refused(served, kits, "north", status=CryptoError.exit_status)


def test_a_silo_that_the_servers_roster_does_not_have(served: Served) -> None:
    said = refused(served, served.kits, "east")
    assert re.search(
        r"not registered: the server's roster, serial 1, does not have it; .* puts the newest roster", said
    )


def test_a_kit_of_another_federation_with_the_same_names(served: Served) -> None:
    kits = served.folder / "another"
    issue(federation_of(served.deployment.scenario, served.deployment.network), [served.deployment.scenario], kits)
    assert "certificate is not of this federation's authority" in refused(served, kits, "north")


def test_a_silo_whose_certificate_has_expired(served: Served) -> None:
    assert "our certificate has expired" in refused(served, served.renewed_long_ago("north"), "north")
    assert "certificate has expired" in served.deployment.parties[SERVER].log("superlink")


@SLOW
def test_a_server_whose_certificate_has_expired(served: Served) -> None:
    kits, port = served.renewed_long_ago(SERVER), free_port()
    before = str(served.deployment.network.port)
    for law in (kits / SERVER / "server.toml", kits / "silos" / "north" / "silo.toml"):
        law.write_text(law.read_text().replace(f":{before}", f":{port}"))
    late = Party(SERVER, kits / SERVER, kits / "keys" / "server.key", served.folder / "said" / "late")
    served.deployment.parties["late"] = late
    served.deployment.start("late")
    wait_until(lambda: "nodes are registered" in late.log("coordinator"), why=late.said.read_text)
    said = refused(served, kits, "north")
    assert re.search(r"the server's certificate has expired|the server's: .*expired", said), said
    assert "expired" in late.log("supervisor")  # and its own operator was warned


@tools.needed("faketime")
@pytest.mark.parametrize(("offset", "words"), [("+1h", "ahead of the server's"), ("-1h", "set the clock")])
def test_a_silo_whose_clock_is_off_by_an_hour(offset: str, words: str, served: Served) -> None:
    kits = served.copy(f"clock{offset}")
    # The program itself, in an environment that it leaves as it is: what sets its clock reads a variable all the time.
    program = "from clients import start; start.environment.settle = lambda: None; start.main()"
    clock = ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", offset)
    said = refused(served, kits, "north", (*clock, sys.executable, "-c", program))
    assert re.search(words, said), said


@pytest.fixture(scope="module")
def meanwhile(served: Served) -> Party:
    """A whole run, while a second process has the first silo's kit; and the server is not the one that `west` knows."""
    kits = served.copy("twin")
    twin = Party("twin", kits / "silos" / "north", kits / "keys" / "north.key", served.folder / "said" / "twin")
    served.deployment.parties["twin"] = twin
    served.deployment.start("twin")
    wait_until(lambda: "connected already" in twin.log("supervisor"), why=twin.said.read_text)
    served.deployment.submit()
    assert served.deployment.outcome(300).completed
    assert twin.process is not None
    assert twin.process.poll() is None
    served.deployment.end("twin")  # or it would take the first one's place at the next server
    return twin


def test_a_second_process_with_the_first_ones_key(served: Served, meanwhile: Party) -> None:
    """It is told so and waits; the first goes on, and no message comes to the second."""
    assert "either its last connection has not been given up yet" in meanwhile.log("supervisor")
    assert "connected to the server" not in meanwhile.log("supernode")
    assert charges_in(meanwhile.kit, "north") == 0
    assert not (meanwhile.kit / "logs" / "north.log").exists()
    rounds = served.deployment.scenario.rounds
    assert [served.charges()[name] for name in ("north", "south")] == [rounds, rounds]


def test_a_server_that_the_silo_does_not_know(served: Served, meanwhile: Party) -> None:
    assert [line["dropouts"] for line in served.deployment.metrics()] == [{"west": "policy-refused"}] * 2
    assert served.charges()["west"] == 0
    assert re.search(r"PolicyRefused: .*silo\.toml", served.logged("west")), served.logged("west")


@pytest.mark.parametrize(
    "more",
    [
        "privacy.noise_multiplier=1.0",
        *(pytest.param(one, marks=SLOW) for one in ("rounds=40", "privacy.max_grad_norm=2.0")),
    ],
)
def test_a_scenario_that_asks_for_more_than_the_law_allows(more: str, served: Served) -> None:
    before, logs = served.charges(), {silo: len(served.logged(silo)) for silo in ("north", "south")}
    done = served.deployment.cli("server", "submit", str(served.kit(SERVER)), str(served.file), "--set", more)
    assert done.returncode == DropoutError.exit_status, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(r"failed: 0 silos are too few to begin.*north \(policy-refused\)", line), line
    assert "Traceback" not in done.stderr
    for silo, size in logs.items():
        assert "PolicyRefused: " in served.logged(silo)[size:]
    assert served.charges() == before


def test_a_silo_of_several_processes_was_in_every_sum_and_charged_once_for_each(
    served: Served, meanwhile: Party
) -> None:
    del meanwhile
    assert "this silo trains in 2 processes" in served.deployment.parties["north"].log("executor")
    assert [line["round"] for line in served.deployment.metrics() if "north" not in line["dropouts"]] == [1, 2]
    rounds = [one.round for one in served.deployment.ledger("north").entries if one.kind == "charge"]
    assert rounds == [1, 2]


def test_another_runs_questions(served: Served) -> None:
    """Its server's own, every one of them: signed for another run."""
    kit, key = served.kit(SERVER), served.key(SERVER)
    served.restart([sys.executable, "-m", "tests.integration.replaying", str(kit), str(key)])
    served.deployment.submit()
    assert served.deployment.outcome(300).completed
    before, size = served.charges(), len(served.logged("north"))
    served.deployment.submit()
    assert served.deployment.outcome(120).error == "everything was asked again"
    (path,) = (kit / "runs").glob(f"*/{REPLAYED}")
    said = json.loads(path.read_text())
    assert {kind for kind, _ in said} >= {"query.join", "train"}
    assert {answer for _, answer in said} == {CryptoError.code, PolicyRefused.code}, (
        said
    )  # and west refuses whatever comes
    assert "CryptoError: " in served.logged("north")[size:]
    assert served.charges() == before


def test_a_server_of_other_code(served: Served) -> None:
    """One comment more in one file that silos run is other code."""
    tree = served.folder / "tree"
    for package in ("fedmodel", "clients", "server", "scenarios"):
        shutil.copytree(TREE / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tree / "clients" / "policy.py").open("a") as file:
        file.write("# and more\n")
    before = served.charges()
    served.restart(served.deployment.command(SERVER), tree)
    done = served.deployment.cli("server", "submit", str(served.kit(SERVER)), str(served.file))
    assert done.returncode == DropoutError.exit_status, done.stderr
    assert re.search(r"error: .*failed: 0 silos are too few to begin.*policy-refused", done.stderr)
    for silo in ("north", "south"):
        log = served.deployment.parties[silo].log("executor")
        assert re.search(r"is refused: its code is [0-9a-f]{64}, and this silo's is [0-9a-f]{64}; install", log)
    assert served.charges() == before


def test_whatever_was_refused_silos_ran_the_code_that_their_law_names_and_no_other(served: Served) -> None:
    found = traced(served.folder / "trace")
    assert found.processes >= 3 * len(NAMES)  # supervisor, supernode, executor
    assert "clients.policy" in found.modules
    assert in_no_hash(found) == set()
    assert len(found.paths) == 1  # no folder of the bundle of other code, nor of any else, is looked into
