"""What the worker's libraries write to standard error: the daemon's kind of log, no bars."""

from __future__ import annotations

import os

from daemon import log


def settle(level: str) -> None:
    """Send records of libraries through the log's chain, and keep progress bars out of it."""
    from transformers.utils import logging as transformers_log

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    transformers_log.disable_default_handler()
    transformers_log.enable_propagation()
    transformers_log.disable_progress_bar()
    log.to_standard_error(level)
