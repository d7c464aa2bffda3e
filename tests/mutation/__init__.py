"""Mutation testing of the gate: single faults in its logic, and what notices them. ``python -m tests.mutation``."""
