"""The one place that says which environment variables reach this project's code, and that removes all others.

A login shell sets proxies, languages, debuggers, database defaults, and files into which libraries write TLS keys. So a
command first removes every variable that is not listed in `_KEPT`. This is a list of what may stay, because a list of
what may not stay would never be complete. docs/deploy.md has the same list and says what each variable does.

Guarantee: after `settle`, only variables that `_KEPT` matches, or its caller names, are left of those that were set.
This holds for this process, for the libraries that it loads from then on, and for everything that it starts. Files that
are made from then on cannot be written to by other accounts.

    PYTHON*                      the interpreter reads these before the first line of this module. If one is set that
                                 is not kept, the command starts itself again without it, in the same process
    LD_*, PATH, OPENSSL_*        stay: whoever sets these could run any program under this account
    PYTHONPATH                   stays; but if another package hides one of ours of the same name, this is refused

Does NOT change what was given on the command line, as in `python -O -m ...`.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from fedmodel.errors import ConfigError
from fedmodel.system.packages import PACKAGES, package_folder

_KEPT: Final = re.compile(
    # where programs and libraries lie, and how they get memory
    r"PATH|LD_\w+|OPENSSL_\w+|GLIBC_TUNABLES|MALLOC_\w+|VIRTUAL_ENV"
    r"|PYTHON(PATH|HOME|SAFEPATH|NOUSERSITE|USERBASE|PLATLIBDIR|DONTWRITEBYTECODE|PYCACHEPREFIX|UNBUFFERED|FAULTHANDLER)"
    # who runs this, in which language and time zone, at which terminal
    r"|HOME|USER|LOGNAME|SHELL|PWD|XDG_\w+|LANG|LANGUAGE|LC_\w+|TZ|TZDIR"
    r"|TERM|COLORTERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR"
    # where files go that do not last; what systemd hands over
    r"|TMPDIR|TEMP|TMP|MPLCONFIGDIR|CREDENTIALS_DIRECTORY|RUNTIME_DIRECTORY"
    # which processors train, with how many threads and how much memory
    r"|CUDA_\w+|NVIDIA_VISIBLE_DEVICES|NVIDIA_DRIVER_CAPABILITIES|(HIP|ROCR)_VISIBLE_DEVICES|PYTORCH_(CUDA_|HIP_)?ALLOC_CONF"
    r"|(OMP|MKL|OPENBLAS)_NUM_THREADS"
    # by what a silo shows a database who it is, and whom it believes
    r"|PGPASSWORD|PGPASSFILE|PGSSLCERT|PGSSLKEY|KRB5\w+|SSL_CERT_(FILE|DIR)"
    # a Ray cluster that asks for a token; its address, and marks by which whoever starts processes finds them again
    r"|RAY_AUTH_(MODE|TOKEN_PATH)"
    r"|FEDMODEL_\w+"
)
SWITCHES: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Set in addition, before anything of Flower is imported: a privacy tool sends no telemetry."""
_OTHERS_WRITE: Final = 0o022


def kept(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that reaches a process of this project, and the variables that are added.

    >>> kept({"PATH": "/bin", "https_proxy": "http://proxy:3128", "SSLKEYLOGFILE": "/tmp/keys"})["PATH"]
    '/bin'
    >>> sorted(kept({"https_proxy": "http://proxy:3128", "PGHOST": "elsewhere"}))
    ['FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION', 'FLWR_DISABLE_UPDATE_CHECK', 'FLWR_TELEMETRY_ENABLED']
    """
    return {name: value for name, value in environment.items() if _KEPT.fullmatch(name)} | SWITCHES


def settle(also: Collection[str] = ()) -> None:
    """Remove all other variables from this process; start it again if the interpreter has read one of them.

    Call it before anything is imported that could read a variable, and only from a process's main program.

    Args:
        also: Variables that stay as well. A shell asks for completion by them (`scenarios.cli.completion`).

    Raises:
        ConfigError: When another package hides one of this project's.
    """
    stay = kept(os.environ) | {name: os.environ[name] for name in also if name in os.environ}
    if any(name.startswith("PYTHON") for name in os.environ.keys() - stay.keys()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], stay)  # noqa: S606 - this very command
    for name in os.environ.keys() - stay.keys():
        del os.environ[name]
    os.environ.update(stay)
    os.umask(os.umask(_OTHERS_WRITE) | _OTHERS_WRITE)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that a terminal's encoding lacks ends no command
    check_packages()


def check_packages() -> None:
    """Refuse to run with a foreign package of the same name as one of ours, whose names are plain.

    Raises:
        ConfigError: With the package's name, and what to do.
    """
    ours = Path(__file__).parents[2]
    for package in PACKAGES:
        found = package_folder(package).parent
        if found != ours:
            raise ConfigError(
                f"package {package!r} is found in {found}, and fedmodel in {ours}: a folder of that name is in the way;"
                " leave it out of PYTHONPATH, where an empty entry stands for the current folder"
            )
