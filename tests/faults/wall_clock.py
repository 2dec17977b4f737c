"""A wall clock that can be moved, for one process and its children.  [io]

In goes a directory, out come a library to preload and the file it reads its offset from. Only CLOCK_REALTIME moves,
as when somebody sets a machine's clock: boot time and monotonic time go on. Needs a C compiler, and Linux's loader.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile double *offset;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void prepare(void) {
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int file = open(getenv("WALL_CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
    void *mapped = file < 0 ? MAP_FAILED : mmap(0, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset = mapped;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    if (!real_clock_gettime) prepare();
    int failed = real_clock_gettime(id, now);
    if (!failed && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += (time_t)*offset;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *stored) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (stored) *stored = precise.tv_sec;
    return precise.tv_sec;
}
"""


def find_obstacle() -> str | None:
    if sys.platform != "linux":
        return "the loader to preload a clock with is Linux's"
    return None if shutil.which("cc") else "no C compiler to build a clock with"


@dataclass(frozen=True, slots=True)
class WallClock:
    """`environ` is for the processes that are to be told this time."""

    library: Path
    offset_file: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "WALL_CLOCK_OFFSET": str(self.offset_file)}

    def jump(self, offset_seconds: float) -> None:
        """Everybody is told another time from now on; whole seconds."""
        with self.offset_file.open("r+b") as file:
            file.write(struct.pack("d", offset_seconds))


def build_wall_clock(directory: Path) -> WallClock:
    """Compile it; it starts without an offset."""
    source, library, offset_file = (directory / name for name in ("clock.c", "clock.so", "clock.offset"))
    source.write_text(SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    offset_file.write_bytes(struct.pack("d", 0.0))
    return WallClock(library, offset_file)
