"""What one call of the ``python`` tool may use and give back."""

from __future__ import annotations

__all__ = [
    "CPU_SECONDS_KEPT",
    "DESCRIPTORS",
    "FILE_BYTES",
    "FLOOD_BYTES",
    "MEMORY_BYTES",
    "PRINTED_BYTES",
    "PROCESSES",
    "SAVED_BYTES",
    "SAVED_EACH_BYTES",
    "SAVED_MOST",
    "STREAM_BYTES",
]

PRINTED_BYTES = 64 * 1024
"""Of what is printed, the first and the last half of this are kept."""
FLOOD_BYTES = 64 * 2**20
"""Printing more than this ends the call."""
SAVED_MOST = 16
SAVED_EACH_BYTES = 4 * 2**20
SAVED_BYTES = 5 * 2**20
"""All that is saved together; as base64 it fits into one frame with the printed text."""
STREAM_BYTES = 16 * 2**20
"""All that the code's process may send to the supervisor in one call."""
MEMORY_BYTES = 4 * 2**30
"""Address space of each process beyond what it begins with, the model included."""
FILE_BYTES = 48 * 2**20
DESCRIPTORS = 256
PROCESSES = 64
"""Processes and threads, where the uid is not 0."""
CPU_SECONDS_KEPT = 3600
"""Processor time of a process that keeps state."""
