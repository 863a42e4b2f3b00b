"""Mutations of log rows that leave them JSON: libFuzzer's own seldom do."""

import json
import random

_VALUES = (None, True, 0, -1, 1.5, 10**30, "", " ", "\0", "\ud800", "\u202e", "a", [], {}, [[]])
_TEXTS = ("Who is the head of government of Italy?", "x" * 301, "user", "assistant", "CORRECTION")


def _paths(value, path=()):
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner if isinstance(value, (dict, list)) else ():
        yield from _paths(one, (*path, key))


def _at(value, path):
    for key in path:
        value = value[key]
    return value


def _changed(row, luck):
    """Change one value of a row in place: drop it, replace it, wrap it, or put it elsewhere."""
    paths = [path for path in _paths(row) if path]
    if not paths:
        return
    *above, key = luck.choice(paths)
    holder = _at(row, above)
    act = luck.randrange(5)
    if act == 0:
        del holder[key]
    elif act == 1:
        holder[key] = luck.choice(_VALUES + _TEXTS)
    elif act == 2:
        holder[key] = luck.choice(([holder[key]], {"text": holder[key]}, [holder[key]] * 2))
    elif act == 3:
        holder[key] = json.loads(json.dumps(_at(row, luck.choice(paths))))
    elif isinstance(holder, dict):
        holder[str(luck.choice(luck.choice(paths)))] = holder[key]


def mutator(plain):
    """Return a mutator for libFuzzer; `plain` is its own, which is used half of the time."""

    def mutate(data, max_size, seed):
        luck = random.Random(seed)
        lines = data.split(b"\n")
        at = luck.randrange(len(lines))
        try:
            if luck.random() < 0.5:
                raise ValueError
            row = json.loads(lines[at])
            _changed(row, luck)
            lines[at] = json.dumps(row).encode()
        except (ValueError, TypeError, RecursionError):
            return plain(data, max_size)
        return b"\n".join(lines)[:max_size]

    return mutate
