"""A silo's code as it starts: imported whole, and of one hash."""

from __future__ import annotations

import sys

import pytest

from clients import party, policy
from fedmodel.errors import ConfigError
from fedmodel.system.packages import code_files, code_hash
from fedmodel.system.reach import module_of


def test_all_of_a_silos_code_is_imported_before_its_processes_begin() -> None:
    assert party._code() == policy.own_code() == code_hash()
    assert {module_of(name) for name in code_files()} <= sys.modules.keys()


def test_a_silo_does_not_start_while_its_files_are_being_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "own_code", lambda: "ab" * 32)
    with pytest.raises(ConfigError, match="are being changed on this machine"):
        party._code()
