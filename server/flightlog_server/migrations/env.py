"""How alembic reaches the database: through the connection that `store.migrate` hands it."""

from alembic import context

from flightlog_server.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
