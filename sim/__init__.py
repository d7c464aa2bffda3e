"""Everything that stands in for the outside world: virtual board, golden model, market, exchange."""
