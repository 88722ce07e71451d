"""Code of a user's own: found by its name where a process was opened to it, and else refused in one line."""

from __future__ import annotations

import importlib.util
import py_compile
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from fedmodel.kinds.own_calls import call, failed
from fedmodel.kinds.own_code import close, hand_over, open_to_all, resolve
from fedmodel.kinds.own_names import UseName
from fedmodel.system.packages import code_hash
from tests.packaged import LAYERS, USE, install, on_the_path
from tests.packaged import NETS as PACKAGED

LISTED = {"own-package": "1.2"}

NETS = """
import ownlayers
CALLS = []
def net(width, *, deep=False):
    return ("net", width, deep, ownlayers.KIND)
def shaped(shape, width=3):
    return (shape, width)
def any_of(**more):
    return more
def raises():
    raise RuntimeError("first\\x1b[31m\\nsecond")
class Made:
    class Inner:
        pass
KEPT = 3
"""


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """As a process begins: opened to nothing."""
    close()
    path = list(sys.path)
    yield
    close()
    assert sys.path == path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ownnets.py").write_text(NETS)
    (tmp_path / "ownlayers.py").write_text("KIND = 'first'\n")
    (tmp_path / "ownbroken.py").write_text("raise ValueError('as it is imported')\n")
    (tmp_path / "ownexit.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "ownlacks.py").write_text("import nosuchthing\n")
    return tmp_path


def test_a_process_that_nobody_opened_finds_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ConfigError, match=r"^model\.use = 'ownnets:net' is code of the user's own, which nothing here"):
        resolve("ownnets:net", "model.use")
    assert "ownnets" not in sys.modules


def test_the_scenarios_folder_is_looked_in_first_and_read_anew_when_it_is_opened_again(folder: Path) -> None:
    open_to_all(folder)
    assert resolve("ownnets:net", "model.use")(2) == ("net", 2, False, "first")
    (folder / "ownlayers.py").write_text("KIND = 'another word'\n")
    assert resolve("ownnets:net", "model.use")(2)[-1] == "first"
    own_code.keep_open(None)  # what another part of the same simulation does
    assert own_code.folder() == folder
    open_to_all(folder)
    assert resolve("ownnets:net", "model.use")(2)[-1] == "another word"


def test_what_a_function_imports_as_it_runs_is_hashed_and_read_anew_too(folder: Path) -> None:
    (folder / "ownlate.py").write_text("def net():\n    import ownlayers\n    return ownlayers.KIND\n")
    found = []
    for text in ("'first'", "'another word'"):
        (folder / "ownlayers.py").write_text(f"KIND = {text}\n")
        open_to_all(folder)
        found.append((resolve("ownlate:net", "model.use")(), own_code.source_hash({"model.use": "ownlate:net"})))
    assert [word for word, _ in found] == ["first", "another word"]
    assert found[0][1] != found[1][1]


def test_two_folders_with_a_module_of_one_name_do_not_mix(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "ownnets.py").write_text("def net():\n    return 'another'\n")
    open_to_all(folder)
    resolve("ownnets:net", "model.use")
    open_to_all(other)
    assert resolve("ownnets:net", "model.use")() == "another"


def test_what_is_installed_is_found_beside_it(folder: Path) -> None:
    open_to_all(folder)
    assert resolve("numpy.linalg:norm", "model.use")([3.0, 4.0]) == 5.0
    assert resolve("ownnets:Made.Inner", "model.use").__name__ == "Inner"


@pytest.mark.parametrize(
    ("use", "rule"),
    [
        ("nosuch:net", r"there is no module 'nosuch' in /.* or installed here"),
        ("ownnets.deeper:net", r"there is no module 'ownnets\.deeper'"),
        ("ownnets:nte", r"ownnets has no 'nte'; did you mean 'net'\?"),
        ("ownnets:Made.Outer", r"ownnets has no 'Made\.Outer'"),
        ("ownnets:KEPT", "is a int; name a function or a class"),
        ("ownbroken:net", "importing ownbroken raised ValueError: as it is imported"),
        ("ownexit:net", "importing ownexit raised SystemExit: 3"),
        ("ownlacks:net", r"importing ownlacks raised ModuleNotFoundError: No module named 'nosuchthing'; install it"),
        ("os:system", "os is a module of Python's own"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(folder: Path, use: str, rule: str) -> None:
    open_to_all(folder)
    with pytest.raises(ConfigError, match=rf"^model\.use = '{re.escape(use)}'.*{rule}") as caught:
        resolve(use, "model.use")
    assert "\n" not in str(caught.value)


def test_a_file_that_has_the_name_of_what_is_loaded_is_refused(folder: Path) -> None:
    """Or one would think that it ran."""
    (folder / "numpy.py").write_text("def net():\n    pass\n")
    open_to_all(folder)
    with pytest.raises(ConfigError, match=r"numpy\.py has the name of a module that is loaded already; rename"):
        resolve("numpy:net", "model.use")


def test_a_function_is_called_with_the_sections_keys_and_with_what_it_asks_for(folder: Path) -> None:
    open_to_all(folder)
    assert call("ownnets:net", "model.use", {"width": 2, "deep": True}, {"shape": 1}) == ("net", 2, True, "first")
    assert call("ownnets:shaped", "model.use", {}, {"shape": 1}) == (1, 3)
    assert call("ownnets:shaped", "model.use", {"shape": 5}, {"shape": 1}) == (5, 3)
    assert call("ownnets:any_of", "model.use", {"a": 1}, {"shape": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("use", "arguments", "rule"),
    [
        (
            "ownnets:net",
            {"widht": 2},
            r"^model\.widht is no argument of model\.use = 'ownnets:net'; did you mean 'width'\?$",
        ),
        ("ownnets:net", {"q": 2}, r"^model\.q is no argument of model\.use = 'ownnets:net'; it takes: width, deep$"),
        ("ownnets:net", {}, r"needs arguments that the section does not give: missing a required argument: 'width'"),
        ("ownnets:raises", {}, r"^model\.use = 'ownnets:raises' raised RuntimeError: first\\x1b\[31m$"),
    ],
)
def test_a_call_that_cannot_be_is_refused_in_one_line(
    folder: Path, use: str, arguments: dict[str, int], rule: str
) -> None:
    open_to_all(folder)
    with pytest.raises(ConfigError, match=rule) as caught:
        call(use, "model.use", arguments, {})
    assert "\n" not in str(caught.value)


def test_an_object_that_was_handed_over_wins_until_the_process_is_closed(folder: Path) -> None:
    hand_over("ownnets:net", lambda: "mine")
    assert resolve("ownnets:net", "model.use")() == "mine"
    assert own_code.is_handed_over("ownnets:net")
    open_to_all(folder)
    assert resolve("ownnets:net", "model.use")() == "mine"
    close()
    assert not own_code.is_handed_over("ownnets:net")


def test_the_hash_of_what_was_found_is_of_every_file_that_came_with_it(folder: Path) -> None:
    uses = {"model.use": "ownnets:net"}

    def hashed() -> str:
        open_to_all(folder)
        resolve("ownnets:net", "model.use")
        return own_code.source_hash(uses)

    first = hashed()
    assert hashed() == first
    (folder / "ownlayers.py").write_text("KIND = 'first'  # and a word\n")  # which ownnets imports
    assert hashed() != first
    (folder / "ownlayers.py").write_text("KIND = 'first'\n")
    (folder / "ownbroken.py").write_text("\n")  # which nothing does
    assert hashed() == first


@pytest.mark.parametrize("name", ["net", "net:", ":net", "a b:c", "a:b:c", "a/b:c", "..a:b", "a:b.", "a\n:b", "1a:b"])
def test_a_name_is_a_module_and_something_in_it(name: str) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(UseName)
    assert adapter.validate_python("a.b_1:C.d") == "a.b_1:C.d"
    with pytest.raises(ValidationError, match="names no code; write"):
        adapter.validate_python(name)


@pytest.fixture
def packaged(tmp_path: Path) -> Iterator[Path]:
    """An installed package, and a module beside it that no list has."""
    install(tmp_path)
    (tmp_path / "beside.py").write_text("def net():\n    pass\n")
    with on_the_path(tmp_path):
        yield tmp_path


def test_a_silos_process_finds_code_of_listed_packages_alone(packaged: Path) -> None:
    own_code.open_to(LISTED, code_hash(LISTED))
    assert resolve(USE, "model.use").__name__ == "net"
    for use in ("beside:net", "numpy.linalg:norm", "fedmodel.seeds:derive_seed"):
        with pytest.raises(ConfigError, match=r"is code of no package that silo\.toml lists"):
            resolve(use, "model.use")
    assert "beside" not in sys.modules
    own_code.open_to({}, code_hash())
    with pytest.raises(ConfigError, match=r"is code of no package that silo\.toml lists"):
        resolve(USE, "model.use")


def test_a_package_that_was_changed_since_its_hash_was_taken_is_not_run(packaged: Path) -> None:
    own_code.open_to(LISTED, code_hash(LISTED))
    (packaged / "ownpackage" / "layers.py").write_text(LAYERS + "\n")
    with pytest.raises(ConfigError, match=r"was changed since the silo was started \(seen before it was imported\)"):
        resolve(USE, "model.use")
    assert "ownpackage" not in sys.modules


def test_a_package_that_is_changed_while_it_is_imported_is_noticed(packaged: Path) -> None:
    changes = "from pathlib import Path\nPath(__file__).with_name('layers.py').write_text('head = None\\n')\n"
    (packaged / "ownpackage" / "nets.py").write_text(PACKAGED + changes)
    own_code.open_to(LISTED, code_hash(LISTED))
    with pytest.raises(ConfigError, match=r"was changed since the silo was started \(seen after it was imported\)"):
        resolve(USE, "model.use")


def test_a_module_that_hides_a_listed_package_is_not_run(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hiding = packaged / "before"
    hiding.mkdir()
    (hiding / "ownpackage.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(str(hiding))
    own_code.open_to(LISTED, code_hash(LISTED))
    with pytest.raises(ConfigError, match=r"found in .*before.*, which is no file of package own-package"):
        resolve(USE, "model.use")


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "import_module",
        "system",
        "nn.Linear",
        "Linear",
        "Made.load_state_dict",
        "Made.made",
        "MADE.__call__",
        "BOUND",
        "part",
        "__loader__.exec_module",
        "own.__globals__",
        "own.__class__",
        "Made.__init__",
    ],
)
def test_a_name_leads_to_what_a_listed_package_defines_and_to_nothing_that_it_imported(
    packaged: Path, name: str
) -> None:
    names = """
import os
from functools import partial
from importlib import import_module
from os import system
from torch import nn
from torch.nn import Linear
def own():
    pass
class Made(nn.Module):
    class Inner:
        pass
    @classmethod
    def made(cls):
        return cls()
MADE = Made()
BOUND = MADE.forward
part = partial(system, "true")
"""
    (packaged / "ownpackage" / "names.py").write_text(names)
    own_code.open_to(LISTED, code_hash(LISTED))
    with pytest.raises(ConfigError, match=r"no class that own-package itself|leads to what a module defines") as found:
        resolve(f"ownpackage.names:{name}", "model.use")
    assert "\n" not in str(found.value)
    assert resolve("ownpackage.names:own", "model.use").__name__ == "own"
    assert resolve("ownpackage.names:Made.Inner", "model.use").__name__ == "Inner"


def test_a_name_never_walks_into_a_module_in_a_simulation_either(folder: Path) -> None:
    (folder / "ownbroken.py").write_text("import os\n")
    open_to_all(folder)
    for name, part in (("os.system", "'system' of a module"), ("__loader__.get_data", "'__loader__' of a module")):
        with pytest.raises(ConfigError, match=f"not to {part}"):
            resolve(f"ownbroken:{name}", "model.use")


def test_what_python_kept_compiled_beside_a_listed_package_is_not_run(packaged: Path) -> None:
    source, other = packaged / "ownpackage" / "layers.py", packaged / "other.py"
    other.write_text("head = 'of no hash'\n")
    kept = Path(importlib.util.cache_from_source(str(source)))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), cfile=str(kept), invalidation_mode=mode, doraise=True)
    before = kept.read_bytes()
    own_code.open_to(LISTED, code_hash(LISTED))
    resolve(USE, "model.use")
    assert callable(sys.modules["ownpackage.layers"].head)
    assert kept.read_bytes() == before
    close()
    assert importlib.util.cache_from_source(str(source)) == str(kept)  # other processes' imports are as they were


def test_a_listed_package_is_found_by_a_relative_path_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    with on_the_path(Path("site")):
        own_code.open_to(LISTED, code_hash(LISTED))
        assert resolve(USE, "model.use").__name__ == "net"
        for name in [one for one in sys.modules if one.partition(".")[0] == "ownpackage"]:
            del sys.modules[name]


def test_a_listed_package_that_was_loaded_before_is_not_run(packaged: Path) -> None:
    importlib.import_module("ownpackage.layers")
    own_code.open_to(LISTED, code_hash(LISTED))
    with pytest.raises(ConfigError, match=r"was loaded before this process was opened to own-package"):
        resolve(USE, "model.use")


@pytest.mark.parametrize(
    ("init", "rule"),
    [
        ("__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n", r"its code may not change __path__"),
        ("__path__ = [{elsewhere!r}]\n", r"ownpackage\.nets is found in .*more.*, which is no file of package own-"),
        (
            "own = list(__path__)\n__path__[:] = [{elsewhere!r}]\nimport ownpackage.more\n__path__[:] = own\n",
            r"ownpackage\.more was loaded from .*more.*, which is no file of own-package",
        ),
    ],
)
def test_a_listed_package_that_looks_for_modules_elsewhere_is_not_run(packaged: Path, init: str, rule: str) -> None:
    elsewhere = packaged / "more" / "ownpackage"
    elsewhere.mkdir(parents=True)
    (elsewhere / "__init__.py").write_text("")
    (elsewhere / "nets.py").write_text("raise AssertionError('run')\n")
    (elsewhere / "more.py").write_text("")
    sys.path.append(str(packaged / "more"))
    try:
        (packaged / "ownpackage" / "__init__.py").write_text(init.format(elsewhere=str(elsewhere)))
        own_code.open_to(LISTED, code_hash(LISTED))
        with pytest.raises(ConfigError, match=rule):
            resolve(USE, "model.use")
    finally:
        sys.path.remove(str(packaged / "more"))


def test_of_a_failure_on_records_its_type_and_the_line_of_own_code_are_told_and_no_word(folder: Path) -> None:
    text = """
import torch
def net(x):
    try:
        raise KeyError("Anna")
    except KeyError:
        torch.zeros(2) @ torch.zeros(x)
"""
    (folder / "ownbroken.py").write_text(text)
    open_to_all(folder)
    with pytest.raises(RuntimeError) as caught:
        resolve("ownbroken:net", "model.use")(3)
    assert failed(caught.value, ["ownbroken:net"]) == "RuntimeError in line 7 of ownbroken.py"
    with pytest.raises(ZeroDivisionError) as elsewhere:
        _ = 1 / 0
    assert failed(elsewhere.value, ["ownbroken:net"]).endswith(" of test_own_code.py")
    assert failed(ValueError("Anna"), ["ownbroken:net"]) == "ValueError"
    hand_over("script:net", resolve("ownbroken:net", "model.use"))
    assert failed(caught.value, ["script:net"]) == "RuntimeError in line 7 of ownbroken.py"
