"""The way to a Kubeflow Pipelines server through whatever stands before it: tokens, cookies, own authorities, proxies, login pages, and answers
that ask for patience. It knows requests, not pipelines."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import ssl
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from curricle import environment
from curricle.errors import PipelineError
from curricle.masking import keep_secret, masked
from curricle.store.wire import Cause, Endless, cause, may_be_proxys, proxy_words
from curricle.training.pulse import working

TIMEOUTS = (5.0, 60.0)
"""Seconds for a connection, and for the next part of an answer over it."""
WHOLE, LARGEST = 120.0, 64 << 20
"""Seconds and bytes of one whole answer at most."""
PATIENCE = 60.0
"""Seconds that a request is tried again for."""
LONGEST_PAUSE = 60.0
"""Seconds of one pause at most, whatever an answer asks for: a gateway's `Retry-After` is not always meant for its reader."""
NOT_DONE = (408, 425, 429)
"""Answers that say: not now, nothing was done. Any request may be sent again after them."""
AWAY = (*NOT_DONE, 500, 502, 503, 504)
"""Answers after which a request that only reads is sent again. Of these 500 is an error of the server itself where it says which one."""
_LOGIN = "the server wants a login"
_FORWARD = "kubectl -n kubeflow port-forward svc/ml-pipeline 8888, then --endpoint http://localhost:8888"
_SEE = "Is --endpoint (KF_PIPELINES_ENDPOINT) that of Kubeflow Pipelines, and does it run?"
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Refused(PipelineError):
    """The credentials are missing, or are not accepted (any more)."""


class Away(PipelineError):
    """The server, or what stands before it, did not answer, or said that it cannot now."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the server is, and with what it is asked. Empty texts mean: as the kfp SDK finds it."""

    endpoint: str = ""
    """URL; empty takes `KF_PIPELINES_ENDPOINT`, the cluster that this runs in, or the kubeconfig's, as the SDK does."""
    token: str = ""
    """Bearer token."""
    token_file: str = ""
    """File with one, read anew for every request; empty takes a pod's projected token where there is one. A `token` goes first."""
    cookies: str = ""
    """``name=value; name=value``, as a browser that has logged in sends them."""
    ca_cert: str = ""
    """PEM file of the authorities to trust; empty trusts the public ones."""
    namespace: str = ""
    """The user's namespace on a multi-user server."""


class Gateway:
    """A kfp client, and the one way to ask it something.

    Raises:
        PipelineError: what was given cannot be used: a file that is none, a token of several lines, a namespace that cannot be one.
    """

    def __init__(self, access: Access, say: Callable[[str], None] = lambda line: None):
        from urllib3.exceptions import HTTPError

        self.access, self._say = access, say
        _check_line("the token", access.token)
        _check_line("the cookies", access.cookies)
        for secret in (access.token.strip(), access.cookies.strip()):
            for part in (secret, *(pair.partition("=")[2].strip() for pair in secret.split(";"))):
                keep_secret(part)
        if access.namespace and not _DNS_LABEL.fullmatch(access.namespace):
            raise PipelineError(
                f"namespace {access.namespace!r} cannot be one: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
            )
        if access.ca_cert:
            _check_authorities(access.ca_cert)
        _check_endpoint(access.endpoint or environment.value_of("KF_PIPELINES_ENDPOINT") or "")
        self.token_file = "" if access.token.strip() else _token_file(access.token_file)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.client = _client(access, self.token_file)
        except (HTTPError, ValueError) as error:
            raise PipelineError(
                f"the proxy in HTTPS_PROXY or HTTP_PROXY cannot be used: {_printable(str(error))}"
            ) from None
        self.url = masked(str(self.client._get_url_prefix()).rstrip("/"))
        """Of the user interface."""
        self._answered = False
        """Whether anything ever did: before that, an endpoint that does not answer is rather a wrong one than one that is away."""
        self._host = str(self.client._existing_config.host)

    def ask(
        self,
        what: str,
        call: Callable[..., Any],
        *arguments: Any,
        again: bool = True,
        patience: float = PATIENCE,
        **named: Any,
    ) -> Any:
        """What the server answers to one call of the client.

        Args:
            what: for messages: what the call does.
            again: whether the request may be sent again where nobody knows if it has arrived: true of all that only read.
            patience: seconds that it is tried again for.

        Raises:
            Refused: a login page, a redirection to one, or 401.
            Away: no answer, or one that says "not now", for as long as `patience`.
            PipelineError: the server refuses.
        """
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        until, tries = time.monotonic() + patience, 0
        while True:
            wait, asked, unknown = min(10.0, 2.0**tries), None, not again
            try:
                with (
                    redirect_stdout(io.StringIO()),
                    working(what),
                ):  # kfp prints links there; ours go where the caller says
                    answer = call(*arguments, **named)
                self._answered = True
                return answer
            except ApiException as error:
                self._answered |= bool(error.status)
                said = _said(error)
                if error.status not in AWAY or (error.status == 500 and _is_json(error)):
                    raise self._refusal(what, error, said) from None
                repeat = again or error.status in NOT_DONE
                unknown = not repeat
                asked = _retry_after(error.headers)
                wait = wait if asked is None else min(asked, LONGEST_PAUSE)
                problem = f"{what}: the server answered {error.status}: {said}{self._or_proxy(error)}"
            except (HTTPError, OSError) as error:
                repeat = again and self._answered
                if isinstance(error, OSError) and error.filename:  # the token's
                    problem, unknown = f"{what}: {error.filename}: {error.strerror}", False
                else:
                    why = cause(error, self._host)
                    problem = f"{what}: {self._unreachable(why)}"
                    if why.kind in ("plain", "untrusted", "tls"):
                        raise PipelineError(problem) from None
                    unknown = unknown and why.kind not in ("nobody", "unknown")
            except ValueError as error:
                if "header" in str(error).lower():  # a token file whose new content cannot be one; http.client shows it
                    raise Refused(f"{what}: the token in {self.token_file} cannot be sent") from None
                raise self.strange(what, str(error)) from None
            except (TypeError, AttributeError, LookupError) as error:  # the SDK's own, of an answer in another form
                raise self.strange(what, "in another form") from error
            left = until - time.monotonic()
            longer = ""
            if repeat and asked is not None and asked > 10:
                longer = f"; it asks to be left alone for {f'{asked:.0f}' if asked < 1e6 else 'more than 1000000'} s"
            if not repeat or wait >= left:
                sent = "; whether it was carried out is not known: look at the server first" if unknown else ""
                raise Away(f"{problem}{longer}{sent}") from None
            if not tries:
                self._say(
                    f"{problem}{longer}; again in {wait:.0f} s, then at least every {LONGEST_PAUSE if longer else 10:.0f} s, for {left:.0f} s in all"
                )
            elif wait >= 5:
                self._say(f"{problem}{longer}; again in {wait:.0f} s")
            time.sleep(wait)
            tries += 1

    def strange(self, what: str, said: str) -> PipelineError:
        """An answer that is none of a Kubeflow Pipelines server."""
        return PipelineError(f"{what}: {self._host} answers, but not as Kubeflow Pipelines does: {_printable(said)}")

    def _refusal(self, what: str, error: Any, said: str) -> PipelineError:
        status = int(error.status or 0)
        if 400 <= status < 500 and status != 401 and re.search("service ?account", said, re.IGNORECASE):
            return PipelineError(
                f"{what}: the server does not take this service account: {said}. From Kubeflow Pipelines 2.18 on its environment variable "
                "ALLOWEDSERVICEACCOUNTS lists those that it takes, and a server of several users asks for the verb `use` on the account (docs/kubeflow.md)"
            )
        if status == 407:
            return PipelineError(
                f"{what}: {proxy_words(self._host) or 'a proxy'} wants a user and a password (407): write them before its host in the variable, or name the server's host in NO_PROXY"
            )
        place = _printable(str((error.headers or {}).get("Location", ""))).partition("?")[
            0
        ]  # behind it stand states and codes of a login
        if 300 <= status < 400 and _same_page(self._host, place):
            return PipelineError(
                f"{what}: {self._host} is served at another address ({status} to {place}); give --endpoint {_base_of(place)}"
            )
        if 200 <= status < 300 and "json" in str((error.headers or {}).get("Content-Type", "json")):
            return PipelineError(
                f"{what}: {self._host} answers, but not as Kubeflow Pipelines does: {said if error.body else 'an empty answer'}"
            )
        if status == 401 or 200 <= status < 400:
            how = f"{status} to {place}" if place else f"{status}: {said}"
            return Refused(f"{what}: {_LOGIN} ({how}): token missing or refused; {self._about_credentials()}")
        if status == 403:
            where = f" in namespace {self.access.namespace}" if self.access.namespace else ""
            return PipelineError(
                f"{what}: not allowed: {said}. Ask for the rights of the role kubeflow-pipelines-edit{where}, or give another token{self._or_proxy(error)}"
            )
        if status == 404 and not _is_json(error):
            return PipelineError(
                f"{what}: {self._host} knows no such page (404): no API of Kubeflow Pipelines is there; the URL of a whole Kubeflow ends in /pipeline"
            )
        return PipelineError(f"{what}: the server answered {status}: {said}")

    def _about_credentials(self) -> str:
        sent = []
        if self.access.token.strip():
            sent.append("that of --token (CURRICLE_KFP_TOKEN) was sent: get a new one")
        elif self.token_file:
            sent.append(
                f"that in {self.token_file} was sent: does it hold one for this server (audience pipelines.kubeflow.org)?"
            )
        if self.access.cookies:
            sent.append("cookies were sent (CURRICLE_KFP_COOKIES): log in again with a browser, and take its new ones")
        return "; ".join(sent) or (
            "none was sent: set CURRICLE_KFP_TOKEN, CURRICLE_KFP_COOKIES or KF_PIPELINES_SA_TOKEN_PATH (a file)"
        )

    def _or_proxy(self, error: Any) -> str:
        return "" if _is_json(error) else may_be_proxys(self._host)

    def _unreachable(self, why: Cause) -> str:
        """What happened at the server, and what to do."""
        advice = {
            **dict.fromkeys(("nobody", "unknown"), f"From outside of the cluster: {_FORWARD}"),
            "plain": "Give http:// in --endpoint (KF_PIPELINES_ENDPOINT); one without a scheme means https",
            "untrusted": self._about_trust(),
            "closed": "It may speak TLS: then give https://" if self._host.startswith("http://") else _SEE,
        }
        given = self.access.endpoint or environment.is_set("KF_PIPELINES_ENDPOINT")
        unset = "" if given else ". Neither --endpoint nor KF_PIPELINES_ENDPOINT is given"
        return f"{why.of(self._host)}{unset}" + ("" if why.kind == "proxy" else f". {advice.get(why.kind, _SEE)}")

    def _about_trust(self) -> str:
        if self.access.ca_cert:
            return f"The authorities of {self.access.ca_cert} (--ca-cert, SSL_CERT_FILE) are trusted; it must be signed by one of them, for this host"
        return "Name the file of its own authority with --ca-cert, or in SSL_CERT_FILE"


def _client(access: Access, token_file: str) -> Any:
    """The SDK's client, with one try a request, no redirections followed, and nothing written to the user's files."""
    import kfp
    from kfp_server_api import ApiException
    from urllib3 import make_headers

    class Client(kfp.Client):
        def _load_config(self, *arguments: Any, **named: Any) -> Any:
            config = super()._load_config(*arguments, **named)
            config.retries = False
            if proxy := environment.proxy_for(str(config.host)):
                config.proxy = proxy
                if "@" in proxy:
                    config.proxy_headers = make_headers(
                        proxy_basic_auth=unquote(urlsplit(proxy).netloc.rpartition("@")[0])
                    )
            return config

        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
            """Not now: the SDK's own asks five times, 5 s apart, and prints tracebacks."""
            return type("NotAsked", (), {"multi_user": None})

    credentials = kfp.client.ServiceAccountTokenVolumeCredentials(token_file) if token_file else None
    logging.getLogger("kubernetes").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()):
        client = Client(
            host=re.sub("^https?(?=:)", lambda scheme: scheme[0].lower(), access.endpoint, flags=re.IGNORECASE) or None,
            existing_token=re.sub("^bearer ", "", access.token.strip(), flags=re.IGNORECASE) or None,
            credentials=credentials,
            cookies=re.sub("^cookie: *", "", access.cookies.strip(), flags=re.IGNORECASE) or None,
            ssl_ca_cert=access.ca_cert or None,
        )
    rest = client._run_api.api_client.rest_client
    rest.pool_manager.request = _bounded(rest.pool_manager.request)
    plain = rest.request

    def request(*arguments: Any, **named: Any) -> Any:
        if not named.get("_request_timeout"):
            named["_request_timeout"] = TIMEOUTS
        try:
            answer = plain(*arguments, **named)
            if "json" not in (answer.getheader("Content-Type") or "json").lower() or not _is_object(answer.data):
                raise ApiException(
                    http_resp=answer
                )  # a page for people, or of another server: what was asked for is an object
        except ApiException as error:  # the SDK decodes the body, and breaks where it is no UTF-8
            if error.status == 0 and error.__context__:  # TLS; the SDK keeps its name and words alone
                raise error.__context__ from None
            error.body = (error.body or b"").decode("utf-8", "replace").encode()
            raise
        return answer

    rest.request = request
    return client


def _bounded(request: Callable[..., Any]) -> Callable[..., Any]:
    """urllib3's request, whose answer is read for `WHOLE` seconds and `LARGEST` bytes at most: its own limits hold for each part alone."""
    from urllib3 import HTTPResponse
    from urllib3.exceptions import ProtocolError

    def bounded(*arguments: Any, **named: Any) -> Any:
        named.pop("preload_content", None)
        until = time.monotonic() + WHOLE
        answer = request(*arguments, preload_content=False, **named)
        body = bytearray()
        while part := answer.read1(1 << 16, decode_content=True):
            body += part
            if time.monotonic() > until or len(body) > LARGEST:
                answer.close()
                most = f"{LARGEST >> 20} MiB" if len(body) > LARGEST else f"{WHOLE:g} s"
                raise ProtocolError("endless", Endless(most))
        answer.release_conn()
        return HTTPResponse(
            bytes(body),
            answer.headers,
            answer.status,
            reason=answer.reason,
            version=answer.version,
            decode_content=False,
        )

    return bounded


def _token_file(given: str) -> str:
    """The file to read the token from: the given one, which must be readable, else the one that Kubernetes projects, where it is."""
    from kfp.client import KF_PIPELINES_SA_TOKEN_PATH

    if not given:
        return KF_PIPELINES_SA_TOKEN_PATH if os.path.isfile(KF_PIPELINES_SA_TOKEN_PATH) else ""
    content = _check_file("--token-file (KF_PIPELINES_SA_TOKEN_PATH)", given)
    if not content.strip():
        raise PipelineError(f"--token-file (KF_PIPELINES_SA_TOKEN_PATH): {given} is empty; it must hold one token")
    _check_line(f"the token in {given}", content)
    return given


def _check_file(option: str, name: str) -> str:
    """The file's text; raises `PipelineError` where it cannot be read as one."""
    try:
        return Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise PipelineError(f"{option}: {name} is no text file") from None
    except (OSError, ValueError) as error:
        raise PipelineError(f"{option}: {name}: {getattr(error, 'strerror', None) or error}") from None


def _check_authorities(name: str) -> None:
    """Refuse a file that holds no certificate."""
    _check_file("--ca-cert (SSL_CERT_FILE)", name)
    try:
        good = bool(ssl.create_default_context(cafile=name).get_ca_certs())
    except (ssl.SSLError, ValueError):
        good = False
    if not good:
        raise PipelineError(
            f"--ca-cert (SSL_CERT_FILE): {name} holds no PEM certificate of an authority that can be read"
        )


def _check_endpoint(endpoint: str) -> None:
    """Refuse what is no URL of a server. One without a scheme is https, as the SDK takes it."""
    if "@" in endpoint.partition("://")[2].partition("/")[0] or ("://" not in endpoint and "@" in endpoint):
        raise PipelineError(
            f"endpoint {masked(endpoint)} (--endpoint, KF_PIPELINES_ENDPOINT) holds a user or password, which is not sent; leave it out, and give --token "
            "(CURRICLE_KFP_TOKEN) or --cookies (CURRICLE_KFP_COOKIES)"
        )
    if "#" in endpoint or "?" in endpoint:
        raise PipelineError(
            f"endpoint {masked(endpoint)!r} (--endpoint, KF_PIPELINES_ENDPOINT) is the address of a page; leave out what follows {'#' if '#' in endpoint else '?'}"
        )
    try:
        parts = urlsplit(endpoint if "://" in endpoint or not endpoint else f"https://{endpoint}")
        good = not endpoint or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        good = False
    if not good or any(letter.isspace() for letter in endpoint):
        raise PipelineError(
            f"endpoint {endpoint!r} (--endpoint, KF_PIPELINES_ENDPOINT) is no URL of a server: expected http://host:port or https://host/path"
        )


def _check_line(what: str, text: str) -> None:
    """Refuse what cannot stand in a header; its value is shown to nobody."""
    bad = sorted({c for c in text.strip() if not " " <= c <= "~"})
    if bad:
        kinds = "a line break" if {"\n", "\r"} & set(bad) else f"the character {bad[0]!r}"
        raise PipelineError(
            f"{what} holds {kinds}, and is sent as one line of plain characters; is it the whole file of something?"
        )


def _retry_after(headers: Any) -> float | None:
    """Seconds that an answer asks to wait for, by its own clock where it names a date; None where it does not say."""
    text = str((headers or {}).get("Retry-After", "")).strip()
    if re.fullmatch(r"\d+", text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        return max(0.0, (at - now).total_seconds())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _said(error: Any) -> str:
    """What an answer says, in one short line."""
    body = error.body
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    try:
        text = str(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError, RecursionError):
        text = str(body or error.reason or "")
        if "<" in text[:200]:
            title = re.search(r"<title[^>]*>(.*?)</title>|<body[^>]*>(.*?)</body>", text, re.IGNORECASE | re.DOTALL)
            found = next(filter(None, title.groups()), "") if title else ""
            text = f"a page {re.sub(r'<[^>]+>', ' ', found).strip()!r}" if found.strip() else "a page, not JSON"
    text = " ".join(_printable(text).split())
    return text if len(text) <= 600 else f"{text[:600]} ..."


def _is_json(error: Any) -> bool:
    return _is_object(error.body)


def _is_object(body: Any) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (TypeError, ValueError, RecursionError):
        return False


def _printable(text: str) -> str:
    """A server's text without what moves a terminal's cursor or colours it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _same_page(host: str, place: str) -> bool:
    """Whether a redirection leads to the same page of another scheme, host or port, as from http to https."""
    there, here = urlsplit(place), urlsplit(host)
    return bool(there.netloc) and there.path.startswith(f"{here.path.rstrip('/')}/apis/v2beta1/")


def _base_of(place: str) -> str:
    return place.partition("/apis/v2beta1/")[0]
