"""Raw frames in namespaces: `raw.py hear DEVICE` prints the next LLDP frame, `raw.py say DEVICE HEX...` sends some."""

import socket
import sys

LLDP = 0x88CC


def hear(device: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(LLDP)) as ear:
        ear.bind((device, LLDP))
        # LLDP goes to a group address that a host does not listen to by itself.
        ear.setsockopt(263, 1, device_number(device) + bytes((1, 0, 0, 0)) + bytes(8))
        ear.settimeout(10)
        print(ear.recv(2048).hex(), flush=True)


def device_number(device: str) -> bytes:
    return socket.if_nametoindex(device).to_bytes(4, sys.byteorder)


def say(device: str, *frames: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
        mouth.bind((device, 0))
        for frame in frames:
            mouth.send(bytes.fromhex(frame))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
