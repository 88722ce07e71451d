"""Which modules a program could import."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fedmodel.errors import ConfigError
from fedmodel.system.reach import reach

OTHERS = dict.fromkeys(
    (
        "a/__init__.py",
        "a/b.py",
        "a/c/__init__.py",
        "a/c/d.py",
        "a/c/e.py",
        "a/c/_f.py",
        "a/c/deep/__init__.py",
        "x/__init__.py",
        "x/y.py",
    ),
    b"",
)


def found(source: str, others: Mapping[str, str] | None = None) -> list[str]:
    """Files that `p.start` could import."""
    given = {name: text.encode() for name, text in (others or {}).items()}
    sources = {**OTHERS, "p/__init__.py": b"", "p/start.py": source.encode(), **given}
    silos = reach("p.start", sources)
    return [name for name in sources if silos.has(name) and name not in ("p/__init__.py", "p/start.py")]


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("", []),
        ("import a.b", ["a/__init__.py", "a/b.py"]),
        ("import a.b as b, x", ["a/__init__.py", "a/b.py", "x/__init__.py"]),
        ("from a import b", ["a/__init__.py", "a/b.py"]),
        ("from a import (\n    b,\n)", ["a/__init__.py", "a/b.py"]),
        ("from a.c import d as other", ["a/__init__.py", "a/c/__init__.py", "a/c/d.py"]),
        ("from a.b import name", ["a/__init__.py", "a/b.py"]),
        ("from a import *", ["a/__init__.py", "a/b.py", "a/c/__init__.py"]),
        ("def f():\n    def g():\n        import x", ["x/__init__.py"]),
        ("class C:\n    import x", ["x/__init__.py"]),
        ("async def f():\n    async with y:\n        import x", ["x/__init__.py"]),
        ("try:\n    pass\nexcept OSError:\n    import x", ["x/__init__.py"]),
        ("try:\n    pass\nfinally:\n    import x", ["x/__init__.py"]),
        ("try:\n    pass\nexcept* OSError:\n    pass\nelse:\n    import x", ["x/__init__.py"]),
        ("while 0:\n    pass\nelse:\n    import x", ["x/__init__.py"]),
        ("match y:\n    case 1:\n        import x", ["x/__init__.py"]),
        ("if y: pass\nelif z: import x", ["x/__init__.py"]),
        ("y = 1; import x", ["x/__init__.py"]),
        ("if TYPE_CHECKING:\n    import x", []),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import x", ["x/__init__.py"]),
        ("if not TYPE_CHECKING:\n    import x", ["x/__init__.py"]),
        ("if TYPE_CHECKING or y:\n    import x", ["x/__init__.py"]),
        ("text = 'import x'", []),
    ],
)
def test_an_import_is_found_wherever_it_stands(source: str, files: list[str]) -> None:
    assert found(source) == files


def test_imports_are_followed_and_relative_ones_from_where_they_stand() -> None:
    sources = {
        "p/one.py": "from .deep import two",
        "p/deep/__init__.py": "from . import three",
        "p/deep/two.py": "from ..four import name",
        "p/deep/three.py": "",
        "p/four.py": "from . import one",
        "p/five.py": "",
        "p/deep/four.py": "",
    }
    assert found("from p import one", sources) == list(sources)[:5]


def test_a_folder_that_lists_its_kinds_counts_whole() -> None:
    listing = b"from fedmodel.system.kinds import kinds\nKINDS = kinds(__name__)\n"
    sources = {"p/start.py": b"import a.c", **OTHERS, "a/c/__init__.py": listing, "a/c/e.py": b"import x.y"}
    silos = reach("p.start", sources)
    assert {name for name in sources if silos.has(name)} == set(sources) - {"a/b.py"}
    assert silos.has("a/c/one_more.so")
    assert not silos.has("a/one_more.so")
    assert not silos.has("a/c/deep/one_more.py")


def test_what_is_asked_for_and_is_no_module_counts_if_it_becomes_one() -> None:
    silos = reach("p.start", {"p/start.py": b"from a import name", **OTHERS})
    assert silos.has("a/name.py")
    assert silos.has("a/name.cpython-313-x86_64-linux-gnu.so")
    assert silos.has("a/name/__init__.py")
    assert not silos.has("a/other.py")


@pytest.mark.parametrize("source", [b"x = (", b"\xff", b"x\0y"])
def test_what_is_not_python_is_refused_by_its_name(source: bytes) -> None:
    with pytest.raises(ConfigError, match=r"p/start\.py: is not Python"):
        reach("p.start", {"p/start.py": source})
