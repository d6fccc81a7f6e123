"""Clips that cannot be read are counted, named and left out; with a memo they are read once."""

from pathlib import Path

import pytest

from tests.videos import grey_frames, make_video
from training.data.datasets import LabelledClip
from training.errors import InputError
from training.features.readable import readable


@pytest.fixture
def clips(tmp_path: Path) -> list[LabelledClip]:
    """Eight files: one video, one of its beginning alone, six of noise."""
    video = make_video(grey_frames(8), rate=8)
    for number, content in enumerate([video, video[:300], *[b"noise" * 50] * 6]):
        (tmp_path / f"{number}.mp4").write_bytes(content)
    return [LabelledClip(tmp_path / f"{n}.mp4", "any", f"{n}") for n in range(8)]


def test_what_cannot_be_read_is_counted_and_the_first_are_named(clips: list[LabelledClip]) -> None:
    told: list[str] = []
    assert readable(clips, tell=told.append) == clips[:1]
    assert told[0] == "7 of 8 clips cannot be read and are left out:"
    assert [str(clip.path) in line for clip, line in zip(clips[1:6], told[1:6], strict=True)] == (
        [True] * 5
    )
    assert told[6:] == ["  and 2 more"]
    readable(clips[:1], tell=told.append)
    assert len(told) == 7  # where all can be read, nothing is said


def test_no_clip_that_can_be_read_is_an_error_with_the_first_reason(
    clips: list[LabelledClip],
) -> None:
    with pytest.raises(InputError, match=r"None of the 7 clips can be read, first: .*1\.mp4"):
        readable(clips[1:])


def test_a_memo_saves_reading_the_same_files_again(
    clips: list[LabelledClip], tmp_path: Path
) -> None:
    memo, told = tmp_path / "cache" / "memo.json", list[str]()
    readable(clips, memo=memo, tell=told.append)
    good = clips[0].path.read_bytes()
    clips[0].path.write_bytes(b"x" * len(good))  # another file of that size: nobody looks
    assert readable(clips, memo=memo, tell=told.append) == clips[:1]
    assert told[:7] == told[7:]
    clips[2].path.write_bytes(good)
    assert readable(clips, memo=memo) == clips[2:3]
    memo.write_bytes(b"torn")
    assert readable(clips, memo=memo) == clips[2:3]
