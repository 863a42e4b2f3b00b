"""What a hostile server sends: a function of the request's handler. No expectations."""

import time
import zlib
from contextlib import suppress

MIB = 1024 * 1024


def reply(status=200, body=b"", *headers, length=True):
    """Answer with a status, a body and (name, value) headers."""

    def answer(handler):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        if length and not any(name == "Content-Length" for name, _ in headers):
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        _write(handler, body)

    return answer


def raw(*parts, pause=0.0, times=1):
    """Send bytes as they are, the last part `times` over with pauses, and close."""

    def answer(handler):
        handler.close_connection = True
        for part in parts[:-1]:
            _write(handler, part)
        for _ in range(times):
            if not _write(handler, parts[-1]):
                return
            time.sleep(pause)

    return answer


def in_turn(*answers):
    """Give each answer once, and the last one from then on."""
    left = list(answers)

    def answer(handler):
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return answer


def conditional(known, fresh):
    """Answer `known` to a request that sends any validator back, `fresh` to one without."""

    def answer(handler):
        asked = {"If-None-Match", "If-Modified-Since"} & set(handler.headers)
        (known if asked else fresh)(handler)

    return answer


def redirect(location, status=302):
    return reply(status, b"", ("Location", location))


def bomb(size):
    """Return gzip bytes that inflate to `size` zero bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()


def _write(handler, body):
    with suppress(OSError):  # the client may leave in the middle
        handler.wfile.write(body)
        handler.wfile.flush()
        return True
    return False
