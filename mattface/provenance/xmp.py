"""The origin mark: which tool composed a picture, said in its XMP metadata in IPTC's words.

Three properties of the IPTC Extension schema are set: DigitalSourceType (the NewsCodes term for a composite that
includes elements made by a trained model), AISystemUsed and AISystemVersionUsed. The rest of an existing packet stays.
The work is done on the packet's bytes alone; reading and writing files is `mattface.picture_io`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.dom import minidom
from xml.parsers.expat import ExpatError

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC NewsCodes, vocabulary digitalsourcetype: part of the picture was made by a trained model."""
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""The same vocabulary: all of it was."""

TOOL = "mattface"
X = "adobe:ns:meta/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
XMLNS = "http://www.w3.org/2000/xmlns/"
PROPERTIES = {"DigitalSourceType": "digital_source_type", "AISystemUsed": "tool", "AISystemVersionUsed": "version"}
EMPTY = f'<x:xmpmeta xmlns:x="{X}"><rdf:RDF xmlns:rdf="{RDF}"></rdf:RDF></x:xmpmeta>'
HEAD = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
TAIL = '<?xpacket end="w"?>'


@dataclass(frozen=True)
class Mark:
    """What a picture's metadata says about its origin.

    Attributes:
        digital_source_type: full IPTC address of the term.
        tool: name of the system used, or None.
        version: its version, or None.
    """

    digital_source_type: str
    tool: str | None
    version: str | None


def add_mark(xmp: bytes | None, version: str, kind: str = DIGITAL_SOURCE_TYPE) -> bytes:
    """Sets the origin mark in an XMP packet.

    Args:
        xmp: the picture's packet, or None when it has none.
        version: version of this tool.
        kind: digital source type, full IPTC address.

    Returns:
        A UTF-8 packet with the mark; every other property of `xmp` is still in it.

    Raises:
        ValueError: `xmp` is no XMP.
    """
    document = _parse(xmp) if xmp else minidom.parseString(EMPTY)
    rdf = _rdf(document)
    about = next((d.getAttributeNS(RDF, "about") for d in _descriptions(rdf)), "")
    for description in _descriptions(rdf):
        _remove_mark(description)
        if _is_empty(description):
            rdf.removeChild(description)
    rdf.appendChild(_mark_element(document, rdf.prefix or "rdf", about, version, kind))
    root = document.documentElement or rdf
    return (HEAD + root.toxml() + TAIL).encode("utf-8")


def mark_tags(version: str) -> dict[str, str]:
    """The origin mark as tags of a video container, under the names of the XMP properties.

    Args:
        version: version of this tool.
    """
    return dict(zip(PROPERTIES, (DIGITAL_SOURCE_TYPE, TOOL, version), strict=True))


def find_mark(xmp: bytes | None) -> Mark | None:
    """Reads the origin mark out of an XMP packet.

    Returns:
        The mark; None when there is no packet, it is no XMP, or it names no digital source type.
    """
    if not xmp:
        return None
    try:
        rdf = _rdf(_parse(xmp))
    except ValueError:
        return None
    found: dict[str, str] = {}
    for description in _descriptions(rdf):
        for name, field in PROPERTIES.items():
            value = _property(description, name)
            if value:
                found[field] = value
    if "digital_source_type" not in found:
        return None
    return Mark(found["digital_source_type"], found.get("tool"), found.get("version"))


def _parse(xmp: bytes) -> minidom.Document:
    """The packet as a document; entity declarations, which no XMP needs, are rejected unread."""
    trimmed = xmp.strip(b"\0 \t\r\n")
    if b"<!DOCTYPE" in trimmed or b"<!ENTITY" in trimmed:
        raise ValueError("an XMP packet must not declare entities")
    try:
        return minidom.parseString(trimmed)
    except (ExpatError, LookupError) as error:
        raise ValueError(f"not an XMP packet: {error}") from error


def _rdf(document: minidom.Document) -> minidom.Element:
    found = document.getElementsByTagNameNS(RDF, "RDF")
    if not found:
        raise ValueError("not an XMP packet: no rdf:RDF in it")
    return found[0]


def _descriptions(rdf: minidom.Element) -> list[minidom.Element]:
    return [n for n in rdf.childNodes if n.nodeType == n.ELEMENT_NODE and n.localName == "Description"]


def _property(description: minidom.Element, name: str) -> str:
    """A property's text, written either as an attribute or as an element."""
    if description.hasAttributeNS(IPTC_EXTENSION, name):
        return str(description.getAttributeNS(IPTC_EXTENSION, name)).strip()
    for element in description.childNodes:
        if element.localName != name or element.namespaceURI != IPTC_EXTENSION:
            continue
        resource = element.getAttributeNS(RDF, "resource")
        return str(resource or "".join(n.data for n in element.childNodes if n.nodeType == n.TEXT_NODE)).strip()
    return ""


def _remove_mark(description: minidom.Element) -> None:
    for name in PROPERTIES:
        if description.hasAttributeNS(IPTC_EXTENSION, name):
            description.removeAttributeNS(IPTC_EXTENSION, name)
        for child in list(description.childNodes):
            if child.localName == name and child.namespaceURI == IPTC_EXTENSION:
                description.removeChild(child)


def _is_empty(description: minidom.Element) -> bool:
    said = {a.namespaceURI for a in description.attributes.values() if a.localName != "about"}
    return said <= {XMLNS} and all(n.nodeType == n.TEXT_NODE and not n.data.strip() for n in description.childNodes)


def _mark_element(document: minidom.Document, rdf_prefix: str, about: str, version: str, kind: str) -> minidom.Element:
    element = document.createElementNS(RDF, f"{rdf_prefix}:Description")
    element.setAttributeNS(XMLNS, "xmlns:Iptc4xmpExt", IPTC_EXTENSION)
    element.setAttributeNS(RDF, f"{rdf_prefix}:about", about)
    for name, value in zip(PROPERTIES, (kind, TOOL, version), strict=True):
        child = document.createElementNS(IPTC_EXTENSION, f"Iptc4xmpExt:{name}")
        child.appendChild(document.createTextNode(value))
        element.appendChild(child)
    return element
