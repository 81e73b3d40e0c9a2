"""Whether a server of the command line can listen where it is told to, before anything starts."""

import socket

import psutil

from recmodels.errors import InputError

LAST_PORT = 65535


def require_free_port(host: str, port: int, action: str) -> None:
    """
    Refuse an address that a server cannot listen on.

    Parameters
    ----------
    host, port
        Where the server is to listen.
    action
        What to do about a port that is taken; ``{port}`` stands for one beside it.

    Raises
    ------
    InputError
        If another process has it, which is named where the system tells, or this user may not have it, or the host is
        no address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            server.bind(address)
            server.listen()
    except socket.gaierror as error:
        raise InputError(f"--host {host}", expected="an address of this machine", found=error.strerror or "") from error
    except OSError as error:
        raise InputError(
            f"--port {port}",
            expected=f"a port of {host} that this user can listen on",
            found=_listener(port) or error.strerror or str(error),
            action=action.format(port=port + 1 if port < LAST_PORT else port - 1),
        ) from error


def _listener(port: int) -> str:
    """Return which process listens on a port, empty if the system does not tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and tuple(connection.laddr)[1:2] == (port,) and connection.pid:
                process = psutil.Process(connection.pid)
                return f"that process {process.pid} ({' '.join(process.cmdline()[:4])}) listens on it"
    except (psutil.Error, OSError):
        pass
    return ""
