"""Golden model: plain Python that says, byte by byte and cycle by cycle, what the fabric must do."""
