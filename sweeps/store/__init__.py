"""The store: the definitions, configurations, records and checkpoints of sweeps, in SQLite or PostgreSQL.

with Store("results") as store, store.hold("quickstart"):
    store.begin_sweep("quickstart", text, document)
    store.add_configuration("quickstart", configuration)    # before its first lane starts
    store.add_records(finished)                             # on disk when it returns
"""

from sweeps.store.database import HeldByAnother
from sweeps.store.ownership import Holder
from sweeps.store.store import Store, copy_sweep

__all__ = ["HeldByAnother", "Holder", "Store", "copy_sweep"]
