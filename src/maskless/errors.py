"""The exceptions of maskless, each one line that says what is wrong, where, and what to do.

::

    MasklessError
    ├── InputError          a file, image, panel or table that cannot be used as it is
    ├── SettingsError       a value in study.toml or an argument that makes no sense
    ├── StudyError          the study on disk: missing stage, locked, damaged
    ├── TrainingError       training cannot go on (non-finite loss, nothing to learn from)
    └── MissingExtraError   an optional package is not installed

Exceptions of the libraries below (tifffile, zarr, pandas, ...) do not leave the readers.
"""

from __future__ import annotations

from pathlib import Path


class MasklessError(Exception):
    """Base of every error that maskless raises on purpose."""


class InputError(MasklessError):
    """A file, image, panel or table that cannot be used as it is.

    Parameters
    ----------
    what
        What is wrong, without a full stop.
    file, image, channel
        Where.
    expected, found
        What was expected and what was found instead.
    do
        What the user can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        file: str | Path | None = None,
        image: str | None = None,
        channel: str | None = None,
        expected: object = None,
        found: object = None,
        do: str | None = None,
    ) -> None:
        self.what = what
        self.file = None if file is None else str(file)
        self.image = image
        self.channel = channel
        where = [
            f"{label} {_one_line(value)}"
            for label, value in (("file", file), ("image", image), ("channel", channel))
            if value is not None
        ]
        message = _one_line(what) + (f" ({', '.join(where)})" if where else "")
        if expected is not None:
            message += f"; expected {_one_line(expected)}"
        if found is not None:
            message += f"{'' if expected is None else ','} found {_one_line(found)}"
        super().__init__(message + (f". {_one_line(do)}" if do else ""))


class SettingsError(MasklessError):
    """A value in study.toml, or an argument, that makes no sense."""


class StudyError(MasklessError):
    """The study on disk cannot be used: a stage is missing, it is locked, or it is damaged."""


class TrainingError(MasklessError):
    """Training cannot go on."""


class MissingExtraError(MasklessError):
    """An optional package is not installed.

    Parameters
    ----------
    package
        The package that could not be imported.
    extra
        The extra of maskless that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"the package {package!r} is not installed. "
            f"Install it with: pip install 'maskless[{extra}]'"
        )


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
