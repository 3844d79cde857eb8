"""The database: schema, migrations, and every SQL statement of the package.

`Store` opens and migrates the database and hands out transactions; the modules beside it hold
the statements, as functions that take a connection.
"""

from ._database import Store

__all__ = ["Store"]
