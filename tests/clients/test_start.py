"""A silo's program, read: what it could import is found by its statements, and nothing else is imported."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedmodel
from clients import start
from fedmodel.system.packages import PACKAGES, code_files, code_hash, package_folder
from fedmodel.system.reach import module_of

# By what a program imports, or runs, something by a name that it makes up; of libraries, by a name in its own words.
_BY_NAME = re.compile(
    r"import_module|__import__|exec|eval|compile|execfile|run_module|run_path|load_module|exec_module|spec_from\w*|exec[lv]\w*"
    r"|iter_modules|walk_packages|module_from_spec|entry_points|find_loader|kinds|load_dynamic|Popen|system|spawn\w*"
    r"|check_call|check_output|getoutput|unpickle\w*|Unpickler|resolve_name"
)
ALLOWED = {
    ("clients/party.py", "import_module(module_of(name))"): "a file that the hash is of",
    # (file, call): why it imports nothing but what the hash is of
    ("clients/supernode.py", "importlib.import_module('flwr.supernode.start_client_internal')"): "a library",
    ("clients/supernode.py", "importlib.import_module('flwr.supernode.fleet_http_connection')"): "a library",
    ("clients/supernode.py", "importlib.import_module('flwr.supercore.heartbeat')"): "a library",
    ("fedmodel/__init__.py", "import_module(_FROM[name])"): "asked for by scripts; below, by no silo",
    ("fedmodel/__init__.py", "import_module('fedmodel.audit')"): "asked for by scripts; below, by no silo",
    ("fedmodel/kinds/own_imports.py", "import_module(module)"): "a simulation's; a deployed silo lets none in",
    (
        "fedmodel/system/environment.py",
        "os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], stay)",
    ): "itself",
    ("fedmodel/system/kinds.py", "import_module(package)"): "the package that calls it",
    ("fedmodel/system/kinds.py", "iter_modules(list(folders))"): "of that package, all of which counts",
    ("fedmodel/system/kinds.py", "import_module(f'{package}.{name}')"): "of that package, all of which counts",
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every file that a silo could run."""
    for name in code_files():
        package, _, inside = name.partition("/")
        yield name, ast.parse((package_folder(package) / inside).read_bytes())


SOURCES = dict(sources())


def called(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            last = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield last, node


def test_nothing_is_imported_by_a_name_that_is_made_up() -> None:
    found = {
        (name, ast.unparse(call))
        for name, tree in SOURCES.items()
        for last, call in called(tree)
        if _BY_NAME.fullmatch(last) and not _plain(name, last, call)
    }
    assert found == {one for one in ALLOWED if one[0] in SOURCES}


def test_nothing_is_read_that_says_what_to_import() -> None:
    for name, tree in SOURCES.items():
        for node in ast.walk(tree):
            asked = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            asked += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {"pickle", "marshal", "shelve", "runpy", "joblib", "code"}.isdisjoint(asked), name


def test_no_file_needs_an_extra_as_it_is_imported() -> None:
    """All of them are imported as a silo starts, with extras or without."""
    words = (
        "import sys; sys.modules.update(pyarrow=None, psycopg=None); from clients.party import _code; print(_code())"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_hash()


def _plain(name: str, last: str, call: ast.Call) -> bool:
    """Whether it is a method of one of these names that imports nothing, or a folder that lists its kinds."""
    if last == "kinds":
        return name.endswith("/__init__.py") and ast.unparse(call) == "kinds(__name__)"
    return ast.unparse(call.func) in ("re.compile",) or (last == "eval" and not call.args)


@pytest.mark.parametrize("name", ["TORCHELASTIC_RUN_ID", "LOCAL_RANK"])
def test_a_silo_that_torchrun_starts_is_refused(name: str) -> None:
    """Before anything is read: it would begin as often as there are processes."""
    words = [sys.executable, "-P", "-m", "clients.start", "kit"]
    done = subprocess.run(words, env={**os.environ, name: "0"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: .*torchrun, which set {name}: .* processes = N in silo.toml\n", done.stderr)


def test_no_name_of_the_face_is_asked_for() -> None:
    """`fedmodel.simulate` would import what is above it."""
    face = set(fedmodel.__all__)
    for name, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "fedmodel" and not node.level:
                assert face.isdisjoint(alias.name for alias in node.names), name
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "fedmodel":
                assert node.attr not in face, name


def test_what_is_left_out_as_a_type_checkers_is_never_run() -> None:
    for name, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == "TYPE_CHECKING":
                assert isinstance(node.ctx, ast.Load), name
            for alias in getattr(node, "names", ()) if isinstance(node, ast.Import | ast.ImportFrom) else ():
                if "TYPE_CHECKING" in (alias.name, alias.asname):
                    assert isinstance(node, ast.ImportFrom), name
                    assert (node.module, alias.name, alias.asname) == ("typing", "TYPE_CHECKING", None), name


def test_a_silo_runs_nothing_of_the_server_and_nothing_that_simulates_or_reports() -> None:
    tops = {name.partition("/")[0] for name in SOURCES}
    assert tops == {"clients", "fedmodel"}
    assert not [name for name in SOURCES if name.startswith("fedmodel/audit/")]
    assert {"fedmodel/learning/jobs/training.py", "clients/hiding.py", "fedmodel/secagg/masking.py"} <= SOURCES.keys()
    assert set(PACKAGES) > tops


def test_what_this_process_has_imported_of_clients_is_of_a_silos_code() -> None:
    """But for what says the law to a person, which `silo policy` alone imports, and tests."""
    ours = {name for name in sys.modules if name.partition(".")[0] == "clients"}
    assert ours - {"clients.sentences"} <= {module_of(name) for name in SOURCES}
    assert "clients/sentences.py" not in SOURCES


@pytest.mark.parametrize("kit", ["kit", "-kit"])
def test_the_program_is_started_with_this_python_and_not_from_the_current_folder(kit: str) -> None:
    words = start.command(Path(kit), Path("north.key"), None)
    assert words[0] == sys.executable
    assert words[words.index("-m") - 1 :][:3] == ["-P", "-m", "clients.start"]
    given = start._words().parse_args(words[words.index("clients.start") + 1 :])
    assert (given.kit, given.key_file, given.passphrase_file) == (Path(kit), Path("north.key"), None)
