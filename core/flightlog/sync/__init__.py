"""Delivering runs to a server: resumable, verified, without duplicates (docs/protocol.md)."""
