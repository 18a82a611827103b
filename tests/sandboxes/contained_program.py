"""What the tests run inside a container: it does what each line it reads asks for, and answers with a line of JSON."""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path


def tell() -> dict[str, object]:
    """Where it is."""
    return {
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "environment": dict(os.environ),
        "hostname": os.uname().nodename,
        "version": sys.version,
        "root": sorted(path.name for path in Path(sys.argv[1]).iterdir()),
    }


def read(path: str) -> str:
    """What a file holds, or why it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError as error:
        return error.strerror or ""


def write(path: str) -> str:
    """What comes of writing a file."""
    try:
        Path(path).write_text("#!/bin/sh\n")
    except OSError as error:
        return error.strerror or ""
    return "written"


def fill(path: str) -> str:
    """What comes of filling a place with files of a MiB each."""
    try:
        for number in range(1000):
            Path(path, str(number)).write_bytes(bytes(2**20))
    except OSError as error:
        return error.strerror or ""
    return "filled"


def eat(mib: int) -> str:
    """Touch so much memory."""
    kept = []
    for _ in range(mib // 16):
        block = mmap.mmap(-1, 16 * 2**20)
        for page in range(0, len(block), 4096):
            block[page] = 1
        kept.append(block)
    return "eaten"


def fork(times: int) -> int:
    """How many processes can be there at once."""
    children = []
    try:
        for _ in range(times):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
    except OSError:
        pass
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(children)


def orphan(times: int) -> str:
    """Leave children of children behind, which the first process has to reap."""
    for _ in range(times):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                time.sleep(0.05)
            os._exit(0)
        os.waitpid(child, 0)
    return "left"


def flood(mib: int) -> str:
    """Print so much."""
    line = b"x" * 65535 + b"\n"
    for _ in range(mib * 16):
        os.write(2, line)
    return "printed"


def shut() -> str:
    """Close everything and go on."""
    os.close(1)
    os.close(2)
    time.sleep(60)
    return ""


def end(status: int) -> str:
    """Exit."""
    os._exit(status)


def die(number: int) -> str:
    """End by a signal."""
    os.kill(os.getpid(), number)
    return "alive"


DOES = {one.__name__: one for one in (tell, read, write, fill, eat, fork, orphan, flood, shut, end, die)}

if __name__ == "__main__":
    while line := sys.stdin.buffer.readline():
        name, *arguments = json.loads(line)
        answer = DOES[name](*arguments)
        os.write(1, json.dumps(answer).encode() + b"\n")
