"""Files that belong to an image, a marker, or both, by a pattern."""

from __future__ import annotations

import re
from pathlib import Path

IMAGE = "{image}"
MARKER = "{marker}"


def named_file(pattern: str, folder: Path, image: str = "", marker: str = "") -> Path:
    """The file that a pattern means; it need not be there.

    Parameters
    ----------
    pattern
        A path in which ``{image}`` and ``{marker}`` stand for names.
    folder
        That relative paths start from.
    image, marker
        The names; characters that file names cannot have become ``_`` in the marker's.
    """
    safe = re.sub(r'[\\/:*?"<>|]', "_", marker)
    return folder / pattern.replace(IMAGE, image).replace(MARKER, safe)
