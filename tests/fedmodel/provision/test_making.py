"""Kits: what each party is handed, what it reads back, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmodel.config import EncryptionConfig, Scenario, read_scenario
from fedmodel.crypto import SigningKey, Suite
from fedmodel.errors import AggregationRefused, ConfigError, Rule
from fedmodel.provision import (
    law_of,
    policy_of,
    provision,
    read_identity,
    read_kit,
    read_roster,
    scenario_hash,
    scenario_policy,
)
from fedmodel.secagg import Roster
from fedmodel.system.packages import code_hash

ON = ["encryption.secure_aggregation=on", "encryption.bound=2.0", "encryption.colluding=0"]


@pytest.fixture
def scenario(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), ON)


def test_a_kit_holds_one_partys_secret_and_everybodys_roster(scenario: Scenario, tmp_path: Path) -> None:
    provision(scenario, tmp_path)
    rosters = {read_roster(tmp_path / part).digest for part in ("server", "silos/north", "silos/south", "silos/west")}
    assert len(rosters) == 1
    server = read_identity(tmp_path / "server").public
    assert (tmp_path / "server" / "identity.key").stat().st_mode & 0o777 == 0o600
    assert server not in {member.key for member in read_roster(tmp_path / "server").members}
    secrets = {path.read_text() for path in tmp_path.rglob("identity.key")}
    assert len(secrets) == 4
    for number, name in enumerate(("north", "south", "west"), start=1):
        kit = read_kit(tmp_path / "silos" / name)
        assert kit.law.name == kit.roster.members[number - 1].name == name
        assert kit.roster.number(kit.identity.public) == number
        assert kit.policy == scenario_policy(scenario)
        assert kit.law == law_of(scenario, name, server)
        assert kit.law.servers == (server.hex(),)
        assert kit.law.scenarios == (scenario_hash(scenario).hex(),)
        assert kit.law.code == (code_hash(),)
        assert (tmp_path / "silos" / name / "identity.key").stat().st_mode & 0o777 == 0o600


def test_keys_are_made_anew_for_every_run(scenario: Scenario, tmp_path: Path) -> None:
    for run in ("one", "two"):
        provision(scenario, tmp_path / run)
    one, two = (read_kit(tmp_path / run / "silos" / "north") for run in ("one", "two"))
    assert one.identity.public != two.identity.public


def test_a_roster_that_the_administrator_did_not_sign_is_refused(scenario: Scenario, tmp_path: Path) -> None:
    provision(scenario, tmp_path)
    folder = tmp_path / "silos" / "north"
    kit = read_kit(folder)
    (folder / "roster").write_bytes(Roster("tiny", kit.roster.members[:-1]).sign(SigningKey.generate()))
    with pytest.raises(AggregationRefused) as refused:
        read_kit(folder)
    assert refused.value.rule is Rule.BAD_SIGNATURE


@pytest.mark.parametrize("file", ["identity.key", "roster", "administrator.pub", "silo.toml"])
def test_a_kit_that_is_not_all_there_is_refused_by_the_name_of_what_is_missing(
    file: str, scenario: Scenario, tmp_path: Path
) -> None:
    provision(scenario, tmp_path)
    folder = tmp_path / "silos" / "north"
    (folder / file).unlink()
    word = {"administrator.pub": "roster"}.get(file, file)
    with pytest.raises(ConfigError, match=word.replace(".", r"\.")):
        read_kit(folder)


def test_a_wrong_key_in_a_silos_law_names_the_nearest(scenario: Scenario, tmp_path: Path) -> None:
    provision(scenario, tmp_path)
    law = tmp_path / "silos" / "north" / "silo.toml"
    law.write_text(law.read_text().replace("ring_bits", "ring_bit"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"silo\.toml: encryption\.ring_bit is not a known key; did you mean 'ring_b"):
        read_kit(law.parent)


def test_a_law_that_weakens_itself_changes_the_policy(scenario: Scenario, tmp_path: Path) -> None:
    provision(scenario, tmp_path)
    law = tmp_path / "silos" / "north" / "silo.toml"
    law.write_text(law.read_text().replace("secrecy_bits = 80", "secrecy_bits = 40"), encoding="utf-8")
    assert read_kit(law.parent).policy.digest != scenario_policy(scenario).digest


def test_without_numbers_a_third_may_collude_and_a_third_may_go() -> None:
    policy = policy_of(EncryptionConfig(secure_aggregation="on", bound=1.0, post_quantum=True), 50, 100)
    assert (policy.colluding, policy.dropping, policy.suite) == (33, 33, Suite.POST_QUANTUM)
    assert policy.topology(100).threshold == 67
