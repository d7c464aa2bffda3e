"""Exchange simulator for Deribit Starbase order entry (schema 2101).

``config`` (what is listed, who may log on, which protection groups exist) -> ``engine`` (books, matching,
protection, ``ledger``) -> ``session`` (sequence numbers, heartbeats, recovery: bytes in, bytes out) -> one of two
transports: ``server`` (a real TCP server on asyncio) or ``tcp_peer`` (a deterministic TCP end point made of frames,
for replays). ``market`` turns the feed's best bid and offer into resting orders of other participants.

Time is an argument everywhere (integer nanoseconds); the same input gives the same bytes.
"""
