"""The server as a process: loopback, what it prints, what it never prints, odd addresses."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotate.running import Running, serve
from maskless.annotate.serve import allowed_hosts, annotate_study, is_loopback
from maskless.errors import MasklessError, SettingsError


@pytest.fixture(scope="module")
def running(study_folder: Path) -> Iterator[Running]:
    with serve(study_folder) as started:
        yield started


def ask(running: Running, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": running.host, **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_it_listens_on_loopback_only(running: Running) -> None:
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("there is no /proc/net/tcp on this system")
    port = f":{running.port:04X}"
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[1].endswith(port) and row[3] == "0A"]
    assert listening == [f"0100007F{port}"]
    wide = Path("/proc/net/tcp6").read_text() if Path("/proc/net/tcp6").exists() else ""
    assert not any(
        row.split()[1].endswith(port) and row.split()[3] == "0A" for row in wide.splitlines()[1:]
    )


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../../labels.sqlite",
        "/assets/..%2f..%2f..%2flabels.sqlite",
        "/assets/%2e%2e/%2e%2e/app.py",
        "//etc/passwd",
        "/assets/%00",
        "/assets/style.css%00",
        "/" + "a" * 10_000,
        "/assets/" + "%2e" * 3_400,
        "/api/cell/" + "9" * 10_000,
    ],
)
def test_odd_addresses_are_404(running: Running, path: str) -> None:
    cookie = f"maskless_{running.port}={running.token}"
    status, body = ask(running, path, Cookie=cookie)
    assert status == 404
    assert b"root:" not in body


def test_the_token_opens_and_nothing_else_does(running: Running) -> None:
    assert ask(running, "/api/study")[0] == 403
    assert ask(running, "/api/study", Cookie=f"maskless_{running.port}=x")[0] == 403
    own = f"maskless_{running.port}={running.token}"
    assert ask(running, "/api/study", Cookie=own)[0] == 200
    assert ask(running, "/api/study", Cookie=own, Host="evil.example")[0] == 403
    assert ask(running, f"/?token={running.token}")[0] == 200


def test_the_token_is_said_once_and_never_logged(fresh_folder: Path) -> None:
    with serve(fresh_folder) as running:
        own = f"maskless_{running.port}={running.token}"
        for path in ("/", "/api/study", "/nowhere", f"/?token={running.token}", "/?token=wrong"):
            ask(running, path, Cookie=own)
        ask(running, "/api/state?who=" + "x" * 300, Cookie=own)
        said = running.stop()
    assert said.count(running.token) == 1
    assert len(running.token) >= 43  # 256 bits
    for file in fresh_folder.rglob("*"):
        if file.is_file():
            assert running.token.encode() not in file.read_bytes(), file


def test_ctrl_c_ends_it_cleanly(fresh_folder: Path) -> None:
    with serve(fresh_folder) as running:
        os.kill(running.process.pid, signal.SIGINT)
        assert running.process.wait(120) == 0
    assert not (fresh_folder / "labels.sqlite-wal").exists()


def test_other_hosts_are_warned_about(fresh_folder: Path) -> None:
    with serve(fresh_folder, "--host", socket.gethostname()) as running:
        said = running.stop()
    assert "warning: everybody who can reach" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_hosts_that_no_browser_can_ask_for_are_refused(study_folder: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="Give the name or address"):
        annotate_study(study_folder, host=host, open_browser=False)


def test_a_taken_port_is_told(study_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="Choose another --port"):
            annotate_study(study_folder, port=taken.getsockname()[1], open_browser=False)


def test_a_folder_without_clusters_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MasklessError):
        annotate_study(tmp_path, open_browser=False)
    command = [sys.executable, "-m", "maskless", "annotate", str(tmp_path), "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


def test_which_hosts_are_ours() -> None:
    assert allowed_hosts("127.0.0.1", 8) == ["127.0.0.1:8", "localhost:8"]
    assert "[::1]:8" in allowed_hosts("::1", 8)
    assert allowed_hosts("lab.example", 8) == ["lab.example:8"]
    assert not is_loopback("lab.example")
    assert not is_loopback("10.0.0.1")
    assert is_loopback("127.0.0.7")
