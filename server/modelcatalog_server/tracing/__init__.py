"""Traces by OpenTelemetry: the only package that knows it, and only if somebody wants traces."""
