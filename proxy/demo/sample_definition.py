"""An agent or a workflow of the sample platform, and the manifests that make them.  [pure, but for ids it makes up]

In: a manifest in YAML. Out: its name and description, or a `ToolError` that says what is wrong with it.
Refuses to know: who deploys it, and what it is like to run.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from mcp.server.mcpserver.exceptions import ToolError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Kind = Literal["agent", "workflow"]
# Beside its own, whatever Python says of a value that is not what its tag says: `!!int` alone is an IndexError.
UNREADABLE = (YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def manifest_of(kind: Kind, name: str, description: str) -> str:
    return (
        f"apiVersion: aegis/v1\nkind: {kind.capitalize()}\nmetadata:\n"
        f"  name: {name}\n  version: 1.0.0\nspec:\n  description: {description}\n"
    )


@dataclass
class Definition:
    """An agent or a workflow. `manifests`: one for each revision, the oldest first."""

    kind: Kind
    name: str
    manifests: list[str]
    description: str = ""
    scope: str = "tenant"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def manifest_yaml(self) -> str:
        return self.manifests[-1]

    @property
    def revision(self) -> int:
        return len(self.manifests)

    def summarise(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "scope": self.scope,
            "revision": self.revision,
        }


def parse_manifest(kind: str, manifest_yaml: str) -> tuple[str, str]:
    """The name and the description in a manifest; ToolError says what is wrong with it."""
    try:
        manifest = YAML(typ="safe", pure=True).load(manifest_yaml)
    except UNREADABLE as error:
        raise ToolError(f"the manifest is not YAML: {error}") from error
    if not isinstance(manifest, dict) or str(manifest.get("kind", "")).lower() != kind:
        raise ToolError(f"the manifest must be a mapping with kind: {kind.capitalize()}")
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise ToolError("the manifest must give metadata.name")
    return name, str(spec.get("description", "")) if isinstance(spec, dict) else ""


def search(definitions: Iterable[Definition], query: str, limit: int) -> list[dict[str, Any]]:
    words = query.lower().split()
    found = [each for each in definitions if all(word in f"{each.name} {each.description}".lower() for word in words)]
    return [definition.summarise() for definition in found[:limit]]
