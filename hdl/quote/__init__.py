"""Quote engine: from best prices to target quotes, and the scheduler that decides when to evaluate."""
