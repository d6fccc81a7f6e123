"""What `GET /usage` answers."""

from pydantic import BaseModel, Field

from service.stores.quotas.kept import RATES, WINDOW_S, Kind, Standing

LIMIT, LEFT = "Most of it; null is without a limit.", "Null where there is no limit."
RESET = "Seconds until all of it is left again; null where waiting frees nothing."


class QuotaView(BaseModel):
    """How much of a quota is used."""

    limit: int | None = Field(description=LIMIT)
    used: int
    left: int | None = Field(description=LEFT)
    reset_s: float | None = Field(description=RESET)


class SecondsQuotaView(BaseModel):
    """The same of seconds."""

    limit: float | None = Field(description=LIMIT)
    used: float
    left: float | None = Field(description=LEFT)
    reset_s: float | None = Field(description=RESET)


class UsageView(BaseModel):
    """What the caller's tenant uses of its quotas."""

    tasks: QuotaView = Field(description="Tasks that live.")
    bytes: QuotaView = Field(description="Of their pictures, or of uploads not yet decoded.")
    clip_seconds: SecondsQuotaView = Field(description="Of video, in the minute that runs.")
    frames: QuotaView = Field(description="For the device, in the minute that runs.")
    window_s: float = Field(description="How long such a minute is; it begins with its first use.")


def usage_view(standing: Standing) -> UsageView:
    """Show how a tenant stands."""
    most, left = standing.quotas.clip_ms, standing.left("clip_ms")
    return UsageView(
        tasks=_count("tasks", standing),
        bytes=_count("bytes", standing),
        clip_seconds=SecondsQuotaView(
            limit=None if most is None else most / 1e3,
            used=standing.used.clip_ms / 1e3,
            left=None if left is None else left / 1e3,
            reset_s=_reset_s("clip_ms", standing),
        ),
        frames=_count("frames", standing),
        window_s=WINDOW_S,
    )


def _count(kind: Kind, standing: Standing) -> QuotaView:
    return QuotaView(
        limit=standing.quotas.of(kind),
        used=standing.used.of(kind),
        left=standing.left(kind),
        reset_s=_reset_s(kind, standing),
    )


def _reset_s(kind: Kind, standing: Standing) -> float | None:
    limited = standing.quotas.of(kind) is not None
    return round(standing.left_s, 3) if limited and kind in RATES and standing.window else None
