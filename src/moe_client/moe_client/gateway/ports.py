"""Ports: whose they are, and taking them."""

from __future__ import annotations

import contextlib
import socket

import psutil

BACKLOG = 2048


def taken_by(host: str, port: int) -> str:
    """The sentence about who holds an address; '' = it is free."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            by = holder(port)
            return (f'{host}:{port} cannot be used ({error.strerror})'
                    + (f'; {by.name()} (pid {by.pid}) has it' if by else ''))
    return ''


def holder(port: int) -> psutil.Process | None:
    """The process that listens on a port; None = nobody, or it cannot be seen."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections('tcp'):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
                return psutil.Process(connection.pid)
    return None


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 = any that is free."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener
