"""The wire format: what client and server both import. Standard library only."""
