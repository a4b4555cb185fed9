"""Makes what is missing in /ca and /certificates: a CA, and a certificate for each process."""

import os
import subprocess
from pathlib import Path

CA = Path("/ca")
CERTIFICATES = Path("/certificates")

NODES = ("node-1", "node-2", "node-3")
SERVICES = ("ipam", "endpoints", "slicer")
NOBODY = 65532
"""As whom the services run, and must read their keys."""

WANTED: dict[str, tuple[str, ...]] = {
    # It asks itself whether it is healthy.
    "etcd": ("etcd", "--dns", "etcd", "--ip", "127.0.0.1"),
    "admin": ("admin",),
    **{name: (name,) for name in SERVICES},
    **{name: ("node", "--node", name) for name in NODES},
}
"""Folder → arguments of `deltaplane certs issue`."""


def deltaplane(*arguments: str) -> None:
    """Runs the command; raises CalledProcessError when it fails."""
    subprocess.run(["deltaplane", "certs", *arguments], check=True)


def main() -> None:
    """Makes what is missing."""
    if not (CA / "ca.crt").exists():
        deltaplane("init", str(CA))
    for name, arguments in WANTED.items():
        folder = CERTIFICATES / name
        if not (folder / "tls.crt").exists():
            deltaplane("issue", str(CA), *arguments, "--out", str(folder))
        if name in SERVICES:
            for path in (folder, *folder.iterdir()):
                os.chown(path, NOBODY, NOBODY)


if __name__ == "__main__":
    main()
