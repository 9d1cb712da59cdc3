"""Serves or opens many short TCP connections: `serve PORT`, or `open ADDRESS PORT COUNT SECONDS` (result as JSON)."""

import asyncio
import json
import sys
import time

# A client's kernel says its opening again after 1, 3 and 7 s.
PATIENCE_S = 9.0


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readexactly(4))
    await writer.drain()
    writer.close()


async def _serve(port: int) -> None:
    server = await asyncio.start_server(_echo, "0.0.0.0", port, backlog=512)
    print("serving", flush=True)
    await server.serve_forever()


async def _once(address: str, port: int) -> float | None:
    began = time.monotonic()

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(b"ping")
        await writer.drain()
        answer = await reader.readexactly(4)
        writer.close()
        return answer

    try:
        await asyncio.wait_for(talk(), PATIENCE_S)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    return time.monotonic() - began


async def _open(address: str, port: int, count: int, seconds: float) -> None:
    print("opening", flush=True)
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(_once(address, port)))
        await asyncio.sleep(seconds / count)
    took = await asyncio.gather(*tasks)
    well = sorted(one for one in took if one is not None)
    late = sum(one > 0.5 for one in well)
    print(json.dumps({"failed": count - len(well), "late": late, "longest_s": well[-1] if well else None}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(int(sys.argv[2])))
    else:
        asyncio.run(_open(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
