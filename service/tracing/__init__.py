"""OpenTelemetry traces; entered only where OTEL_EXPORTER_OTLP_ENDPOINT says whom to send them."""
