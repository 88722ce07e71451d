"""Devices are what was said, there or refused; threads are at most the cores that there are."""

import logging
import os
from collections.abc import Iterator

import pytest
import torch

from fedmodel.errors import ConfigError
from fedmodel.learning import devices


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield
    devices.use_device("cpu")


def cards(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: bool(names))
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(names))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: names[number])


def test_a_device_is_set_up_for_kernels_that_repeat_themselves() -> None:
    """Each of these would let a record's gradient hang on a clock, on a core or on fewer bits."""
    for owner, name, unwanted in (
        (torch.backends.cudnn, "allow_tf32", True),
        (torch.backends.cuda.matmul, "allow_tf32", True),
        (torch.backends.cudnn, "benchmark", True),
        (torch.backends.cudnn, "deterministic", False),
        (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", True),
        (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", True),
        (torch.backends.cuda.matmul, "allow_fp16_accumulation", True),
    ):
        setattr(owner, name, unwanted)  # what comes next puts it right
        devices.use_device("cpu")
        assert getattr(owner, name) is not unwanted
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("way", ["one by one", "all at once", "by their old name"])
def test_float32_is_float32_whatever_code_of_the_users_own_has_set(way: str) -> None:
    """A processor with the instructions may multiply in bf16 as well."""
    if way == "one by one":
        for backend in devices._FLOAT32[1:]:
            backend.fp32_precision = "tf32"
    elif way == "all at once":
        torch.backends.fp32_precision = "tf32"
    else:
        torch.set_float32_matmul_precision("medium")
    devices.use_device("cpu")
    assert [backend.fp32_precision for backend in devices._FLOAT32] == ["ieee"] * len(devices._FLOAT32)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_a_card_takes_deterministic_algorithms_and_what_has_none_is_left_to_be_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cards(monkeypatch, "H1")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    del os.environ["CUBLAS_WORKSPACE_CONFIG"]  # and back to what it was afterwards
    try:
        assert devices.use_device("cuda") == torch.device("cuda:0")
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"  # without which cuBLAS is not
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("said", "names", "found", "told"),
    [
        ("auto", (), "cpu", "device auto: cpu, since there is no CUDA device"),
        ("auto", ("H1", "H2"), "cuda", "device auto: cuda, on H1, H2"),
        ("cuda", ("H1",), "cuda", ""),
        ("cuda:1", ("H1", "H2"), "cuda:1", ""),
        ("cpu", ("H1",), "cpu", ""),
    ],
)
def test_auto_says_what_it_took(
    said: str,
    names: tuple[str, ...],
    found: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cards(monkeypatch, *names)
    with caplog.at_level(logging.INFO, logger="fedmodel.learning.devices"):
        assert devices.resolved(said) == found
    assert caplog.messages == ([told] if told else [])


@pytest.mark.parametrize(
    ("said", "names", "why"),
    [
        ("cuda", (), "device cuda: no CUDA device is available here; use cpu or auto"),
        ("cuda:0", (), "device cuda:0: no CUDA device is available here"),
        ("cuda:2", ("H1", "H2"), "device cuda:2: this machine has CUDA devices cuda:0 to cuda:1"),
    ],
)
def test_a_card_that_is_not_there_is_refused(
    said: str, names: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(monkeypatch, *names)
    for asked in (devices.resolved, devices.use_device):
        with pytest.raises(ConfigError, match=why):
            asked(said)


@pytest.mark.parametrize(
    ("said", "told", "cores", "threads"),
    [
        (1, "8", 4, 1),
        (3, "", 4, 3),
        (64, "", 4, 4),
        ("auto", "", 4, 4),
        ("auto", "2", 4, 2),
        ("auto", "16", 4, 4),
        ("auto", "0", 4, 4),
        ("auto", "2,1", 4, 4),
    ],
)
def test_threads_are_what_was_said_and_at_most_the_cores(
    said: int | str, told: str, cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert devices.threads_of(said) == threads  # type: ignore[arg-type]
    devices.use_device("cpu", said)  # type: ignore[arg-type]
    assert torch.get_num_threads() == threads
