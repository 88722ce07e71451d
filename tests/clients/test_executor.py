"""Messages are answered by installed code, if the run's is the same."""

from __future__ import annotations

import builtins
import io
import logging
import sys
import zipfile
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.executor import Answerer, Bench
from fedmodel.errors import DataError, PrivacyBudgetExceeded
from fedmodel.system.packages import PACKAGES, bundle_hash
from fedmodel.wire.bundle import make_bundle


@pytest.fixture(autouse=True)
def _task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are made within a task."""
    for name, value in (("run_id", 1), ("task_id", 1), ("node_id", 2)):
        monkeypatch.setattr(TaskIdentity, f"_{name}", value, raising=False)


@pytest.fixture(scope="module")
def bundle() -> bytes:
    return make_bundle()


def context() -> Context:
    node = {"home": "/of/the/server's/choice", "partition-id": 3}
    return Context(run_id=1, node_id=2, node_config=dict(node), state=RecordDict(), run_config={})


def asked() -> Message:
    return Message(RecordDict(), 2, "query.join")


def answerer(bundle: bytes, app: object) -> Answerer:
    return Answerer(Bench(Path("/kit"), bundle_hash(bundle), app, Path("/nowhere"), b"secret"))  # type: ignore[arg-type]


def test_the_installed_app_answers_with_the_silos_own_configuration(bundle: bytes) -> None:
    seen = []

    def app(message: Message, context: Context) -> Message:
        seen.append(dict(context.node_config))
        return message

    question = asked()
    assert answerer(bundle, app)(question, context(), bundle) is question
    assert seen == [{"home": "/kit"}]


def with_more(bundle: bytes, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO(bundle)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_nothing_of_a_bundle_is_imported(bundle: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what a silo does not run and may therefore come with a bundle, and not what it does."""

    def reading(path: object, mode: str = "r", *more: object, **given: object) -> object:
        assert mode in ("r", "rb"), f"{path} is written"
        return opened(path, mode, *more, **given)  # type: ignore[call-overload]

    opened, paths, before = io.open, list(sys.path), set(sys.modules)
    both = with_more(bundle, {"server/of_the_server.py": b"raise SystemExit", "scenarios/x.pth": b"import os\n"})
    answering = answerer(bundle, lambda message, context: message)
    monkeypatch.setattr(io, "open", reading)
    monkeypatch.setattr(builtins, "open", reading)
    question = asked()
    assert answering(question, context(), both) is question
    monkeypatch.undo()
    assert not [name for name in sys.modules.keys() - before if name.partition(".")[0] in PACKAGES]
    assert sys.path == paths


def changed(bundle: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, content + b"\n# seen\n" if entry.filename == "clients/policy.py" else content)
    return buffer.getvalue()


def test_a_run_of_other_code_is_refused_before_anything_of_it_is_looked_at(
    bundle: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def app(message: Message, context: Context) -> Message:
        raise AssertionError("was asked")

    one = answerer(bundle, app)
    for other in (changed(bundle), changed(bundle), b"no bundle at all", b""):
        with caplog.at_level(logging.ERROR):
            refused = one(asked(), context(), other)
        assert isinstance(refused, Error)
        assert refused.reason == "policy-refused"
    assert "its code is" in caplog.text
    assert "cannot be read as a ZIP file" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("the record of Jane Doe"), "internal"),
        (DataError("row 17"), "internal"),
        (PrivacyBudgetExceeded("spent"), "budget-exceeded"),
    ],
)
def test_what_the_app_raises_leaves_as_a_code(bundle: bytes, error: Exception, code: str) -> None:
    def app(message: Message, context: Context) -> Message:
        raise error

    refused = answerer(bundle, app)(asked(), context(), bundle)
    assert isinstance(refused, Error)
    assert refused.reason == code
