"""A deployed server's check of a strategy of the user's own: the very files that its `server.toml` approved of.

    [strategy_packages.my-strategies]
    version = "0.3"
    sha256 = "..."       # of the package's files, as `fedmodel provision` wrote it

Guarantee: where `check_listed_strategy` returns, the name is of a function or a class that a package listed there
itself defines, in the version listed; the package's files had the hash listed, before it was imported here and after;
and every module of it that is loaded came from one of them, and not from a compiled copy beside it. It is called before
a run is handed in, and again in the server's own process before a silo is asked anything. So a byte that differs
refuses the run while nothing was charged.

A strategy is the server's alone, so its packages are listed apart from those of `[packages]`, whose files are in the
hash that silos approve of: no silo installs it, and no law has to list it.

Does NOT confine that code, nor look at what it imports of other packages, or later, as its functions run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from fedmodel.config import Scenario
from fedmodel.config.own_packages import StrategyPackage
from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from fedmodel.kinds.own_imports import check_its_own, import_outer
from fedmodel.system.distributions import Installed, owner
from fedmodel.system.packages import package_hash
from server.strategies._own import KEY

_imported: Final[dict[str, str]] = {}
"""By package, the hash of the files that this process imported it from: Python keeps what it loaded."""


def check_listed_strategy(scenario: Scenario, packages: Mapping[str, StrategyPackage]) -> None:
    """Refuse a strategy of the user's own that is not the code that the server's file approved of, and import it.

    Args:
        scenario: Names it; one on board is not looked at.
        packages: Of `server.toml`, by name.

    Raises:
        ConfigError: In one line, with what was found, and what to do.
    """
    use = scenario.federation.strategy
    module, colon, _ = use.partition(":")
    if not colon:
        return
    package = owner(module, {name: listed.version for name, listed in packages.items()})
    if package is None:
        raise ConfigError(
            f"{KEY} = {use!r} is code of no package that server.toml lists under [strategy_packages]"
            f" ({', '.join(packages) or 'none is'}): a deployed server imports a strategy of those alone; install a"
            " package of it, and have provision list it"
        )
    listed = packages[package.name].sha256
    _check_files(package, listed, use)
    if _imported.setdefault(package.name, listed) != listed:
        raise ConfigError(
            f"{KEY} = {use!r}: this process has imported package {package.name} with hash"
            f" {_imported[package.name][:16]}... before; start the server again"
        )
    with _no_compiled_copies():
        import_outer(module, package, KEY, use)
        found = own_code.resolve(use, KEY)
    check_its_own(found, package, KEY, use)
    _check_loaded(package, use)
    _check_files(package, listed, use)


def _check_files(package: Installed, listed: str, use: str) -> None:
    """Refuse files of another hash than the listed one."""
    if (found := package_hash(package.name, package.version)) != listed:
        raise ConfigError(
            f"{KEY} = {use!r}: the files of package {package.name} {package.version} on this machine have hash {found},"
            f" and server.toml lists {listed}: install the one that was approved, or have a person who looked at this"
            " one list its hash"
        )


def _check_loaded(package: Installed, use: str) -> None:
    """Refuse modules of the package's name that came from elsewhere."""
    for name, one in list(sys.modules.items()):
        file = getattr(one, "__file__", None)
        if name.partition(".")[0] in package.tops and file is not None and not package.has(file):
            raise ConfigError(f"{KEY} = {use!r}: {name} was loaded from {file}, which is no file of {package.name}")


@contextmanager
def _no_compiled_copies() -> Iterator[None]:
    """Have Python read sources meanwhile: what lies compiled beside one is in no hash."""
    before, sys.pycache_prefix = sys.pycache_prefix, os.devnull
    try:
        yield
    finally:
        sys.pycache_prefix = before
