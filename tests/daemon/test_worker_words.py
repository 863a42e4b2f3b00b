"""What a worker writes of an error into its log is harmless for whoever looks at the file."""

import subprocess
import sys

from test_cli_escape import HOSTILE, dangerous
from worker_world import fact, request
from world import new_state

from daemon.messages import Envelope, Failed
from daemon.worker import serving


def test_the_traceback_of_a_request_that_failed(tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError(f"{HOSTILE} https://ada:hunter2@example.org/")

    monkeypatch.setattr(serving, "build", fails)
    server = serving.Server(new_state(tmp_path).config_file, lambda *_: None)
    asked = Envelope(request=request(tmp_path / "out", 1, [fact(0)])).model_dump_json()
    assert isinstance(server.reply(asked), Failed)
    told = capsys.readouterr().err
    assert "in fails" in told and "RuntimeError" in told
    assert dangerous(told) == set() and "hunter2" not in told


def test_the_traceback_of_a_worker_that_could_not_start(tmp_path):
    nowhere = tmp_path / "\x1b[2J\u202econfig.toml"
    with subprocess.Popen(
        [sys.executable, "-m", "daemon.worker", str(nowhere)],
        stdin=subprocess.PIPE,  # open until it has ended: closed, it would end in order
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        told = worker.stderr.read()
    assert worker.returncode == 1
    assert "Traceback" in told and "\\x1b[2J" in told
    assert dangerous(told) == set()
