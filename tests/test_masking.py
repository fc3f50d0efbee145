"""Credentials are masked in URLs that are printed."""

from __future__ import annotations

import pytest

from sweeps.store.database import _engine
from sweeps.store.location import masked
from sweeps.tracking.client import without_password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://u:p@ss/w@host/x and https://h/y", "at http://***@host/x and https://h/y"),
        ("postgresql://h/db?password=x&sslmode=require", "postgresql://h/db?password=***&sslmode=require"),
        (
            "postgresql://h/db?sslmode=require&SSLPASSWORD=x",
            "postgresql://h/db?sslmode=require&SSLPASSWORD=***",
        ),
        ("'https://h/?passfile=/a/b'.", "'https://h/?passfile=***'."),
        ("password=x in no URL", "password=x in no URL"),
    ],
)
def test_credentials_are_masked_wherever_they_stand_in_a_text(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_store_and_an_mlflow_address_are_shown_without_a_password() -> None:
    url = "postgresql://me:geheim@there/db?password=geheim"
    assert "geheim" not in _engine(url)[0]
    assert "geheim" not in without_password(url)


def test_a_line_break_after_a_store_s_url_is_not_part_of_its_name() -> None:
    where, engine = _engine("postgresql://me@there/db\n")
    assert (where, engine.url.database) == ("postgresql+psycopg://me@there/db", "db")
