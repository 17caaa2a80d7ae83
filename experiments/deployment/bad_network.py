"""A bad network between a SuperLink and some of its SuperNodes: a proxy on the loopback interface.

What goes through it is late, at times has to be sent again, and for a while does not arrive at all. It stands for what
``tc netem`` does to an interface, which needs a kernel's rights:

    .venv/bin/python experiments/deployment/bad_network.py --listen 9192 --to 9092 --delay 0.1 --loss 0.02 --cut 60 120
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
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
    cut : tuple of float
        Seconds after the start from which, and until which, nothing arrives. Connections stay open, as they do when a
        cable is pulled: nobody is told.
    seed : int
        Seed of the losses.
    """

    delay: float = 0.0
    loss: float = 0.0
    resend: float = 0.2
    cut: tuple[float, float] = (float("inf"), float("inf"))
    seed: int = 0

    def arrival(self, sent: float, since_start: float, rng: random.Random) -> float:
        """Return the instant at which a chunk that is sent at an instant arrives.

        Examples
        --------
        >>> BadNetwork(delay=0.5, cut=(10.0, 20.0)).arrival(111.0, 11.0, random.Random(0))
        120.5
        """
        arrives = sent + self.delay
        while rng.random() < self.loss:
            arrives += self.resend
        begins, ends = (sent - since_start + instant for instant in self.cut)
        return max(arrives, ends + self.delay) if begins <= arrives < ends + self.delay else arrives


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, network: BadNetwork, start: float, rng: random.Random
) -> None:
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
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            now = time.monotonic()
            waiting.put_nowait((network.arrival(now, now - start, rng), data))
    waiting.put_nowait((0.0, b""))
    with contextlib.suppress(ConnectionError):
        await task


async def serve(listen: int, to: int, network: BadNetwork, ready: threading.Event | None = None) -> None:
    """Forward connections to a port of this machine to another one, until cancelled."""
    start, rng = time.monotonic(), random.Random(network.seed)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", to)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(
                _forward(reader, there[1], network, start, rng), _forward(there[0], writer, network, start, rng)
            )
        finally:
            for one in (writer, there[1]):
                one.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", listen)
    if ready is not None:
        ready.set()
    async with server:
        await server.serve_forever()


@contextmanager
def bad_network(listen: int, to: int, network: BadNetwork) -> Iterator[None]:
    """Run the proxy in a thread for as long as the block lasts.

    Raises
    ------
    OSError
        If the port is in use.
    """
    ready, failed = threading.Event(), list[OSError]()
    stop: list[Callable[[], None]] = []

    async def run() -> None:
        task = asyncio.ensure_future(serve(listen, to, network, ready))
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
        yield
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
    parser.add_argument("--cut", type=float, nargs=2, default=(float("inf"), float("inf")), help="seconds from and to")
    args = parser.parse_args()
    network = BadNetwork(args.delay, args.loss, cut=(args.cut[0], args.cut[1]))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(args.listen, args.to, network))


if __name__ == "__main__":
    main()
