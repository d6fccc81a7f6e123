"""What a request may be: each limit once, for admission, body readers, use cases and /limits."""

from dataclasses import dataclass, replace

from model.media.container import MediaLimits
from model.text import MAX_STAGE_CHARS, STAGES
from service.settings import Settings

MIN_LABELS = 2
MOST_EXPLAINED = 4  # clips of a request, as each costs some passes by itself
MOST_RATE = 120  # pictures a second of a long video, on the average


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request may be; /limits shows these fields as they are. Pairs are (least, most)."""

    request_bytes: int
    upload_bytes_s: int  # a slower body is given up ...
    upload_patience_s: float  # ... once it was waited for so long
    clip_bytes: int
    clip_base64_bytes: int
    clip_duration_s: tuple[float, float]
    timeline_s: float  # longest video of a timeline
    picture_pixels: int
    clip_frames: int
    clip_streams: int
    containers: tuple[str, ...]
    codecs: tuple[str, ...]
    pictures: tuple[int, int]
    labels: tuple[int, int]
    shots: tuple[int, int]
    support_clips: int
    query_clips: int
    explained_clips: int  # of a request that asks where its answers were seen
    label_chars: int
    name_chars: int
    stages: int  # sentences that describe a label; the checkpoint's method says how many
    stage_chars: int
    ttl_s: float
    stored_upload_bytes: int  # of one registration, that a 202 leaves to be decoded behind it
    wait_s: float
    deadline_s: float  # of a request without X-Request-Timeout-Ms
    max_deadline_s: float  # the most of it, and what registrations have without it
    timeline_deadline_s: float  # likewise of a timeline


def limits_of(settings: Settings, stages: int = STAGES, least_shots: int = 1) -> Limits:
    """Read the limits off the settings.

    Args:
        settings: Of the process.
        stages: Sentences that the served method wants for each label.
        least_shots: Clips that it needs of each label; 0 where text alone decides.
    """
    return Limits(
        request_bytes=settings.max_request_bytes,
        upload_bytes_s=settings.min_upload_bytes_s,
        upload_patience_s=settings.upload_patience_s,
        clip_bytes=settings.max_clip_bytes,
        clip_base64_bytes=settings.max_base64_bytes,
        clip_duration_s=(settings.min_clip_s, settings.max_clip_s),
        timeline_s=settings.max_timeline_s,
        picture_pixels=settings.max_pixels,
        clip_frames=settings.max_frames,
        clip_streams=settings.max_streams,
        containers=settings.containers,
        codecs=settings.codecs,
        pictures=(settings.min_pictures, settings.max_pictures),
        labels=(MIN_LABELS, settings.max_labels),
        shots=(least_shots, settings.max_shots),
        support_clips=settings.max_support_clips,
        query_clips=settings.max_query_clips,
        explained_clips=min(MOST_EXPLAINED, settings.max_query_clips),
        label_chars=settings.max_label_chars,
        name_chars=settings.max_name_chars,
        stages=stages,
        stage_chars=MAX_STAGE_CHARS,
        ttl_s=settings.max_ttl_s,
        stored_upload_bytes=settings.stored_upload_bytes,
        wait_s=settings.wait_s,
        deadline_s=settings.deadline_s,
        max_deadline_s=settings.max_deadline_s,
        timeline_deadline_s=settings.timeline_deadline_s,
    )


def media_limits(limits: Limits) -> MediaLimits:
    """Return the limits of one clip in the decoder's form."""
    min_duration_s, max_duration_s = limits.clip_duration_s
    min_pictures, max_pictures = limits.pictures
    return MediaLimits(
        max_bytes=limits.clip_bytes,
        containers=limits.containers,
        codecs=limits.codecs,
        min_duration_s=min_duration_s,
        max_duration_s=max_duration_s,
        max_pixels=limits.picture_pixels,
        max_frames=limits.clip_frames,
        max_streams=limits.clip_streams,
        min_pictures=min_pictures,
        max_pictures=max_pictures,
    )


def stream_limits(limits: Limits) -> MediaLimits:
    """Return the limits of one long video in the decoder's form."""
    longest_s = limits.timeline_s
    frames = max(limits.clip_frames, round(MOST_RATE * longest_s))
    return replace(media_limits(limits), max_duration_s=longest_s, max_frames=frames)
