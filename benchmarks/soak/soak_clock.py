"""Step the clock of a process without privileges, with a preloaded library that replaces the clock of the C library.

The library adds an offset from a mapped file to every reading of CLOCK_REALTIME, by Python, EPICS base and the C++
runtime. A wait until a time of day uses this clock too, also if the clock is stepped during the wait. The monotonic
clock is not changed. All this is as in the kernel. The kernel's timers (timerfd, setitimer) keep the machine's clock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *offset_ns;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void start(void) {
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int file = open(OFFSET_FILE, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(0, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset_ns = mapped;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    if (!real_clock_gettime) start();
    int failed = real_clock_gettime(id, now);
    if (failed || !offset_ns || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)) return failed;
    int64_t nanoseconds = now->tv_nsec + *offset_ns % 1000000000;
    now->tv_sec += *offset_ns / 1000000000;
    if (nanoseconds < 0) { nanoseconds += 1000000000; now->tv_sec -= 1; }
    if (nanoseconds >= 1000000000) { nanoseconds -= 1000000000; now->tv_sec += 1; }
    now->tv_nsec = nanoseconds;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

/* An absolute wait, in slices, so that it sees the clock being stepped. Times of day are recognised by their size. */
#define SLICE_NS 50000000
#define IS_TIME_OF_DAY(until) (offset_ns && (until)->tv_sec > 1000000000)

static int64_t nanoseconds_left(const struct timespec *until) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t seconds = until->tv_sec - now.tv_sec;
    if (seconds > 1000000) seconds = 1000000;
    return seconds * 1000000000 + until->tv_nsec - now.tv_nsec;
}

static struct timespec machine_time(int64_t ahead_ns) {
    struct timespec then;
    real_clock_gettime(CLOCK_REALTIME, &then);
    if (ahead_ns > SLICE_NS) ahead_ns = SLICE_NS;
    if (ahead_ns > 0) then.tv_nsec += ahead_ns;
    if (then.tv_nsec >= 1000000000) { then.tv_nsec -= 1000000000; then.tv_sec += 1; }
    return then;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real) real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    if (!IS_TIME_OF_DAY(until)) return real(cond, mutex, until);
    for (;;) {
        struct timespec slice = machine_time(nanoseconds_left(until));
        int result = real(cond, mutex, &slice);
        if (result != ETIMEDOUT || nanoseconds_left(until) <= 0) return result;
    }
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    static int (*real)(sem_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "sem_timedwait");
    if (!IS_TIME_OF_DAY(until)) return real(semaphore, until);
    for (;;) {
        struct timespec slice = machine_time(nanoseconds_left(until));
        int result = real(semaphore, &slice);
        if (result == 0 || errno != ETIMEDOUT || nanoseconds_left(until) <= 0) return result;
    }
}

time_t time(time_t *stored) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (stored) *stored = precise.tv_sec;
    return precise.tv_sec;
}
"""


def compiler() -> str | None:
    """The C compiler, or None."""
    return shutil.which("cc") or shutil.which("gcc")


class SteppedClock:
    """The clock of the processes that `environment` is given to.

    Parameters
    ----------
    folder
        Folder in which the C compiler builds the library.

    Raises
    ------
    RuntimeError
        There is no compiler.
    """

    def __init__(self, folder: Path) -> None:
        command = compiler()
        if command is None:
            raise RuntimeError("a C compiler is needed to step a process's clock")
        offset, source, library = folder / "clock.offset", folder / "clock.c", folder / "clock.so"
        offset.write_bytes(bytes(8))
        source.write_text(_SOURCE, encoding="utf-8")
        macro = f'-DOFFSET_FILE="{offset.resolve()}"'
        subprocess.run([command, "-O2", "-shared", "-fPIC", macro, source, "-o", library, "-ldl"], check=True)
        self._offset = np.memmap(offset, np.int64, "r+", shape=(1,))
        self._library = str(library.resolve())

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """`base` with the variables for a process that uses this clock."""
        others = base.get("LD_PRELOAD", "")
        return {**base, "LD_PRELOAD": f"{self._library}{os.pathsep}{others}" if others else self._library}

    @property
    def offset_s(self) -> float:
        """How far it is ahead of the machine's clock, seconds."""
        return float(self._offset[0]) * 1e-9

    @offset_s.setter
    def offset_s(self, seconds: float) -> None:
        self._offset[0] = round(seconds * 1e9)
