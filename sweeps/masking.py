"""URLs as they may be shown: without the passwords that may stand in them."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"(?<=://)\S*@")  # to the last @: a password may have one
_PARAMETERS = re.compile(r"([?&](?:password|passwd|passfile|sslpassword)=)[^&\s'\"]+", re.IGNORECASE)


def masked(text: str) -> str:
    """The text with user names and passwords in URLs replaced, fit to be printed."""
    return _PARAMETERS.sub(r"\1***", _CREDENTIALS.sub("***@", text))
