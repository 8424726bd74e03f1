"""`maskless annotate`: open a study's page on this machine and keep serving until Ctrl-C."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import sys
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from maskless.errors import MasklessError, SettingsError

if TYPE_CHECKING:
    from maskless.annotate.session import Session

# Loading the encoder takes seconds: not while the page opens.
_PREPARE_AFTER_SECONDS = 8.0
_ANY = ("0.0.0.0", "::", "")
_LOOPBACK = ("127.0.0.1", "localhost")


def annotate_study(
    folder: Path, port: int = 0, host: str = "127.0.0.1", open_browser: bool = True
) -> None:
    """Serve the page of a study until it is stopped.

    Parameters
    ----------
    folder
        Of the study.
    port
        0 = any free one.
    host
        Name or address that people will type; anything but this machine's own loopback is warned
        about.
    open_browser
        Whether to open the page in the standard browser.

    Raises
    ------
    MasklessError
        If there is nothing to annotate, or the port is taken.
    """
    from maskless.annotate.session import Session

    listening = _listen(host, port)
    try:
        session = Session(folder)
        try:
            _serve(session, listening, host, open_browser)
        finally:
            session.close()
    except KeyboardInterrupt:
        pass  # the way to stop it
    finally:
        listening.close()


def _serve(session: Session, listening: socket.socket, host: str, open_browser: bool) -> None:
    import uvicorn

    from maskless.annotate.app import make_app

    port = int(listening.getsockname()[1])
    token = secrets.token_urlsafe(32)
    app = make_app(session, token, allowed_hosts(host, port), f"maskless_{port}")
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/?token={token}"
    if not is_loopback(host):
        print(
            f"warning: everybody who can reach {host} and knows the address can read and change "
            "these labels; the connection is not encrypted",
            file=sys.stderr,
            flush=True,
        )
    told = f"{session.cells.count} cells of {session.study.folder}"
    print(f"{told}. Open this page; stop with Ctrl-C:", flush=True)
    print(address, flush=True)
    if open_browser:
        webbrowser.open(address)
    threading.Thread(target=session.prepare, daemon=True).start()
    prepare = threading.Timer(_PREPARE_AFTER_SECONDS, _prepare, (session,))
    prepare.daemon = True
    prepare.start()
    # No access log: addresses hold the token.
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        prepare.cancel()


def _prepare(session: Session) -> None:
    with suppress(MasklessError):  # said when somebody asks
        session.why.prepare()


def allowed_hosts(host: str, port: int) -> list[str]:
    """Values of the Host header that are this server's own."""
    names = {host, *_LOOPBACK} if is_loopback(host) else {host}
    return [f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in sorted(names)]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    if host in _ANY:
        raise SettingsError(
            f"--host {host or repr(host)} is no name that a browser can ask for. Give the name or "
            "address under which this machine is reached"
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # The protocol is named: asyncio sends small answers at once only on sockets that say TCP.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}: {error.strerror or error}. Give another --host"
        ) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)  # who opens the address at once waits until the page is there
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. "
            "Choose another --port"
        ) from error
    return listening
