"""Units of what is kept in bytes and bytes per second, and how people read them."""

from cpdb.model import BytesPerS

MIB, GIB = 1 << 20, 1 << 30
# Bytes per second in one Mbit/s
MBIT = 1e6 / 8


def show_rate(bytes_per_s: BytesPerS, digits: int = 1) -> str:
    """A rate as people in networking read it, e.g. '5.2 Mbit/s'."""
    return f"{bytes_per_s / MBIT:.{digits}f} Mbit/s"


def show_mebibytes(size_bytes: float) -> str:
    """An amount of memory for people, e.g. '512 MiB'."""
    return f"{size_bytes / MIB:.0f} MiB"
