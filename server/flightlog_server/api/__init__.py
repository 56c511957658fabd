"""The routes: session.py signs in, sync.py takes runs in, read.py shows them, page.py serves the page."""
