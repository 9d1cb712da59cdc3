"""The client program: plays one client's part of a schedule, on time, and writes down what became of each request.

    python -m tools.lab.traffic --schedule FILE --client c1 --start-at UNIX --spins-per-ms N --out FILE.jsonl

Open loop: a slow answer delays nothing else. Each request is a connection of its own and is lost after four seconds.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from forepath.demo.results import TIMEOUT_S, Played
from forepath.demo.schedule import WIRE_OVERHEAD_BYTES, Request, Schedule, Stream

_TICK_S = 0.01


class Player:
    """Plays the requests of one client; `write` receives one JSON line for each."""

    def __init__(self, client: str, schedule: Schedule, spins_per_ms: float, write: TextIO) -> None:
        self.client = client
        self.schedule = schedule
        self.spins_per_ms = spins_per_ms
        self.write = write
        self._payload = bytes(64 * 1024)

    async def play(self, start_at: float) -> None:
        """Play everything, relative to the Unix time `start_at`; what is past its timeout already is lost."""
        running: set[asyncio.Task[None]] = set()
        for request in self.schedule.requests.get(self.client, ()):
            wait = start_at + request.at_s - time.time()
            if wait < -TIMEOUT_S:
                self._note(request, start_at + request.at_s, time.time(), None)
                continue
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._one(request, start_at + request.at_s))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(running)

    async def _one(self, request: Request, scheduled_at: float) -> None:
        started_at = time.time()
        latency_s: float | None = None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                await self._ask(request)
            latency_s = time.time() - scheduled_at
        self._note(request, scheduled_at, started_at, latency_s)

    def _note(self, request: Request, scheduled_at: float, started_at: float, latency_s: float | None) -> None:
        played = Played(self.client, request.service, scheduled_at, started_at, latency_s, request.bytes, request.surge)
        self.write.write(json.dumps(asdict(played)) + "\n")

    async def _ask(self, request: Request) -> None:
        address = self.schedule.addresses[request.service]
        reader, writer = await asyncio.open_connection(address, 80)
        try:
            spin = int(request.cpu_ms * self.spins_per_ms)
            head = f"POST /work?spin={spin} HTTP/1.1\r\nHost: x\r\nContent-Length: {request.bytes}\r\n\r\n"
            writer.write(head.encode() + self._payload[: request.bytes])
            answer = await reader.read(-1)
            if b" 200 " not in answer[:16]:
                raise ConnectionError("not served")
        finally:
            # Abort: a lost request must not go on retransmitting into the next measurement.
            writer.transport.abort()


async def stream(plan: Stream, address: str, start_at: float) -> int:
    """Send the stream's datagrams, paced in ticks of 10 ms; return how many were sent."""
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setblocking(False)
    link.connect((address, plan.port))
    payload, sent, budget = bytes(plan.datagram_bytes), 0, 0.0
    wire_bytes = plan.datagram_bytes + WIRE_OVERHEAD_BYTES
    await asyncio.sleep(max(0.0, start_at - time.time()))
    before, step = time.time(), 0
    while (now := time.time()) < start_at + plan.end_s:
        while step + 1 < len(plan.rates) and plan.rates[step + 1][0] <= now - start_at:
            step += 1
        budget = min(budget + (now - before) * plan.rates[step][1], 10 * _TICK_S * plan.rates[step][1])
        before = now
        while budget >= wire_bytes:
            budget -= wire_bytes
            with contextlib.suppress(OSError):
                link.send(payload)
                sent += 1
        await asyncio.sleep(_TICK_S)
    link.close()
    return sent


async def _play_all(options: argparse.Namespace, schedule: Schedule) -> None:
    with options.out.open("w", buffering=1) as out:
        player = Player(options.client, schedule, options.spins_per_ms, out)
        parts = [player.play(options.start_at)]
        for plan in schedule.streams:
            if plan.client == options.client:
                parts.append(_stream_and_tell(plan, schedule.addresses[plan.service], options.start_at, out))
        await asyncio.gather(*parts)


async def _stream_and_tell(plan: Stream, address: str, start_at: float, out: TextIO) -> None:
    sent = await stream(plan, address, start_at)
    row = {"stream": plan.service, "datagrams": sent, "bytes": sent * plan.datagram_bytes}
    out.write(json.dumps(row) + "\n")


def main(words: Sequence[str] | None = None) -> int:
    """Play one client's part; 0 when all was played, 130 after an interruption."""
    parser = argparse.ArgumentParser(description="Play one client's part of a traffic schedule.")
    parser.add_argument("--schedule", type=Path, required=True)
    parser.add_argument("--client", required=True)
    parser.add_argument("--start-at", type=float, required=True, help="Unix time of the schedule's second 0")
    parser.add_argument("--spins-per-ms", type=float, default=0.0, help="the guests' speed, from the lab")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(words)
    schedule = Schedule.load(options.schedule)
    gc.freeze()
    try:
        asyncio.run(_play_all(options, schedule))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
