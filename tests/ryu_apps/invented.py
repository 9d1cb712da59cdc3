"""In a namespace: `flood` sends frames of invented sources, `meet` opens a connection from each of several own ones."""

import socket
import sys
import time
from pathlib import Path

from ryu_apps.rules import virtual_mac


def flood(virtual_ip: str, per_s: str, seconds: str) -> None:
    """UDP in the name of ever new sources; prints how many frames went out, and at which rate."""
    device = next(one.name for one in Path("/sys/class/net").iterdir() if one.name != "lo")
    mac = bytes.fromhex((Path("/sys/class/net") / device / "address").read_text().strip().replace(":", ""))
    begin = bytes.fromhex(virtual_mac(virtual_ip).replace(":", "")) + mac + b"\x08\x00"
    head = b"\x45\x00\x00\x1c\x00\x00\x40\x00\x40\x11\x00\x00"
    end = socket.inet_aton(virtual_ip) + b"\x0f\xa0\x00\x09\x00\x08\x00\x00" + bytes(18)
    sent, start = 0, time.monotonic()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
        mouth.bind((device, 0))
        while (passed := time.monotonic() - start) < float(seconds):
            while sent < passed * float(per_s):
                mouth.send(begin + head + b"\x0b" + sent.to_bytes(3) + end)
                sent += 1
            time.sleep(0.001)
    print(sent, round(sent / passed), flush=True)


def meet(virtual_ip: str, port: str, *sources: str) -> None:
    """Prints for each source, in ms, how long its first connection took; the sources are addresses of this machine."""
    told = []
    for source in sources:
        begun = time.monotonic()
        with socket.create_connection((virtual_ip, int(port)), timeout=8, source_address=(source, 0)):
            told.append(round((time.monotonic() - begun) * 1000))
        time.sleep(0.2)
    print(*told, flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
