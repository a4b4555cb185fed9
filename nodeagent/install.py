"""Puts the CNI plugin and its configuration on a node, and takes them off.

`python -m nodeagent.install`. The plugin comes first, its configuration last: a container runtime
takes the network for ready once that is there. Each file is written beside its place and moved to
it as a whole: a runtime that starts the plugin meanwhile runs the old one or the new one.

Plugins of the configuration besides ours (`bandwidth`) are left out where the node does not have
them: a pod without its limits is better than none.
"""

import argparse
import filecmp
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deltaplane.errors import DeltaplaneError, Invalid, Refused

OURS = ("deltaplane-cni", "deltaplane-ipam")
"""The plugin, and the same under the name of the IPAM-only mode."""

LOOPBACK = "loopback"
"""Container runtimes call a plugin of this name for every pod. Most nodes have one; where there is
none, ours is put there, which is the same binary."""

CONFIGURATION = "10-deltaplane.conflist"

TREE = Path(__file__).resolve().parents[1]
BINARIES = (TREE / "nodeagent/prebuilt", TREE / "build/bin")
"""In a wheel, in the tree."""

CONFIGURATIONS = (Path("/usr/local/lib/deltaplane"), TREE / "deploy/cni")
"""In an image, in the tree."""


def adapted(configuration: Mapping[str, Any], present: frozenset[str]) -> dict[str, Any]:
    """The configuration with those of its plugins that a node has, or that are ours. Pure.

    Raises:
        Invalid: it is no list of plugins that begins with ours.
    """
    plugins = configuration.get("plugins")
    if not isinstance(plugins, list) or not plugins or plugins[0].get("type") not in OURS:
        raise Invalid("plugins", f"a list that begins with {OURS[0]} is needed")
    kept = [plugin for plugin in plugins if plugin.get("type") in {*OURS, *present}]
    return {**configuration, "plugins": kept}


def install(bin_dir: Path, conf_dir: Path) -> tuple[str, ...]:
    """Installs or renews both; returns types of plugins that were left out.

    Raises:
        Refused: the plugin is not built.
        OSError: a folder cannot be written.
    """
    source = _first(BINARIES, OURS[0])
    # The other first: an installation that was interrupted knows its own again.
    names = (LOOPBACK, *OURS) if _may_have_loopback(bin_dir, source) else OURS
    template = json.loads(_first(CONFIGURATIONS, CONFIGURATION).read_text())
    for name in names:
        _place(bin_dir / name, source.read_bytes(), mode=0o755)
    present = frozenset(entry.name for entry in bin_dir.iterdir())
    wanted = adapted(template, present)
    _place(conf_dir / CONFIGURATION, json.dumps(wanted, indent=2).encode() + b"\n", mode=0o644)
    kept = {plugin["type"] for plugin in wanted["plugins"]}
    return tuple(plugin["type"] for plugin in template["plugins"] if plugin["type"] not in kept)


def remove(bin_dir: Path, conf_dir: Path) -> None:
    """Removes both, the configuration first; what is gone already is fine. Raises OSError."""
    names = (LOOPBACK, *OURS) if _may_have_loopback(bin_dir, bin_dir / OURS[0]) else OURS
    for path in (conf_dir / CONFIGURATION, *(bin_dir / name for name in names)):
        path.unlink(missing_ok=True)


def _may_have_loopback(bin_dir: Path, source: Path) -> bool:
    """Whether there is none or it is ours: the bytes of the plugin beside it, or of the new one."""
    there, beside = bin_dir / LOOPBACK, bin_dir / OURS[0]
    ours = [path for path in (beside, source) if path.exists()]
    return not there.exists() or any(filecmp.cmp(there, path, shallow=False) for path in ours)


def _first(folders: Sequence[Path], name: str) -> Path:
    for folder in folders:
        if (found := folder / name).exists():
            return found
    raise Refused(f"{name} is in none of {', '.join(map(str, folders))}: make build")


def _place(target: Path, content: bytes, *, mode: int) -> None:
    """Writes a file as a whole. The name it has until then is none that a runtime looks at."""
    fresh = target.with_name(f".{target.name}.new")
    with fresh.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(target)


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nodeagent.install", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"))
    parser.add_argument("--conf-dir", type=Path, default=Path("/etc/cni/net.d"))
    parser.add_argument("--remove", action="store_true", help="take them off again")
    options = parser.parse_args(list(argv))
    if missing := [str(d) for d in (options.bin_dir, options.conf_dir) if not d.is_dir()]:
        sys.stderr.write(f"no such folder: {', '.join(missing)}\n")
        return 1
    if options.remove:
        remove(options.bin_dir, options.conf_dir)
        return 0
    try:
        left_out = install(options.bin_dir, options.conf_dir)
    except (DeltaplaneError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for kind in left_out:
        sys.stderr.write(f"{options.bin_dir} has no plugin {kind!r}: pods go without it\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
