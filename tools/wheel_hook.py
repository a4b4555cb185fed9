"""hatchling's build hook: puts what lies outside the packages into the wheel.

The BPF objects and the CNI binary are optional: a wheel from a tree without `make build` is pure
Python and says so in its tag. In the wheel they lie under nodeagent/prebuilt/, in the tree under
bpf/build/ and build/bin/.
"""

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CNI_BINARY = Path("build/bin/deltaplane-cni")
IPAM_BINARY = Path("build/bin/deltaplane-ipam")
"""The same under a second name: the IPAM-only mode."""
MAGLEV_LIBRARY = Path("build/lib/libdeltaplane-maglev.so")
"""Makes tables of services; without it Python does."""
IN_WHEEL = Path("nodeagent/prebuilt")
EXAMPLE = ("examples/shop.yaml", "lab/shop.yaml")
"""What `deltaplane demo` shows, and where it finds it in a wheel."""


def built_files(root: Path) -> dict[str, str]:
    """Maps each built file, an absolute path, to its path in the wheel.

    An object whose source is gone is left out.
    """
    sources = sorted(root.glob("bpf/*.bpf.c"))
    objects = [root / "bpf/build" / f"{source.name.removesuffix('.c')}.o" for source in sources]
    everything = [*objects, *(root / path for path in (CNI_BINARY, IPAM_BINARY, MAGLEV_LIBRARY))]
    built = [path for path in everything if path.exists()]
    return {str(path): str(IN_WHEEL / path.name) for path in built}


class WheelHook(BuildHookInterface[Any]):
    """Found by hatchling through [tool.hatch.build.targets.wheel.hooks.custom]."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the files and, for the CNI binary, the platform tag."""
        if version == "editable":  # it runs from the tree
            return
        files = built_files(Path(self.root))
        build_data["force_include"].update(files)
        build_data["force_include"][str(Path(self.root) / EXAMPLE[0])] = EXAMPLE[1]
        if (Path(self.root) / CNI_BINARY).exists():
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"
