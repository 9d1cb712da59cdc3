"""Lets the C library hand large arrays back as soon as they are gone, so that a big cycle does not keep their room."""

import ctypes

# mallopt(3): arrays from this size on are mapped by themselves. Set by hand, glibc no longer raises it to 32 MB.
M_MMAP_THRESHOLD = -3
LARGE_BYTES = 1 << 20


def give_back_large_arrays() -> bool:
    """For the whole process; False where the C library has no such switch."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) == 1
