"""Refuse URLs among the sources or, if allowed, download them."""

from __future__ import annotations

import hashlib
import http.client
import mimetypes
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from sppnet.errors import UserError
from sppnet.files import make_folder, replacing
from sppnet.inputs.sources import is_url

_SCHEMES = ("http", "https")
_CHUNK = 2**16
_NAME_LENGTH = 80


@dataclass(frozen=True)
class DownloadLimits:
    """Limits of a download.

    Attributes:
        megabytes: largest size of a file.
        timeout: seconds without a response.
        seconds: duration of a whole download.
    """

    megabytes: float = 200
    timeout: float = 20
    seconds: float = 600


def local_sources(
    sources: Sequence[str],
    folder: Path,
    *,
    allow_download: bool = False,
    limits: DownloadLimits | None = None,
) -> list[str]:
    """Replace every URL among the sources by a downloaded file.

    Args:
        sources: paths, globs and URLs.
        folder: the folder of downloads, made if needed. An existing file is not downloaded again.
        allow_download: whether URLs are allowed; all sources are checked before the first download.
        limits: limits of each file.

    Returns:
        Paths and globs.

    Raises:
        UserError: a URL is not allowed, is neither http nor https, or cannot be downloaded within the limits.

    Examples:
        >>> local_sources(["a.jpg", "b/*.png"], Path("downloads"))
        ['a.jpg', 'b/*.png']
    """
    for url in filter(is_url, sources):
        if not allow_download:
            hint = "Download it first, or pass --allow-download."
            raise UserError(url, "a file, a folder or a glob", "a URL", hint)
        _check_scheme(url)
    return [
        str(download(source, folder, limits or DownloadLimits())) if is_url(source) else source
        for source in sources
    ]


def download(url: str, folder: Path, limits: DownloadLimits) -> Path:
    """Download a file over http or https; see `local_sources`."""
    _check_scheme(url)
    opener = urllib.request.build_opener(_Redirects())
    request = urllib.request.Request(url, headers={"User-Agent": "sppnet"})
    start = f"{hashlib.sha256(url.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}-"
    present = sorted(folder.glob(f"{start}*")) if folder.is_dir() else []
    for path in present:
        if path.suffix != ".part":
            return path
    try:
        with opener.open(request, timeout=limits.timeout) as response:
            target = folder / (start + _file_name(url, response.headers.get_content_type()))
            make_folder(folder)
            with replacing(target) as stream:
                _copy(response, stream, url, limits)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "reason", None) or error
        raise UserError(url, "a file that can be downloaded", str(reason) or type(error).__name__) from error
    return target


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str) -> None:
    expected = "a URL of http or https, or a path"
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError as error:  # brackets that enclose no IPv6 address
        raise UserError(url, expected, str(error)) from error
    if scheme not in _SCHEMES:
        raise UserError(url, expected, f"a URL of {scheme}")


def _copy(response: Any, stream: BinaryIO, url: str, limits: DownloadLimits) -> None:
    most = int(limits.megabytes * 1e6)
    expected = f"a file of at most {limits.megabytes:g} MB"
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > most:
        raise UserError(url, expected, f"{int(length) / 1e6:.1f} MB")
    end = time.monotonic() + limits.seconds
    count = 0
    while chunk := _read_chunk(response, url):
        count += len(chunk)
        if count > most:
            raise UserError(url, expected, "a larger file")
        if time.monotonic() > end:
            raise UserError(url, f"a download of at most {limits.seconds:g} seconds", "a slower download")
        stream.write(chunk)
    if length.isdigit() and count != int(length):
        raise UserError(url, f"{length} bytes", f"{count} bytes before the connection ended")


def _read_chunk(response: Any, url: str) -> bytes:
    """Read from the connection; its errors are reported with the URL, those of the file with its path."""
    try:
        return response.read1(_CHUNK)
    except OSError as error:
        raise UserError(url, "a file that can be downloaded", str(error) or type(error).__name__) from error


def _file_name(url: str, kind: str) -> str:
    """Return a safe file name from a URL, with the extension of its content type if needed."""
    name = re.sub(r"[^\w.-]+", "_", PurePosixPath(unquote(urlsplit(url).path)).name).strip(".")
    stem, ending = os.path.splitext(name)
    return (stem or "download")[:_NAME_LENGTH] + (ending[:10] or mimetypes.guess_extension(kind) or "")
