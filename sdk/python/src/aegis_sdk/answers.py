"""What all models have in common: members of tomorrow are kept, and a secret is not shown by chance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

SECRET = "key"  # noqa: S105 - the member's name


class Answer(BaseModel):
    """Something the API answered. `model_dump()` gives all of it; `repr` leaves out a minted key's `key`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, value) for name, value in super().__repr_args__() if name != SECRET]
