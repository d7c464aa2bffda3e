"""For all tests: programs that they start must hear Ctrl-C, even if whoever started the tests had it ignored."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
