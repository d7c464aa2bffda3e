"""Market data for simulations: captures, their timing on the wire, and a generator."""
