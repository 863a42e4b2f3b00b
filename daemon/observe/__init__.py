"""Watching the daemon from beside its work: health, metrics, `status.json`, systemd.

The main thread notes when it moves (`pulse`); a thread of its own (`observer`) reads that and the
store, and tells everyone else. Nothing here decides what the daemon does.
"""
