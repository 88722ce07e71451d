"""What tests share: a scenario small enough to run in a second, and where a GPU is found."""

from __future__ import annotations

import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] = "1"
os.environ.pop("COLUMNS", None)

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

import scenarios.cli.printing  # noqa: F401 - made under COLUMNS, a console keeps that width in every later test
from fedmodel.config import Scenario, read_scenario
from tests import drawing, tools

# These machines are noisy, so no test is timed; where nobody is there to look at a new finding, the examples repeat.
settings.register_profile("fedmodel", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("fedmodel")


def has_room(folder: str, size_bytes: int) -> bool:
    """Return whether a folder in memory can hold what tests write, and runs the programs that some of them write."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    free_bytes = min(disk.f_bavail * disk.f_frsize, psutil.virtual_memory().available)
    return free_bytes >= size_bytes and not disk.f_flag & os.ST_NOEXEC and os.access(folder, os.W_OK)


# Ledgers, journals and kits flush to disk at every step, which takes a disk half of a test's time and memory none.
# What is tested is the same: no test pulls the plug of a machine.
MEMORY = "/dev/shm"  # noqa: S108
if has_room(MEMORY, size_bytes=4 << 30):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)

ROOT = Path(__file__).parents[1]
# Fixtures that start a program; a test that uses one is marked `processes`, as all of tests/integration is.
STARTERS = {"browser", "injecting", "postgresql"}
_APART = 6  # files between two that start processes

TINY = """
name = "tiny"
summary = "three silos, two rounds, a linear model"
rounds = 2
seed = 5

[federation]
silos = ["north", "south", "west"]
min_silos = 2

[model]
kind = "mlp"

[training]
loss = "cross-entropy"
optimizer = "sgd"
learning_rate = 0.5
local_steps = 2

[privacy]
unit = "record"
max_grad_norm = 1.0
delta = 1e-3
noise_multiplier = 2.0
sample_rate = 0.5
expected_batch_size = 10

[data]
source = "synthetic"
records = 120
features = 4
held_out = 0.25
reference_range = [-2.0, 2.0]

[data.partition]
min_records = 20
"""


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture
def tiny(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file))


@pytest.fixture
def same_bytes() -> Iterator[None]:
    """Draw what the operating system would from a seed, for a test of what is true of nearly all draws."""
    with drawing.same_bytes():
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Take a worker more than cores where tests of processes are among them: these wait for most of their time."""
    is_whole = config.args_source is config.ArgsSource.TESTPATHS and "not processes" not in config.option.markexpr
    return cores() + 1 if is_whole else None


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep why a test was skipped."""
    if report.skipped and isinstance(report.longrepr, tuple):
        _skipped.append(report.longrepr[2])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say last of all what went untested."""
    told = tools.untested(_skipped)
    if told and not hasattr(config, "workerinput"):  # a worker's reports reach the process that prints
        print(told)  # noqa: T201


def starts_processes(item: pytest.Item) -> bool:
    """Return whether a test is of the tier that starts servers, silos, a database or a browser."""
    within = item.path.is_relative_to(ROOT / "tests" / "integration")
    return within or bool(STARTERS & {*getattr(item, "fixturenames", ())})


def _order(items: list[pytest.Item]) -> Iterator[Path]:
    """Yield files by how many tests they have, and every few of them one that starts processes.

    Such a file waits for most of its time. Where all workers had one at once the cores would be idle, and where they
    came last the workers would wait for each other.
    """
    tests = Counter(item.path for item in items)
    waiting = {item.path for item in items if starts_processes(item)}
    files = sorted(tests, key=lambda path: -tests[path])
    busy, waits = [path for path in files if path not in waiting], [path for path in files if path in waiting]
    for number, path in enumerate(busy):
        if number % _APART == 0 and waits:
            yield waits.pop(0)
        yield path
    yield from waits


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tier of processes and put files in order; skip what needs a GPU where there is none, and say so."""
    for item in items:
        if starts_processes(item):
            item.add_marker("processes")
    place = {path: number for number, path in enumerate(_order(items))}
    items.sort(key=lambda item: place[item.path])  # those of a file stay in their order
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=tools.absent("a CUDA device")))
