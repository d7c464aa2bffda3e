"""The gate: what stands between a target quote and the wire. Every limit resets to block."""
