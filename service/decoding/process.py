"""One decoder process as the service sees it: started, asked, watched, killed."""

import asyncio
import contextlib
import math
import os
import resource
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import service
from model.errors import KshotError
from model.media.container import MediaLimits
from service.background import spawn
from service.decoding.protocol import Message, PixelMemory, ProtocolError, receive, send
from service.decoding.sandbox import SandboxLimits

ROOT = Path(next(iter(service.__path__))).resolve().parent
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONHOME")  # the loader's; no secret of the service's
KEEP_HEAP = {  # pictures' memory is used again, not given back and faulted in for every clip
    "MALLOC_MMAP_THRESHOLD_": str(2**22),
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
}
LEAST_WORKERS = 2  # so that one long clip does not stand before all others
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # control groups, version 2
DYING_S = 2.0  # between a process's last words and its end


class DecoderUnavailableError(KshotError):
    """No sandboxed decoder can be had: it does not start, or the pool is closed."""

    code = "decoder-unavailable"


class Decoder:
    """A sandboxed `service.decoding.worker`, the pipes to it, and the memory it fills."""

    def __init__(
        self, process: asyncio.subprocess.Process, memory: PixelMemory, limits: SandboxLimits
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.clips = 0
        self.memory = memory
        self.introduction: Mapping[str, Any] = {}
        self._process = process
        self._input, self._output = process.stdin, process.stdout
        self._limits = limits
        self._stopped = False
        self._complaints: deque[bytes] = deque(maxlen=20)
        self._listener = spawn(self._listen())

    @classmethod
    async def start(
        cls,
        *,
        frames: int,
        size: int,
        squash: int | None = None,
        media: MediaLimits,
        sandbox: SandboxLimits,
        module: str = "service.decoding.worker",
        files: Sequence[int] = (),
    ) -> Self:
        """Start a process and wait until it has locked itself down.

        Args:
            frames: That its memory has room for.
            size: Of these.
            squash: Side that whole pictures are squashed to before the crop; None: not.
            media: What is accepted.
            sandbox: What it may use.
            module: What it runs.
            files: Descriptors that it gets, numbered in its arguments.

        Raises:
            DecoderUnavailableError: It did not start, or its sandbox leaks.
        """
        memory = PixelMemory(frames, size)
        try:
            decoder = cls(await _spawn(module, (memory.fd, *files)), memory, sandbox)
        except BaseException:
            memory.close()
            raise
        hello = {
            "frames": frames,
            "size": size,
            "squash": squash,
            "media": asdict(media),
            "sandbox": asdict(sandbox),
        }
        await decoder._introduced(Message(hello))
        return decoder

    async def _introduced(self, hello: Message) -> None:
        """Wait until the process is ready, and leave none behind that is not."""
        start_s = self._limits.start_s
        try:
            async with asyncio.timeout(start_s):
                await self._introduce(hello)
        except TimeoutError as error:
            await self.stop()
            raise DecoderUnavailableError(
                f"A decoder was not ready after {start_s:g} s; give it a larger start_s."
            ) from error
        except BaseException:
            await self.stop()
            raise

    async def _introduce(self, hello: Message) -> None:
        try:
            await send(self._input, hello)
            self.introduction = (await receive(self._output, 0)).header
        except (OSError, EOFError, ProtocolError) as error:
            exit_code = await self.ended()
            await self.stop()
            last = b" ".join(list(self._complaints)[-1:]).decode(errors="replace").strip()
            raise DecoderUnavailableError(
                f"A decoder ended with {exit_code} before it was ready"
                f" ({last or 'no message'}); check its memory limit of"
                f" {self._limits.memory_bytes} bytes."
            ) from error
        if self.introduction["leaks"] or self.introduction["torch"]:
            raise DecoderUnavailableError(
                f"A decoder's sandbox does not hold ({self.introduction}); check the kernel's"
                " resource limits."
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, was not told to stop, and has not closed its answers' pipe."""
        running = self._process.returncode is None and not self._output.at_eof()
        return running and not self._stopped

    @property
    def worn(self) -> bool:
        """Whether it should be replaced: it has served enough clips, or holds too much memory."""
        limits = self._limits
        return (
            not self.alive
            or self.clips >= limits.clips_per_worker
            or resident_bytes(self.pid) > limits.resident_bytes
        )

    async def ask(self, request: Message) -> Message:
        """Send one clip and wait for its answer, within the wall limit; frames are in its memory.

        Raises:
            TimeoutError: No answer in time; the process is still there.
            OSError, EOFError, ProtocolError: It died, or answered something else.
        """
        self.clips += 1
        async with asyncio.timeout(self._limits.wall_s):
            await send(self._input, request)
            return await receive(self._output, 0)

    def kill(self) -> None:
        """End the process now; `stop` waits for it."""
        self._stopped = True
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # `Process.kill` would first reap a process that just died, and its status be lost
                os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> int | None:
        """Wait a moment for a process that closed its pipe to be gone; give its exit code."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DYING_S):
                await self._process.wait()
        return self._process.returncode

    async def stop(self) -> None:
        """Kill the process and wait until nothing is left of it."""
        self.kill()
        self._input.close()
        await self._process.wait()
        await self._listener
        self.memory.close()
        with contextlib.suppress(OSError):
            await self._input.wait_closed()

    async def _listen(self) -> None:
        """Empty standard error, keeping the last lines for an error message."""
        assert self._process.stderr is not None
        while text := await self._process.stderr.read(4096):
            self._complaints.extend(text[-2000:].splitlines())


async def _spawn(module: str, files: Sequence[int]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, *map(str, files)),
            pass_fds=tuple(files),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**21,
            cwd="/",
            env=_environment(),
        )
    except OSError as error:
        raise DecoderUnavailableError(
            f"A decoder process cannot be started ({error.strerror}); check the limits on"
            " processes and memory."
        ) from error


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",
        **KEEP_HEAP,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def resident_bytes(pid: int) -> int:
    """Tell how much memory a process holds now; 0 when it is gone or not on Linux."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * resource.getpagesize()


def usable_cores(quota: Path = QUOTA) -> int:
    """Count the cores that can be kept busy, at least 2.

    Args:
        quota: Where the kernel shows microseconds of processor time, and of which period.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text().split()
        cores = min(cores, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):
        pass  # no quota file, or "max"
    return max(LEAST_WORKERS, cores)
