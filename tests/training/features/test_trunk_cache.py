"""The trunk cache on real videos, with processes really killed and disks really full."""

import fcntl
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.assembly.recognizer import build_recognizer
from model.recognizer import Recognizer
from tests.forked import ForkedCommand
from tests.model.tiny import tiny_recognizer
from tests.training.features.cache_building import build, labelled
from tests.videos import make_video
from training.data.datasets import LabelledClip
from training.errors import InputError
from training.features import trunk_passes
from training.features.clip_views import ClipAugmentation, read_frames, read_view
from training.features.trunk_passes import PASS_CLIPS

BUILDING = "tests.training.features.cache_building"
CLIPS = 11  # two whole passes and a part of one
ROW_BYTES = 8 * 5 * 32 * 2  # T L D of the tiny tower, float16


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven real videos of moving noise."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(CLIPS):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
        frames = coarse.repeat(8, axis=1).repeat(8, axis=2)
        (folder / f"{number:02d}.mp4").write_bytes(make_video(frames))
    return folder


@pytest.fixture(scope="module")
def undisturbed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "cache"
    build(folder, labelled(videos))
    return folder


def trunk(recognizer: Recognizer, frames_THWC: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return recognizer.trunk(frames_THWC[None])[0]


def assert_same_files(one: Path, other: Path) -> None:
    names = sorted(file.name for file in other.iterdir())
    assert sorted(file.name for file in one.iterdir()) == names
    assert len(names) == 5  # header, lock and three views
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_draw_0_is_the_trunk_of_the_evaluation_view_in_half_precision(
    videos: Path, undisturbed: Path
) -> None:
    clips, recognizer = labelled(videos), tiny_recognizer("task_adapter")
    tokens_BTLD = build(undisturbed, clips).tokens([7, 0, 10])
    assert tokens_BTLD.dtype == torch.float16
    for tokens_TLD, place in zip(tokens_BTLD, (7, 0, 10), strict=True):
        want_TLD = trunk(recognizer, read_frames(clips[place], frames=8, size=16))
        assert want_TLD.abs().max() > 0.5
        torch.testing.assert_close(tokens_TLD.float(), want_TLD, rtol=2**-10, atol=1e-5)
        error = (tokens_TLD.float() - want_TLD).norm() / want_TLD.norm()
        assert error < 2**-11  # half a unit in the last place of float16


def test_bfloat16_keeps_two_digits(videos: Path, tmp_path: Path) -> None:
    clips = labelled(videos)[:3]
    exact = build(tmp_path / "a", clips, draws=0).tokens(range(3)).float()
    coarse = build(tmp_path / "b", clips, draws=0, half=True).tokens(range(3)).float()
    assert 1e-4 < (coarse - exact).norm() / exact.norm() < 0.02


def test_rows_follow_the_clips_and_draws_asked_for(videos: Path, undisturbed: Path) -> None:
    cache = build(undisturbed, labelled(videos))
    assert (cache.clips, cache.draws, cache.shape_TLD) == (CLIPS, 2, (8, 5, 32))
    mixed = cache.tokens([3, 3, 3, 9], [0, 1, 2, 1])
    for row, (clip, draw) in enumerate([(3, 0), (3, 1), (3, 2), (9, 1)]):
        assert torch.equal(mixed[row], cache.tokens([clip], [draw])[0])
    assert not torch.equal(mixed[1], mixed[0])
    assert not torch.equal(mixed[1], mixed[2])
    with pytest.raises(IndexError):
        cache.tokens([CLIPS])


def test_a_draw_is_a_function_of_seed_clip_and_number(videos: Path, undisturbed: Path) -> None:
    clips = labelled(videos)
    alone = build(undisturbed.parent / "alone", clips[4:5], draws=1).tokens([0], [1])
    torch.testing.assert_close(
        alone, build(undisturbed, clips).tokens([4], [1]), rtol=2**-9, atol=1e-4
    )
    reseeded = build(undisturbed.parent / "reseeded", clips[4:5], draws=1, seed=1).tokens([0], [1])
    assert (reseeded - alone).abs().max() > 0.1
    settings = {"frames": 8, "size": 16, "seed": 0, "augmentation": ClipAugmentation()}
    views = [read_view(clips[4], draw=draw, **settings) for draw in (1, 1, 2)]  # type: ignore[arg-type]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


def test_a_cache_that_is_whole_is_opened_without_reading_clips(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    moved = tmp_path / videos.name
    shutil.copytree(videos, moved)
    for clip in moved.iterdir():
        clip.write_bytes(bytes(clip.stat().st_size))
    told: list[str] = []
    other_adapters = tiny_recognizer("task_adapter", trained=False)
    cache = build(undisturbed, labelled(moved), recognizer=other_adapters, tell=told.append)
    assert told == []
    assert torch.equal(cache.tokens([1]), build(undisturbed, labelled(videos)).tokens([1]))


def test_what_caches_hold_of_draws_is_as_before_fields_that_came_later(undisturbed: Path) -> None:
    held = json.loads((undisturbed / "header.json").read_text())["augmentation"]
    first = {"min_area", "max_stretch", "mirror", "jitter", "grey"}
    assert set(held) == {"seed", "reader", *first}


def test_more_draws_are_added_and_fewer_are_read(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, clips = tmp_path / "cache", labelled(videos)
    assert build(out, clips, draws=0).draws == 0
    assert build(out, clips, draws=2).draws == 2
    assert_same_files(out, undisturbed)
    assert build(out, clips, draws=1).draws == 1
    stronger = ClipAugmentation(min_area=0.1)
    assert build(out, clips, draws=0, augmentation=stronger, seed=9).draws == 0


def test_the_size_is_told_before_anything_is_written(videos: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def tell(line: str) -> None:
        assert not (tmp_path / "cache").exists()
        told.append(line)

    build(tmp_path / "cache", labelled(videos), tell=tell)
    megabytes = f"{3 * CLIPS * ROW_BYTES / 1e6:.2f} MB"
    assert told == [
        f"trunk cache: {megabytes} for {CLIPS} clips with 2 draws each, {megabytes} of it to be "
        f"made, in {tmp_path / 'cache'}"
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recognizer": tiny_recognizer("task_adapter", seed=1)}, "backbone weights"),
        ({"recognizer": tiny_recognizer("frozen")}, "number of frozen blocks"),
        ({"recognizer": tiny_recognizer("task_adapter", frames=4)}, "frames"),
        ({"half": True}, "precision"),
        ({"augmentation": ClipAugmentation(mirror=0.0)}, "mirror"),
        ({"seed": 1}, "seed"),
    ],
    ids=["weights", "blocks", "frames", "precision", "augmentation", "seed"],
)
def test_a_foreign_cache_is_refused_and_kept(
    videos: Path, undisturbed: Path, change: dict[str, object], named: str
) -> None:
    before = {file: file.stat().st_mtime_ns for file in undisturbed.iterdir()}
    with pytest.raises(InputError, match=f"another .*{named}.*; remove it or choose another"):
        build(undisturbed, labelled(videos), **change)  # type: ignore[arg-type]
    assert {file: file.stat().st_mtime_ns for file in undisturbed.iterdir()} == before


@pytest.mark.parametrize("change", ["order", "name", "size", "fewer"])
def test_a_cache_of_other_clips_is_refused(
    videos: Path, undisturbed: Path, tmp_path: Path, change: str
) -> None:
    moved = tmp_path / videos.name
    shutil.copytree(videos, moved)
    clips = labelled(moved)
    assert build(undisturbed, clips).clips == CLIPS
    if change == "order":
        clips.reverse()
    elif change == "name":
        clips[2] = replace(clips[2], name="another")
    elif change == "size":
        with clips[2].path.open("ab") as file:
            file.write(b"\0")
    else:
        clips.pop()
    with pytest.raises(InputError, match="another clip list"):
        build(undisturbed, clips)


def test_a_killed_build_goes_on_to_the_same_bits(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cache"
    for moment in ("draw_000.part", "draw_000.npy"):
        process = ForkedCommand(BUILDING, [str(videos), str(out)])
        while not (out / moment).exists():
            assert process.alive, "it ended before it could be killed"
            time.sleep(0.005)
        process.kill()
        assert list(out.glob("*.part")), f"nothing was left to do after {moment}"
    assert build(out, labelled(videos)).draws == 2
    assert_same_files(out, undisturbed)


def test_a_marked_pass_is_not_run_again(
    videos: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cache"
    shutil.copytree(undisturbed, out)
    (out / "draw_000.marks").write_bytes(b"\1" * CLIPS)  # killed after it was renamed
    (out / "draw_003.new").write_bytes(b"scrap")
    (out / "draw_001.npy").rename(out / "draw_001.part")
    (out / "draw_001.marks").write_bytes(b"\1" * 2 * PASS_CLIPS + bytes(CLIPS - 2 * PASS_CLIPS))
    (out / "draw_002.npy").rename(out / "draw_002.part")
    (out / "draw_002.marks").write_bytes(b"\1" * CLIPS)  # killed before it was renamed
    read: list[tuple[str, int]] = []

    def watched(clip: LabelledClip, **given: object) -> np.ndarray:
        read.append((clip.path.stem, given["draw"]))  # type: ignore[arg-type]
        return read_view(clip, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(trunk_passes, "read_view", watched)
    build(out, labelled(videos))
    assert sorted(read) == [("08", 1), ("09", 1), ("10", 1)]
    assert_same_files(out, undisturbed)


def shorten(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def edit_header(file: Path) -> None:
    header = json.loads(file.read_text())
    header["origin"]["size"] += 1
    file.write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("draw_001.npy", shorten, "draw_001.npy cannot be read"),
        ("draw_002.part", shorten, "draw_002.part cannot be read"),
        ("draw_002.marks", shorten, "draw_002.marks is missing or has the wrong size"),
        ("draw_002.marks", Path.unlink, "draw_002.marks is missing"),
        ("header.json", shorten, "header.json fails its checksum"),
        ("header.json", edit_header, "header.json fails its checksum"),
        ("header.json", Path.unlink, "header.json is not there"),
    ],
)
def test_a_torn_cache_is_refused(
    videos: Path, undisturbed: Path, tmp_path: Path, name: str, damage: object, said: str
) -> None:
    out = tmp_path / "cache"
    shutil.copytree(undisturbed, out)
    (out / "draw_002.npy").rename(out / "draw_002.part")
    (out / "draw_002.marks").write_bytes(bytes(CLIPS))
    damage(out / name)  # type: ignore[operator]
    with pytest.raises(InputError, match=f"is torn: {said}.*; remove the folder or choose another"):
        build(out, labelled(videos))


def test_a_file_of_other_rows_is_torn(videos: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    shutil.copytree(undisturbed, out)
    np.save(out / "draw_001.npy", np.zeros((CLIPS, 8, 5, 16), np.float16))
    with pytest.raises(InputError, match=r"is torn: draw_001.npy holds float16 \(11, 8, 5, 16\)"):
        build(out, labelled(videos))


def test_a_cache_of_the_first_format_is_refused_and_made_again_elsewhere(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cache"
    out.mkdir()
    header = json.loads((undisturbed / "header.json").read_text()) | {"format": "kshot-tokens-1"}
    body = {name: value for name, value in header.items() if name != "checksum"}
    checksum = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (out / "header.json").write_text(json.dumps({**body, "checksum": checksum}))
    rows = np.load(undisturbed / "draw_000.npy")
    (out / "draw_000.f16").write_bytes(rows.tobytes())
    with pytest.raises(InputError, match="remove the folder, and the tokens are made again"):
        build(out, labelled(videos), draws=0)
    shutil.rmtree(out)
    assert torch.equal(
        build(out, labelled(videos), draws=0).tokens(range(CLIPS)), torch.from_numpy(rows)
    )


def test_a_disk_too_small_is_refused_before_anything_is_written(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    needed = math.ceil(3 * CLIPS * ROW_BYTES * 1.05)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, needed - 1))
    with pytest.raises(InputError, match=r"needs 0.09 MB free .* and there are 0.09 MB; make room"):
        build(tmp_path / "cache", labelled(videos))
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, needed))
    assert build(tmp_path / "cache", labelled(videos)).draws == 2


def test_a_full_disk_keeps_what_is_finished_and_nothing_else(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk."""
    fresh, midway = tmp_path / "fresh", tmp_path / "midway"
    shutil.copytree(undisturbed, midway)
    for draw in (1, 2):  # all space is reserved, but the second pass of each cannot be written
        (midway / f"draw_00{draw}.npy").rename(midway / f"draw_00{draw}.part")
        (midway / f"draw_00{draw}.marks").write_bytes(bytes(CLIPS))
    limits = (CLIPS * ROW_BYTES - 1, (PASS_CLIPS + 1) * ROW_BYTES)
    log, wanted = tmp_path / "log", [f"{fresh}:{limits[0]}", f"{midway}:{limits[1]}"]
    assert ForkedCommand(BUILDING, [str(videos), *wanted], log=log).wait() == 0
    said = log.read_text().splitlines()
    assert [line.partition(";")[0] for line in said] == [
        f"The disk of {folder} became full (File too large)" for folder in (fresh, midway)
    ]
    assert sorted(file.name for file in fresh.iterdir()) == ["header.json", "lock"]
    assert not (midway / "draw_001.npy").exists()
    build(midway, labelled(videos))
    assert_same_files(midway, undisturbed)


def test_a_real_full_disk_is_one_sentence(videos: Path, tmp_path: Path) -> None:
    """Three views do not fit into 64 KiB, though the check before is told that they do."""
    own = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-ec"]
    mount = f"mount -t tmpfs -o size=64k none {tmp_path}"
    if shutil.which("unshare") is None or subprocess.run([*own, mount]).returncode:
        pytest.skip("no tmpfs of one's own can be mounted here")
    lie = "import shutil\nshutil.disk_usage = lambda _: type('', (), {'free': 1e9})\n"
    script = tmp_path.parent / "build.py"
    script.write_text(f"{lie}from {BUILDING} import main\nmain()\n")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = f"{mount}; {sys.executable} {script} {videos} {tmp_path}/cache; ls {tmp_path}/cache"
    done = subprocess.run([*own, command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    said, *names = done.stdout.splitlines()
    assert "became full (No space left on device); make room" in said
    assert names == ["header.json", "lock"]


def test_one_process_builds_at_a_time(videos: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    build(out, labelled(videos), draws=1)
    with (out / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert build(out, labelled(videos), draws=1).draws == 1  # reading needs no lock
        with pytest.raises(InputError, match="Another process is building"):
            build(out, labelled(videos), draws=2)
    build(out, labelled(videos), draws=2)
    assert_same_files(out, undisturbed)


def test_tokens_beyond_float16_are_an_error_that_names_value_and_clip(
    videos: Path, tmp_path: Path
) -> None:
    recognizer = tiny_recognizer("task_adapter")
    with torch.no_grad():
        recognizer.video.tower.model.pos_embed += 70_000
    with pytest.raises(InputError, match=r"give 7\d{4}\S* for .*00.mp4, beyond float16's 65504"):
        build(tmp_path / "cache", labelled(videos), recognizer=recognizer)
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_a_clip_that_cannot_be_read_is_named(videos: Path, tmp_path: Path) -> None:
    moved = tmp_path / "videos"
    shutil.copytree(videos, moved)
    (moved / "05.mp4").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"05\.mp4: "):
        build(tmp_path / "cache", labelled(moved))
    clips = labelled(moved)
    clips[5].path.unlink()
    with pytest.raises(InputError, match=r"05\.mp4 cannot be read"):
        build(tmp_path / "other", clips)


def test_a_trunk_with_something_trained_in_it_is_refused(videos: Path, tmp_path: Path) -> None:
    at_input = tiny_recognizer("task_adapter", temporal_embedding="input")
    with pytest.raises(InputError, match="use 'first_adapted', or no trunk cache"):
        build(tmp_path / "cache", labelled(videos), recognizer=at_input)
    tower = at_input.video.tower
    config = replace(at_input.config, visual=None, query_context="none")
    assert build(
        tmp_path / "cache",
        labelled(videos)[:1],
        draws=0,
        recognizer=build_recognizer(config, tower, None),
    ).draws == 0  # fmt: skip
