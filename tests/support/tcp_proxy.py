"""A TCP proxy before one broker, so that the network between it and a client can fail while brokers talk on.

It runs in the event loop that started it. What it does to the bytes is one of four ways:
open; cut (connections are reset, and new ones too); silent (nothing passes, nothing is closed: packets are lost);
slow (each piece waits).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

HOST = "127.0.0.1"
PIECE_BYTES = 65_536


class Proxy:
    """Listens on a port of its own and forwards to ``target``, once it has one."""

    def __init__(self) -> None:
        self.target: tuple[str, int] | None = None
        self._server: asyncio.Server | None = None
        self._passing = asyncio.Event()
        self._passing.set()
        self._is_cut = False
        self._delay_seconds = 0.0
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Return the port that clients connect to."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def address(self) -> str:
        """Return host and port that clients connect to."""
        return f"{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen; a connection made before there is a target is reset."""
        self._server = await asyncio.start_server(self._connected, HOST, 0)

    async def stop(self) -> None:
        """Reset all connections and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def open(self) -> None:
        """Let everything pass; what was held back by silence passes now, as retransmitted packets do."""
        self._is_cut = False
        self._delay_seconds = 0.0
        self._passing.set()

    def cut(self) -> None:
        """Reset (RST) every connection, and each new one at once."""
        self._is_cut = True
        for end in self._ends:
            _reset(end)

    def silence(self) -> None:
        """Hold every byte back, of new connections as well, and close nothing."""
        self._passing.clear()

    def slow(self, seconds: float) -> None:
        """Let every piece wait so long, in either direction."""
        self._delay_seconds = seconds

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with self._open(writer):
            await self._passing.wait()
            if self._is_cut or self.target is None:
                return
            with contextlib.suppress(OSError):  # the broker is dead: so is the connection, as at a load balancer
                onward, back = await asyncio.open_connection(*self.target)
                with self._open(back):
                    await self._forward((reader, back), (onward, writer))

    async def _forward(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        pumps = [asyncio.create_task(self._pump(*way)) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE_BYTES):
            if self._delay_seconds:
                await asyncio.sleep(self._delay_seconds)
            await self._passing.wait()
            writer.write(piece)
            await writer.drain()

    @contextlib.contextmanager
    def _open(self, end: asyncio.StreamWriter):
        self._ends.add(end)
        try:
            yield
        finally:
            self._ends.discard(end)
            _reset(end)


def _reset(end: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, which is what closing does where lingering is on for no time."""
    raw = end.get_extra_info("socket")
    with contextlib.suppress(OSError):  # the other side was faster
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()
