"""Backblaze B2 through b2sdk, the only module that knows the library and the bucket's keys.

An upload counts only after the store has been asked what it holds. b2sdk may block for minutes in a call that cannot be
interrupted, so each call runs in its own thread while the caller's thread keeps checking whether the job is still wanted;
`jobqueue.worker` does the back-off between retries. An unfinished large file costs storage until it is cancelled: that is
done after a failure, and before each upload for what a dead process left.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from b2sdk.v3 import AbstractProgressListener, B2Api, B2Http, B2Session, Bucket, InMemoryAccountInfo
from b2sdk.v3 import exception as b2

from errors import InvalidInput, Unavailable
from uploader.stores import OnBytes, Stored, StoreRefused
from uploader.stores.watched import Sent, watched

log = logging.getLogger(__name__)

#: Timeouts for connecting and for a response, in seconds.
CONNECT_S, ANSWER_S = 10, 60
#: Attempts inside b2sdk: of a call (a second apart), and of an upload, each with a new upload URL (immediately).
CALL_TRIES, UPLOAD_TRIES = 2, 3
#: Threads for the parts of one large file.
PART_THREADS = 4
#: The key of the whole file's SHA-1 in the info of a large file; B2 itself only checks the parts.
LARGE_SHA1 = "large_file_sha1"

_NEEDS = "it needs writeFiles and readFiles, and listBuckets unless it is restricted to one bucket"
_REFUSALS = (b2.InvalidAuthToken, b2.Unauthorized, b2.AccessDenied, b2.NotAllowedByAppKeyError, b2.RestrictedBucket)


class B2Store:
    """One bucket. Safe to use from several threads."""

    name = "b2"

    def __init__(self, key_id: str, app_key: str, bucket: str, realm: str, part_size_bytes: int | None = None) -> None:
        """part_size_bytes: for large files; None: B2's recommendation (about 100 MB)."""
        self._key_id, self._app_key, self._bucket_name, self._realm = key_id, app_key, bucket, realm
        self._part_size_bytes = part_size_bytes
        self._bucket: Bucket | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Log in, find the bucket, check the key. Raises StoreRefused with the variable to change, or Unavailable."""
        with _translated():
            watched(lambda _: self._check())

    def _check(self) -> None:
        try:
            bucket = self._open()
        except b2.Unauthorized as error:
            raise StoreRefused("B2_KEY_ID, B2_APP_KEY: B2 does not know this key; create a new one and set both") from error
        except (b2.NonExistentBucket, b2.RestrictedBucket, b2.RestrictedBucketMissing, b2.BucketNotAllowed) as error:
            raise StoreRefused(f"B2_BUCKET_NAME={self._bucket_name}: no such bucket for this key") from error
        except b2.PotentialS3EndpointPassedAsRealm as error:
            raise StoreRefused("B2_REALM: is an S3 address; leave it empty, or name a server with the B2 API") from error
        allowed = bucket.api.account_info.get_allowed()
        if "writeFiles" not in allowed["capabilities"]:
            raise StoreRefused(f"B2_APP_KEY: the key has no write permission; {_NEEDS}")
        try:
            self._held(bucket, f"{allowed['namePrefix'] or ''}worker-check")
        except (b2.Unauthorized, b2.AccessDenied) as error:
            raise StoreRefused(f"B2_APP_KEY: the key has no read permission; {_NEEDS}") from error

    def put(self, path: Path, name: str, content_type: str, sha1: str, on_bytes: OnBytes) -> Stored:
        """Upload, then ask the store what it holds. What it already holds is not sent again.

        Raises Unavailable if the store is down or holds something else; exceptions from on_bytes pass through.
        """
        with _translated():
            size = path.stat().st_size
            on_bytes(0, size)
            return watched(lambda sent: self._put(path, name, content_type, size, sha1, sent), size, on_bytes)

    def _put(self, path: Path, name: str, content_type: str, size: int, sha1: str, sent: Sent) -> Stored:
        bucket = self._open()
        if self._held(bucket, name) != (size, sha1):
            self._upload(bucket, path, name, content_type, size, sha1, sent)
            held = self._held(bucket, name)
            if held != (size, sha1):
                found = "nothing" if held is None else f"{held[0]} bytes with SHA-1 {held[1]}"
                raise Unavailable(f"the store holds {found} instead of {size} bytes with SHA-1 {sha1}", stage="upload")
        return Stored(url=self._url(bucket, name), bucket=self._bucket_name, file_name=name, size_bytes=size, sha1=sha1)

    def put_json(self, name: str, data: dict[str, Any]) -> None:
        """Upload a small JSON object. Raises Unavailable."""
        content = json.dumps(data, indent=2).encode()
        with _translated():
            watched(lambda _: self._open().upload_bytes(content, name, content_type="application/json"))

    def _cancel_unfinished(self, bucket: Bucket, name: str, but: str | None = None) -> None:
        """Cancel unfinished large files of exactly this name, except one with SHA-1 `but`.

        Never by prefix: all workers of a fleet write under the same one.
        """
        if "listFiles" not in bucket.api.account_info.get_allowed()["capabilities"]:
            return
        for file in list(bucket.list_unfinished_large_files(prefix=name)):
            if file.file_name == name and (but is None or file.file_info.get(LARGE_SHA1) != but):
                with contextlib.suppress(b2.FileNotPresent, b2.BadRequest):  # someone else was faster
                    bucket.api.cancel_large_file(file.file_id)
                log.info("cancelled an unfinished large file of this name")

    def _open(self) -> Bucket:
        with self._lock:
            if self._bucket is None:
                api = _Api(InMemoryAccountInfo(), max_upload_workers=PART_THREADS)
                api.services.upload_manager.MAX_UPLOAD_ATTEMPTS = UPLOAD_TRIES
                api.authorize_account(self._key_id, self._app_key, realm=self._realm)
                try:
                    self._bucket = api.get_bucket_by_name(self._bucket_name)
                except b2.Unauthorized as error:
                    raise b2.BucketNotAllowed from error
            return self._bucket

    def _upload(self, bucket: Bucket, path: Path, name: str, content_type: str, size: int, sha1: str, sent: Sent) -> None:
        if size >= (self._part_size_bytes or bucket.api.account_info.get_recommended_part_size()):
            self._cancel_unfinished(bucket, name, but=sha1)  # b2sdk resumes one with the same content
        try:
            bucket.upload_local_file(
                str(path),
                name,
                content_type=content_type,
                sha1_sum=sha1,
                file_info={LARGE_SHA1: sha1},
                min_part_size=self._part_size_bytes,
                progress_listener=_Listener(sent),
            )
        except BaseException:
            with contextlib.suppress(b2.B2Error):
                self._cancel_unfinished(bucket, name)
            raise

    def _held(self, bucket: Bucket, name: str) -> tuple[int, str] | None:
        """Size and SHA-1 of the object according to the store; None if there is none."""
        try:
            found = bucket.get_file_info_by_name(name)
        except b2.FileNotPresent:
            return None
        sha1 = found.content_sha1 if found.content_sha1 not in (None, "none") else found.file_info.get(LARGE_SHA1)
        return found.size, str(sha1).removeprefix("unverified:")

    def _url(self, bucket: Bucket, name: str) -> str:
        return f"{bucket.api.account_info.get_download_url()}/file/{quote(self._bucket_name)}/{quote(name)}"


class _Http(B2Http):  # type: ignore[misc]
    """b2sdk's limits: every call except uploads has the timeout of a server-side copy, 20 minutes, and 5 to 20 attempts.

    The attempt counts are defaults bound when b2sdk was imported; setting its constants changes nothing.
    """

    CONNECTION_TIMEOUT = CONNECT_S
    TIMEOUT = TIMEOUT_FOR_COPY = TIMEOUT_FOR_UPLOAD = ANSWER_S

    def request(
        self, method: str, url: str, headers: Any, data: Any = None, try_count: int = 1, params: Any = None, **more: Any
    ) -> Any:
        return super().request(method, url, headers, data, min(try_count, CALL_TRIES), params, **more)


class _Session(B2Session):  # type: ignore[misc]
    B2HTTP_CLASS = staticmethod(_Http)


class _Api(B2Api):  # type: ignore[misc]
    SESSION_CLASS = staticmethod(_Session)


class _NotWanted(b2.B2Error):  # type: ignore[misc]
    """Aborts an upload from within; a b2sdk exception, or it would log a traceback."""


class _Listener(AbstractProgressListener):  # type: ignore[misc]
    """Called by b2sdk's threads before each read with the progress; aborts the upload if it is no longer wanted."""

    def __init__(self, sent: Sent) -> None:
        super().__init__()
        self._sent = sent

    def set_total_bytes(self, total_byte_count: int) -> None:
        pass

    def bytes_completed(self, byte_count: int) -> None:
        self._sent.done = byte_count
        if not self._sent.wanted:
            raise _NotWanted


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """b2sdk's errors as ours. Its texts are not passed on: they may contain tokens and upload URLs."""
    try:
        yield
    except b2.CapExceeded as error:
        raise Unavailable(
            "the B2 account's storage or spending cap is reached; raise it at Backblaze", stage="upload"
        ) from error
    except b2.UnusableFileName as error:
        raise InvalidInput("the job's id is not valid in an object name", stage="upload") from error
    except _REFUSALS as error:
        raise Unavailable(
            "B2 refuses the key, the bucket or the name (B2_KEY_ID, B2_APP_KEY, B2_BUCKET_NAME, B2_PREFIX)", stage="upload"
        ) from error
    except b2.ClockSkew as error:
        raise Unavailable("this machine's clock and the store's are more than 10 minutes apart", stage="upload") from error
    except (ValueError, KeyError, AssertionError) as error:  # b2sdk accepts every 200 as B2's: even a proxy's page
        raise Unavailable(f"the server at B2_REALM has no B2 API ({type(error).__name__})", stage="upload") from error
    except (OSError, b2.InvalidUploadSource) as error:  # b2sdk wraps connection errors, so this is our disk
        reason = (getattr(error, "strerror", None) or "it is gone").lower()
        raise Unavailable(f"the video could not be read from this machine's disk: {reason}", stage="upload") from error
    except b2.B2Error as error:
        raise Unavailable(f"the store is unreachable or disconnected ({type(error).__name__})", stage="upload") from error
