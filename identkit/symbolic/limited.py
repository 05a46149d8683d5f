"""A search in a child process: it streams what it has proved, and is killed when time or memory runs out.

Native solvers ignore signals, so a limit that is kept needs a process to kill.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MEMORY = 3 * 2**29
"""Bytes of address space that a child may use beyond what its parent does; with that, less than 2 GiB."""


class OutOfTime(RuntimeError):
    """The limit was reached before anything at all was proved."""


def within(
    task: Callable[[Callable[[Any], None]], Any], seconds: float, memory: int = MEMORY
) -> tuple[Any, bool]:
    """Run ``task(tell)`` in a child process and return its result, or the last thing it told by the time limit.

    Args:
        task: gets a function to stream partial results with; all of them must be picklable.
        seconds: wall time after which the child is killed.
        memory: bytes of address space that the child may use, beyond what is in use now.

    Returns:
        The result and True; or, where time or memory ran out, the last partial result and False.

    Raises:
        OutOfTime: if the limit was reached before anything was told.
        Exception: as the task raised it, but for exhausted memory or recursion, which count as out of time.
    """
    context = multiprocessing.get_context("fork" if sys.platform != "win32" else "spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(task, there, memory), daemon=True)
    deadline = time.monotonic() + seconds
    child.start()
    there.close()
    last: Any = None
    try:
        while True:
            if not here.poll(max(0.0, deadline - time.monotonic())):
                break
            try:
                kind, value = here.recv()
            except EOFError:
                break
            if kind == "result":
                return value, True
            if kind == "error":
                raise value
            last = value
    finally:
        if child.is_alive() and child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        here.close()
    if last is None:
        raise OutOfTime(f"nothing was proved within {seconds:g} s and {memory / 2**30:.1f} GiB")
    return last, False


def _run(task: Callable[[Callable[[Any], None]], Any], pipe: Connection, memory: int) -> None:
    # The parent decides about interrupts; the child just ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _limit(memory)
        result = task(lambda partial: pipe.send(("partial", partial)))
        pipe.send(("result", result))
    except (MemoryError, RecursionError):
        pass
    except Exception as error:
        pipe.send(("error", error))
    finally:
        pipe.close()


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    status = Path("/proc/self/statm")
    used = int(status.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = used + memory if hard == resource.RLIM_INFINITY else min(used + memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
