"""Errors are one line that names what, where and what to do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maskless.errors import InputError, MasklessError, MissingExtraError


def test_an_input_error_names_everything() -> None:
    error = InputError(
        "the image lacks channels",
        file="a.tif",
        image="a",
        channel="CD3",
        expected=34,
        found=10,
        do="Copy it again",
    )
    assert str(error) == (
        "the image lacks channels (file a.tif, image a, channel CD3); expected 34, found 10. "
        "Copy it again"
    )
    assert isinstance(error, MasklessError)


@given(st.text(), st.text(), st.text())
def test_an_input_error_is_one_line(what: str, channel: str, found: str) -> None:
    assert len(str(InputError(what, channel=channel, found=found)).splitlines()) <= 1


def test_a_missing_extra_says_how_to_install_it() -> None:
    assert "pip install 'maskless[cellpose]'" in str(MissingExtraError("cellpose", "cellpose"))
