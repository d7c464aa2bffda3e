"""A daemon and a board's pseudo-terminal in one process, in lock step with simulated time."""

__all__ = ["talk"]


def talk(daemon, device, pty, now_ns):
    """Let the daemon have all that the board has said, and the board all that follows from it, at one time.

    Parameters
    ----------
    daemon : :class:`host.daemon.Daemon` on ``device``, a :class:`host.serial_device.SerialDevice` that is open on
        ``pty``, a :class:`sim.board.pty.LinkPty`.
    """
    pty.pump()
    while True:
        daemon.pump(now_ns, received=pty.to_host)
        while device.unsent or device.bytes_sent != pty.from_host:
            device.flush()
            pty.pump()
        if pty.backlog == 0:
            return
        pty.pump()
