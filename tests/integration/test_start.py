"""`fedmodel server start` and `fedmodel silo start`, with the kits that `fedmodel provision` makes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from fedmodel.config import read_federation_file
from fedmodel.crypto.sealed import opener_from_key_file
from fedmodel.provision.authority import issue, read_scenarios, revoke, rotate
from tests.conftest import TINY
from tests.integration.deployed import free_port, wait_until

FEDMODEL = Path(sys.executable).parent / "fedmodel"


class Kits:
    """A federation's kits, its server on a free port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        (folder / "tiny.toml").write_text(TINY)
        silos = "".join(f'[[silos]]\nname = "{name}"\n' for name in ("north", "south", "west"))
        (folder / "federation.toml").write_text(
            'name = "northern"\nscenarios = ["tiny.toml"]\n[server]\nhosts = ["127.0.0.1"]\nlisten = "127.0.0.1"\n'
            f"port = {self.port}\n{silos}"
        )
        self.root = folder / "kits"
        self.scratch = folder / "tmp"
        self.scratch.mkdir()
        federation = read_federation_file(folder / "federation.toml")
        issue(federation, read_scenarios(federation, folder), self.root)

    def kit(self, name: str) -> Path:
        return self.root / "server" if name == "server" else self.root / "silos" / name

    def key(self, name: str) -> Path:
        return self.root / "keys" / f"{name}.key"

    def command(self, name: str, *, verb: str = "") -> list[str]:
        verb = verb or ("server" if name == "server" else "silo")
        return [str(FEDMODEL), verb, "start", str(self.kit(name)), "--key-file", str(self.key(name))]

    @contextmanager
    def started(self, name: str, *, verb: str = "") -> Iterator[tuple[subprocess.Popen[str], Path]]:
        """Start a party; yield its process and the file that it prints to."""
        said = self.root.parent / f"{name}-{time.monotonic_ns()}.out"
        with said.open("w") as output:
            command = self.command(name, verb=verb)
            environment = {**os.environ, "TMPDIR": str(self.scratch)}
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, env=environment
            )
        try:
            yield process, said
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)

    def refused(self, name: str, *, verb: str = "") -> str:
        """Return what a start that is refused says."""
        done = subprocess.run(self.command(name, verb=verb), capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())


@pytest.fixture
def kits() -> Iterator[Kits]:
    with tempfile.TemporaryDirectory(prefix="fm-") as folder:
        yield Kits(Path(folder))


def connected(said: Path) -> bool:
    return "connected to the server" in said.read_text()


def beneath(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(family: list[psutil.Process]) -> bool:
    return not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_silos_find_their_server_and_ctrl_c_leaves_nothing(kits: Kits) -> None:
    with kits.started("north") as (north, said):
        wait_until(lambda: "no server listens there" in said.read_text(), why=said.read_text)
        with kits.started("server") as (server, _), kits.started("south") as (south, other):
            wait_until(lambda: connected(said) and connected(other), why=lambda: said.read_text() + other.read_text())
            family = [one for process in (north, server, south) for one in beneath(process)]
            assert len(family) == 6
            for process in (north, server, south):
                process.send_signal(signal.SIGINT)
            assert [process.wait(300) for process in (north, server, south)] == [130] * 3
    assert gone(family)
    assert list(kits.scratch.iterdir()) == []
    for name in ("server", "north", "south"):
        logs = list((kits.kit(name) / "logs").iterdir())
        assert len(logs) == 3
        assert {stat.S_IMODE(log.stat().st_mode) for log in logs} == {0o600}


@pytest.mark.slow
def test_a_supervisor_that_is_killed_takes_all_with_it_and_the_next_one_comes_in(
    kits: Kits,
) -> None:
    with kits.started("server"):
        with kits.started("north") as (north, said):
            wait_until(lambda: connected(said), why=said.read_text)
            family = beneath(north)
            north.kill()
            wait_until(lambda: gone(family))
        with kits.started("north") as (_, again):  # for the server it may be connected still, and is waited for
            wait_until(lambda: connected(again), why=again.read_text)


def test_processes_with_keys_cannot_be_dumped(kits: Kits) -> None:
    with kits.started("north") as (north, said):
        wait_until(lambda: "no server listens there" in said.read_text(), why=said.read_text)
        for one in (psutil.Process(north.pid), *beneath(north)):
            assert one.rlimit(psutil.RLIMIT_CORE) == (0, 0)
            # What the kernel lets no other process of the account read belongs to root.
            if os.getuid():
                assert Path(f"/proc/{one.pid}/environ").stat().st_uid == 0


@pytest.mark.slow
def test_a_kit_runs_once(kits: Kits) -> None:
    with kits.started("server"):
        wait_until((kits.kit("server") / "logs" / "superlink.log").exists)
        assert "runs already on this machine" in kits.refused("server")


def test_a_kit_that_others_can_read_is_refused_with_what_mends_it(kits: Kits) -> None:
    kits.kit("north").chmod(0o755)
    assert re.search(r"mode 0755.*run: chmod 700", kits.refused("north"))
    kits.kit("north").chmod(0o700)
    (kits.kit("north") / "node.key").chmod(0o640)
    assert re.search(r"node\.key: has mode 0640.*run: chmod 600", kits.refused("north"))


def test_another_partys_kit_is_not_started(kits: Kits) -> None:
    assert "start it with `fedmodel silo start`" in kits.refused("north", verb="server")
    assert "start it with `fedmodel server start`" in kits.refused("server", verb="silo")


def test_another_partys_key_opens_nothing(kits: Kits) -> None:
    kits.key("north").write_bytes(kits.key("south").read_bytes())
    done = subprocess.run(kits.command("north"), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_silo_that_was_revoked_is_told_so_and_ends(kits: Kits) -> None:
    opener = opener_from_key_file(kits.key("authority"))
    with kits.started("server"):
        with kits.started("north") as (north, said):
            wait_until(lambda: connected(said), why=said.read_text)
            revoke(kits.root, "north", "its disk was stolen", opener)
            wait_until(lambda: "our certificate was revoked" in said.read_text(), why=said.read_text)
            with kits.started("south") as (_, other):
                wait_until(lambda: connected(other), why=other.read_text)
            assert north.poll() is None  # whoever was connected goes on trying: a person may be at the server
        assert "our certificate was revoked" in kits.refused("north")


@pytest.mark.slow
def test_a_silo_takes_the_newer_roster_that_its_server_shows(kits: Kits) -> None:
    older = (kits.kit("north") / "roster.json").read_bytes()
    revoke(kits.root, "west", "it left", opener_from_key_file(kits.key("authority")))
    newer = (kits.kit("north") / "roster.json").read_bytes()
    (kits.kit("north") / "roster.json").write_bytes(older)
    with kits.started("server"), kits.started("north") as (_, said):
        wait_until(lambda: connected(said), why=said.read_text)
    assert (kits.kit("north") / "roster.json").read_bytes() == newer


@pytest.mark.slow
def test_a_thief_with_the_servers_old_kit_is_no_server(kits: Kits) -> None:
    """Its certificate is the authority's, good, and for this host; but the server has other keys by now."""
    stolen, key = kits.root / "silos" / "stolen", kits.key("stolen")
    shutil.copytree(kits.kit("server"), stolen)
    shutil.copy2(kits.key("server"), key)
    rotate(kits.root, "server", opener_from_key_file(kits.key("authority")))
    with kits.started("stolen", verb="server"):
        log = stolen / "logs" / "coordinator.log"
        wait_until(lambda: log.exists() and "nodes are registered" in log.read_text())
        assert "of another key than the roster has for the server" in kits.refused("north")
