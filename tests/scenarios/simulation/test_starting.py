"""A run that begins from a file: what is read, what is refused before anything is written, whose cost is counted."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from fedmodel import plans
from fedmodel.config import Scenario, StartConfig, read_scenario, scenario_from_json, scenario_to_toml
from fedmodel.crypto.sealed import new_age_key, write_sealed
from fedmodel.errors import ConfigError, LedgerTampered
from fedmodel.learning.fitting import check_fits, fit
from fedmodel.learning.models import build_model
from fedmodel.learning.starts import START, read_start, resolved
from fedmodel.ledger import Standing, verify_ledger
from fedmodel.privacy import accounting
from fedmodel.provision import scenario_hash
from scenarios.report import build, gather
from scenarios.report.gather import read_run
from scenarios.report.illustrated import write_report
from scenarios.runs.claims import claim_in
from scenarios.runs.ledgers import ledger_in_run
from scenarios.simulation import starting
from scenarios.simulation.simulate import check_scenario, placed, run_folder, simulate
from scenarios.simulation.starting import carried, check_carried, refuse_rehearsal
from server import runs
from server.checkpoint import save_model
from server.run_files import RunFiles
from tests.conftest import TINY
from tests.federations import Federation, federation, pristine

__all__ = ["federation", "pristine"]

PUBLIC = 'model.init={{file="{}", trained_on="public"}}'


def model(scenario: Scenario, seed: int = 1) -> nn.Module:
    return build_model(scenario.model, scenario.data.shape, seed)


def tensors(scenario: Scenario, seed: int = 1) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model(scenario, seed).state_dict().items()}


def begun(tiny_file: Path, file: Path, *settings: str) -> Scenario:
    return read_scenario(str(tiny_file), [PUBLIC.format(file), *settings])


@pytest.fixture
def public(tiny: Scenario, tmp_path: Path) -> Path:
    path = tmp_path / "public.safetensors"
    path.write_bytes(safetensors.torch.save(tensors(tiny)))
    return path


# What a scenario says


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.init=warm", "model.init = 'warm' is not known; known: random, zero, constant"),
        ("model.init=zeros", "did you mean 'zero'?"),
        ("model.init=7", "model.init = 7 is not known"),
        ('model.init={file="a.safetensors", trained_on="privat"}', "model.init.trained_on = 'privat' is not known"),
        ('model.init={fil="a.safetensors"}', "model.init.fil is not a known key; did you mean 'file'?"),
        ('model.init={file="a.safetensors", sha256="ab"}', "model.init.sha256 = 'ab' is not accepted"),
        ('model.init={file="a.safetensors", trained_on="public", run="1"}', "is of no run"),
        ('model.init={file="a.safetensors", run="1"}', "run and silos are written together"),
    ],
)
def test_what_cannot_be_meant_is_one_line(setting: str, message: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_scenario(str(tiny_file), [setting])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_path_is_from_the_scenarios_folder_and_from_this_one_where_an_override_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = TINY.replace('kind = "mlp"', 'kind = "mlp"\ninit = { file = "w.safetensors", identity = "key" }')
    (folder / "s.toml").write_text(text)
    for settings, file in ([], folder), (["model.init.file=./w.safetensors"], elsewhere):
        start = read_scenario(str(folder / "s.toml"), settings).start
        assert start is not None
        assert Path(start.file).resolve() == file / "w.safetensors"
        assert start.identity == str(folder / "key")
    assert read_scenario(str(folder / "s.toml"), ["model.init=/at/w.safetensors"]).start == StartConfig(
        file="/at/w.safetensors"
    )


def test_no_document_of_a_scenario_says_where_the_file_lies_and_its_hash_does_not_hang_on_it(
    tiny_file: Path, public: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    shutil.copy(public, other)
    one, two = (resolved(begun(tiny_file, file)) for file in (public, other))
    assert scenario_hash(one) == scenario_hash(two)
    assert "public.safetensors" not in one.model_dump_json() + scenario_to_toml(one)
    assert scenario_hash(scenario_from_json(one.model_dump_json(exclude_none=True))) == scenario_hash(one)
    other.write_bytes(safetensors.torch.save(tensors(one, seed=2)))
    assert scenario_hash(resolved(begun(tiny_file, other))) != scenario_hash(one)


def test_a_scenario_without_a_file_keeps_its_hash(tiny: Scenario) -> None:
    assert json.loads(tiny.model_dump_json())["model"]["init"] == "random"
    assert tiny.start is None
    assert resolved(tiny) == tiny == placed(tiny)


def test_a_file_that_was_not_read_has_no_hash(tiny_file: Path, public: Path) -> None:
    with pytest.raises(ConfigError, match="begins from a file that was not read"):
        scenario_hash(begun(tiny_file, public))


# What is read


def _header(name: str, **more: object) -> bytes:
    head = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **more}}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(4)


class Harmful:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("harm",)


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _: b"", "is no safetensors file"),
    "seven bytes": (lambda data: data[:7], "is no safetensors file"),
    "half a header": (lambda data: data[:30], "is no safetensors file"),
    "a byte short": (lambda data: data[:-1], "is cut short"),
    "a byte more": (lambda data: data + b"\0", "has 1 bytes behind its end"),
    "a header of a terabyte": (lambda data: (2**40).to_bytes(8, "little") + data[8:], "is no safetensors file"),
    "a list for a header": (lambda _: (2).to_bytes(8, "little") + b"[]", "is no safetensors file"),
    "a tensor of no kind": (lambda _: (7).to_bytes(8, "little") + b'{"a":1}', "is no safetensors file"),
    "text": (lambda _: b"weights go here, one in a line\n" * 9, "is no safetensors file"),
    "a pickle": (lambda _: pickle.dumps(Harmful()), "is a pickle, which runs code"),
    "a zip, as torch saves": (lambda _: b"PK\x03\x04" + bytes(100), "is a pickle, which runs code"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_whole_safetensors_file_is_refused_and_never_run(
    kind: str, tiny_file: Path, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, message = BAD[kind]
    public.write_bytes(change(public.read_bytes()))
    with pytest.raises(ConfigError, match=message):
        placed(begun(tiny_file, public))
    assert not Path("harm").exists()


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m.ckpt", "m.PKL"])
def test_the_way_to_convert_is_said_by_the_name_too(name: str, tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(50))
    with pytest.raises(ConfigError, match=r"safetensors.torch.save_file\(torch.load\(FILE, weights_only=True\)"):
        placed(begun(tiny_file, tmp_path / name))


@pytest.mark.parametrize("length", [0x0180, 0x0280, 0x0480])
def test_a_header_whose_length_looks_like_a_pickle_is_one_all_the_same(
    length: int, tiny: Scenario, tmp_path: Path
) -> None:
    plain = safetensors.torch.save(tensors(tiny))
    size = int.from_bytes(plain[:8], "little")
    data = length.to_bytes(8, "little") + plain[8 : 8 + size].ljust(length) + plain[8 + size :]
    path = tmp_path / "padded.safetensors"
    path.write_bytes(data)
    assert read_start(StartConfig(file=str(path))) == data


def test_a_folder_a_pipe_and_what_is_not_there_are_one_line(tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, message in ("folder", "cannot be read"), ("pipe", "no plain file"), ("gone", "No such file"):
        with pytest.raises(ConfigError, match=message):
            placed(begun(tiny_file, tmp_path / name))


def test_a_file_that_is_too_large_is_not_read(tiny_file: Path, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmodel.learning.starts.MOST_BYTES", public.stat().st_size - 1)
    with pytest.raises(ConfigError, match="where a model has at most"):
        placed(begun(tiny_file, public))


def test_a_sealed_file_is_opened_by_its_identity_alone(tiny_file: Path, public: Path, tmp_path: Path) -> None:
    secret, recipient = new_age_key()
    sealed, key = tmp_path / "w.age", tmp_path / "key"
    write_sealed(sealed, public.read_bytes(), [recipient])
    key.touch(0o600)
    key.write_text(secret)
    opened = placed(begun(tiny_file, sealed, f"model.init.identity={key}"))
    assert opened.start is not None
    assert opened.start.sha256 == sha256(public.read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match=r"is sealed; name the age key file that opens it: model\.init\.identity"):
        placed(begun(tiny_file, sealed))
    key.write_text(new_age_key()[0])
    with pytest.raises(ConfigError, match="sealed to another key"):
        placed(begun(tiny_file, sealed, f"model.init.identity={key}"))


def test_another_file_than_was_settled_on_is_never_begun_from(tiny_file: Path, public: Path, tmp_path: Path) -> None:
    settled = placed(begun(tiny_file, public))
    public.write_bytes(safetensors.torch.save(tensors(settled, seed=2)))
    with pytest.raises(ConfigError, match=r"has SHA-256 .*, and the scenario begins from"):
        check_scenario(settled)
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(public, folder / START)
    with pytest.raises(ConfigError, match="is not the file that the scenario begins from"):
        RunFiles(folder, folder / "server", sealed=False).begin(model(settled), settled)


# What fits


def _with(name: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda found: found.update({name: value})


MISFITS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "one is missing": (lambda found: found.pop("1.bias"), "lacks 1.bias"),
    "one too many": (_with("9.weight", torch.zeros(2)), "has what the model has not: 9.weight"),
    "all are called otherwise": (
        lambda found: [found.update({f"net.{name}": found.pop(name)}) for name in list(found)],
        "lacks 1.bias, 1.weight; has what the model has not: net.1.bias, net.1.weight",
    ),
    "too wide": (_with("1.weight", torch.zeros(1, 5)), "of another shape: 1.weight is 1x5 and 1x4 is needed"),
    "the same size the other way round": (_with("1.weight", torch.zeros(4, 1)), "1.weight is 4x1"),
    "whole numbers": (_with("1.bias", torch.zeros(1, dtype=torch.int64)), "1.bias is I64"),
    "no number": (_with("1.bias", torch.tensor([float("nan")])), "holds NaN, infinity.*in 1.bias"),
    "infinite": (_with("1.bias", torch.tensor([float("-inf")])), "holds NaN, infinity.*in 1.bias"),
    "too large for float32": (_with("1.bias", torch.tensor([1e39], dtype=torch.float64)), "in 1.bias"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_what_does_not_fit_is_named_before_anything_is_written(kind: str, tiny_file: Path, public: Path) -> None:
    settled = placed(begun(tiny_file, public))
    found = tensors(settled)
    change, message = MISFITS[kind]
    change(found)
    public.write_bytes(safetensors.torch.save(found))
    with pytest.raises(ConfigError, match=message):
        check_scenario(placed(begun(tiny_file, public)))


def test_many_misfits_are_counted(tiny: Scenario) -> None:
    data = safetensors.torch.save({f"{number}.w": torch.zeros(1) for number in range(9)})
    with pytest.raises(ConfigError, match=r"0\.w, 1\.w, 2\.w, 3\.w, 4\.w, 5\.w and 3 more"):
        check_fits(tiny.model, tiny.data.shape, data, "x")


def test_tensors_that_lie_over_one_another_are_refused(tiny: Scenario) -> None:
    head = {"1.weight": {"dtype": "F32", "shape": [1, 4], "data_offsets": [0, 16]},
            "1.bias": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}}  # fmt: skip
    text = json.dumps(head).encode()
    with pytest.raises(ConfigError, match="is no safetensors file that can be read"):
        check_fits(tiny.model, tiny.data.shape, len(text).to_bytes(8, "little") + text + bytes(16), "x")


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_float_is_taken_and_float32_bit_for_bit(kind: torch.dtype, tiny: Scenario) -> None:
    given = {name: value.to(kind) for name, value in tensors(tiny).items()}
    module = model(tiny, seed=9)
    fit(module, safetensors.torch.save(given), "x")
    for name, value in module.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, given[name].to(torch.float32))


def test_a_model_is_as_it_was_when_a_file_does_not_fit(tiny: Scenario) -> None:
    module, found = model(tiny, seed=9), tensors(tiny)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found["1.bias"] = torch.tensor([float("inf")])
    with pytest.raises(ConfigError):
        fit(module, safetensors.torch.save(found), "x")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# Whose word it is


def test_a_file_of_a_run_is_never_called_public_and_one_of_nobody_is_not_guessed_about(
    tiny_file: Path, tiny: Scenario, public: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="nobody said what it was trained on"):
        placed(read_scenario(str(tiny_file), [f"model.init={public}"]))
    with pytest.raises(ConfigError, match="nothing shows that it is of a run"):
        placed(read_scenario(str(tiny_file), [f'model.init={{file="{public}", trained_on="run"}}']))
    of_run = tmp_path / "mine.safetensors"
    save_model(model(tiny), of_run, {"scenario": "tiny", "round": "2", "noise": "os"})
    with pytest.raises(ConfigError, match=r"is the model of a run \(scenario 'tiny', round 2\)"):
        placed(begun(tiny_file, of_run))
    with pytest.raises(ConfigError, match="that run's ledgers do not lie beside it"):
        placed(read_scenario(str(tiny_file), [f"model.init={of_run}"]))


@pytest.mark.parametrize("noise", ["seeded-unsafe", "none-unsafe", "anything else"])
def test_nothing_that_protects_begins_from_a_run_that_protected_nobody(
    noise: str, tiny_file: Path, tiny: Scenario, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    save_model(model(tiny), path, {"scenario": "tiny", "round": "2", "noise": noise})
    with pytest.raises(ConfigError, match="is the model of a run that protects nobody"):
        placed(read_scenario(str(tiny_file), [f"model.init={path}"]))


def test_nothing_begins_from_a_run_without_noise_whatever_it_promises_itself(
    tiny_file: Path, tiny: Scenario, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    save_model(model(tiny), path, {"scenario": "tiny", "round": "2", "noise": "none-unsafe"})
    for itself in ("privacy.noise=seeded-unsafe", "privacy.baseline=no-noise"):
        begins = read_scenario(str(tiny_file), [f"model.init={path}", itself])
        with pytest.raises(ConfigError, match="is the model of a run that protects nobody"):
            placed(begins)
        with pytest.raises(ConfigError, match="is the model of a run that protects nobody"):
            check_scenario(resolved(begins), deployed=True)


def test_a_baseline_goes_on_from_no_run(tiny_file: Path, tiny: Scenario, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_model(model(tiny), path, {"scenario": "tiny", "round": "2", "noise": "os"})
    with pytest.raises(ConfigError, match=r"privacy\.baseline.* would undo what was promised"):
        placed(read_scenario(str(tiny_file), [f"model.init={path}", "privacy.baseline=no-noise"]))


def test_what_nothing_settled_does_not_run(tiny_file: Path, tiny: Scenario, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_model(model(tiny), path, {"scenario": "tiny", "round": "2", "noise": "os", "scenario_hash": "a" * 64})
    found = resolved(read_scenario(str(tiny_file), [f"model.init={path}"]))
    assert found.start is not None
    assert (found.start.trained_on, found.start.scenario) == ("run", "a" * 64)
    with pytest.raises(ConfigError, match="nothing settled whose ledgers go on"):
        check_scenario(found)
    check_scenario(found, deployed=True)
    settled = found.begun(found.start.model_copy(update={"run": "7", "silos": ("north",)}))
    with pytest.raises(ConfigError, match="leave run and silos out"):
        check_scenario(settled, deployed=True)
    save_model(model(tiny), path, {"noise": "seeded-unsafe"})
    with pytest.raises(ConfigError, match="protects nobody"):
        check_scenario(resolved(read_scenario(str(tiny_file), [f"model.init={path}"])), deployed=True)


# Whole runs


def ran(scenario: Scenario, folder: Path) -> dict[str, Any]:
    with run_folder(scenario, folder) as run_dir:
        return simulate(scenario, check_scenario(scenario), "in-process", "cpu", run_dir, nullcontext())


def scenario_in(folder: Path, *settings: str) -> Scenario:
    return read_scenario(str(folder / "tiny.toml"), settings)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and one from its model with a silo less and a silo more, with its report."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "tiny.toml").write_text(TINY)
    ran(scenario_in(folder, "budgets.south=6.0", "model.init=constant", "model.init_value=5.0"), folder / "first")
    changes = ['federation.silos=["north", "south", "east"]', "rounds=1", f"model.init={folder}/first"]
    changes += ["training.learning_rate=1e-3"]  # so that it ends near where it began
    ran(placed(scenario_in(folder, *changes)), folder / "second")
    write_report(folder / "second")
    return folder


def standings(run_dir: Path) -> dict[str, Standing]:
    paths = (run_dir / "ledgers").glob("*.sqlite")
    return {path.stem: verify_ledger(path, unused=False).standing for path in paths}


def test_both_runs_stand_in_the_ledgers_and_the_claim_is_of_both(two: Path) -> None:
    first, second = (json.loads((two / name / "summary.json").read_text()) for name in ("first", "second"))
    rows = {row["silo"]: row for row in second["privacy"]}
    found, scenario = standings(two / "second"), read_scenario(str(two / "second" / "scenario.toml"))
    assert set(found) == {"north", "south", "east"}
    assert scenario.start is not None
    assert scenario.start.silos == ("north", "south")
    for silo in ("north", "south"):
        runs_of = list(found[silo].runs.values())
        plans = [run.plan for run in runs_of]
        assert [run.scenario for run in runs_of] == [scenario.start.scenario, scenario_hash(scenario).hex()]
        assert all(run.charges for run in runs_of)
        before = next(row["epsilon"] for row in first["privacy"] if row["silo"] == silo)
        assert rows[silo]["epsilon"] >= accounting.epsilon(plans, 1e-3) > before
        assert rows[silo]["epsilon"] == found[silo].bound("synthetic/record") == rows[silo]["budget"]
        assert rows[silo]["odometer"] is rows[silo]["mu"] is rows[silo]["advantage"] is None
    assert rows["south"]["epsilon"] == 6.0 > rows["north"]["epsilon"]
    assert len(found["east"].runs) == 1
    assert rows["east"]["epsilon"] == pytest.approx(
        accounting.epsilon([*found["east"].claimed("synthetic/record")], 1e-3)
    )
    assert second["start"]["sha256"] == sha256((two / "first/model.safetensors").read_bytes()).hexdigest()


def test_the_run_begins_where_the_other_ended(two: Path) -> None:
    began = safetensors.torch.load((two / "second" / START).read_bytes())
    ended = safetensors.torch.load((two / "first/model.safetensors").read_bytes())
    assert all(torch.equal(began[name], ended[name]) for name in ended)
    after = safetensors.torch.load((two / "second/model.safetensors").read_bytes())
    assert all(torch.allclose(after[name], ended[name], atol=0.05) for name in ended)
    assert (ended["1.weight"] > 1).all()  # no random start is there
    scenario = read_scenario(str(two / "second" / "scenario.toml"))
    module = model(scenario, seed=3)
    RunFiles(two / "second", two / "second/server", sealed=False).begin(module, scenario)
    assert all(torch.equal(value, ended[name]) for name, value in module.state_dict().items())


def test_the_report_holds_claims_both_runs_and_says_whose_word_it_is(two: Path) -> None:
    gathered = read_run(two / "second")
    checked = build.verify(two / "second", None, None)
    report = checked.report
    start = gathered.scenario.start
    assert start is not None
    bounds = [silo.epsilon_all_runs for silo in report.claim.silos]
    assert report.claim.epsilon == max(bound for bound in bounds if bound is not None)
    assert "together with what the silos' budgets hold of the run that it began from" in report.claim.sentence
    assert report.scope.prior_runs == 2
    told = " ".join(report.limits.statements)
    assert f"SHA-256 {start.sha256}" in told
    assert f"the run of scenario {start.scenario}, run {start.run}" in told
    assert "The ledgers of north and south hold that run" in told
    assert "north and south countersigned it" in told
    assert START in {file.name for file in report.integrity.files}
    assert all(not row.curve for row in report.accounting.silos if row.silo != "east")


def _earlier(scenario: Scenario) -> str:
    assert scenario.start is not None
    return str(scenario.start.run)


FORGETTING: dict[str, tuple[Callable[[Scenario, dict[str, Standing]], Any], str]] = {
    "the ledger is new": (lambda scenario, found: found.update(north=Standing()), "north: its ledger does not hold"),
    "the ledger is gone": (lambda scenario, found: found.pop("south"), "south: its ledger does not hold"),
    "nothing of it is charged": (
        lambda scenario, found: found["north"].runs[_earlier(scenario)].charges.clear(), "north: its ledger does not"
    ),
    "it is of another scenario": (
        lambda scenario, found: setattr(found["north"].runs[_earlier(scenario)], "scenario", "0" * 64), "does not hold"
    ),
    "it was countersigned for another model": (
        lambda scenario, found: setattr(found["north"].runs[_earlier(scenario)], "model", "0" * 64), "something else"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGETTING)
def test_a_ledger_that_forgets_the_earlier_run_is_refused(kind: str, two: Path) -> None:
    scenario, found = read_scenario(str(two / "second" / "scenario.toml")), standings(two / "second")
    check_carried(scenario, found)
    change, message = FORGETTING[kind]
    change(scenario, found)
    with pytest.raises(LedgerTampered, match=message):
        check_carried(scenario, found)


def test_a_folder_with_another_start_or_without_the_earlier_ledger_is_no_runs(two: Path, tmp_path: Path) -> None:
    shutil.copytree(two / "second", tmp_path / "run")
    path = tmp_path / "run" / START
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(LedgerTampered, match="is not what the run began from"):
        read_run(tmp_path / "run")
    scenario = gather._read_scenario(tmp_path / "run" / "scenario.toml")
    assert scenario.start is not None
    nameless = scenario.begun(scenario.start.model_copy(update={"silos": (), "run": None}))
    with pytest.raises(LedgerTampered, match="names no ledger that goes on"):
        gather._check_start(nameless, tmp_path / "run", simulated=True)


def test_the_claim_is_of_the_budget_whether_or_not_the_silo_took_part(two: Path) -> None:
    standing = standings(two / "second")["north"]
    own = list(standing.runs.values())[1]
    both = claim_in(standing, own.scope, own, 1e-3, goes_on=True)
    alone = claim_in(standing, own.scope, own, 1e-3, goes_on=False)
    absent = claim_in(standing, own.scope, None, 1e-3, goes_on=True)
    assert both["epsilon"] == absent["epsilon"] == standing.bound(own.scope) > alone["epsilon"]
    assert claim_in(standing, None, None, 1e-3, goes_on=True)["epsilon"] == 0.0


def test_what_was_resolved_begins_again_from_its_own_folder(two: Path) -> None:
    again = placed(read_scenario(str(two / "second" / "scenario.toml")))
    assert scenario_hash(again) == scenario_hash(read_scenario(str(two / "second" / "scenario.toml")))
    assert len(carried(again)["north"].ledger.standing.runs) == 2
    check_scenario(again)


REFUSED: dict[str, tuple[list[str], str]] = {
    "another delta": (["privacy.delta=1e-4"], "figures of two kinds are never added"),
    "another unit": (
        ["privacy.unit=client", "privacy.max_records=3"], "unit client of at most 3 records"
    ),
    "no silo of the other": (['federation.silos=["a", "b", "c"]'], "no silo of this scenario was charged"),
    "a budget that is lowered": (["budgets.south=5"], "a budget that goes on is not lowered"),
    "a run that follows from nothing": (['model.init.run="7"', 'model.init.silos=["north"]'], "is not what follows"),
    "noise that cannot be paid": (
        ["privacy.noise_multiplier=0.2", "rounds=3000"], "would spend over epsilon 1000"
    ),
    "another model": (["model.hidden=[3]"], "does not fit the scenario's model"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_counted_together_is_refused_before_anything_is_written(kind: str, two: Path) -> None:
    settings, message = REFUSED[kind]
    start = [f'model.init={{file="{two}/first"}}']
    with pytest.raises(ConfigError, match=message):
        check_scenario(placed(scenario_in(two, *start, *settings)))


def test_a_rehearsal_would_forget_and_is_refused(two: Path, tiny_file: Path, public: Path) -> None:
    with pytest.raises(ConfigError, match="what it spent would be forgotten"):
        refuse_rehearsal(resolved(scenario_in(two, f"model.init={two}/first")))
    refuse_rehearsal(resolved(begun(tiny_file, public)))


def test_a_cap_that_was_said_goes_on_and_the_least_that_pays_is_found(two: Path) -> None:
    again = placed(scenario_in(two, f"model.init={two}/first"))
    assert again.budgets == {"south": 6.0}
    assert carried(again)["south"].scope.epsilon == 6.0
    raised = placed(scenario_in(two, f"model.init={two}/first", "budgets.south=9", "budgets.north=8"))
    assert [carried(raised)[silo].scope.epsilon for silo in ("south", "north")] == [9.0, 8.0]
    one = carried(again)["north"]
    need = one.ledger.standing.held(one.scope.name) + one.scope.cost(plans.planned_event(again.plan("north")))
    assert replace(one.scope, epsilon=one.scope.epsilon - 2e-4).cap < need <= one.scope.cap


def test_a_changed_model_or_a_missing_key_of_the_earlier_run_is_refused(two: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(two / "first", first)
    (first / "silos/north/identity.key").unlink()
    with pytest.raises(ConfigError, match="the key of silo 'north', which signs its ledger, is not here"):
        check_scenario(placed(scenario_in(two, f"model.init={first}")))
    data = bytearray((first / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (first / "model.safetensors").write_bytes(data)
    with pytest.raises(ConfigError, match="no ledger beside it countersigned it"):
        placed(scenario_in(two, f"model.init={first}"))
    ledger = ledger_in_run(first, "north")
    spoiled = bytearray(ledger.read_bytes())
    spoiled[-100] ^= 1
    ledger.write_bytes(spoiled)
    with pytest.raises(LedgerTampered):
        placed(scenario_in(two, f"model.init={first}"))


def test_a_ledger_says_that_noise_was_seeded_where_the_file_does_not(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed(scenario_in(two, f"model.init={two}/first"))
    found = starting._of_the_file

    def seeded(start: StartConfig, folder: Path) -> Any:
        earlier, name, held = found(start, folder)
        run = held["north"].standing.runs[name]
        run.parts = (*run.parts, replace(run.plan, noise_source="seeded-unsafe"))
        return earlier, name, held

    monkeypatch.setattr(starting, "_of_the_file", seeded)
    with pytest.raises(ConfigError, match="protects nobody"):
        placed(scenario_in(two, f"model.init={two}/first"))


def test_metadata_that_was_taken_away_does_not_make_the_model_of_a_runs_folder_public(
    two: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    shutil.copytree(two / "first", first)
    path = first / "model.safetensors"
    path.write_bytes(safetensors.torch.save(safetensors.torch.load(path.read_bytes())))
    with pytest.raises(ConfigError, match="is the model of a run"):
        resolved(begun(two / "tiny.toml", path))


# A deployed server


def test_a_deployed_server_takes_the_file_in_sealed_and_reads_no_path(
    federation: Federation, tiny_file: Path, public: Path
) -> None:
    scenario, home = resolved(begun(tiny_file, public)), federation.kit("server")
    assert scenario.start is not None
    submitted = runs.submit(home, scenario, read_start(scenario.start))
    assert not list(submitted.folder.glob("*.safetensors"))
    plain = public.read_bytes()
    assert plain not in (submitted.folder / f"{START}.age").read_bytes()
    public.unlink()
    federation.unlock("server")
    module, kept = model(scenario, seed=4), read_scenario(str(submitted.folder / runs.SCENARIO))
    assert scenario_hash(kept) == scenario_hash(scenario)
    RunFiles(submitted.folder, home, sealed=True).begin(module, kept)
    wanted = safetensors.torch.load(plain)
    assert all(np.array_equal(value, wanted[name]) for name, value in module.state_dict().items())
    (submitted.folder / f"{START}.age").unlink()
    with pytest.raises(ConfigError, match="the run begins from it, and it cannot be read"):
        RunFiles(submitted.folder, home, sealed=True).begin(module, kept)


def test_a_file_with_two_values_of_one_tensor_is_refused() -> None:
    layer = torch.nn.Linear(2, 2)
    module = torch.nn.Sequential(layer, layer)
    found = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, safetensors.torch.save(found), "x")
    found["1.bias"] += 1
    with pytest.raises(ConfigError, match=r"^x: 1.bias and 0.bias differ, and in the scenario's model they are one"):
        fit(module, safetensors.torch.save(found), "x")
    assert torch.equal(layer.bias, found["0.bias"])


class Counted(nn.Module):
    """Has a table of whole numbers, and of which places count."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 1)
        self.register_buffer("order", torch.tensor([3, 1, 2, 0]))
        self.register_buffer("counts", torch.tensor([True, False, True, True]))


def test_a_buffer_of_whole_numbers_or_truths_is_read_back_as_it_was() -> None:
    written = Counted()
    written.order += 2**53 + 1  # which no float holds
    data = safetensors.torch.save(written.state_dict())
    module = Counted()
    fit(module, data, "x")
    for name, value in written.state_dict().items():
        assert module.state_dict()[name].dtype == value.dtype
        assert torch.equal(module.state_dict()[name], value)


@pytest.mark.parametrize("other", [torch.float32, torch.int32, torch.bool])
def test_a_buffer_of_another_type_is_refused_and_nothing_is_read(other: torch.dtype) -> None:
    given = Counted().state_dict()
    given["order"] = given["order"].to(other)
    module = Counted()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ConfigError, match=r"of another type: order is [A-Z0-9]+ and int64 is needed"):
        fit(module, safetensors.torch.save(given), "x")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    given = Counted().state_dict()
    given["out.weight"] = given["out.weight"].to(torch.int64)
    with pytest.raises(ConfigError, match=r"no float of 16, 32 or 64 bits: out\.weight is I64"):
        fit(module, safetensors.torch.save(given), "x")
