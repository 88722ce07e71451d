"""Bases: what is read of a folder, what is refused, and that no byte of one differs unnoticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fedmodel.errors import ConfigError
from fedmodel.kinds import bases
from fedmodel.kinds.bases import base_of, copy_base, folder_of_base, lie_at, place, read_base
from tests.bases import make_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base", "encoder")


@pytest.fixture(autouse=True)
def _nowhere() -> None:
    lie_at({}, Path())


def test_a_base_is_had_by_its_hash_from_where_it_was_said_to_lie(folder: Path, tmp_path: Path) -> None:
    base = place(folder)
    assert base_of(base.sha256) == base
    assert folder_of_base(base.sha256) == folder
    assert base.config["model_type"] == "bert"
    lie_at({base.sha256: "base"}, tmp_path)
    assert base_of(base.sha256) == base
    lie_at({}, tmp_path)
    with pytest.raises(ConfigError, match="nobody said where that lies"):
        base_of(base.sha256)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_base_that_differs_by_a_byte_is_another(folder: Path, name: str) -> None:
    sha256 = place(folder).sha256
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    if name == "config.json":  # which has to stay JSON
        data = bytearray((folder / name).read_bytes() + b" ")
    (folder / name).write_bytes(data)
    with pytest.raises(ConfigError, match=f"and {sha256[:16]}... is asked for; put the very same files there"):
        base_of(sha256)


def test_what_is_not_read_does_not_count_and_is_not_copied(folder: Path, tmp_path: Path) -> None:
    before = read_base(folder).sha256
    (folder / "README.md").write_text("of no matter")
    assert read_base(folder).sha256 == before
    copy_base(folder, tmp_path / "kit" / "bases" / "one")
    copied = tmp_path / "kit" / "bases" / "one"
    assert read_base(copied).sha256 == before
    assert sorted(one.name for one in copied.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_files_of_weights_that_are_cut_otherwise_are_another_base(folder: Path) -> None:
    # Of the last file and its name, which are hashed one behind the other, nothing is told apart but by lengths.
    (folder / "tokenizer.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(b"one")
    (folder / "tokenizer.safetensors").write_bytes(b"two")
    one = read_base(folder).sha256
    (folder / "tokenizer.json").write_bytes(b"{}tokenizer.safetensorstwo")
    (folder / "tokenizer.safetensors").unlink()
    assert read_base(folder).sha256 != one


def _changed(folder: Path, **said: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))


REFUSED = {
    "a pickle": (lambda at: (at / "pytorch_model.bin").write_bytes(b"\x80\x04."), "pytorch_model.bin, a pickle"),
    "code": (lambda at: (at / "modeling_mine.py").write_text("raise SystemExit"), "modeling_mine.py, code"),
    "remote code": (lambda at: _changed(at, auto_map={"AutoModel": "mine.Net"}), "names code by auto_map"),
    "quantised": (lambda at: _changed(at, quantization_config={"bits": 4}), "is of quantised weights"),
    "no tokenizer": (lambda at: (at / "tokenizer.json").unlink(), "has no tokenizer.json, which says which tokens"),
    "no config": (lambda at: (at / "config.json").unlink(), "has no config.json, which says its architecture"),
    "no weights": (lambda at: (at / "model.safetensors").unlink(), r"has no \*.safetensors"),
    "no JSON": (lambda at: (at / "config.json").write_text("{"), "is no JSON"),
    "no architecture": (lambda at: (at / "config.json").write_text("[1]"), "names no architecture by model_type"),
    "no folder": (shutil.rmtree, "the base cannot be read: No such file"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_folder_that_is_no_base_is_refused_in_one_line(folder: Path, what: str) -> None:
    spoil, told = REFUSED[what]
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=told) as refused:
        place(folder)
    assert "\n" not in str(refused.value)
    assert not bases._places


def test_a_base_for_which_there_is_too_little_memory_is_refused_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum((folder / name).stat().st_size for name in ("config.json", "tokenizer.json", "model.safetensors"))
    monkeypatch.setattr(bases, "available", lambda: 2 * size)
    assert place(folder)
    monkeypatch.setattr(bases, "available", lambda: 2 * size - 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    with pytest.raises(ConfigError, match="and needs 2 times that to be read; 0 MB of memory are available") as refused:
        place(folder)
    assert "\n" not in str(refused.value)
