"""Small talkers for namespaces: `talk.py ROLE ...`, one line of result on standard output."""

import socket
import sys
import time


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve_tcp(address: str, port: str) -> None:
    with socket.create_server((address, int(port)), family=family(address), backlog=128) as server:
        print("ready", flush=True)
        while True:
            connection, peer = server.accept()
            with connection:
                size = 0
                while chunk := connection.recv(65536):
                    size += len(chunk)
                connection.sendall(f"{size} {peer[0]}".encode())


def connect_tcp(address: str, port: str, times: str, size: str) -> None:
    answers = []
    for _ in range(int(times)):
        with socket.create_connection((address, int(port)), timeout=5) as connection:
            connection.sendall(b"x" * int(size))
            connection.shutdown(socket.SHUT_WR)
            answers.append(connection.recv(100).decode().split()[0])
    print(" ".join(answers))


def serve_udp(address: str, port: str, seconds: str) -> None:
    with socket.socket(family(address), socket.SOCK_DGRAM) as server:
        server.bind((address, int(port)))
        server.settimeout(0.2)
        print("ready", flush=True)
        end, size = time.monotonic() + float(seconds), 0
        while time.monotonic() < end:
            try:
                size += len(server.recv(65536))
            except TimeoutError:
                continue
    print(size)


def flood_udp(address: str, port: str, bytes_per_s: str, seconds: str, size: str = "1200") -> None:
    payload = b"x" * int(size)
    with socket.socket(family(address), socket.SOCK_DGRAM) as sender:
        start, sent = time.monotonic(), 0
        while (passed := time.monotonic() - start) < float(seconds):
            while sent < passed * float(bytes_per_s):
                sender.sendto(payload, (address, int(port)))
                sent += len(payload)
            time.sleep(0.005)
    print(sent)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
