"""What is secret, and how a text is shown without it: one rule for messages, logs, records and settings.

Secret are passwords and tokens within a URL, credentials behind ``Bearer`` and ``Basic``, and the values of environment variables whose
names say so (`environment.is_secret`), wherever they stand. A short value is left alone: it is a word of ordinary text as well.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from curricle import environment

MASK = "***"
SHORTEST = 8
"""Characters of a variable's value from which on it is looked for."""

_WORDS = r"(?:token|secret|password|passwd|pwd|signature|credential|api_?key|access_?key|private_?key|sig)"
_USER = re.compile(r"""(?<=\w://)(?:[^\s/?#"'<>]*|[^\s/@"'<>]*:(?!\d+/)[^\s@"'<>]*)@""")
_STRICT_USER = re.compile(
    r"""\b(?:https?://[^\s/?#"'<>@]+|\w[\w+.-]*://[^\s/?#"'<>@]*:[^\s/?#"'<>@]+)@""", re.IGNORECASE
)
_QUERY = re.compile(rf"""([?&;](?:[\w.-]*[^a-z&])?(?:AWS)?{_WORDS}(?:_?id)?=)[^&\s"'<>]+""", re.IGNORECASE)
_HEADER = re.compile(r"""(\bBearer|uthorization['"]?: *['"]?Basic) +[\w.~+/=-]{8,}""")
_VARIABLE = re.compile(
    r"""\b([A-Z0-9_]*(?:SECRET|PASSWORD|PASSWD|TOKEN|API_KEY|ACCESS_KEY)(?:_[A-Z]+)?=)['"]?[^\s'",;]{8,}['"]?"""
)


_given: set[str] = set()
"""Secrets that this process was given otherwise than by a variable."""


def keep_secret(value: str) -> None:
    """Show a text to nobody from now on: a token or cookie that an option or a file gave."""
    if len(value) >= SHORTEST:
        _given.add(value)


def masked(text: str) -> str:
    """The text with every secret in it replaced by ``***``."""
    for value, shown in sorted(_known().items(), key=lambda known: -len(known[0])):
        text = text.replace(value, shown)
    text = _USER.sub(f"{MASK}@", text)
    text = _QUERY.sub(rf"\1{MASK}", text)
    text = _VARIABLE.sub(rf"\1{MASK}", text)
    return _HEADER.sub(rf"\1 {MASK}", text)


_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that steer a terminal, or turn around what it shows."""


def visible(text: str) -> str:
    """The text as a terminal may show it, whoever chose the names in it: characters that steer are spelled, ``\\x1b``."""
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def holds_secret(text: str) -> bool:
    """Whether a setting's value is a URL with a password or a token in it: those stand in the environment, for settings are stored and shown."""
    return bool(_STRICT_USER.search(text) or _QUERY.search(text))


def variable_within(text: str) -> str:
    """The environment variable whose secret stands in a text; empty for none. The id of an access key is a name, and no secret here."""
    for name, value in environment.everything().items():
        if (
            environment.is_secret(name)
            and not name.upper().endswith("_ID")
            and len(value) >= SHORTEST
            and value in text
        ):
            return name
    return ""


def _known() -> dict[str, str]:
    """The secrets that the environment holds, as they are and as a URL writes them, with the passwords in its URLs; what is shown instead."""
    known: dict[str, str] = dict.fromkeys(_given, MASK)
    for name, value in environment.everything().items():
        if environment.is_secret(name):
            shown = f"{MASK}{value[-4:]}" if name.upper().endswith("_ID") and len(value) >= 2 * SHORTEST else MASK
            known |= {value: shown, quote(value, safe=""): shown}
        elif "@" in value and (found := re.search(r"""\w://[^\s/?#"'<>@:]*:([^\s/?#"'<>@]+)@""", value)):
            known[found[1]] = MASK
    return {value: shown for value, shown in known.items() if len(value) >= SHORTEST}
