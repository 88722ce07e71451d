"""A server that asks, in its second run, what it asked in its first: `python -m tests.integration.replaying KIT KEY`.

As whoever carries messages could, which Flower's SuperLink does: every question is the server's own, signed, whole.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from fedmodel.crypto.sealed import opener_from_key_file
from fedmodel.errors import ProtocolError
from fedmodel.system.durable import replace_file
from server import party, server_app

REPLAYED = "replayed.json"
_WAIT_S = 30.0
_asked: list[tuple[str, int, RecordDict]] = []
_honest = server_app.app


def replay(grid: Grid, context: Context) -> None:
    """Be honest once, and then ask the same again under another run's number."""
    if not _asked:
        real = grid.push_messages

        def push(messages: Iterable[Message]) -> Any:
            kept = list(messages)
            _asked.extend((one.metadata.message_type, one.metadata.dst_node_id, deepcopy(one.content)) for one in kept)
            return real(kept)

        grid.push_messages = push  # type: ignore[method-assign]
        _honest(grid, context)
        return
    said = [
        [kind, _answer(grid, Message(deepcopy(content), node, kind, ttl=_WAIT_S))] for kind, node, content in _asked
    ]
    replace_file(Path(str(context.run_config["run-dir"])) / REPLAYED, json.dumps(said).encode())
    raise ProtocolError("everything was asked again")


def _answer(grid: Grid, message: Message) -> str:
    """Return what became of one question: the code of a refusal, or that it was answered."""
    ids, deadline = list(grid.push_messages([message])), time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        for reply in grid.pull_messages(ids):
            return reply.error.reason if reply.has_error() else "answered"
        time.sleep(0.02)
    return "late"


if __name__ == "__main__":
    server_app.app = replay  # type: ignore[assignment]
    sys.exit(party.serve(Path(sys.argv[1]), opener_from_key_file(Path(sys.argv[2]))))
