"""Raw frames in namespaces: `hear DEVICE` prints the next LLDP frame, `say DEVICE HEX...` sends, `count` counts."""

import contextlib
import socket
import sys
import time

LLDP = 0x88CC


def hear(device: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(LLDP)) as ear:
        ear.bind((device, LLDP))
        # LLDP goes to a group address that a host does not listen to by itself.
        ear.setsockopt(263, 1, device_number(device) + bytes((1, 0, 0, 0)) + bytes(8))
        ear.settimeout(10)
        print(ear.recv(2048).hex(), flush=True)


def count(device: str, ethertype: str, seconds: str) -> None:
    """Prints how many frames of that type came in; says `ready` when it listens."""
    kind, until = int(ethertype, 16), time.monotonic() + float(seconds)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as ear:
        ear.bind((device, kind))
        print("ready", flush=True)
        heard = 0
        while (left := until - time.monotonic()) > 0:
            ear.settimeout(left)
            with contextlib.suppress(TimeoutError):
                heard += ear.recvfrom(2048)[1][2] != socket.PACKET_OUTGOING
        print(heard, flush=True)


def device_number(device: str) -> bytes:
    return socket.if_nametoindex(device).to_bytes(4, sys.byteorder)


def say(device: str, *frames: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
        mouth.bind((device, 0))
        for frame in frames:
            mouth.send(bytes.fromhex(frame))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
