"""Plain text files: read as UTF-8, up to a megabyte."""

from pathlib import Path

from unigen.errors import MediaError, UsageError
from unigen.media.read import shown

TEXT_BYTES = 1_000_000


def read_text(path: str | Path) -> str:
    """Return the text of a UTF-8 file, one final newline left out.

    Raises UsageError for a missing file, MediaError for one that is empty, too long or no text.
    """
    if not Path(path).is_file():
        raise UsageError(
            f"{shown(path)} does not exist or is no file; give the path of a text file"
        )
    with Path(path).open("rb") as file:
        data = file.read(TEXT_BYTES + 1)
    if len(data) > TEXT_BYTES:
        raise MediaError(f"{shown(path)} is longer than {TEXT_BYTES} bytes; give a shorter text")
    try:
        text = data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or not text.strip():
        raise MediaError(f"{shown(path)} holds no text in UTF-8; give a text file")
    return text
