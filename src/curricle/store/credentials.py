"""Where a bucket's credentials come from when no keys are set: a pod's role, a profile, a container, the machine itself. Found by what is configured,
asked for when they are needed, and again before they run out; the asking is the `minio` package's.

An error says which source was taken and what it answered, and never a token.
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from minio.credentials import IamAwsProvider, Provider, WebIdentityProvider
from minio.credentials.credentials import Credentials
from minio.error import MinioException
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from curricle.environment import (
    AWS_CONFIG_FILE,
    AWS_CONTAINER_CREDENTIALS_FULL_URI,
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI,
    AWS_EC2_METADATA_DISABLED,
    AWS_EC2_METADATA_SERVICE_ENDPOINT,
    AWS_ENDPOINT_URL_STS,
    AWS_PROFILE,
    AWS_ROLE_ARN,
    AWS_ROLE_SESSION_NAME,
    AWS_SHARED_CREDENTIALS_FILE,
    AWS_WEB_IDENTITY_TOKEN_FILE,
)
from curricle.errors import StoreError, StoreUnavailable
from curricle.store.connections import connections, short
from curricle.store.patience import Away, at_most, server_at
from curricle.store.wire import network_cause

_METADATA = "http://169.254.169.254"
_SOON = 2.0
"""Seconds to wait for an address of this machine's own network, which answers at once where it is there."""


class Source(Provider):
    """Credentials from a place that has a name for people."""

    def __init__(self, name: str, inner: Provider, *, nearby: bool = False):
        self.name = name
        self._inner, self._nearby = inner, nearby

    def __repr__(self) -> str:
        return self.name

    def retrieve(self) -> Credentials:
        """The credentials, as long as they last; then new ones.

        Raises:
            StoreError: the place refuses, or holds none; names it.
        """
        try:
            if self._nearby:
                with at_most(_SOON):
                    return self._inner.retrieve()
            return self._inner.retrieve()
        except StoreError as error:
            raise StoreError(f"no credentials from {self.name}: {error}") from None
        except Away as away:
            kind = StoreError if self._nearby else StoreUnavailable
            raise kind(
                f"no credentials from {self.name}: it has not answered for {away.seconds:.0f} s ({away})"
            ) from None
        except json.JSONDecodeError:
            raise StoreError(f"no credentials from {self.name}: what it answers is no JSON") from None
        except (
            HTTPError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            ParseError,
            MinioException,
            configparser.Error,
        ) as error:
            why = network_cause(error)
            raise StoreError(f"no credentials from {self.name}: {why.words if why else _said(error)}") from None


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is not there"
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else short(error)


class _Asking:
    """What a provider speaks HTTP over. An answer that is none is an error with the server's own words, and without the query, which holds the token."""

    def __init__(self, url: str, *, direct: bool = False):
        self._pool = connections(server_at(url, "the place that gives credentials"), url, direct=direct)

    def urlopen(self, method: str, url: str, body: Any = None, headers: Any = None) -> BaseHTTPResponse:
        response = self._pool.urlopen(method, url, body=body, headers=headers)
        if response.status in (200, 204, 206):
            return response
        said = re.findall("<(?:Code|Message)>(.*?)</", response.data[:10_000].decode(errors="replace"), re.DOTALL)
        raise StoreError(
            f"{url.partition('?')[0]} answers HTTP {response.status} {short(': '.join(said) or response.reason or '')}"
        )


def find(variables: Mapping[str, str], *, endpoint: str, region: str) -> tuple[Source | None, str]:
    """The first source that is configured, and the region that it names (`region` where it names none). Nothing is asked yet.

    Args:
        endpoint: URL of the bucket's server; the machine itself is asked only for Amazon's.

    Raises:
        StoreError: `AWS_PROFILE` names a profile that is not there or holds no keys.
    """
    amazon = is_amazon(endpoint)
    if variables.get(AWS_WEB_IDENTITY_TOKEN_FILE):
        return _web_identity(variables, endpoint, region), region
    if profile := _profile(variables):
        source, named = profile
        return source, region or named
    if variables.get(AWS_CONTAINER_CREDENTIALS_FULL_URI) or variables.get(AWS_CONTAINER_CREDENTIALS_RELATIVE_URI):
        where = variables.get(AWS_CONTAINER_CREDENTIALS_FULL_URI) or "http://169.254.170.2"
        inner = IamAwsProvider(http_client=_Asking(where, direct=True))  # type: ignore[arg-type]
        return Source(f"the container ({where})", inner, nearby=True), region
    if amazon and variables.get(AWS_EC2_METADATA_DISABLED, "").lower() != "true":
        where = variables.get(AWS_EC2_METADATA_SERVICE_ENDPOINT, "").rstrip("/") or _METADATA
        inner = IamAwsProvider(custom_endpoint=where, http_client=_Asking(where, direct=True))  # type: ignore[arg-type]
        name = f"this machine's instance profile ({where}; nothing else is configured: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
        return Source(name, inner, nearby=True), region
    return None, region


def is_amazon(endpoint: str) -> bool:
    """Whether a bucket's server is Amazon's own."""
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _web_identity(variables: Mapping[str, str], endpoint: str, region: str) -> Source:
    file = variables[AWS_WEB_IDENTITY_TOKEN_FILE]
    sts = variables.get(AWS_ENDPOINT_URL_STS, "").rstrip("/")
    if not sts and is_amazon(endpoint):
        sts = f"https://sts.{region}.amazonaws.com" if region else "https://sts.amazonaws.com"
        sts += ".cn" if region.startswith("cn-") else ""

    def token() -> dict[str, str]:
        return {"access_token": Path(file).read_text(encoding="utf-8").strip(), "expires_in": "0"}

    inner = WebIdentityProvider(
        jwt_provider_func=token,
        sts_endpoint=sts or endpoint,
        role_arn=variables.get(AWS_ROLE_ARN) or None,
        role_session_name=variables.get(AWS_ROLE_SESSION_NAME) or "curricle",
        http_client=_Asking(sts or endpoint),  # type: ignore[arg-type]  # all that it asks of one
    )
    return Source(
        f"the web identity in {file} (role {variables.get(AWS_ROLE_ARN) or 'unnamed'}, by {sts or endpoint})", inner
    )


def _profile(variables: Mapping[str, str]) -> tuple[Source, str] | None:
    """The profile that is named, or the default one where it holds keys."""
    home = variables.get("HOME", "")
    wanted = variables.get(AWS_PROFILE, "")
    name = wanted or "default"
    files = {
        variables.get(AWS_SHARED_CREDENTIALS_FILE) or f"{home}/.aws/credentials": name,
        variables.get(AWS_CONFIG_FILE) or f"{home}/.aws/config": name if name == "default" else f"profile {name}",
    }
    region, holder = "", ""
    for file, section in files.items():
        parser = _read(file)
        held = parser[section] if parser.has_section(section) else {}
        region = region or held.get("region", "")
        if not holder and held.get("aws_access_key_id"):
            holder = file
            source = Source(f"profile {name} of {file}", _Profile(file, section))
    if holder:
        return source, region
    if wanted:
        raise StoreError(
            f"{AWS_PROFILE}={wanted}: neither {' nor '.join(files)} holds keys of that profile (aws_access_key_id). Profiles that assume a role, sign in "
            f'(sso) or run a program are not read: eval "$(aws configure export-credentials --profile {wanted} --format env)" gives their keys'
        )
    return None


class _Profile(Provider):
    """The keys of a section, as they stand in its file now: other programs renew them. The package's own provider takes a ``%`` in a key for a reference."""

    def __init__(self, file: str, section: str):
        self._file, self._section = file, section

    def retrieve(self) -> Credentials:
        section = _read(self._file)[self._section]
        return Credentials(
            section["aws_access_key_id"], section["aws_secret_access_key"], section.get("aws_session_token") or None
        )


def _read(file: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeError, OSError) as error:  # its text may quote a line, and the line a key
        line = getattr(error, "lineno", None) or next((number for number, _ in getattr(error, "errors", ())), None)
        where = f" at line {line}" if line else ""
        raise StoreError(
            f"{file} cannot be read as a file of AWS profiles ({type(error).__name__}{where}); correct it"
        ) from None
    return parser
