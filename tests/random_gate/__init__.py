"""The gate against its definitions, on a million random cases: ``make random``."""
