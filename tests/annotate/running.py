"""`maskless annotate` as a real process on a free port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Running:
    """A server that has said its address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        assert process.stdout is not None
        for line in process.stdout:
            self.said += line
            if line.startswith("http://"):
                break
        else:
            raise AssertionError(f"the server did not start: {self.said}")
        self.address = line.strip()
        parts = urlsplit(self.address)
        self.host, self.port = parts.netloc, int(parts.port or 0)
        self.token = parse_qs(parts.query)["token"][0]

    def stop(self) -> str:
        """End it; everything it has said."""
        self.process.terminate()
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        self.process.wait(120)
        return self.said


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "maskless", "annotate", str(folder), "--no-browser", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield Running(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
