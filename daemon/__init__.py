"""The service around the editing core: configuration, store, cycle, releases, CLI, status."""

__version__ = "0.1.0"
