"""Pure decisions: trust, approval, conflicts, quotas, the gate, what to keep. No I/O, no clock.

Each module is imported by itself, so that a command loads only the rules that it goes by.
"""
