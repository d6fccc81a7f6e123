"""Whether requests are traced: the variables of OpenTelemetry say so."""

import os
from typing import TYPE_CHECKING

from service.errors import SettingsError

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracing_from_env() -> "Tracing | None":
    """Return what traces requests; None, and nothing is imported, where nobody wants traces.

    Raises:
        SettingsError: They are wanted, and OpenTelemetry is not installed.
    """
    named = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if named is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from service.tracing.spans import Tracing
    except ImportError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise SettingsError(
            f"{named} is set, and OpenTelemetry is not installed ({error.name}); "
            "pip install 'kshot[otel]', or unset it."
        ) from error
    return Tracing(OTLPSpanExporter())
