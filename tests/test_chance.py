"""What hangs on chance is named and nothing else is, and an order that a seed gave is had again, over workers too."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import chance

ROOT = Path(__file__).parents[1]
DRAWS = """
import os, random, secrets, uuid
import numpy as np, pyrage, pytest, torch
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, strategies as st
from fedmodel.crypto import SigningKey
from fedmodel.privacy.noise import OsNoise
from tests.drawing import same_bytes

@pytest.fixture(autouse=True)
def _told(request):
    with open(f"{request.path}.order", "a") as told:
        told.write(request.node.name + "\\n")

@pytest.fixture(scope="module")
def key():
    return os.urandom(16)

@pytest.fixture
def of_the_key(key):
    return key[0]

@pytest.fixture
def fixed():
    return np.random.default_rng(1).random()

def test_drawn_urandom(): os.urandom(1)
def test_drawn_secrets(): secrets.randbelow(5)
def test_drawn_uuid(): uuid.uuid4()
def test_drawn_numpy(): np.random.default_rng()
def test_drawn_shared_numpy(): np.random.rand()
def test_drawn_shared(): random.random()
def test_drawn_torch(): torch.rand(1)
def test_drawn_key(): SigningKey.generate()
def test_drawn_openssl(): ec.generate_private_key(ec.SECP256R1())
def test_drawn_noise(): OsNoise().gaussian(1, 1.0, torch.device("cpu"))
def test_drawn_age(): pyrage.passphrase.encrypt(b"", "x")
def test_drawn_fixture(key): ...
def test_drawn_fixture_again(key): ...
def test_drawn_fixture_of_a_fixture(of_the_key): ...

@given(st.integers())
def test_drawn_hypothesis(number): ...

def test_fixed_nothing(): ...
def test_fixed_fixture(fixed): ...
def test_fixed_seeds():
    random.Random(1).random(), np.random.default_rng(1).random(), torch.rand(1, generator=torch.Generator())

def test_fixed_same_bytes():
    with same_bytes():
        SigningKey.generate()
"""
OTHER = (
    "".join(f"def test_{number}(told): ...\n" for number in range(9))
    + """
import pytest

@pytest.fixture
def told(request):
    with open(f"{request.path}.order", "a") as told:
        told.write(request.node.name + "\\n")
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chance")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_draws.py").write_text(DRAWS)
    (folder / "test_other.py").write_text(OTHER)
    return folder


def run(folder: Path, *words: str) -> tuple[str, dict[str, list[str]]]:
    """Run the tests of the folder with the plugin; return what was printed, and in which order each file was run."""
    command = [sys.executable, "-m", "pytest", str(folder), "-c", str(folder / "pytest.ini"), "-p", "tests.chance"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    orders = {}
    for told in folder.glob("*.order"):
        orders[told.stem] = told.read_text().splitlines()
        told.unlink()
    return done.stdout, orders


WORKERS = ("--numprocesses", "2", "--dist", "loadfile")


def test_what_draws_is_named_and_an_order_of_any_seed_is_had_again_over_workers(folder: Path) -> None:
    printed, first = run(folder, "--shuffle", "any", "--randomised", str(folder / "names"), *WORKERS)
    names = [line.partition("::")[2] for line in (folder / "names").read_text().splitlines()]
    assert sorted(names) == sorted(name for name in first["test_draws.py"] if name.startswith("test_drawn_"))
    assert len(names) == len(set(names)) == 15
    assert len(first["test_draws.py"]) == 15 + 4
    seed = re.search(r"order: --shuffle (\d+)$", printed, flags=re.MULTILINE)
    assert seed is not None, printed
    _, again = run(folder, "--shuffle", seed[1])
    assert again == first


def ordered(seed: str) -> list[str]:
    """Return the names of some tests in a seed's order."""
    items: Any = [
        SimpleNamespace(path=Path(file), nodeid=f"{file}::{number}") for file in ("a", "b", "c") for number in range(9)
    ]
    config: Any = SimpleNamespace(option=SimpleNamespace(shuffle=seed))
    chance.pytest_collection_modifyitems(config, items)
    return [item.nodeid for item in items]


def test_another_seed_is_another_order_and_a_file_stays_together() -> None:
    orders = [ordered(str(seed)) for seed in range(20)]
    assert len(set(map(tuple, orders))) == 20
    assert len({tuple(name[0] for name in order) for order in orders}) == 6  # every order of three files
    assert all(len(list(itertools.groupby(order, key=lambda name: name[0]))) == 3 for order in orders)
    assert {tuple(sorted(order)) for order in orders} == {tuple(ordered(""))}
