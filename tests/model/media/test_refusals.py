"""Each clip that cannot be used is refused by its own error, with the value and the remedy."""

import http.server
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model import errors
from model.media.container import MediaLimits
from model.media.sampling import Clip
from model.media.video import read_clip
from tests.videos import grey_frames, make_audio, make_video

FFCONCAT = "ffconcat version 1.0\nfile {}\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD type="static" mediaPresentationDuration="PT1S"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
PLAYLISTS = {"hls": HLS, "concat": FFCONCAT, "dash": DASH}
DISGUISES = {
    "plain": b"",
    "as mp4": b"\0\0\0\x08free",
    "as avi": b"RIFF\0\0\0\0AVI ",
    "as webm": b"\x1a\x45\xdf\xa3",
}


def read(video: bytes, **limits: object) -> Clip:
    return read_clip(video, frames=8, size=32, limits=MediaLimits(**limits))


def test_text_is_no_container() -> None:
    with pytest.raises(errors.ContainerNotAllowedError, match=r"b'hello'.*mp4, webm, avi"):
        read(b"hello")


def test_an_empty_clip_is_told_to_be_empty() -> None:
    with pytest.raises(errors.ClipUndecodableError, match="no bytes"):
        read(b"")


def test_container_outside_the_list_is_refused() -> None:
    video = make_video(grey_frames(10), codec="mpeg4", container="avi")
    with pytest.raises(errors.ContainerNotAllowedError):
        read(video, containers=("mp4", "webm"))


@pytest.mark.parametrize("container", ["mpeg", "flv", "gif"])
def test_other_containers_are_refused(container: str) -> None:
    codec = "gif" if container == "gif" else "libx264"
    if codec == "gif":
        video = b"GIF89a" + bytes(100)
    else:
        video = make_video(grey_frames(10), codec=codec, container=container)
    with pytest.raises(errors.ContainerNotAllowedError):
        read(video)


def test_codec_outside_the_list_is_refused() -> None:
    with pytest.raises(errors.CodecNotAllowedError, match="mpeg1video"):
        read(make_video(grey_frames(10), codec="mpeg1video"))
    with pytest.raises(errors.CodecNotAllowedError, match="'h264' is not one of vp9"):
        read(make_video(grey_frames(10)), codecs=("vp9",))


def test_audio_alone_is_refused() -> None:
    with pytest.raises(errors.NoVideoStreamError, match="audio"):
        read(make_audio())


def test_clip_without_frames_is_refused() -> None:
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    video = make_video(grey_frames(10), container_options=fragmented)
    with pytest.raises(errors.NoFramesError):
        read(video[: video.index(b"moof") - 4])


def test_mp4_without_its_end_is_refused() -> None:
    video = make_video(grey_frames(20))
    with pytest.raises(errors.ClipUndecodableError, match="complete, unencrypted"):
        read(video[:-200])


def test_webm_without_its_end_is_the_clip_up_to_there() -> None:
    noise = list(np.random.default_rng(0).integers(0, 255, (20, 96, 96, 3), np.uint8))
    video = make_video(noise, codec="libvpx", container="webm")
    assert 0.2 < read(video[: 4 * len(video) // 5]).duration_s < 0.6


def test_too_many_bytes_are_refused_before_they_are_looked_at() -> None:
    with pytest.raises(errors.ClipTooLargeError, match="1001 bytes, 1000"):
        read(bytes(1001), max_bytes=1000)


def test_too_many_bytes_in_a_file_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(errors.ClipTooLargeError):
        read_clip(path, frames=8, size=32, limits=MediaLimits())


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_too_many_frames_are_refused(container: str) -> None:
    video = make_video(grey_frames(30), container=container)
    assert read(video, max_frames=30).distinct == 8
    with pytest.raises(errors.TooManyFramesError, match="29 are allowed"):
        read(video, max_frames=29)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_too_long_is_refused(container: str) -> None:
    video = make_video(grey_frames(30), container=container, rate=10)
    assert read(video, max_duration_s=3.1).duration_s == pytest.approx(3.0)
    with pytest.raises(errors.ClipTooLongError, match=r"2\.5 s are allowed"):
        read(video, max_duration_s=2.5)


def test_a_header_that_lies_about_the_duration_does_not_help() -> None:
    video = bytearray(make_video(grey_frames(30), rate=10))
    for box in (b"mdhd", b"mvhd"):
        at = video.index(box) + 4 + 16
        struct.pack_into("!I", video, at, 1)
    at = video.index(b"tkhd") + 4 + 20
    struct.pack_into("!I", video, at, 1)
    with pytest.raises(errors.ClipTooLongError):
        read(bytes(video), max_duration_s=2.5)


def test_too_short_is_refused() -> None:
    with pytest.raises(errors.ClipTooShortError, match=r"0\.100 s, the least is 0\.2 s"):
        read(make_video(grey_frames(3)))


def test_too_large_a_picture_is_refused() -> None:
    video = make_video(grey_frames(10, 64, 48))
    assert read(video, max_pixels=64 * 48).distinct == 8
    with pytest.raises(errors.PictureTooLargeError, match="64 x 48"):
        read(video, max_pixels=64 * 48 - 1)


def test_a_ribbon_that_resizing_would_blow_up_is_refused() -> None:
    with pytest.raises(errors.PictureTooLargeError, match="16 times"):
        read(make_video(grey_frames(10, 1024, 32)))


def test_picture_that_grows_after_the_header_is_refused() -> None:
    """The header says 64 x 48; the pictures inside are larger."""
    large = make_video(grey_frames(10, 640, 480), codec="libvpx", container="webm")
    lying = large.replace(b"\xb0\x82\x02\x80\xba\x82\x01\xe0", b"\xb0\x82\x00\x40\xba\x82\x00\x30")
    assert lying != large
    with pytest.raises((errors.PictureTooLargeError, errors.ClipUndecodableError)):
        read(lying, max_pixels=64 * 48)


def test_too_many_streams_are_refused() -> None:
    assert read(make_video(grey_frames(30), audio_streams=7)).distinct == 8
    with pytest.raises(errors.TooManyStreamsError, match="9 streams, 8"):
        read(make_video(grey_frames(30), audio_streams=8))


@pytest.fixture
def requests_seen() -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server: its address, and the paths that were asked for."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/clip.mp4", seen
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_playlist_opens_no_address_and_no_file(
    playlist: str, disguise: str, requests_seen: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, seen = requests_seen
    local = tmp_path / "secret.mp4"
    local.write_bytes(make_video(grey_frames(10)))
    for name in (address, local.as_uri(), str(local)):
        with pytest.raises(errors.ClipError):
            read(DISGUISES[disguise] + PLAYLISTS[playlist].format(name).encode())
    assert not seen


def test_messages_hold_one_sentence_with_a_remedy() -> None:
    for video in (b"hello", make_audio(), make_video(grey_frames(3))):
        with pytest.raises(errors.ClipError) as caught:
            read(video)
        message = str(caught.value)
        assert message.endswith(".")
        assert "; " in message
        assert "\n" not in message
