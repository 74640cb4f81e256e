"""What tells whether a file is still the same file, without reading it; on the lowest floor."""

from pathlib import Path


def stamp(file: Path) -> str:
    """Changes whenever a file is written, also where its size and its time of writing are set back."""
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
