"""Who made a picture, said in layers: an XMP tag, a signed C2PA manifest, and an imperceptible mark.

All of them are laid on every picture and video that is written, unless the caller switches one off, and then the report
says so. `mattface.verify` reads them.
"""

from mattface.provenance.settings import (
    C2PA,
    FILE,
    LAYERS,
    MARK,
    RECORD,
    XMP,
    Laid,
    Settings,
    Signing,
    Swapped,
    consent_note,
    file_of,
    folder,
    hash_of,
)
from mattface.provenance.xmp import DIGITAL_SOURCE_TYPE, GENERATED, Mark, add_mark, find_mark, mark_tags

__all__ = [
    "C2PA",
    "DIGITAL_SOURCE_TYPE",
    "FILE",
    "GENERATED",
    "LAYERS",
    "MARK",
    "RECORD",
    "XMP",
    "Laid",
    "Mark",
    "Settings",
    "Signing",
    "Swapped",
    "add_mark",
    "consent_note",
    "file_of",
    "find_mark",
    "folder",
    "hash_of",
    "mark_tags",
]
