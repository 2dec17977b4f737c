"""Node's JSON.parse, where Node is: one process for all texts, a line in and a line out."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Any, cast

NODE = shutil.which("node")
# `readline` would also end lines at U+2028.
SCRIPT = """
let rest = Buffer.alloc(0);
process.stdin.on("data", (chunk) => {
  rest = Buffer.concat([rest, chunk]);
  let answers = "";
  for (let end; (end = rest.indexOf(10)) >= 0; rest = rest.subarray(end + 1)) {
    try {
      answers += JSON.stringify(JSON.parse(rest.toString("utf8", 0, end))) + "\\n";
    } catch {
      answers += "\\n";
    }
  }
  process.stdout.write(answers);
});
"""
BATCH_BYTES = 32 * 1024  # fits a pipe: nobody waits for the other to read


class NodeReader:
    """Use as a context manager; `ask` texts without line ends, `collect` what Node makes of them."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._asked: list[bytes] = []
        self._asked_bytes = 0

    def __enter__(self) -> NodeReader:
        self._process = subprocess.Popen([self._node, "-e", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._texts = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._texts.close()
        self._process.wait()
        self._answers.close()

    def read(self, texts: Iterable[bytes]) -> list[Any]:
        """What each of them says; of one that Node refuses, None. Together they are no longer than `BATCH_BYTES`, or
        there is only one."""
        lines = list(texts)
        self._texts.write(b"".join(line + b"\n" for line in lines))
        self._texts.flush()
        answers = [self._answers.readline() for _ in lines]
        return [json.loads(answer) if answer != b"\n" else None for answer in answers]
