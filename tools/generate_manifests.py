"""Renders the chart into deploy/kubernetes/base: the same objects for those who use kustomize.

    python tools/generate_manifests.py [--check]

Settings become variables of a generator there, so that an overlay can change one of them. The file
of each template of the chart is written whole; `--check` only compares; 1: there is a difference.
"""

import re
import sys
from pathlib import Path

import yaml
from helm_python.chart import Chart

KUBERNETES = Path(__file__).resolve().parents[1] / "deploy/kubernetes"
NAMESPACE = "deltaplane-system"
SETTINGS = re.compile(r"\b(deltaplane(?:-etcd)?)-[0-9a-f]{10}\b")
HEADER = "# Generated from the chart by tools/generate_manifests.py; change it there.\n"


def rendered(values: dict[str, object] | None = None) -> dict[str, str]:
    """File name of each template → its text with these values."""
    with Chart.load(KUBERNETES / "chart") as chart:
        texts = chart.render(values=values or {}, name="deltaplane", namespace=NAMESPACE)
    return {Path(path).name: text for path, text in texts.items() if text.strip()}


def without_hashes(text: str) -> str:
    """The text with the names of settings as kustomize wants them: it puts its own hash behind."""
    return SETTINGS.sub(r"\1", text)


def files() -> dict[Path, str]:
    """What is to be where, relative to deploy/kubernetes."""
    found = {}
    texts = rendered()
    for document in yaml.safe_load_all(texts.pop("settings.yaml")):
        name = without_hashes(document["metadata"]["name"])
        lines = [f"{key}={value}\n" for key, value in document["data"].items()]
        found[Path("base", f"{name}.env")] = HEADER + "".join(lines)
    for name, text in texts.items():
        found[Path("base", name)] = HEADER + without_hashes(text).strip() + "\n"
    certificates = rendered({"security": {"tls": {"certManager": True}}})["certificates.yaml"]
    found[Path("components/cert-manager/certificates.yaml")] = HEADER + certificates.strip() + "\n"
    return found


def main() -> int:
    """Writes or compares; the exit code."""
    status = 0
    for name, text in files().items():
        path = KUBERNETES / name
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in sys.argv[1:]:
            print(f"{path}: is not what the chart says; run tools/generate_manifests.py")
            status = 1
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path)
    return status


if __name__ == "__main__":
    sys.exit(main())
