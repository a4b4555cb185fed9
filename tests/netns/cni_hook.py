#!/usr/bin/env python3
"""Set-ups for the CNI vectors: hands the words of one to the test that runs them.

    DELTAPLANE_TEST_HOOK=/path/to.sock cni_hook.py "stop the node agent"

Exit 0: done; 1: the test does not know it or could not do it.
"""

import os
import socket
import sys

VARIABLE = "DELTAPLANE_TEST_HOOK"
TIMEOUT_SECONDS = 120.0


def main(words: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(os.environ[VARIABLE])
        connection.sendall(words.encode())
        connection.shutdown(socket.SHUT_WR)
        return 0 if connection.recv(16) == b"done" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
