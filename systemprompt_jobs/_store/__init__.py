"""The database: schema, migrations, and every SQL statement of the package.

`Store` opens and migrates the database and hands out transactions; `_sqlite` and `_postgresql`
hold what only one of the two has; the other modules hold the statements, as functions that take
a connection.
"""

from ._backend import StoreClock
from ._database import REVISION, Store

__all__ = ["REVISION", "Store", "StoreClock"]
