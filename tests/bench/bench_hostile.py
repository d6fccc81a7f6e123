"""Hostile clips against a running service: only 4xx, no restart, memory as before.

    python -m tests.bench.bench_hostile --mutants 1000

Starts a service of its own, asks it mutated clips (real videos of each container with bits turned,
pieces cut out, repeated or exchanged) and bombs (giant pictures, endless containers, packed
archives, playlists), each in a request of its own, and measures the memory of the service and of
its decoders before and after. The last line is JSON; the exit code is 1 where a bar is missed.
"""

import argparse
import io
import json
import struct
import sys
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx
import numpy as np

from deploy.local_service import local_service
from tests.phone_videos import avchd
from tests.serving import moving_clip, support_files
from tests.videos import grey_frames, make_audio, make_video

MOST_DRIFT = 0.05  # of the memory after the warm-up
WARM_UP = 100  # mutants after a first round of bombs; allocators have their size then
ENDS = (0, 1, 2**31, 2**32 - 1)
PATIENCE = {"X-Request-Timeout-Ms": "60000"}


def sources() -> list[bytes]:
    """Make a small real clip of each container and codec."""
    frames = grey_frames(16)
    quiet = {"x265-params": "log-level=none"}
    return [
        make_video(frames),
        make_video(frames, container="mov", audio_streams=1),
        make_video(frames, container="matroska"),
        make_video(frames, codec="libx265", options=quiet),
        make_video(frames, codec="libvpx-vp9", container="webm"),
        make_video(frames, codec="mpeg4", container="avi"),
        make_video(frames, container="mpegts"),
        avchd()[0],
        moving_clip(3),
    ]


def mutant(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Damage a clip in one of six ways."""
    data = bytearray(clip)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 2000))
    match int(rng.integers(6)):
        case 0:  # turn some bits
            for place in rng.integers(len(data), size=int(rng.integers(1, 60))):
                data[place] ^= 1 << int(rng.integers(8))
        case 1:  # cut the end off
            del data[max(12, at) :]
        case 2:  # cut a piece out
            del data[at : at + length]
        case 3:  # repeat a piece
            data[at:at] = data[at : at + length] * int(rng.integers(1, 30))
        case 4:  # a piece of another container
            data[at : at + length] = other[at % len(other) :][:length]
        case _:  # numbers at their ends, where headers have sizes and counts
            for place in rng.integers(min(len(data), 4000), size=4):
                data[place : place + 4] = struct.pack(
                    ">I", int(rng.choice([0, 1, 2**31, 2**32 - 1]))
                )
    return bytes(data)


def png(width: int, height: int, packed: bytes) -> bytes:
    """Write a PNG whose header claims a size, whatever its data holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def boxes(depth: int) -> bytes:
    """Nest boxes of an mp4 in each other."""
    inner = b""
    for _ in range(depth):
        inner = struct.pack(">I", len(inner) + 8) + b"moov" + inner
    return b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + inner


def archive(levels: int) -> bytes:
    """Pack zeros, then the archive, again and again."""
    content = bytes(20 * 2**20)
    for _ in range(levels):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            for number in range(8):
                file.writestr(f"{number}", content)
        content = packed.getvalue()
    return content


def bombs() -> dict[str, bytes]:
    """Make twenty bombs; those of pictures are a clip's one part, too."""
    zeros = zlib.compress(bytes(60 * 2**20), 9)
    still = make_video(grey_frames(2))
    large = make_video(grey_frames(2, 8000, 4400), codec="mpeg4")
    ftyp = b"\0\0\0\x18ftypisom\0\0\0\0isomiso2"
    return {
        "PNG of 60000 x 60000": png(60000, 60000, zeros),
        "PNG of zeros without end": png(30000, 30000, zeros * 3),
        "PNG of 2^31 x 1": png(2**31 - 1, 1, zeros),
        "zip in zip": archive(2),
        "zip behind an mp4's head": ftyp + archive(1),
        "gzip of 60 MB": b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + zeros[2:-4],
        "video of 8000 x 4400": large,
        "MPEG-4 of a second key frame 100 times": large + large[200:] * 3,
        "mp4 of 9000 packets": make_video(grey_frames(6), repeats=2500, rate=30),
        "AVI of two million packets": b"RIFF\xff\xff\xff\xffAVI " + b"00dc\0\0\0\0" * 2_000_000,
        "boxes 20000 deep": boxes(20_000),
        "a box of no length, for ever": ftyp + b"\0\0\0\0free" * 500_000,
        "a box longer than the file": ftyp + struct.pack(">I", 2**32 - 1) + b"moov",
        "EBML of unknown length, nested": b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff"
        * 40_000,
        "WebM clusters for ever": make_video(grey_frames(2), codec="libvpx", container="webm")
        + b"\x1f\x43\xb6\x75\x80" * 1_000_000,
        "transport stream of empty packets": (b"\x47\x1f\xff\x10" + bytes(184)) * 200_000,
        "transport stream of a thousand programs": _programs(1000),
        "HLS playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n",
        "concat script": b"ffconcat version 1.0\nfile /etc/passwd\n" * 100,
        "playlist in an mp4": ftyp + b"\0\0\0\x40mdat#EXTM3U\nfile:///etc/passwd\n" + still[-200:],
        "sound alone": make_audio(),
    }


def _programs(count: int) -> bytes:
    """Announce many programs, each of a table of its own that never comes, then pictures."""
    packets = []
    for number in range(count):
        table = struct.pack(">HH", number + 1, 0xE000 | (32 + number))
        section = b"\x00\xb0" + bytes([len(table) + 9]) + b"\0\1\xc1\0\0" + table + bytes(4)
        packets.append((b"\x47\x40\0\x10\0" + section).ljust(188, b"\xff"))
    return b"".join(packets) + make_video(grey_frames(8), container="mpegts")


def memory_mib(pid: int) -> float:
    """Return what a process holds for itself, in MiB; decoders are replaced after 1,000 clips."""
    held = 0.0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_", "Swap:")):
            held += int(line.split()[1]) / 1024
    return held


def asked(client: httpx.Client, path: str, clip: bytes) -> str:
    """Classify one clip; return `ok`, or the status and code of its refusal."""
    answer = client.post(path, files=[("clip", ("clip", clip))], headers=PATIENCE)
    if answer.status_code == 200:
        return "200"
    return f"{answer.status_code} {answer.json()['code']}"


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Give damaged clips, the same for each seed."""
    rng, whole = np.random.default_rng(seed), sources()
    for number in range(count):
        yield mutant(whole[number % len(whole)], whole[int(rng.integers(len(whole)))], rng)


def main() -> int:
    """Ask all, and tell what came back."""
    parser = argparse.ArgumentParser(description="Hostile clips against a running service.")
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    slowest: list[tuple[float, str]] = []
    with local_service() as service, httpx.Client(base_url=service.url, timeout=120) as client:
        clips = {label: [moving_clip(number)] for number, label in enumerate(("jump", "wave"))}
        task = client.post("/tasks", files=support_files(clips), headers=PATIENCE).json()
        path = f"/tasks/{task['id']}/classify"
        outcomes: Counter[str] = Counter()

        def ask(name: str, clip: bytes) -> str:
            begun = time.monotonic()
            outcome = asked(client, path, clip)
            slowest.append((round(time.monotonic() - begun, 2), name))
            outcomes[outcome] += 1
            return outcome

        made, damaged = bombs(), mutants(options.mutants + WARM_UP, options.seed)
        for name, clip in made.items():  # the largest bodies, so that memory has its size
            ask(name, clip)
        for clip in islice(damaged, WARM_UP):
            ask("warm-up", clip)
        before = memory_mib(service.pid)
        for number, clip in enumerate(damaged):
            ask(f"mutant {number}", clip)
        after_mutants = memory_mib(service.pid)
        blown = {name: ask(name, clip) for name, clip in made.items()}
        good = asked(client, path, moving_clip(0))
        after = memory_mib(service.pid)
        alive = client.get("/readyz").json()
    for name, outcome in blown.items():
        print(f"  {outcome:<30} {name}")
    drift = after / before - 1
    fine = all(outcome[0] in "24" for outcome in outcomes) and good == "200" and alive["ok"]
    result = {
        "outcomes": dict(outcomes.most_common()),
        "slowest_s": sorted(slowest, reverse=True)[:3],
        "memory_mib": [round(one, 1) for one in (before, after_mutants, after)],
        "drift": round(drift, 4),
        "met": fine and drift < MOST_DRIFT,
    }
    print(json.dumps(result))
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
