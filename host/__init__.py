"""The host side: configuration, device, exchange session, daemon and the ``t2q`` command.

``config`` (one TOML file) -> ``params`` (human units to register words) -> ``device`` (``link`` codec over a serial
port) with ``registers`` and ``bank`` on top -> ``slowpath`` (ARP and TCP until the fabric takes over) and ``session``
(Starbase order entry) -> ``positions`` (what is held, what may still fill) -> ``daemon`` that ties them together ->
``control`` (Unix socket) and ``cli``.
"""
