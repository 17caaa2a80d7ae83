"""The proxy that stands for a bad network delays, resends and cuts, and changes no byte."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

PATH = Path(__file__).parents[1] / "experiments" / "deployment" / "bad_network.py"


@pytest.fixture(scope="module")
def proxy() -> Any:
    spec = importlib.util.spec_from_file_location("bad_network", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bad_network"] = module
    spec.loader.exec_module(module)
    return module


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10.0)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(10.0)


def there_and_back(port: int, data: bytes) -> float:
    """Return the seconds after which all of the data has come back, as it was."""
    began, came = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
        while len(came) < len(data):
            came += connection.recv(1 << 16)
    assert came == data
    return time.monotonic() - began


def test_bytes_are_late_and_all_there(proxy: Any) -> None:
    data = bytes(range(256)) * 20_000
    for network, least in ((proxy.BadNetwork(), 0.0), (proxy.BadNetwork(delay=0.2, loss=0.1), 0.4)):
        port = free_port()
        with echo() as there, proxy.bad_network(port, there, network):
            assert least <= there_and_back(port, data) < least + 8.0


def test_what_is_sent_during_a_cut_comes_after_it(proxy: Any) -> None:
    port = free_port()
    with echo() as there, proxy.bad_network(port, there, proxy.BadNetwork(cut=(0.0, 1.5))):
        assert 1.0 < there_and_back(port, b"hello") < 5.0
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_cut_begins_when_it_is_told_to(proxy: Any) -> None:
    port = free_port()
    with echo() as there, proxy.bad_network(port, there, proxy.BadNetwork()) as link:
        link.cut(1.0)
        assert 0.7 < there_and_back(port, b"hello") < 4.0


def test_a_broken_connection_is_told_to_both_ends(proxy: Any) -> None:
    port = free_port()
    with echo() as there, proxy.bad_network(port, there, proxy.BadNetwork(broken=1.0)) as link:
        with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
            connection.sendall(b"hello")
            with contextlib.suppress(ConnectionError):
                assert connection.recv(100) == b""
        assert link.broken == 1


def test_a_port_in_use_is_refused(proxy: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"), proxy.bad_network(port, port, proxy.BadNetwork()):
            pass
