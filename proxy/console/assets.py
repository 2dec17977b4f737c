"""Styles, scripts and images of the page, each under an address that means these bytes and no others.  [io]

They are read once, at start. The digest of all of them together stands in their path, so that a script finds its
modules by relative names and browsers may keep everything for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from proxy.console.sign_in_pages import STATIC

FOLDER: Final = Path(__file__).parent / "static"
TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent."""

    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Assets:
    """`base`: the path below which they stand; all by their name."""

    base: str
    files: Mapping[str, Asset]

    def find(self, path: str) -> Asset | None:
        """What stands at a path: of this version, or by its plain name, for pages that know no version."""
        folder, _, name = path.rpartition("/")
        return self.files.get(name) if folder in (self.base, STATIC) else None

    def is_lasting(self, path: str) -> bool:
        """Whether what stands there never changes."""
        return path.startswith(f"{self.base}/")

    def locate(self, name: str) -> str:
        """The address of a file. Raises KeyError for one that is not there."""
        if name not in self.files:
            raise KeyError(name)
        return f"{self.base}/{name}"


@cache
def read_assets() -> Assets:
    """As they were installed."""
    files = {path.name: Asset(path.read_bytes(), TYPES[path.suffix]) for path in sorted(FOLDER.iterdir())}
    digest = sha256()
    for name, asset in files.items():
        digest.update(f"{name} {len(asset.body)}\n".encode() + asset.body)
    return Assets(f"{STATIC}/{digest.hexdigest()[:16]}", files)
