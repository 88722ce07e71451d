"""Deployed federations for tests: small, made once a session, and copied for whoever changes one."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedmodel.config import FederationFile, read_federation_file
from fedmodel.crypto.sealed import Opener, opener_from_key_file
from fedmodel.provision import FederationRoster, unlock
from fedmodel.provision.authority import Change, issue, read_scenarios
from fedmodel.provision.identity import Unlocked
from tests.conftest import TINY
from tests.once import once

MASKED = """
[encryption]
secure_aggregation = "on"
bound = 2.0
colluding = 0
"""
SILOS = ("west", "north", "south")  # not in order, as a person writes them


def federation_toml(silos: tuple[str, ...] = SILOS, extra: str = "", scenarios: str = '["tiny.toml"]') -> str:
    """Return a federation's file."""
    entries = "".join(f'\n[[silos]]\nname = "{name}"\n' for name in silos)
    return (
        f'name = "northern"\nscenarios = {scenarios}\n{extra}\n[server]\nhosts = ["localhost", "127.0.0.1"]\n{entries}'
    )


def write_federation(folder: Path, extra: str = "", scenario: str = TINY) -> FederationFile:
    """Write a federation's file with its scenario beside it, and read it."""
    (folder / "tiny.toml").write_text(scenario, encoding="utf-8")
    (folder / "federation.toml").write_text(federation_toml(extra=extra), encoding="utf-8")
    return read_federation_file(folder / "federation.toml")


@dataclass(frozen=True)
class Federation:
    """One that was issued, under key files."""

    root: Path
    change: Change

    @property
    def roster(self) -> FederationRoster:
        """The first roster."""
        return self.change.roster

    def kit(self, name: str) -> Path:
        """Return a party's folder."""
        return self.root / {"server": "server", "authority": "authority"}.get(name, f"silos/{name}")

    def opener(self, name: str = "authority") -> Opener:
        """Return what opens a party's keys."""
        return opener_from_key_file(self.root / "keys" / f"{name}.key")

    def unlock(self, name: str) -> Unlocked:
        """Open a party's kit."""
        return unlock(self.kit(name), self.opener(name))

    def copy(self, to: Path) -> Federation:
        """Return another of the same, to be changed."""
        shutil.copytree(self.root, to)
        return Federation(to, self.change)


def issued(folder: Path, extra: str = "", scenario: str = TINY) -> Federation:
    """Issue a federation under a folder."""
    federation = write_federation(folder, extra, scenario)
    change = issue(federation, read_scenarios(federation, folder), folder / "out")
    return Federation(folder / "out", change)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation with post-quantum keys, that nobody changes."""

    def make(folder: Path) -> None:
        made = issued(folder, "post_quantum = true", TINY + MASKED)
        (folder / "change").write_bytes(pickle.dumps(made.change))

    folder = once(tmp_path_factory, "federation", make)
    return Federation(folder / "out", pickle.loads((folder / "change").read_bytes()))  # noqa: S301 - our own


@pytest.fixture
def federation(pristine: Federation, tmp_path: Path) -> Federation:
    """The same, for one test to change."""
    return pristine.copy(tmp_path / "kits")
