"""What happened on the way to a server, in plain words: the one reading of the errors of urllib3, `http.client`, `ssl` and the system.

It knows no protocol above HTTP, and not who asks.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected
from typing import Literal, NamedTuple

from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    ResponseError,
)

from curricle.environment import NO_PROXY, proxy_for, proxy_variable
from curricle.masking import masked

Kind = Literal["nobody", "unknown", "proxy", "plain", "untrusted", "tls", "closed", "cut", "silent", "strange"]
"""Of what happened: nobody is there; the host's name is unknown; the proxy does not lead on; no TLS is spoken; a certificate is not trusted; TLS fails otherwise; the
connection ends before an answer, or within one; nothing is said; it is no HTTP."""
GONE: tuple[Kind, ...] = ("nobody", "closed", "cut", "silent")
"""What may be otherwise the next time."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d+) ?(.*)")


class Endless(Exception):
    """An answer that goes on and on; its text is what it was given: seconds or bytes."""


class Cause(NamedTuple):
    """Why a request had no answer."""

    kind: Kind
    words: str
    """In words that need no subject: ``the connection is refused``."""

    def of(self, server: str) -> str:
        """As a clause about a server, in which nobody is said to be away who was there."""
        if self.kind == "proxy":
            return f"no answer from {server} through {self.words}"
        return (
            f"nobody answers at {server}: {self.words}"
            if self.kind in ("nobody", "unknown")
            else f"{server} is there, but {self.words}"
        )


def cause(error: BaseException, url: str = "") -> Cause:
    """Why a request had no answer.

    Args:
        url: the server's, where the proxy of the environment leads there; empty where none is asked.
    """
    return network_cause(error, url) or Cause("strange", _plain(str(error)) or "it fails without a word")


def network_cause(error: BaseException, url: str = "") -> Cause | None:
    """The same; None where the error, and all that it was made of, is no failure of a connection."""
    found = _first(_within(error))
    if found is None:
        return None
    through = proxy_words(url)
    if not through:
        return found
    if found.kind in ("plain", "untrusted", "tls"):  # the proxy has led to the server
        return Cause(found.kind, f"{found.words} (through {through})")
    words = f"nobody answers there ({found.words})" if found.kind in ("nobody", "unknown") else found.words
    return Cause("proxy", f"{through}: {words}; correct the variable, or name the host in {NO_PROXY}")


def proxy_words(url: str) -> str:
    """The proxy that the environment names for a server, as messages call it; empty for none."""
    proxy = proxy_for(url) if url else ""
    return masked(f"the proxy {proxy} of {proxy_variable(url)}") if proxy else ""


def may_be_proxys(url: str) -> str:
    """What to add to an answer in another form than the server's: one for ``http://`` is given by a proxy in the server's name."""
    through = proxy_words(url) if url.startswith("http://") else ""
    return (
        f". It came through {through}, and may be its own answer: {NO_PROXY} names hosts that go without"
        if through
        else ""
    )


def _first(errors: list[BaseException]) -> Cause | None:
    """The first of the errors that says what happened, from the outermost; TLS says most."""
    said = map(_said, sorted(errors, key=lambda one: not isinstance(one, ssl.SSLError)))
    return next((found for found in said if found), None)


def _said(error: BaseException) -> Cause | None:
    match error:
        case Endless():
            return Cause("strange", f"its answer does not end within {error}")
        case ssl.SSLCertVerificationError():
            return Cause("untrusted", f"its certificate is not trusted: {error.verify_message.rstrip('.')}")
        case ssl.SSLEOFError():
            return Cause("closed", "it ends the connection before TLS stands")
        case ssl.SSLError():
            reason = error.reason or ""
            if reason in _NO_TLS:
                return Cause("plain", "it speaks no TLS")
            return Cause("tls", f"TLS fails: {reason.replace('_', ' ').lower() or _plain(str(error))}")
        case NameResolutionError() | socket.gaierror():
            number = next((e.errno for e in _within(error) if isinstance(e, socket.gaierror)), None)
            if number in (socket.EAI_NONAME, socket.EAI_NODATA):
                return Cause("unknown", "no host of this name is known")
            return Cause("nobody", "its name cannot be looked up now")
        case ConnectTimeoutError() if not isinstance(error, NewConnectionError):
            return Cause("nobody", f"no connection{_within_seconds(error)}")
        case ReadTimeoutError():
            return Cause("silent", f"it says nothing{_within_seconds(error)}")
        case RemoteDisconnected():
            return Cause("closed", "it ends the connection without an answer")
        case BadStatusLine():
            begins = _plain(str(error.args[0] if error.args else ""))
            return Cause("strange", f"what it says is no HTTP{f', and begins with {begins!r}' if begins else ''}")
        case IncompleteRead():
            return Cause("cut", "its answer breaks off")
        case HTTPException():
            return Cause("strange", f"what it says is no HTTP that can be read ({_plain(str(error))})")
        case ResponseError():
            return Cause("strange", f"it answers with {_plain(str(error))}")
        case DecodeError():
            return Cause("strange", "its answer cannot be unpacked (it is not in the encoding that it names)")
        case OSError() if tunnel := _TUNNEL.search(str(error)):
            wants = ", and wants a user and a password before its host in the variable" if tunnel[1] == "407" else ""
            return Cause("proxy", f"it answers {' '.join(tunnel.groups()).strip()}{wants}")
        case ConnectionRefusedError():
            return Cause("nobody", "the connection is refused")
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return Cause("closed", "it breaks the connection off")
        case TimeoutError():
            return Cause("silent", "it says nothing in the time it has")
        case OSError() if error.errno and not error.filename:
            never = error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL)
            return Cause("nobody" if never else "closed", f'it ends with "{os.strerror(error.errno).lower()}"')
    return None


def _within(error: BaseException) -> list[BaseException]:
    """The error and all that it was made of, from the outermost."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if any(one is other for other in found):
            continue
        found.append(one)
        named = (getattr(one, name, None) for name in ("original_error", "reason", "__cause__", "__context__"))
        waiting += [inner for inner in (*named, *one.args) if isinstance(inner, BaseException)]
    return found


def _within_seconds(error: BaseException) -> str:
    found = re.search(r"timeout=([\d.]+)", str(error))
    return f" within {float(found[1]):.3g} s" if found else ""


def _plain(text: str) -> str:
    """A library's text without its objects and what moves a terminal's cursor; short."""
    text = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>:? ?|\w*Connections?(?:Pool)?\([^)]*\): ?", "", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:80]
