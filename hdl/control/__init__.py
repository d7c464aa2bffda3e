"""Control plane: registers described once, the host link, telemetry and the latency probe."""
