"""A package of a user's own, installed as pip leaves one: its files, and a list of them."""

from __future__ import annotations

import base64
import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

NETS = """
from torch import nn

from ownpackage.layers import head


def net(shape, bias=True):
    return nn.Sequential(nn.Flatten(), head(shape.features[0], shape.outputs, bias))
"""
LAYERS = """
from torch import nn


def head(before, after, bias):
    return nn.Linear(before, after, bias=bias)
"""
FILES = {"ownpackage/__init__.py": "", "ownpackage/nets.py": NETS, "ownpackage/layers.py": LAYERS}
USE = "ownpackage.nets:net"


def install(folder: Path, name: str = "own-package", version: str = "1.2", files: Mapping[str, str] = FILES) -> Path:
    """Install a package into a folder, and return the folder of its metadata."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    for inside, text in files.items():
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        (folder / inside).write_text(text)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    listed = [*files, f"{about.name}/METADATA"]
    lines = [f"{one},sha256={_digest(folder / one)},{(folder / one).stat().st_size}" for one in listed]
    (about / "RECORD").write_text("\n".join([*lines, f"{about.name}/RECORD,,", ""]))
    return about


@contextmanager
def on_the_path(folder: Path) -> Iterator[None]:
    """Have Python find what is installed in a folder, and forget it at the end."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def _digest(path: Path) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
