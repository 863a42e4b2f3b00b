"""The state folder's database: tables, life cycles, transactions, audit log."""

from daemon.store.database import FILE, Store, timestamp

__all__ = ["FILE", "Store", "timestamp"]
