"""Brings files into a folder, each checked against its published checksum before it takes its name."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from tasks._digits.errors import DataError

log = logging.getLogger(__name__)

TIMEOUT_S = 60


def fetch(files: Mapping[str, str], folder: Path, sources: Sequence[str]) -> list[Path]:
    """The files, by name -> checksum such as "sha256:440f..." or "md5:e26d...", from the first source that has each.

    A source is a base URL (http, https or file) or a local folder. What lies in the folder already with the right
    checksum stays as it is. Raises DataError, with what each source answered, for the first file that none gives.
    """
    import pooch  # here, because it is wanted only when something is fetched

    pooch.get_logger().setLevel("WARNING")
    folder.mkdir(parents=True, exist_ok=True)
    return [_fetch_one(pooch, name, checksum, folder, sources) for name, checksum in files.items()]


def _fetch_one(pooch: Any, name: str, checksum: str, folder: Path, sources: Sequence[str]) -> Path:
    target, answers = folder / name, []
    for source in sources:
        url = _url(source, name)
        try:
            log.info("%s from %s", target, url)
            pooch.retrieve(url, checksum, fname=name, path=folder, downloader=_downloader(pooch, url))
            target.chmod(0o644)  # pooch leaves it to its owner alone, and data folders are shared
            return target
        except (
            OSError,
            ValueError,
        ) as error:  # no such file, no network, or a wrong checksum: the next source
            answers.append(f"  {url}: {_told(error)}")
    raise DataError(
        f"{target}: no source gave a file with checksum {checksum}:\n" + "\n".join(answers or ["  (no source given)"])
        + "\nPut the file there yourself, or name a mirror or a local folder as a source"
    )  # fmt: skip


def _url(source: str, name: str) -> str:
    base = source if "://" in source else Path(source).resolve().as_uri()
    return f"{base.rstrip('/')}/{name}"


def _downloader(pooch: Any, url: str) -> Any:
    return _copied if url.startswith("file:") else pooch.HTTPDownloader(timeout=TIMEOUT_S)


def _copied(url: str, target: Any, _: Any) -> None:
    """What pooch calls to fetch a local file."""
    shutil.copyfile(url2pathname(unquote(urlparse(url).path)), target)


def _told(error: Exception) -> str:
    _, known, found = str(error).partition("does not match the known hash")
    if known:
        return f"wrong checksum, {found.rpartition('but got ')[2].split('.')[0]}: damaged, or another file"
    return f"{type(error).__name__}: {error}"
