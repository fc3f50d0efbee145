"""URLs as they may be shown: without the passwords that may stand in them."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"(?<=://)\S*@")  # to the last @: a password may have one
_PARAMETERS = re.compile(r"([?&](?:password|passwd|passfile|sslpassword)=)[^&\s'\"]+", re.IGNORECASE)


def masked(text: str) -> str:
    """The text with user names and passwords in URLs replaced, fit to be printed."""
    return parameters_masked(_CREDENTIALS.sub("***@", text))


def parameters_masked(text: str) -> str:
    """The text with the values of parameters such as ?password= replaced."""
    return _PARAMETERS.sub(r"\1***", text)
