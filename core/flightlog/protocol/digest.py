"""The digest by which client and server agree on what a writer's journal holds.

SHA-256 over each block of 4,096 seq (the lines as they stand, newlines included), then SHA-256 over the block digests.
Blocks are by seq, not by count of lines, so a lost seq does not shift the blocks after it.
"""

from __future__ import annotations

import hashlib

BLOCK = 4096
_EMPTY = hashlib.sha256().digest()


class JournalDigest:
    """Digest of the lines 1..n of a writer, fed in order of seq."""

    def __init__(self, blocks: list[bytes] | None = None) -> None:
        """Start after the complete blocks in `blocks` (32 bytes each), or at the very beginning."""
        self.blocks: list[bytes] = list(blocks or [])
        self._block = hashlib.sha256()

    def add(self, seq: int, line: bytes) -> None:
        """Take the next line, with its newline. Seqs must grow; holes are allowed (lost ranges)."""
        block = (seq - 1) // BLOCK
        while len(self.blocks) < block:
            self._close_block()
        self._block.update(line)

    def _close_block(self) -> None:
        self.blocks.append(self._block.digest())
        self._block = hashlib.sha256()

    def complete_blocks(self, seq: int) -> list[bytes]:
        """Return the digests of the blocks wholly at or below `seq`, given that all lines up to it are added."""
        whole = seq // BLOCK
        blocks = list(self.blocks)
        if len(blocks) < whole:
            blocks.append(self._block.digest())
        return blocks[:whole] + [_EMPTY] * (whole - len(blocks))

    def upto(self, seq: int) -> str:
        """Return the digest in hex, given that all lines up to `seq` have been added (none beyond)."""
        whole, rest = divmod(seq, BLOCK)
        blocks = list(self.blocks)
        if rest or len(blocks) < whole:
            blocks.append(self._block.digest())
        while len(blocks) < whole + (1 if rest else 0):
            blocks.append(_EMPTY)
        return hashlib.sha256(b"".join(blocks)).hexdigest()
