"""After `lock_down` a process can open nothing and escape nothing; checked in real processes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from service.decoding.process import resident_bytes
from service.decoding.sandbox import SandboxLimits

REPO = Path(__file__).parents[3]
PRELUDE = """
import ctypes, json, os, resource, socket, sys, time
answers = os.dup(1)
from service.decoding.sandbox import SandboxLimits, leaks, lock_down, renew_cpu
def tried(attempt):
    try:
        attempt()
    except (OSError, MemoryError, ValueError) as error:
        return type(error).__name__
    return "possible"
def answer(value):
    os.write(answers, json.dumps(value).encode())
"""


ORDINARY = "os.setgid(65534)\nos.setuid(65534)\n"  # root becomes nobody, as in a container
USERS = ["", pytest.param(ORDINARY, marks=pytest.mark.skipif(os.geteuid() != 0, reason="not root"))]


def confined(script: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-c", PRELUDE + textwrap.dedent(script)]
    return subprocess.run(asked, cwd=REPO, capture_output=True, text=True, check=False, timeout=60)


ATTEMPTS = """
lock_down(SandboxLimits(memory_bytes=2**29))
answer({
    "read a file": tried(lambda: open("/etc/hostname")),
    "write a file": tried(lambda: open("/tmp/kshot-escape", "w")),
    "list a folder": tried(lambda: os.listdir("/")),
    "tcp": tried(lambda: socket.create_connection(("127.0.0.1", 80))),
    "udp": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "unix": tried(lambda: socket.socket(socket.AF_UNIX)),
    "pipe": tried(os.pipe),
    "copy a descriptor": tried(lambda: os.dup(0)),
    "raise a limit": tried(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))),
    "much memory": tried(lambda: bytearray(2**29)),
    "leaks": leaks(),
})
"""


@pytest.mark.parametrize("user", USERS, ids=["this user", "ordinary user"])
def test_nothing_can_be_opened(user: str) -> None:
    found = confined(user + ATTEMPTS)
    assert found.returncode == 0, found.stderr
    outcome = json.loads(found.stdout)
    assert outcome.pop("leaks") == []
    assert "possible" not in outcome.values(), outcome


def test_an_unconfined_process_is_told_from_a_confined_one() -> None:
    assert json.loads(confined("answer(leaks())").stdout) == ["opens files", "opens sockets"]


def test_privileges_are_gone() -> None:
    found = confined(
        """
        lock_down(SandboxLimits())
        libc = ctypes.CDLL(None)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        held = (ctypes.c_uint32 * 6)()
        libc.capget(header, held)
        no_new_privileges = libc.prctl(39, 0, 0, 0, 0)
        answer([sum(held), no_new_privileges, resource.getrlimit(resource.RLIMIT_CORE)[0]])
        """
    )
    assert json.loads(found.stdout) == [0, 1, 0], found.stderr


def test_processor_time_is_bounded_anew_for_each_clip() -> None:
    found = confined(
        """
        lock_down(SandboxLimits())
        for _ in range(3):
            renew_cpu(1)
            end = time.process_time() + 0.5
            while time.process_time() < end:
                pass
        os.write(answers, b"alive")
        while True:
            pass
        """
    )
    assert found.stdout == "alive"
    assert found.returncode == -signal.SIGXCPU


@pytest.mark.parametrize("user", USERS, ids=["this user", "ordinary user"])
def test_decoder_dies_with_the_process_that_started_it(user: str) -> None:
    start = time.monotonic()
    confined(
        user
        + textwrap.dedent(
            """
            if os.fork():
                time.sleep(0.5)
                os._exit(0)
            lock_down(SandboxLimits())
            time.sleep(50)
            """
        )
    )
    assert time.monotonic() - start < 20  # both ends of the pipes are closed


def test_memory_held_is_read_from_the_kernel() -> None:
    assert resident_bytes(os.getpid()) > 2**20
    assert resident_bytes(2**22 + 1) == 0
    assert SandboxLimits().memory_bytes == 2**31
