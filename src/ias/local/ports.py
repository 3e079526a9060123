"""Ports: free ones for the platform's inner servers, and a clear line when a wanted one is taken."""

import errno
import os
import socket
from contextlib import ExitStack

import psutil

from ias.local.errors import PlatformError

LOOPBACK = "127.0.0.1"

_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def find_free_ports(count: int) -> list[int]:
    """As many different loopback ports nobody listens on now."""
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind((LOOPBACK, 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now."""
    return _find_obstacle(port, host) is None


def require_free(port: int, host: str, option: str) -> None:
    """Return when a server could listen there.

    Raises:
        PlatformError: naming who holds the port, where that can be known, and the option that chooses another.
    """
    obstacle = _find_obstacle(port, host)
    if obstacle is None:
        return
    if obstacle == errno.EADDRINUSE:
        holder = find_listener(port)
        raise PlatformError(
            f"port {port} is in use" + (f" by {holder}" if holder else ""),
            f"stop that program or choose another port with {option}",
        )
    if obstacle in (errno.EACCES, errno.EPERM):
        raise PlatformError(f"port {port} is reserved for the system", f"choose one above 1023 with {option}")
    if obstacle in _NOT_OURS:
        raise PlatformError(
            f"{host} is not an address of this machine",
            "choose one of its own with --host: 127.0.0.1 for this machine alone, 0.0.0.0 for all",
        )
    raise PlatformError(
        f"nothing can listen on {host}:{port} ({os.strerror(obstacle)})", f"choose another with {option}"
    )


def find_listener(port: int) -> str | None:
    """Who listens on a port, as `name (process id)`; None when that is not for us to see."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return _describe(connection.pid) if connection.pid else None
    except (psutil.Error, OSError):
        return None
    return None


def _describe(pid: int) -> str:
    try:
        name = psutil.Process(pid).name()
    except psutil.Error:
        return f"process {pid}"
    return f"{name} (process {pid})"


def _find_obstacle(port: int, host: str) -> int | None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            # A name that is not known has a number of its own kind, which is none of the system's.
            return errno.EADDRNOTAVAIL if isinstance(error, socket.gaierror) else error.errno or errno.EINVAL
        return None
