"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere.

Stage functions only call :func:`track` and :func:`log`; the command line decides with
:func:`set_mode` what a person sees. As a library, nothing is shown unless asked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

Mode = Literal["auto", "bar", "plain", "quiet"]
Item = TypeVar("Item")

_mode: Mode = "quiet"
_PLAIN_EVERY_SECONDS = 10.0


def set_mode(mode: Mode) -> None:
    """Choose how progress is shown; ``"auto"`` is a bar on a terminal and lines elsewhere."""
    global _mode
    if mode == "auto":
        mode = "bar" if sys.stderr.isatty() else "plain"
    _mode = mode


def log(message: str) -> None:
    """Write one line to standard error unless progress is switched off."""
    if _mode != "quiet":
        print(message, file=sys.stderr, flush=True)


def track(
    items: Iterable[Item], description: str, total: int | None = None, done: int = 0
) -> Iterator[Item]:
    """Yield from `items` while showing progress.

    Parameters
    ----------
    items
        What to go through.
    description
        A few words such as ``"train (steps)"``.
    total
        How many items there are in all; taken from ``len(items)`` if not given.
    done
        How many were finished earlier (resumed work).
    """
    if total is None:
        total = len(items) + done if hasattr(items, "__len__") else None  # type: ignore[arg-type]
    if _mode == "quiet":
        yield from items
    elif _mode == "bar":
        yield from _with_bar(items, description, total, done)
    else:
        yield from _with_lines(items, description, total, done)


def _with_bar(
    items: Iterable[Item], description: str, total: int | None, done: int
) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    with Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(description, total=total, completed=done)
        for item in items:
            yield item
            bar.advance(task)


def _with_lines(
    items: Iterable[Item], description: str, total: int | None, done: int
) -> Iterator[Item]:
    start = last = time.monotonic()
    count = 0
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last >= _PLAIN_EVERY_SECONDS:
            last = now
            rate = count / (now - start)
            left = f", {(total - done - count) / rate:.0f} s left" if total else ""
            log(f"{description}: {done + count}/{total or '?'}, {rate:.1f}/s{left}")
    seconds = time.monotonic() - start
    log(f"{description}: {done + count} done in {seconds:.1f} s")
