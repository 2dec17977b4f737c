"""Styles, scripts and images of the page, each under an address that means these bytes and no others.  [io]

They are read and packed once, at start: they hold nothing of anybody's, so that their length tells nothing. The digest
of all of them together stands in their path, so that a script finds its modules by relative names and browsers may keep
everything for ever.
"""

from __future__ import annotations

import gzip
import re
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
_GZIP = re.compile(r"\s*gzip\s*(;\s*q=(1(\.0*)?|0\.\d*[1-9]\d*)\s*)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent; `packed`: by gzip."""

    body: bytes
    packed: bytes
    content_type: str

    def choose(self, accept_encoding: str) -> tuple[bytes, Mapping[str, str]]:
        """The body for whoever says this (RFC 9110 section 12.5.3), and the headers that say what it is."""
        varying = {"Vary": "Accept-Encoding", "Content-Type": self.content_type}
        if any(_GZIP.fullmatch(part) for part in accept_encoding.split(",")):
            return self.packed, {**varying, "Content-Encoding": "gzip"}
        return self.body, varying


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
    files = {path.name: _form_asset(path.read_bytes(), TYPES[path.suffix]) for path in sorted(FOLDER.iterdir())}
    digest = sha256()
    for name, asset in files.items():
        digest.update(f"{name} {len(asset.body)}\n".encode() + asset.body)
    return Assets(f"{STATIC}/{digest.hexdigest()[:16]}", files)


def _form_asset(body: bytes, content_type: str) -> Asset:
    return Asset(body, gzip.compress(body, mtime=0), content_type)
