"""What the gateway tells a monitoring system: numbers for Prometheus, traces for OpenTelemetry."""
