"""A bad network between a SuperLink and some of its SuperNodes: a proxy on the loopback interface.

What goes through it is late, at times has to be sent again, loses its connection, or does not arrive for a while. It
stands for what ``tc netem`` does to an interface, which needs a kernel's rights:

    .venv/bin/python experiments/deployment/bad_network.py --listen 9192 --to 9092 --delay 0.1 --loss 0.02 --cut 60 120
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CHUNK = 1 << 16


@dataclass(frozen=True)
class BadNetwork:
    """What happens to bytes on their way.

    Attributes
    ----------
    delay : float
        Seconds that they take.
    loss : float
        Probability that a packet of them is lost. TCP sends it again, and what follows waits for it.
    resend : float
        Seconds until TCP does.
    broken : float
        Probability that a connection breaks with a packet, which never arrives; both ends are told.
    cut : tuple of float
        Seconds after the start from which, and until which, nothing arrives. Connections stay open, as they do when a
        cable is pulled: nobody is told.
    seed : int
        Seed of the losses.
    """

    delay: float = 0.0
    loss: float = 0.0
    resend: float = 0.2
    broken: float = 0.0
    cut: tuple[float, float] = (float("inf"), float("inf"))
    seed: int = 0

    def arrival(self, sent: float, cuts: Iterable[tuple[float, float]], rng: random.Random) -> float:
        """Return the instant at which a chunk that is sent at an instant arrives, given when the network is cut.

        Examples
        --------
        >>> BadNetwork(delay=0.5).arrival(111.0, [(110.0, 120.0)], random.Random(0))
        120.5
        """
        arrives = sent + self.delay
        while rng.random() < self.loss:
            arrives += self.resend
        for begins, ends in cuts:
            if begins <= arrives < ends + self.delay:
                arrives = ends + self.delay
        return arrives


class Link:
    """A bad network at work, for as long as its proxy runs.

    Parameters
    ----------
    network : BadNetwork
        What happens on it.

    Attributes
    ----------
    cuts : list of (float, float)
        Instants, of :func:`time.monotonic`, from and until which nothing arrives.
    broken : int
        Connections that have been broken.
    """

    def __init__(self, network: BadNetwork) -> None:
        start = time.monotonic()
        self.network = network
        self.cuts = [(start + network.cut[0], start + network.cut[1])]
        self.broken = 0
        self._rng = random.Random(network.seed)

    def cut(self, seconds: float) -> None:
        """Cut it from now on for so many seconds."""
        now = time.monotonic()
        self.cuts.append((now, now + seconds))

    def arrival(self) -> float | None:
        """Return the instant at which a chunk that is sent now arrives, None if its connection breaks."""
        if self._rng.random() < self.network.broken:
            self.broken += 1
            return None
        return self.network.arrival(time.monotonic(), self.cuts, self._rng)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
    """Read without waiting, so that a delay takes nothing from the bandwidth, and write in order when it is time."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        last = 0.0
        while True:
            instant, data = await waiting.get()
            last = max(last, instant)  # bytes of a connection never overtake each other
            await asyncio.sleep(max(0.0, last - time.monotonic()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    task = asyncio.ensure_future(deliver())
    try:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                arrives = link.arrival()
                if arrives is None:
                    raise _BrokenError
                waiting.put_nowait((arrives, data))
        waiting.put_nowait((0.0, b""))
        with contextlib.suppress(ConnectionError):
            await task
    finally:
        task.cancel()


class _BrokenError(Exception):
    """A connection breaks."""


async def serve(listen: int, to: int, link: Link, ready: threading.Event | None = None) -> None:
    """Forward connections to a port of this machine to another one, until cancelled."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", to)
        except OSError:
            writer.close()
            return
        ways = [asyncio.ensure_future(_forward(*way, link)) for way in ((reader, there[1]), (there[0], writer))]
        try:
            with contextlib.suppress(_BrokenError):
                await asyncio.gather(*ways)
        finally:
            for one in ways:
                one.cancel()
            for end in (writer, there[1]):
                end.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", listen)
    if ready is not None:
        ready.set()
    async with server:
        await server.serve_forever()


@contextmanager
def bad_network(listen: int, to: int, network: BadNetwork) -> Iterator[Link]:
    """Run the proxy in a thread for as long as the block lasts.

    Raises
    ------
    OSError
        If the port is in use.
    """
    ready, failed = threading.Event(), list[OSError]()
    stop: list[Callable[[], None]] = []
    link = Link(network)

    async def run() -> None:
        task = asyncio.ensure_future(serve(listen, to, link, ready))
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
        try:
            await task
        except asyncio.CancelledError:
            pass
        except OSError as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    ready.wait()
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield link
    finally:
        stop[0]()
        thread.join(10.0)


def main() -> None:
    """Run the proxy until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", type=int, required=True, help="the port that nodes connect to")
    parser.add_argument("--to", type=int, required=True, help="the SuperLink's port")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds each way")
    parser.add_argument("--loss", type=float, default=0.0, help="probability that a packet is lost")
    parser.add_argument("--broken", type=float, default=0.0, help="probability that a connection breaks with a packet")
    parser.add_argument("--cut", type=float, nargs=2, default=(float("inf"), float("inf")), help="seconds from and to")
    args = parser.parse_args()
    network = BadNetwork(args.delay, args.loss, broken=args.broken, cut=(args.cut[0], args.cut[1]))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(args.listen, args.to, Link(network)))


if __name__ == "__main__":
    main()
