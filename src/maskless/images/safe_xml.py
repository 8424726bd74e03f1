"""XML from image files, parsed without entities and document types (they can be bombs)."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from maskless.errors import InputError


def parse_xml(text: str | bytes, file: Path, what: str) -> Element:
    """Parse XML; `what` names it in messages, such as ``"OME-XML"``.

    Raises
    ------
    InputError
        If it is malformed, or declares entities or a document type.
    """
    try:
        root: Element = ElementTree.fromstring(text, forbid_dtd=True)
    except DefusedXmlException as error:
        raise InputError(
            f"the {what} declares entities or a document type, which is unsafe to read",
            file=file,
            found=type(error).__name__,
        ) from error
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        raise InputError(
            f"the {what} is malformed",
            file=file,
            found=error,
            do="Is the file complete? Copy it again from where it came from",
        ) from error
    return root


def tag(element: Element) -> str:
    """Name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def children(element: Element, name: str) -> list[Element]:
    """Direct children of that name in any namespace."""
    return [child for child in element if tag(child) == name]


def texts(element: Element) -> dict[str, str]:
    """Texts of the direct children by name; the first one counts where a name is repeated."""
    found: dict[str, str] = {}
    for child in element:
        found.setdefault(tag(child), (child.text or "").strip())
    return found
