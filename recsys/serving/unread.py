"""Clients that do not read what is sent to them: little is kept for each, and not for long."""

import os
import socket
import stat

UNREAD_MS = 10_000
"""Milliseconds that an answer may lie unread before its connection is cut."""
UNSENT_BYTES = 64 * 1024
"""Of an answer that the system takes in advance; it reserves twice as much."""


def limit_unread(port: int) -> bool:
    """Let connections that this process accepts from now on have these limits.

    The server makes the listening socket itself; connections have the options of the one that they come by.

    Args:
        port: that the process listens at.

    Returns:
        Whether it listens at it by now.
    """
    found = False
    for name in os.listdir("/dev/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as own:
                inet = own.family in (socket.AF_INET, socket.AF_INET6)
                if not inet or not own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    continue
                if own.getsockname()[1] == port:
                    _limit(own)
                    found = True
        except OSError:
            continue  # closed meanwhile
    return found


def _limit(listening: socket.socket) -> None:
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
