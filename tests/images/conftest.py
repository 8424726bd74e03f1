"""Makers of image files in the formats that no library writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Maker = Callable[..., Path]


def txt_text(pixels_cyx: NDArray[np.float32], labels: Sequence[str]) -> str:
    """Content of an IMC text file; labels such as ``CD20_Dy161(Dy161Di)``."""
    lines = ["\t".join(["Start_push", "End_push", "Pushes_duration", "X", "Y", "Z", *labels])]
    _, rows, columns = pixels_cyx.shape
    for y in range(rows):
        for x in range(columns):
            z = y * columns + x
            values = [f"{value:.3f}" for value in pixels_cyx[:, y, x]]
            lines.append(
                "\t".join(
                    [str(z * 384), str(z * 384 + 383), "384", f"{x}", f"{y}", f"{z}", *values]
                )
            )
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def make_txt() -> Maker:
    def make(
        path: Path,
        pixels_cyx: NDArray[np.float32],
        labels: Sequence[str] = ("CD20_Dy161(Dy161Di)", "DNA1_Ir191(Ir191Di)"),
    ) -> Path:
        path.write_text(txt_text(pixels_cyx, labels), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def make_mcd() -> Maker:
    def make(
        path: Path,
        acquisitions: Sequence[NDArray[np.float32]],
        *,
        channels: Sequence[tuple[str, str]] = (
            ("Dy(161)", "CD20_Dy161"),
            ("Ir(191)", "DNA1_Ir191"),
        ),
        keep: Sequence[int] | None = None,
        repeat: Sequence[int] = (),
        told: dict[str, object] | None = None,
        change_xml: Callable[[str], str] = lambda xml: xml,
        change_pixels: Callable[[NDArray[np.float32]], None] = lambda table: None,
    ) -> Path:
        """Write an .mcd; `keep` are the pixels (of every acquisition) that were acquired."""
        raw = b"\0" * 64
        xml = ['<MCDSchema xmlns="http://www.fluidigm.com/IMC/MCDSchema_V2_0.xsd">']
        xml.append("<Slide><ID>0</ID></Slide><Panorama><ID>1</ID><SlideID>0</SlideID>")
        xml.append("<Type>Default</Type></Panorama>")
        for number, pixels_cyx in enumerate(acquisitions, start=1):
            _, rows, columns = pixels_cyx.shape
            y, x = (a.ravel() for a in np.mgrid[:rows, :columns])
            table = np.column_stack(
                [x, y, y * columns + x, pixels_cyx.reshape(len(channels), -1).T]
            )
            table = table.astype("<f4")
            table = np.concatenate(
                [table if keep is None else table[list(keep)], table[list(repeat)]]
            )
            change_pixels(table)
            start, raw = len(raw), raw + table.tobytes()
            values: dict[str, object] = {
                "ID": number,
                "AcquisitionROIID": number,
                "DataStartOffset": start,
                "DataEndOffset": len(raw),
                "ValueBytes": 4,
                "SegmentDataFormat": "Float",
                "MaxX": columns,
                "MaxY": rows,
                **(told or {}),
            }
            fields = "".join(f"<{key}>{value}</{key}>" for key, value in values.items())
            xml.append(
                f"<AcquisitionROI><ID>{number}</ID><PanoramaID>1</PanoramaID></AcquisitionROI>"
            )
            xml.append(f"<Acquisition>{fields}</Acquisition>")
            every = [("X", ""), ("Y", ""), ("Z", ""), *channels]
            for order, (name, label) in enumerate(every):
                xml.append(
                    f"<AcquisitionChannel><ID>{number * 100 + order}</ID>"
                    f"<AcquisitionID>{number}</AcquisitionID><OrderNumber>{order}</OrderNumber>"
                    f"<ChannelName>{name}</ChannelName><ChannelLabel>{label}</ChannelLabel>"
                    "</AcquisitionChannel>"
                )
        xml.append("</MCDSchema>")
        path.write_bytes(raw + change_xml("".join(xml)).encode("utf-16-le"))
        return path

    return make


@pytest.fixture(scope="session")
def bright_cyx() -> NDArray[np.float32]:
    """Two channels, 41 rows, 23 columns; each with one bright pixel, the first at (x=7, y=30)."""
    pixels_cyx = np.zeros((2, 41, 23), dtype=np.float32)
    pixels_cyx[0, 30, 7] = 100
    pixels_cyx[1, 5, 20] = 50
    return pixels_cyx
