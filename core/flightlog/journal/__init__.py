"""The journal: append-only lines of JSON, one folder per writer. The truth of a run (docs/format.md)."""
