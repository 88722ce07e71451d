"""A deployed server, before its processes are started."""

from __future__ import annotations

import socket

import pytest

from fedmodel.errors import ConfigError
from server import party


def test_an_address_that_cannot_be_listened_on_is_said_at_start() -> None:
    """And not again and again in a log, by a process that is started again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}' cannot be listened on"):
            party.check_listen(f"127.0.0.1:{port}")
    party.check_listen(f"127.0.0.1:{port}")
    with pytest.raises(ConfigError, match="name an address of this machine"):
        party.check_listen("192.0.2.1:9443")
