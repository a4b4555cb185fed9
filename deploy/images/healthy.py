"""The health check of the images: exit code 0 if this container's process says that it is ready.

It asks where DELTAPLANE_ADMIN says, host:port or unix:/path. Nothing but sockets is imported: it
runs every few seconds in every container, and http.client would be most of what that costs.
"""

import os
import socket
import sys

SECONDS = 2.0


def connect(where: str) -> socket.socket:
    """Opens a connection to an admin address.

    Raises:
        OSError: nobody listens there.
        ValueError: it is no address.
    """
    if where.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(SECONDS)
        connection.connect(where.removeprefix("unix:"))
        return connection
    host, _, port = where.rpartition(":")
    host = host.strip("[]")
    # Who listens everywhere is asked here.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def is_ready(where: str) -> bool:
    """Whether the process at an admin address says that it is ready."""
    try:
        with connect(where) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            status = connection.recv(64).split(b"\r\n")[0]
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{where}: {error}\n")
        return False
    if b" 200 " in status + b" ":
        return True
    sys.stderr.write(f"{where}: {status.decode(errors='replace')}\n")
    return False


if __name__ == "__main__":
    sys.exit(0 if is_ready(os.environ.get("DELTAPLANE_ADMIN", "")) else 1)
