"""What a file's inode says of it, to be compared later: has its content been written to meanwhile?

Size and time of the last change tell it, unless whoever writes sets that time back, as `cp -p` onto a file does. Then
the inode's own change time has moved (ctime, which nobody can set). That alone is no witness, for renaming, linking,
deleting and changing permissions move it, too, and harm nothing; so it counts only where none of these shows: the file
has one name and had one, leads from the same path, and mode and owner are what they were. Setting the times alone, or
an extended attribute, is taken for a write.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Stamp(NamedTuple):
    """The facts of an inode at a moment: sizes in bytes, times in ns."""

    dev: int
    ino: int
    size: int
    mtime: int
    ctime: int
    names: int
    mode: int
    owner: tuple[int, int]

    @classmethod
    def of(cls, facts: os.stat_result) -> Stamp:
        """Return the stamp of what stat(2) tells."""
        return cls(
            facts.st_dev,
            facts.st_ino,
            facts.st_size,
            facts.st_mtime_ns,
            facts.st_ctime_ns,
            facts.st_nlink,
            facts.st_mode,
            (facts.st_uid, facts.st_gid),
        )

    def is_of_same_file(self, other: Stamp) -> bool:
        """Tell whether both are of one file."""
        return (self.dev, self.ino) == (other.dev, other.ino)

    def is_written_by(self, now: Stamp, path: str | os.PathLike[str]) -> bool:
        """Tell whether the file has been written to since this stamp.

        Args:
            now: its stamp now. path: where it was; a file of which that is no longer true was renamed.
        """
        if (self.size, self.mtime) != (now.size, now.mtime):
            return True
        if self.ctime == now.ctime or self[5:] != now[5:] or now.names != 1:
            return False
        try:
            return self.is_of_same_file(Stamp.of(os.stat(path)))  # noqa: PTH116  # a hundred thousand of them
        except OSError:
            return False
