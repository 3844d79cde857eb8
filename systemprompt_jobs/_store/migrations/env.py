"""Alembic runs this: it migrates over the connection that `Store` has locked."""

from alembic import context

from systemprompt_jobs._store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table="jobs_alembic_version",
    transactional_ddl=False,  # the caller's transaction is the one that counts
)
context.run_migrations()
