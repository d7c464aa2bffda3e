"""Order books."""
