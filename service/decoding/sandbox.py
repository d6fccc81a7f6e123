"""What a decoder process may use, and how it gives up the rest for good.

`lock_down` runs in the decoder after all imports. From then on no file descriptor can be opened,
so no file and no socket; memory, processor time and new processes are bounded by the kernel;
capabilities are dropped. Where the kernel permits it, the process has no network either.
"""

import ctypes
import math
import os
import resource
import signal
import socket
from dataclasses import dataclass

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CAPABILITY_VERSION_3 = 0x20080522
NICENESS = (
    10  # of decoders and of the engine's lanes: the event loop, which is soon done, goes first
)
OPEN_FDS = 4  # standard input, output, error, and the answers' pipe


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What one decoder process may use."""

    memory_bytes: int = 2**31  # address space: 2 GiB, for 10-bit 8K
    resident_bytes: int = 2**29  # a decoder that holds more between clips is replaced
    cpu_s: int = 30  # processor time for one clip
    wall_s: float = 45.0  # time for one clip, from handing it over to its answer
    clips_per_worker: int = 1000  # then the decoder is replaced; a start costs 0.2 s of a core
    start_s: float = 30.0  # for a decoder to import, warm up and lock down


def lock_down(limits: SandboxLimits, open_fds: int = OPEN_FDS) -> None:
    """Give up files, sockets, processes and privileges; there is no way back.

    Args:
        limits: What is left.
        open_fds: The lowest so many descriptors stay open, and no other can be had.
    """
    for stops in (signal.SIGTERM, signal.SIGINT):
        # sent to the whole group by systemd and by Ctrl-C; the service lets requests end first
        signal.signal(stops, signal.SIG_IGN)
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    os.closerange(open_fds, 4096)
    os.chdir("/")
    if libc.unshare(CLONE_NEWNET) != 0:  # as root; otherwise a user namespace may allow it
        libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, open_fds),
        (resource.RLIMIT_AS, limits.memory_bytes),
    ):
        resource.setrlimit(kind, (most, most))
    _drop_capabilities(libc)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # last, since a change of credentials clears it: the decoder dies with the service
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("The service ended while its decoder started.")


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    libc.capset(ctypes.byref(header), ctypes.byref(nothing))


def renew_cpu(cpu_s: int) -> None:
    """Allow `cpu_s` more seconds of processor time; the kernel kills the process after that."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = math.ceil(usage.ru_utime + usage.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (used_s + cpu_s, resource.RLIM_INFINITY))


def leaks() -> list[str]:
    """Try to open a file and a socket, and name what worked: after `lock_down`, nothing may."""
    found = []
    try:
        os.close(os.open("/", os.O_RDONLY))
        found.append("opens files")
    except OSError:
        pass
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
        found.append("opens sockets")
    except OSError:
        pass
    return found
