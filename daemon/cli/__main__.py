"""``python -m daemon.cli`` is ``wised``."""

from daemon.cli import main

main()
