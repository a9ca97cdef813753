"""Pictures in and out: files, PIL images and arrays become a `Picture`, and back, with their metadata."""

from mattface.picture_io.files import write_whole
from mattface.picture_io.reading import read
from mattface.picture_io.writing import (
           check_output,
           read_mark,
           to_caller,
           to_pil,
           write,
           write_matte,
           write_with_origin,
)

__all__ = ["check_output", "read", "read_mark", "to_caller", "to_pil", "write", "write_matte", "write_whole",
           "write_with_origin"]
