"""The child process: the only part of the daemon that holds models. It never writes the store."""
