"""Supported boards: pads, clocks and pin maps only; what is simulated is the vendor-neutral core."""
