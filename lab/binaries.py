"""Where the built parts are: in the tree, or in an installed wheel."""

from pathlib import Path

from deltaplane.errors import Refused

TREE = Path(__file__).resolve().parents[1]
PLUGIN = "deltaplane-cni"


def plugin() -> Path:
    """The CNI plugin binary; a wheel has it beside the agent.

    Raises:
        Refused: it is not built.
    """
    for candidate in (TREE / "nodeagent/prebuilt" / PLUGIN, TREE / "build/bin" / PLUGIN):
        if candidate.exists():
            return candidate
    raise Refused(f"the CNI plugin build/bin/{PLUGIN} is not built: make build")
