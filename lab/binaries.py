"""Where the built parts are: in the tree, or in an installed wheel."""

from pathlib import Path

from deltaplane.errors import Refused

TREE = Path(__file__).resolve().parents[1]
PLUGIN = "deltaplane-cni"
SHOP = "examples/shop.yaml"


def plugin() -> Path:
    """The CNI plugin binary; a wheel has it beside the agent.

    Raises:
        Refused: it is not built.
    """
    for candidate in (TREE / "nodeagent/prebuilt" / PLUGIN, TREE / "build/bin" / PLUGIN):
        if candidate.exists():
            return candidate
    raise Refused(f"the CNI plugin build/bin/{PLUGIN} is not built: make build")


def shop() -> Path:
    """The example's manifests; a wheel has them beside this file."""
    packed = Path(__file__).with_name("shop.yaml")
    return packed if packed.exists() else TREE / SHOP
