"""A party on its machine, without its processes: where its socket and its log are, and who could put them there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from fedmodel.crypto.sealed import opener_from_passphrase
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.provision import in_use
from fedmodel.system.supervision import Supervisor
from server import party

OPENER = opener_from_passphrase("correct horse battery")


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start does to its process is not done to this one."""
    monkeypatch.setattr(in_use, "forbid_dumps", lambda: None)
    monkeypatch.setattr(os, "umask", lambda _: 0o022)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit that is refused, whatever else is the matter with it."""
    folder = tmp_path / "kit"
    folder.mkdir(mode=0o700)
    (folder / "identity.age").write_text("x")
    return folder


def refused(kit: Path) -> str:
    with pytest.raises(FedmodelError) as said:
        party.serve(kit, OPENER)
    return str(said.value)


def test_a_refusal_stands_in_the_kits_log(kit: Path) -> None:
    said = refused(kit)
    log = kit / "logs" / "supervisor.log"
    assert said in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_kit_that_others_can_write_to_is_not_logged_into(mode: int, kit: Path) -> None:
    kit.chmod(mode)
    assert "lets others at a kit's keys" in refused(kit)
    assert not (kit / "logs").exists()


def test_a_log_that_is_a_link_is_not_followed(kit: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("mine\n")
    (kit / "logs").mkdir(mode=0o700)
    (kit / "logs" / "supervisor.log").symlink_to(theirs)
    refused(kit)
    assert theirs.read_text() == "mine\n"


def test_a_folder_of_logs_that_others_can_write_to_is_not_written_to(kit: Path) -> None:
    (kit / "logs").mkdir()
    (kit / "logs").chmod(0o777)
    refused(kit)
    assert list((kit / "logs").iterdir()) == []


def test_the_log_of_another_account_is_not_written_to(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    refused(kit)
    assert not (kit / "logs").exists()


def test_the_socket_is_where_the_service_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own /tmp nobody else sees."""
    (tmp_path / "run").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(in_use.tempfile, "tempdir", str(tmp_path / "tmp"))
    assert in_use._scratch().parent == tmp_path / "tmp"
    for said in (tmp_path / "run", f"{tmp_path / 'run'}:/run/other"):
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(said))
        made = in_use._scratch()
        assert made.parent == tmp_path / "run"
        assert made.stat().st_mode & 0o777 == 0o700


def test_a_folder_whose_sockets_would_have_too_long_a_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = Path("/" + "x" * (107 - len("/fm-12345678/link") - 1))
    monkeypatch.setattr(in_use.tempfile, "mkdtemp", lambda **given: "{dir}/{prefix}12345678".format(**given))
    for variable, which in (("", "TMPDIR"), ("RUNTIME_DIRECTORY", "RuntimeDirectory")):
        for folder, fits in ((longest, True), (Path(f"{longest}x"), False)):
            monkeypatch.setattr(in_use.tempfile, "tempdir", str(folder))
            if variable:
                monkeypatch.setenv(variable, str(folder))
            if fits:
                assert len(str(in_use._scratch() / "link")) == 107
            else:
                with pytest.raises(ConfigError, match=f"too long a path; set {which}"):
                    in_use._scratch()


def held(kit: Path, kind: int) -> BinaryIO:
    """Somebody else holds a kit's lock, until this is closed."""
    lock = (kit / "running.lock").open("ab")
    fcntl.flock(lock, kind)
    return lock


def test_whoever_asks_how_it_does_is_no_start(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = held(kit, fcntl.LOCK_SH)
    monkeypatch.setattr(in_use.time, "sleep", lambda _: asks.close())  # it is gone at the next look
    with (kit / "running.lock").open("ab") as lock:
        in_use._lock(kit, lock)
    assert asks.closed
    monkeypatch.undo()
    with (
        held(kit, fcntl.LOCK_EX),
        (kit / "running.lock").open("ab") as lock,
        pytest.raises(ConfigError, match="runs already"),
    ):
        in_use._lock(kit, lock)


def test_what_expires_is_looked_for_once_a_day(
    kit: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines = iter([["the roster expires in 30 days"], ConfigError("no roster"), ["it expires in 29 days"]])

    def expiring(_: Path) -> list[str]:
        found = next(lines)
        if isinstance(found, Exception):
            raise found
        return found

    looks: list[Callable[[], None]] = []

    def run(self: Supervisor) -> int:
        chore = self._chore
        assert chore is not None
        assert chore.every_s == 86400
        looks.extend([chore.run] * 3)
        for look in looks:
            look()
        return 15

    monkeypatch.setattr(in_use, "expiring", expiring)
    monkeypatch.setattr(Supervisor, "run", run)
    (kit / "logs").mkdir(mode=0o700)
    assert in_use.keep_up([], kit) == 15
    log = (kit / "logs" / "supervisor.log").read_text()
    assert [part in log for part in ("in 30 days", "cannot be seen: no roster", "in 29 days")] == [True] * 3
