"""Gateware of tick2quote, laid out in the order in which a packet passes through it.

``layout`` (every byte offset) -> ``mac`` -> ``net`` -> ``feed`` -> ``book`` -> ``quote`` -> ``gate`` -> ``order`` ->
``mac``; ``control`` stands beside the path: registers, host link, telemetry, latency probe.
"""
