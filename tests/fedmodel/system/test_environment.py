"""What of an environment reaches the project: the list, and a command that was started in a hostile one."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedmodel.errors import ConfigError
from fedmodel.system import environment
from fedmodel.system.environment import SWITCHES, check_packages, kept, settle

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-c", "from scenarios.cli.entry import main; main()"]
NOBODY = "http://user:secret@192.0.2.1:3128"  # an address of documentation: nobody answers
HOSTILE = {
    **dict.fromkeys(
        ("http_proxy", "HTTPS_PROXY", "all_proxy", "FTP_PROXY", "grpc_proxy", "no_proxy", "GRPC_PROXY_EXP"), NOBODY
    ),
    **dict.fromkeys(("PGHOST", "PGHOSTADDR", "PGUSER", "PGDATABASE", "PGSERVICE", "PGOPTIONS", "PGSSLMODE"), "x"),
    **dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"), "/dev/null/x"),
    **dict.fromkeys(("MATPLOTLIBRC", "SQLITE_TMPDIR", "FLWR_HOME", "JOBLIB_TEMP_FOLDER"), "/dev/null/x"),
    "PYTHONIOENCODING": "ascii:strict",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
    "PYTHONHASHSEED": "7",
    "PYTHONINSPECT": "1",
    "PYTHONDEVMODE": "1",
    "PYTHONINTMAXSTRDIGITS": "640",
    "PYTHONSTARTUP": "/dev/null/x",
    "FLWR_TELEMETRY_ENABLED": "1",
    "FLWR_LOG_LEVEL": "DEBUG",
    "FLWR_INTERNAL_GRPC_FLEET_API": "1",
    "RAY_ADDRESS": "192.0.2.1:6379",
    "GRPC_TRACE": "all",
    "GRPC_VERBOSITY": "debug",
    "RUST_LOG": "trace",
    "TORCH_LOGS": "bogus",
    "NVIDIA_TF32_OVERRIDE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "CUBLAS_WORKSPACE_CONFIG": "x",
    "MPLBACKEND": "bogus",
    "SOURCE_DATE_EPOCH": "x",
    "WEB_CONCURRENCY": "x",
    "TYPER_USE_RICH": "bogus",
    "_FEDMODEL_COMPLETE": "bash_source",
    "OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY,
    "SKLEARN_ASSUME_FINITE": "x",
    "NPY_DISABLE_CPU_FEATURES": "x",
    "PYDANTIC_DISABLE_PLUGINS": "x",
}
"""What is left out; the file of TLS's keys besides, which a test names."""
ODD = {
    "LC_ALL": "C",
    "LANG": "tr_TR.UTF-8",
    "LANGUAGE": "de",
    "TZ": "Asia/Kathmandu",
    "COLUMNS": "20",
    "TERM": "dumb",
    "FORCE_COLOR": "1",
    "OMP_NUM_THREADS": "3",
    "MKL_NUM_THREADS": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "HOME": "/dev/null/home",
    "XDG_CACHE_HOME": "/dev/null/cache",
    "MPLCONFIGDIR": "/dev/null/mpl",
    "SSL_CERT_FILE": "/dev/null/x",
    "PYTHONSAFEPATH": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""What stays, and is to change no result all the same."""


@pytest.mark.parametrize(
    "name", [*HOSTILE, "SSLKEYLOGFILE", "ANYTHING_ELSE", "XPATH", "PATHX", "PYTHONX", "pgpassword"]
)
def test_what_is_not_listed_is_left_out(name: str) -> None:
    assert kept({name: "x"}) == SWITCHES


@pytest.mark.parametrize(
    "name",
    [
        *ODD, "PATH", "LD_LIBRARY_PATH", "OPENSSL_CONF", "PYTHONPATH", "CUDA_MPS_PIPE_DIRECTORY", "PGPASSFILE",
        "TMPDIR", "CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "FEDMODEL_TESTED_BY",
    ],
)  # fmt: skip
def test_what_is_set_on_purpose_stays(name: str) -> None:
    assert kept({name: "x"}) == {name: "x", **SWITCHES}


def test_what_the_caller_names_stays_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interpreter has read nothing that is left out, which starts the command again with the same ones."""
    monkeypatch.setattr(os, "environ", {"PATH": "/bin", "COMP_WORDS": "fedmodel s", "http_proxy": NOBODY})
    settle(also=("COMP_WORDS", "COMP_CWORD"))
    assert os.environ == {"PATH": "/bin", "COMP_WORDS": "fedmodel s", **SWITCHES}


@pytest.mark.parametrize("name", ["PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONHASHSEED", "PYTHONINSPECT"])
def test_a_variable_that_the_interpreter_has_read_has_the_command_begin_again_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []

    class Replaced(BaseException):
        """This process would be another program now."""

    def execve(*given: Any) -> None:
        begun.append(given)
        raise Replaced

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(os, "environ", {"PATH": "/bin", name: "1", "http_proxy": NOBODY})
    monkeypatch.setattr(sys, "orig_argv", ["python", "-P", "fedmodel", "scenarios"])
    with pytest.raises(Replaced):
        settle()
    program, words, left = begun[0]
    assert (program, words) == (sys.executable, [sys.executable, "-P", "fedmodel", "scenarios"])
    assert left == {"PATH": "/bin", **SWITCHES}
    monkeypatch.setattr(os, "environ", dict(left))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    before = os.umask(0)
    try:
        settle()
        assert sys.stdout.write("\u00e2ge\u017f") == 4  # of which that encoding has no letter
        assert os.umask(0) == 0o022
    finally:
        os.umask(before)
    assert os.environ == left
    assert len(begun) == 1


def simulated(folder: Path, variables: dict[str, str], umask: int) -> subprocess.CompletedProcess[bytes]:
    folder.mkdir()
    words = ["simulate", "../tiny.toml", "--set", "privacy.noise=seeded-unsafe", "--json", "--no-report", "--out", "o"]
    return subprocess.run(
        [*COMMAND, *words], cwd=folder, env=os.environ | variables, umask=umask, stdin=subprocess.DEVNULL,
        capture_output=True, check=False,
    )  # fmt: skip


def test_a_hostile_environment_changes_nothing(tmp_path: Path, tiny_file: Path) -> None:
    """The same model bit for bit, the same answer, nothing else said, no key logged, no file that others can write."""
    keys = tmp_path / "keys.log"
    plain = simulated(tmp_path / "plain", {}, 0o022)
    odd = simulated(tmp_path / "odd", HOSTILE | ODD | {"SSLKEYLOGFILE": str(keys)}, 0o000)
    assert (plain.returncode, odd.returncode) == (0, 0), odd.stderr
    assert (plain.stderr, odd.stderr.strip()) == (b"", b"")  # colour is forced, which ends what is shown by a newline
    assert json.loads(odd.stdout) | {"timing": 0} == json.loads(plain.stdout) | {"timing": 0}
    models = [(tmp_path / name / "o" / "model.safetensors").read_bytes() for name in ("plain", "odd")]
    assert models[0] == models[1]
    assert not keys.exists()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "odd" / "o").rglob("*")}
    assert [path for path, mode in modes.items() if mode & 0o022] == []
    own = [mode for path, mode in modes.items() if path.suffix in (".key", ".sqlite", ".safetensors")]
    assert set(own) == {0o600}


def test_help_is_there_where_docstrings_would_not_be() -> None:
    done = subprocess.run(
        [*COMMAND, "simulate", "--help"], env=os.environ | HOSTILE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Train a scenario's model over simulated silos" in done.stdout


@pytest.mark.parametrize("package", ["server", "clients"])
def test_a_package_of_another_that_has_the_name_of_ours_is_refused(package: str, tmp_path: Path) -> None:
    """As where PYTHONPATH ends or begins with a colon, and the current folder holds a `server` of somebody's own."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise SystemExit('run')")
    done = subprocess.run(
        [*COMMAND, "scenarios"], env=os.environ | {"PYTHONPATH": os.pathsep + str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: package '{package}' is found in {tmp_path}, and fedmodel in {ROOT}: ")
    assert done.stderr.count("\n") == 1


def test_packages_as_installed_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    check_packages()
    monkeypatch.setattr(environment, "package_folder", lambda name: Path("/elsewhere") / name)
    with pytest.raises(ConfigError, match="is found in"):
        check_packages()


def test_the_program_that_is_installed_settles_first() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert declared["project"]["scripts"] == {"fedmodel": "scenarios.cli.entry:main"}
