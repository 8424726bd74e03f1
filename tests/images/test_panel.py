"""Panels: every usual CSV is understood, and what is not understood is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskless.errors import InputError
from maskless.images import read_panel
from maskless.images.kinds import recognise
from maskless.images.names import isotope, isotope_in, spelling


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "panel.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_encodings_delimiters_and_line_ends(
    tmp_path: Path, encoding: str, delimiter: str, line_end: str
) -> None:
    lines = [
        ["  Channel", "NAME ", "Metal", "Kind"],
        ["0", "CD3/TCRβ", "Er170", "marker"],
        ["1", "DNA1", "191Ir", "DNA"],
        ["", "", "", ""],
    ]
    text = line_end.join(delimiter.join(line) for line in lines)
    panel = read_panel(write(tmp_path, text, encoding))
    assert panel.names == ("CD3/TCRβ", "DNA1")
    assert [c.metal for c in panel.channels] == ["Er170", "Ir191"]
    assert [c.kind for c in panel.channels] == ["marker", "nuclear"]
    assert [c.position for c in panel.channels] == [0, 1]


def test_steinbock_panel_keeps_what_is_kept(tmp_path: Path) -> None:
    panel = read_panel(
        write(
            tmp_path,
            "channel,name,keep,deepcell\nDy161,CD20,1,\nXe131,,0,\nYb172,H3K27Ac,1,1.0\nIr191,,1,\n",
        )
    )
    assert panel.names == ("CD20", "H3K27Ac", "Ir191")
    assert [c.metal for c in panel.channels] == ["Dy161", "Yb172", "Ir191"]
    assert panel.nuclear == ("H3K27Ac", "Ir191")


def test_used_overrules_kind(tmp_path: Path) -> None:
    panel = read_panel(write(tmp_path, "name,kind,used\nCD3,marker,no\nXe131,background,1\nP,,\n"))
    assert [c.used for c in panel.channels] == [False, True, False]
    assert [c.kind for c in panel.channels] == ["marker", "background", "element"]


def test_kinds_without_a_column() -> None:
    table = {
        ("DNA1", "Ir191"): "nuclear",
        ("193Ir", "Ir193"): "nuclear",
        ("", "Ir191"): "nuclear",
        ("Histone H3", "Yb176"): "nuclear",
        ("HH3", ""): "nuclear",
        ("DAPI", ""): "nuclear",
        ("Hoechst 33342", ""): "nuclear",
        ("dsDNA_89Y", "Y89"): "nuclear",
        ("127I", "I127"): "background",
        ("Xe131", ""): "background",
        ("80ArAr", "ArAr80"): "background",
        ("190BCKG", "BCKG190"): "background",
        ("89Y", "Y89"): "background",
        ("CD45", "Y89"): "marker",
        ("Background", ""): "background",
        ("empty", "Sm147"): "background",
        ("Blank-1", ""): "background",
        ("Au", ""): "background",
        ("C12", ""): "background",
        ("Fe", ""): "background",
        ("P", ""): "element",
        ("Na", ""): "element",
        ("Ca", "Ca40"): "element",
        ("AR", ""): "marker",
        ("ER", ""): "marker",
        ("PD-1", ""): "marker",
        ("CD112", ""): "marker",
        ("CA9", "Er166"): "marker",
        ("Ki67", "Er168"): "marker",
        ("H3K27me3", "Nd146"): "marker",
        ("Dy161", "Dy161"): "marker",
    }
    names, metals = zip(*table, strict=True)
    assert dict(zip(table, recognise(names, metals), strict=True)) == table


def test_histone_marks_show_nuclei_where_nothing_else_does() -> None:
    assert recognise(["CD3", "H3K27Ac"], ["", ""]) == ["marker", "nuclear"]
    assert recognise(["DNA1", "H3K27Ac"], ["", ""]) == ["nuclear", "marker"]
    assert recognise(["CD3", "H3K27Ac"], ["", ""], nuclear_known=True) == ["marker", "marker"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("channel,target\n0,CD3\n", "no column 'name'"),
        ("name\n", "no channels"),
        ("name,keep\nCD3,0\n", "no channels"),
        ("name,name\nCD3,CD4\n", "two columns"),
        ("channel,name\n0,CD3\n1,CD4\n2,cd3\n", "rows 2 and 4"),
        ("name,metal\nCD3,Er170\nCD4,170Er\n", "rows 2 and 3"),
        ("channel,name\n0,CD3\n0,CD4\n", "same position"),
        ("channel,name\n0,\n", "row 2 of the panel has no name"),
        ("channel,name\n-1,CD3\n", "impossible position"),
        ("channel,name\n1.5,CD3\n", "impossible position"),
        ("name,kind\nCD3,nice\n", "unknown kind"),
        ("name,used\nCD3,maybe\n", "unknown value of used"),
        ("channel,name\n0,CD3,x\n", "more cells than the header"),
        ("channel,name,metal\nDy161,CD3,Er170\n", "channel and metal differ"),
    ],
)
def test_refused_panels(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=said) as caught:
        read_panel(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_panel(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_panel(tmp_path)
    with pytest.raises(InputError, match="UTF-8"):
        read_panel(write(tmp_path, "name\nCD3é\n", "latin-1"))
    path = tmp_path / "binary.csv"
    path.write_bytes(b"name\nCD3\0\n" + bytes(range(128)))
    with pytest.raises(InputError):
        read_panel(path)


names = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(st.lists(names, min_size=1, max_size=8, unique_by=lambda n: spelling(n) + str(len(n))))
def test_any_names_survive_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, found: list[str]
) -> None:
    import unicodedata

    found = list({unicodedata.normalize("NFKC", n.casefold()): n for n in found}.values())
    path = tmp_path_factory.mktemp("panel") / "panel.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["channel", "name"], *enumerate(found)])
    expected = tuple(unicodedata.normalize("NFC", name) for name in found)
    assert read_panel(path).names == expected


def test_isotopes_are_told_from_markers() -> None:
    for text in ("Sm149", "149Sm", "Sm(149)", "Sm-149", "149Sm_Di", "Sm149Di"):
        assert isotope(text) == "Sm149", text
    for text in ("CD45", "CD112", "P53", "S100", "Ki67", "PD1", "B220", "HO1", "DNA1", "", "149"):
        assert isotope(text) == "", text
    assert isotope("dy161", any_case=True) == "Dy161"
    assert isotope_in("CD11b_Sm149") == "Sm149"
    assert isotope_in("152Sm-CD45_152Sm") == "Sm152"
    assert isotope_in("Laminin_681((851))Sm147") == "Sm147"
    assert isotope_in("Sm147_Sm149") == ""


def test_spelling_forgets_case_punctuation_and_greek() -> None:
    assert spelling("α-SMA") == spelling("Alpha SMA") == spelling("alphaSMA")
    assert spelling("HLA-DR") == spelling("hla dr")
    assert spelling("CD4") != spelling("CD45")


def test_real_panels(real_data: Path) -> None:
    paths = sorted(real_data.glob("*/panel.csv")) + sorted(real_data.glob("*/*/panel.csv"))
    assert len(paths) >= 7
    for path in paths:
        panel = read_panel(path)
        # What people wrote as kind is also what the rules find.
        guessed = recognise(panel.names, [c.metal for c in panel.channels])
        assert guessed == [c.kind for c in panel.channels], path
    spleen = read_panel(real_data / "spleen_imc" / "panel.csv")
    assert len(spleen.markers) == 13
    assert spleen.nuclear == ("DNA1", "DNA3", "HistoneH3")
