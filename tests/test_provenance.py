"""The origin mark: set in every format, merged into what is there, read back, left out on request."""

from __future__ import annotations

from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
from PIL import Image

from mattface import __version__, picture_io
from mattface.provenance import DIGITAL_SOURCE_TYPE, add_mark, find_mark
from mattface.vocabulary import Picture

EXISTING = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Some Kit 1.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:own="https://example.org/own/"
    e:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture" own:rating="5 &lt; 6">
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Gr\xc3\xbc\xc3\x9fe</rdf:li></rdf:Alt></dc:title>
   <e:AISystemUsed>another</e:AISystemUsed>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>\0\0"""


def grey(value: int = 90) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def test_a_new_packet_says_what_tool_made_it() -> None:
    mark = find_mark(add_mark(None, "1.2.3"))
    assert mark.digital_source_type == DIGITAL_SOURCE_TYPE
    assert mark.digital_source_type.endswith("/compositeWithTrainedAlgorithmicMedia")
    assert (mark.tool, mark.version) == ("mattface", "1.2.3")


def test_an_existing_packet_keeps_everything_else() -> None:
    assert find_mark(EXISTING).tool == "another"
    merged = add_mark(EXISTING, "1.2.3")
    assert find_mark(merged).tool == "mattface"
    text = merged.decode("utf-8")
    assert "digitalCapture" not in text
    assert "another" not in text
    assert "Grüße" in text
    assert 'own:rating="5 &lt; 6"' in text
    assert 'x:xmptk="Some Kit 1.0"' in text
    abouts = {d.getAttribute("rdf:about") for d in minidom.parseString(merged).getElementsByTagName("rdf:Description")}
    assert abouts == {"uuid:1"}


def test_marking_twice_changes_nothing_more() -> None:
    once = add_mark(EXISTING, "1.2.3")
    assert add_mark(once, "1.2.3") == once


@pytest.mark.parametrize(
    "broken",
    [
        b"not xml",
        b"<a/>",
        b"<x:xmpmeta",
        b'<!DOCTYPE a [<!ENTITY b "c">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&b;</x:xmpmeta>',
    ],
)
def test_what_is_no_xmp_is_rejected_and_carries_no_mark(broken: bytes) -> None:
    with pytest.raises(ValueError, match="XMP packet"):
        add_mark(broken, "1")
    assert find_mark(broken) is None


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
def test_every_written_picture_is_marked_unless_switched_off(tmp_path: Path, ending: str) -> None:
    picture = Picture(grey(), metadata={"xmp": EXISTING})
    marked, plain = tmp_path / f"marked{ending}", tmp_path / f"plain{ending}"
    assert picture_io.write(picture, marked) == ()
    picture_io.write(picture, plain, mark=False)
    mark = picture_io.read_mark(marked)
    assert (mark.digital_source_type, mark.tool, mark.version) == (DIGITAL_SOURCE_TYPE, "mattface", __version__)
    assert "Grüße" in picture_io.read(marked).metadata["xmp"].decode()
    assert picture_io.read_mark(plain).tool == "another"
    picture_io.write(Picture(grey()), plain, overwrite=True, mark=False)
    assert picture_io.read_mark(plain) is None


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
def test_other_programs_find_the_packet(tmp_path: Path, ending: str) -> None:
    """Pillow's own reader sees it where each format's rules put it."""
    picture_io.write(Picture(grey()), tmp_path / f"a{ending}")
    with Image.open(tmp_path / f"a{ending}") as image:
        image.load()
        found = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    assert DIGITAL_SOURCE_TYPE in (found if isinstance(found, str) else found.decode())


def test_broken_xmp_makes_way_with_a_note(tmp_path: Path) -> None:
    notes = picture_io.write(Picture(grey(), metadata={"xmp": b"rubbish"}), tmp_path / "a.png")
    assert len(notes) == 1
    assert "XMP was replaced" in notes[0]
    assert picture_io.read_mark(tmp_path / "a.png").tool == "mattface"


def test_xmp_too_long_for_jpeg_makes_way_with_a_note(tmp_path: Path) -> None:
    long = EXISTING.replace(b"another", b"x" * 70_000).replace(b"AISystemUsed", b"Long")
    notes = picture_io.write(Picture(grey(), metadata={"xmp": long}), tmp_path / "a.jpg")
    assert "too long for JPEG" in notes[0]
    assert picture_io.read_mark(tmp_path / "a.jpg").tool == "mattface"
    assert picture_io.write(Picture(grey(), metadata={"xmp": long}), tmp_path / "a.png") == ()


def test_repeated_orientation_in_xmp_is_reset_with_the_pixels(tmp_path: Path) -> None:
    xmp = EXISTING.replace(b'own:rating="5 &lt; 6"', b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"')
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (16, 8)).save(tmp_path / "a.jpg", exif=exif, xmp=xmp)
    picture = picture_io.read(tmp_path / "a.jpg")
    assert picture.size == (8, 16)
    assert b'tiff:Orientation="1"' in picture.metadata["xmp"]
