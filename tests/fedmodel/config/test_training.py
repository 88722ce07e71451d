"""Kinds of gradients, threads and rows in memory: a scenario that does not say is what it was."""

from pathlib import Path

import pytest

from fedmodel.config import read_scenario, scenario_from_json
from fedmodel.errors import ConfigError
from fedmodel.provision import scenario_hash


def test_a_scenario_that_says_one_thread_has_the_hash_of_one_that_says_nothing(tiny_file: Path) -> None:
    silent = read_scenario(str(tiny_file), [])
    assert scenario_hash(read_scenario(str(tiny_file), ["training.threads=1"])) == scenario_hash(silent)
    assert "threads" not in silent.model_dump_json()
    for said in ("2", "auto"):
        assert scenario_hash(read_scenario(str(tiny_file), [f"training.threads={said}"])) != scenario_hash(silent)


@pytest.mark.parametrize("said", ["0", "-1", "1025", "2.0", "all", "true"])
def test_other_threads_are_refused(said: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.threads"):
        read_scenario(str(tiny_file), [f"training.threads={said}"])


def test_the_hash_tells_bf16_from_float32_and_float32_from_nothing(tiny_file: Path) -> None:
    silent = read_scenario(str(tiny_file), [])
    assert scenario_hash(read_scenario(str(tiny_file), ["training.precision=float32"])) == scenario_hash(silent)
    assert "precision" not in silent.model_dump_json()
    rounded = read_scenario(str(tiny_file), ["training.precision=bf16"])
    assert scenario_hash(rounded) != scenario_hash(silent)
    assert scenario_from_json(rounded.model_dump_json()).training.precision == "bf16"


@pytest.mark.parametrize("said", ["float16", "bfloat16", "BF16", "16", "true"])
def test_other_precisions_are_refused(said: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.precision"):
        read_scenario(str(tiny_file), [f"training.precision={said}"])


@pytest.mark.parametrize("said", ["0", "-1", "1000001", "8.0", "all"])
def test_other_batches_are_refused(said: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.max_physical_batch"):
        read_scenario(str(tiny_file), [f"training.max_physical_batch={said}"])


def test_a_batch_of_as_many_as_fit_is_read_back(tiny_file: Path) -> None:
    scenario = read_scenario(str(tiny_file), ["training.max_physical_batch=auto"])
    assert scenario.training.max_physical_batch == "auto"
    assert '"max_physical_batch":512' in read_scenario(str(tiny_file), []).model_dump_json()


def test_the_hash_tells_kinds_of_gradients_from_the_default_and_the_default_from_nothing(tiny_file: Path) -> None:
    silent = scenario_hash(read_scenario(str(tiny_file)))
    assert scenario_hash(read_scenario(str(tiny_file), ["training.gradients=auto"])) == silent
    said = [read_scenario(str(tiny_file), [f"training.gradients={name}"]) for name in ("per-sample", "hooks")]
    assert [one.training.gradients for one in said] == ["per-sample", "hooks"]
    for one in said:
        assert scenario_hash(one) != silent
        assert scenario_hash(scenario_from_json(one.model_dump_json(exclude_none=True))) == scenario_hash(one)
