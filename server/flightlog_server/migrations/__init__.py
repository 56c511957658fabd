"""The database's migrations (alembic); they run at every start of the server."""
