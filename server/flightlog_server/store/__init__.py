"""Where the server keeps things: rows in SQL, bytes as objects."""
