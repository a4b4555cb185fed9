"""What kustomize and the chart make, as objects; rendered once for all tests of a process."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from tools.generate_manifests import KUBERNETES, rendered

Object = dict[str, Any]
OVERLAYS = {
    "base": (),
    "overlays/kind": ("kind",),
    "overlays/production": ("production",),
    "overlays/plaintext-dev": ("kind", "plaintext-dev"),
}
"""Folder of kustomize → overlays whose values.yaml say the same to the chart."""


def load(text: str) -> Iterator[Object]:
    """The documents of a text but empty ones, by the parser in C: these are a thousand lines."""
    return filter(None, yaml.load_all(text, Loader=yaml.CSafeLoader))


@cache
def kustomized(folder: str) -> tuple[Object, ...]:
    """The objects of a folder, as `kubectl kustomize` prints them."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(load(done.stdout))


@cache
def charted(*overlays: str) -> tuple[Object, ...]:
    """The objects of the chart with the values of some overlays."""
    values: Object = {}
    for name in overlays:
        values |= yaml.safe_load((KUBERNETES / "overlays" / name / "values.yaml").read_text())
    texts = rendered(values).values()
    return tuple(item for text in texts for item in load(text))


@cache
def _by_name(text: str) -> dict[tuple[str, str], Object]:
    objects = json.loads(text)
    settings = [item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap"]
    hashed = re.compile(rf"\b({'|'.join(settings)})\b")
    plain = json.loads(hashed.sub(lambda name: name[0].rpartition("-")[0], text))
    found = {(item["kind"], item["metadata"]["name"]): item for item in plain}
    return {key: item for key, item in found.items() if item["kind"] != "Namespace"}


def by_name(objects: tuple[Object, ...]) -> dict[tuple[str, str], Object]:
    """Objects by kind and name; settings without the hash in their names; no Namespace."""
    return _by_name(json.dumps(objects))


def settings(objects: tuple[Object, ...], name: str = "deltaplane") -> dict[str, str]:
    """The variables of a ConfigMap."""
    data: dict[str, str] = by_name(objects)["ConfigMap", name]["data"]
    return data


def pods(objects: tuple[Object, ...]) -> dict[str, Object]:
    """The pod template of each workload, by the workload's name."""
    return {
        item["metadata"]["name"]: item["spec"]["template"]["spec"]
        for item in objects
        if item["kind"] in ("Deployment", "StatefulSet", "DaemonSet")
    }


def containers(pod: Object) -> list[Object]:
    """All containers of a pod, those of its start first."""
    return [*pod.get("initContainers", ()), *pod["containers"]]
