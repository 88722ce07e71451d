"""Which tests hang on chance, and tests in another order: a pytest plugin, `-p tests.chance`.

A test is *randomised* if a second run of it may see other values: Hypothesis draws its examples, or it draws while it
runs, or one of its fixtures drew while it was made, from the operating system (`os.urandom`, `secrets`, NumPy's own
generators, age's file keys, elliptic keys of OpenSSL) or from a generator that all tests of a process share
(`random`, `numpy.random`, torch's default). What draws under `tests.drawing.same_bytes` sees the same each time. Nonces
of OpenSSL's signatures and what a child process draws are not seen: such tests lie in `tests/integration`, mostly.

`--randomised FILE` appends the name of each randomised test to a file, a line each, which `pytest @FILE` runs again.
`--shuffle SEED` runs files, and the tests of each file, in an order drawn from a seed; `--shuffle any` draws the seed.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_drawn = [0]  # how often the operating system was asked
_made_by_chance: set[object] = set()  # fixtures that drew while they were made


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say the options."""
    group = parser.getgroup("chance")
    group.addoption("--shuffle", metavar="SEED", help="run in an order drawn from a seed, or from any")
    group.addoption("--randomised", metavar="FILE", help="append the names of tests that hang on chance")


def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed of the order, once for all workers, and count what is drawn."""
    config.option.shuffle = getattr(config, "workerinput", {}).get("shuffle", config.option.shuffle)
    if config.option.shuffle == "any":
        config.option.shuffle = str(secrets.randbelow(2**32))
    if config.option.randomised:
        config.option.randomised = str(Path(config.option.randomised).absolute())  # tests change the folder
        _count_draws()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker the one seed."""
    node.workerinput["shuffle"] = node.config.option.shuffle


def pytest_report_header(config: pytest.Config) -> str | None:
    """Tell how to have the same order again."""
    return f"order: --shuffle {config.option.shuffle}" if config.option.shuffle else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle files, and the tests of each: those of a file stay together, since they share fixtures."""
    if config.option.shuffle:
        items.sort(key=lambda item: (_drawn_from(config.option.shuffle, item.path.name), str(item.path),
                                     _drawn_from(config.option.shuffle, item.nodeid)))  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Note a fixture that draws: each test that it is given to hangs on chance."""
    before = _state()
    made = yield
    if _state() != before:
        _made_by_chance.add(fixturedef)
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note a test that draws, or has a fixture that did."""
    before = _state()
    ran = yield
    path = item.config.option.randomised
    if path and (_state() != before or _by_hypothesis(item) or _made_by_chance & _fixtures(item)):
        with Path(path).open("a", encoding="utf-8") as names:
            names.write(f"{item.nodeid}\n")
    return ran


def _drawn_from(seed: str, name: str) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode()).digest()


def _by_hypothesis(item: pytest.Item) -> bool:
    return bool(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))


def _fixtures(item: pytest.Item) -> set[object]:
    """Return all fixtures that a test is given, itself or through another."""
    info = getattr(item, "_fixtureinfo", None)
    return {one for found in info.name2fixturedefs.values() for one in found} if info else set()


def _state() -> tuple[object, ...]:
    """Return what changes when something is drawn."""
    import torch

    shared = (random.getstate(), np.random.get_state()[1].tobytes(), np.random.get_state()[2])  # noqa: NPY002
    return (_drawn[0], *shared, torch.get_rng_state().numpy().tobytes())


def _count_draws() -> None:
    """Count each call that asks the operating system, from now on."""
    import pyrage
    from cryptography.hazmat.primitives.asymmetric import ec

    def counted(function):  # type: ignore[no-untyped-def]
        def call(*args, **more):  # type: ignore[no-untyped-def]
            _drawn[0] += 1
            return function(*args, **more)

        return call

    # `secrets`, NumPy and uuid ask by these two names; age in Rust asks by itself, and so does OpenSSL.
    os.urandom = random._urandom = counted(os.urandom)  # type: ignore[attr-defined]
    pyrage.encrypt_io = counted(pyrage.encrypt_io)
    pyrage.passphrase.encrypt = counted(pyrage.passphrase.encrypt)
    ec.generate_private_key = counted(ec.generate_private_key)
