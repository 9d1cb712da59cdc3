"""Asks services for a sign of life from inside a client, and says in one line which of them never gave one.

python -m tools.lab.probe --for 20 10.77.0.101 10.77.0.102
"""

import argparse
import http.client
import sys
import time
from collections.abc import Sequence

PAUSE_S = 0.2


def answers(address: str, timeout_s: float) -> bool:
    """Whether http://ADDRESS/stat answers 200 within the time."""
    connection = http.client.HTTPConnection(address, 80, timeout=timeout_s)
    try:
        connection.request("GET", "/stat")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_for(addresses: Sequence[str], seconds: float) -> list[str]:
    """Asks each address again and again; returns those that never answered within `seconds`."""
    silent, deadline = list(addresses), time.monotonic() + seconds
    while silent and time.monotonic() < deadline:
        silent = [address for address in silent if not answers(address, timeout_s=1.0)]
        if silent:
            time.sleep(PAUSE_S)
    return silent


def main() -> int:
    """0 when all answered, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Wait until services answer.")
    parser.add_argument("--for", dest="seconds", type=float, default=20.0, help="how long to try, seconds")
    parser.add_argument("address", nargs="+")
    options = parser.parse_args()
    silent = wait_for(options.address, options.seconds)
    if silent:
        print(f"no answer within {options.seconds:g} s from {', '.join(silent)}")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
