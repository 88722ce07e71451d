"""A silo's own law: every rule refuses by name, in the silo's process, whatever a server asks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clients import policy
from clients.silo import Silo
from fedmodel import plans, wire
from fedmodel.config import HoursConfig, Scenario, SiloFile, read_scenario, read_silo_file, silo_file_to_toml
from fedmodel.crypto import SigningKey
from fedmodel.errors import ConfigError, PolicyRefused, ProtocolError
from fedmodel.kinds.models.own import OwnConfig
from fedmodel.ledger import Reservation
from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.mechanisms.none_unsafe import UnprotectedEvent
from fedmodel.provision import law_of, provision, scenario_hash
from fedmodel.system.packages import code_hash
from tests import packaged
from tests.fakes import FaultyGrid

SERVER = SigningKey(bytes(range(32)))
ON = ["encryption.secure_aggregation=on", "encryption.bound=9.0", "encryption.colluding=0", "federation.min_silos=3"]


@pytest.fixture
def hidden(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), ON)


@pytest.fixture
def law(hidden: Scenario) -> SiloFile:
    return law_of(hidden, "north", SERVER.public)


def changed(law: SiloFile, **keys: Any) -> SiloFile:
    return SiloFile.model_validate({**law.model_dump(), **keys})


def admitting(law: SiloFile, scenario: Scenario, **keys: Any) -> SiloFile:
    """Return the law with this scenario's hash in it, so that what refuses is another rule."""
    return changed(law, scenarios=(scenario_hash(scenario).hex(),), **keys)


def test_the_law_of_a_simulated_silo_admits_its_scenario(hidden: Scenario, law: SiloFile) -> None:
    policy.check_admitted(law, hidden)
    policy.check_code(law)
    policy.check_event(law, DpSgdEvent(2.0, 1.0, 0.5, 4, 10))


def test_code_of_ones_own_is_of_a_package_that_the_law_lists_as_it_was_hashed(
    hidden: Scenario, law: SiloFile, tmp_path: Path
) -> None:
    model = OwnConfig.model_validate({"kind": "own", "use": packaged.USE})
    scenario = hidden.model_copy(update={"model": model})
    with pytest.raises(PolicyRefused, match=r"model\.use = 'ownpackage\.nets:net' is code of no package"):
        policy.check_own_code(law, scenario, simulated=False)
    policy.check_own_code(law, scenario, simulated=True)
    policy.check_own_code(law, hidden, simulated=False)
    listed = {"own-package": "1.2"}
    packaged.install(tmp_path)
    with packaged.on_the_path(tmp_path):
        named = changed(law, packages=listed, code=(code_hash(listed),))
        policy.check_code(named)
        policy.check_own_code(named, scenario, simulated=False)
        with pytest.raises(PolicyRefused, match=r"which silo\.toml does not name"):
            policy.check_code(changed(law, packages=listed))  # the hash without the package
        for other, reason in (("1.3", "listed in version 1.3, and 1.2 is installed"),):
            with pytest.raises(PolicyRefused, match=reason):
                policy.check_code(changed(named, packages={"own-package": other}))
        policy._hashed.cache_clear()  # as in a process that is started anew
        (tmp_path / "ownpackage" / "layers.py").write_text(packaged.LAYERS + "\n")
        with pytest.raises(PolicyRefused, match=r"which silo\.toml does not name"):
            policy.check_code(named)
    policy._hashed.cache_clear()
    with pytest.raises(PolicyRefused, match=r"own-package 1\.2 is listed, and not installed here"):
        policy.check_code(named)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("privacy.max_grad_norm=1.1", "clip 1.1 is over this silo's maximum 1"),
        ("privacy.noise=seeded-unsafe", "noise source 'seeded-unsafe' is none of this silo's: os"),
        ("privacy.delta=2e-3", "delta 0.002 is over the budget's 0.001"),
        ("data.source=digits data.records= data.features=", "data set 'digits' has no budget in silo.toml"),
        ("encryption.secure_aggregation=off", "secure aggregation 'off' is asked for, where this silo's law says 'on'"),
        ("encryption.secure_aggregation=simulated", "secure aggregation 'simulated' is asked for"),
        ("federation.min_silos=2", "a sum of 2 silos is under this silo's minimum 3"),
    ],
)
def test_a_scenario_that_asks_for_more_is_refused_by_the_name_of_what_it_asks(
    setting: str, reason: str, law: SiloFile, tiny_file: Path
) -> None:
    scenario = read_scenario(str(tiny_file), [*ON, *setting.split()])
    with pytest.raises(PolicyRefused, match="does not name the hash of the scenario"):
        policy.check_admitted(law, scenario)
    with pytest.raises(PolicyRefused) as refused:
        policy.check_admitted(admitting(law, scenario), scenario)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("unit", "budget"),
    [
        ("person", {"unit": "record"}),
        ("person", {"unit": "person", "max_records": 2}),
        ("record", {"unit": "client", "max_records": 9}),
    ],
)
def test_epsilons_of_different_units_are_never_added(
    unit: str, budget: dict[str, Any], law: SiloFile, tiny_file: Path
) -> None:
    settings = [*ON, f"privacy.unit={unit}", *(["privacy.max_records=3"] if unit != "record" else [])]
    scenario = read_scenario(str(tiny_file), settings)
    ours = admitting(law, scenario, budgets={"synthetic": {"delta": 1e-3, "epsilon": 5.0, **budget}})
    with pytest.raises(PolicyRefused, match="epsilons of different units are never added"):
        policy.check_admitted(ours, scenario)


def test_a_cohort_under_the_minimum_is_refused(hidden: Scenario, law: SiloFile) -> None:
    with pytest.raises(PolicyRefused, match=r"^cohort 2 is under this silo's minimum 3$"):
        policy.check_cohort(law, 2)
    with pytest.raises(PolicyRefused, match="cohort 3 is under this silo's minimum 4"):
        policy.check_admitted(changed(law, smallest_cohort=4), hidden)
    with pytest.raises(PolicyRefused, match="threshold 2 is under this silo's minimum 3"):
        policy.check_admitted(changed(law, smallest_threshold=3), hidden)


def test_code_that_the_law_does_not_name_is_refused(law: SiloFile) -> None:
    assert law.code == (code_hash(),)
    for code in ((), ("0" * 64,)):
        with pytest.raises(PolicyRefused, match=r"which silo\.toml does not name"):
            policy.check_code(changed(law, code=code))


def test_noise_and_mechanism_are_held_to_the_law(law: SiloFile) -> None:
    with pytest.raises(PolicyRefused, match=r"noise multiplier 1\.99 is under this silo's minimum 2"):
        policy.check_event(law, DpSgdEvent(1.99, 1.0, 0.5, 4, 10))
    with pytest.raises(PolicyRefused, match="mechanism 'dp-sgd' is none of this silo's"):
        policy.check_event(changed(law, mechanisms=()), DpSgdEvent(2.0, 1.0, 0.5, 4, 10))


@pytest.mark.parametrize(
    ("hours", "now", "admitted"),
    [
        ({"start": "09:00", "end": "17:00"}, "2026-11-24 09:00", True),
        ({"start": "09:00", "end": "17:00"}, "2026-11-24 08:59", False),
        ({"start": "09:00", "end": "17:00"}, "2026-11-24 17:00", False),
        ({"start": "20:00", "end": "06:00"}, "2026-11-24 23:59", True),
        ({"start": "20:00", "end": "06:00"}, "2026-11-24 05:59", True),
        ({"start": "20:00", "end": "06:00"}, "2026-11-24 06:00", False),
        ({"days": ["mon"], "start": "20:00", "end": "06:00"}, "2026-11-24 05:00", True),  # Monday's night, on Tuesday
        ({"days": ["mon"], "start": "20:00", "end": "06:00"}, "2026-11-24 21:00", False),
        ({"days": ["mon"], "start": "20:00", "end": "06:00"}, "2026-11-23 05:00", False),  # Sunday's night
        ({"days": ["sat", "sun"]}, "2026-11-24 12:00", False),
        ({"days": ["sat", "sun"]}, "2026-11-22 12:00", True),
        ({"days": ["mon"], "start": "08:00", "end": "08:00"}, "2026-11-24 07:00", False),
        ({"days": ["mon"], "start": "08:00", "end": "08:00"}, "2026-11-23 07:00", True),
        ({}, "2026-11-24 00:00", True),
    ],
)
def test_hours_are_kept(hours: dict[str, Any], now: str, admitted: bool, law: SiloFile) -> None:
    ours = changed(law, hours=HoursConfig.model_validate(hours))
    moment = datetime.fromisoformat(now)
    if admitted:
        policy.check_hours(ours, moment)
    else:
        with pytest.raises(PolicyRefused, match="is outside this silo's hours"):
            policy.check_hours(ours, moment)


def test_defaults_are_the_strict_ones() -> None:
    bare = SiloFile.model_validate({"name": "north", "budgets": {}, "encryption": {"bound": 1.0, "colluding": 1}})
    assert (bare.servers, bare.scenarios, bare.code, bare.metrics) == ((), (), (), ())
    assert (bare.mechanisms, bare.noise_sources) == (("dp-sgd",), ("os",))
    assert bare.encryption.secure_aggregation == "on"
    assert min(bare.smallest_cohort, bare.min_silos) >= 3


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("metrics = []", 'metrics = ["loss"]', "no metric leaves a silo"),
        ("least_noise_multiplier", "least_noise_multiplyer", "did you mean 'least_noise_multiplier'"),
        ("partial_runs", "partial_run", "did you mean 'partial_runs'"),
        ('unit = "record"', 'unit = "person"', "max_records, the most records of one unit"),
        ('adjacency = "add-or-remove-one"', 'adjacency = "replace-one"', "'replace-one' is not accounted for"),
        (
            "[budgets.synthetic]",
            "[budgets.Diabetes]",
            "budgets.Diabetes: a name is lower-case letters, digits and hyphens",
        ),
    ],
)
def test_a_law_that_cannot_be_is_refused_in_one_line(
    old: str, new: str, reason: str, law: SiloFile, tmp_path: Path
) -> None:
    path = tmp_path / "silo.toml"
    text = silo_file_to_toml(law)
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_silo_file(path)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def rewritten(folder: Path, change: Callable[[SiloFile], SiloFile]) -> None:
    path = folder / "silo.toml"
    path.write_text(silo_file_to_toml(change(read_silo_file(path))), encoding="utf-8")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"servers": ()}, "is none that silo.toml names"),
        ({"code": ("1" * 64,)}, "the code installed here has hash"),
        ({"least_noise_multiplier": 2.5}, "noise multiplier 2 is under this silo's minimum 2.5"),
        ({"smallest_cohort": 4}, "cohort 3 is under this silo's minimum 4"),
        ({"hours": {"days": ["mon"], "start": "03:00", "end": "03:01"}}, "is outside this silo's hours"),
        ({"budgets": {}}, "has no budget in silo.toml"),
    ],
)
@pytest.mark.parametrize("kind", [wire.JOIN, wire.TRAIN])
def test_a_refusal_is_whole_in_the_silos_log_and_a_code_to_the_server_before_data_is_read(
    kind: str, keys: dict[str, Any], reason: str, tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from clients import client_app

    class Tuesday(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # noqa: ARG003
            return datetime(2026, 11, 24, 12, 0)

    monkeypatch.setattr(client_app, "datetime", Tuesday)
    grid = FaultyGrid(tiny, tmp_path)
    model = wire.train_request(wire.TrainRequest(1, np.zeros(5, dtype=np.float32)))
    if kind == wire.TRAIN:
        (joined,) = grid.send_and_receive([grid.asked(wire.join_request(), wire.JOIN, 2)])
        assert not joined.has_error()
    rewritten(tmp_path / "silos" / "north", lambda law: changed(law, **keys))

    def records(_: Silo) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr(Silo, "records", records)
    before = _entries(tmp_path)
    (reply,) = grid.send_and_receive([grid.asked(model if kind == wire.TRAIN else wire.join_request(), kind, 2)])
    assert wire.refusal_code(reply.error) == "policy-refused"
    assert reason in (tmp_path / "logs" / "north.log").read_text(encoding="utf-8")
    assert reason not in repr(reply)
    assert _entries(tmp_path) == before


def _entries(run_dir: Path) -> int:
    from fedmodel.ledger import read_ledger

    path = run_dir / "ledgers" / "north.sqlite"
    return read_ledger(path).size if path.exists() else 0


def test_a_server_with_another_key_gets_no_answer(tiny: Scenario, tmp_path: Path) -> None:
    provision(tiny, tmp_path)
    grid = FaultyGrid(tiny, tmp_path)
    run, hashed = grid.run.run_id, scenario_hash(tiny)
    for content, code in (
        (wire.sign_request(wire.join_request(), wire.JOIN, run, bytes(32), grid._server), "crypto-failed"),
        (wire.sign_request(wire.join_request(), wire.JOIN, run, hashed, SERVER), "policy-refused"),
        (wire.join_request(), "policy-refused"),
        (wire.sign_request(wire.join_request(), wire.JOIN, run + 1, hashed, grid._server), "crypto-failed"),
        (wire.sign_request(wire.join_request(), wire.TRAIN, run, hashed, grid._server), "crypto-failed"),
    ):
        (reply,) = grid.send_and_receive([grid.create_message(content, wire.JOIN, 2, "1")])
        assert wire.refusal_code(reply.error) == code
    assert not (tmp_path / "ledgers").exists()


def test_a_cohort_that_shrank_below_the_law_gets_no_shares(tiny_file: Path, tmp_path: Path) -> None:
    """What the scenario says is one thing; whose keys a silo is shown is what it will be hidden among."""
    silos = 'federation.silos=["north","south","west","east"]'
    scenario = read_scenario(str(tiny_file), [*ON, silos, "data.partition.min_records=10"])
    grid = FaultyGrid(scenario, tmp_path)
    rewritten(tmp_path / "silos" / "north", lambda law: changed(law, smallest_cohort=4))
    from fedmodel.secagg import Window

    window = Window(grid.run.run_id, 1, 1, 2)
    adverts = []
    for node in (2, 3, 4, 5):
        (reply,) = grid.send_and_receive([grid.asked(wire.join_request(window), wire.JOIN, node)])
        adverts.append(wire.read_join_reply(reply).advert)
    (reply,) = grid.send_and_receive([grid.asked(wire.share_request(adverts[:3]), wire.SHARE, 2)])
    assert wire.refusal_code(reply.error) == "policy-refused"
    assert "cohort 3 is under this silo's minimum 4" in (tmp_path / "logs" / "north.log").read_text(encoding="utf-8")
    (reply,) = grid.send_and_receive([grid.asked(wire.share_request(adverts), wire.SHARE, 2)])
    assert not reply.has_error()


def test_every_part_of_a_reservation_is_held_to_the_law_as_it_is_now(hidden: Scenario, law: SiloFile) -> None:
    event = plans.planned_event(hidden.plan(law.name))
    scope = SimpleNamespace(name="d/record")

    def reserved(*parts: Event) -> Event:
        found = Reservation((event, *parts), scope.name, scenario_hash(hidden).hex())
        ledger = SimpleNamespace(reservation=lambda _: found, check_scope=lambda _: None, standing=lambda: None)
        silo: Any = SimpleNamespace(
            run="1", name=law.name, scenario=hidden, kit=SimpleNamespace(law=law), simulated=False,
            plan=hidden.plan(law.name), _scope=lambda _: scope, _source=lambda _: None,
            _check_nothing_is_forgotten=lambda _: None,
        )  # fmt: skip
        return Silo.reserved(silo, ledger)  # type: ignore[arg-type]

    loose = DpSgdEvent(law.least_noise_multiplier * 0.9, 1.0, 0.5, 4, 10)
    assert reserved() == event
    with pytest.raises(ProtocolError, match="reserved 1 part beside the first, and not the 0 that the scenario asks"):
        reserved(event)
    with pytest.raises(PolicyRefused, match="is under this silo's minimum"):
        reserved(event, loose)
    with pytest.raises(PolicyRefused, match="without noise protects nobody"):
        reserved(UnprotectedEvent(1.0, 0.5, 4, 10))
