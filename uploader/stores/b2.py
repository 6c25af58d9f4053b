"""Backblaze B2 through b2sdk, the only module that knows the library and the bucket's keys.

An upload counts only after the store itself has been asked what it holds. b2sdk tries again without a pause between tries,
so pauses are the caller's (`jobqueue.worker`). A large file that was begun and not finished costs storage until cancelled:
that is done after a failure, and before each upload for what a dead process left.
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

from b2sdk.v3 import AbstractProgressListener, B2Api, Bucket, InMemoryAccountInfo
from b2sdk.v3 import exception as b2

from errors import InvalidInput, JobError, Unavailable
from uploader.stores import OnBytes, Stored, StoreRefused, sha1_of

log = logging.getLogger(__name__)

#: Seconds: how long to wait for a connection, and for an answer to what was sent.
CONNECT_S, ANSWER_S = 10, 60
#: Threads that send the parts of one large file.
PART_THREADS = 4
#: What the whole file's SHA-1 is called in the info of a large file; B2 itself only checks its parts.
LARGE_SHA1 = "large_file_sha1"

_REFUSALS = (b2.InvalidAuthToken, b2.Unauthorized, b2.AccessDenied, b2.NotAllowedByAppKeyError, b2.RestrictedBucket)


class B2Store:
    """One bucket. Safe to use from several threads."""

    name = "b2"

    def __init__(self, key_id: str, app_key: str, bucket: str, realm: str, part_size_bytes: int | None = None) -> None:
        """part_size_bytes: of large files; None: what B2 recommends (about 100 MB)."""
        self._key_id, self._app_key, self._bucket_name, self._realm = key_id, app_key, bucket, realm
        self._part_size_bytes = part_size_bytes
        self._bucket: Bucket | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Log in and find the bucket. Raises StoreRefused with the variable to change, or Unavailable."""
        with _translated():
            try:
                self._open()
            except (b2.InvalidAuthToken, b2.Unauthorized) as error:
                raise StoreRefused("B2_KEY_ID, B2_APP_KEY: B2 does not know this key; make a new one and set both") from error
            except (b2.NonExistentBucket, b2.RestrictedBucket, b2.RestrictedBucketMissing, b2.BucketNotAllowed) as error:
                raise StoreRefused(f"B2_BUCKET_NAME={self._bucket_name}: there is no such bucket for this key") from error
            except b2.NotAllowedByAppKeyError as error:
                raise StoreRefused("B2_APP_KEY: the key may not list this bucket; it needs readFiles and writeFiles") from error
            except b2.PotentialS3EndpointPassedAsRealm as error:
                raise StoreRefused("B2_REALM: is an S3 address; leave it empty, or name a server that speaks B2") from error

    def put(self, path: Path, name: str, content_type: str, on_bytes: OnBytes) -> Stored:
        """Upload, then ask the store what it holds. What it holds already is not sent again.

        Raises Unavailable when the store is down or holds something else; what on_bytes raises passes through.
        """
        size, sha1 = path.stat().st_size, sha1_of(path)
        with _translated():
            bucket = self._open()
            if self._held(bucket, name) != (size, sha1):
                self._upload(bucket, path, name, content_type, size, sha1, on_bytes)
                held = self._held(bucket, name)
                if held != (size, sha1):
                    found = "nothing" if held is None else f"{held[0]} bytes with SHA-1 {held[1]}"
                    raise Unavailable(f"the store holds {found} instead of {size} bytes with SHA-1 {sha1}", stage="upload")
        return Stored(url=self._url(bucket, name), bucket=self._bucket_name, file_name=name, size_bytes=size, sha1=sha1)

    def put_json(self, name: str, data: dict[str, Any]) -> None:
        """Upload a small JSON object. Raises Unavailable."""
        with _translated():
            self._open().upload_bytes(json.dumps(data, indent=2).encode(), name, content_type="application/json")

    def cancel_unfinished(self, prefix: str) -> int:
        """Cancel large files under a name that were begun and never finished. Returns how many."""
        with _translated():
            bucket = self._open()
            left = list(bucket.list_unfinished_large_files(prefix=prefix))
            for file in left:
                with contextlib.suppress(b2.FileNotPresent):
                    bucket.api.cancel_large_file(file.file_id)
        if left:
            log.info("cancelled %d unfinished large files", len(left))
        return len(left)

    def _open(self) -> Bucket:
        with self._lock:
            if self._bucket is None:
                api = B2Api(InMemoryAccountInfo(), max_upload_workers=PART_THREADS)
                http = api.session.raw_api.b2_http
                http.CONNECTION_TIMEOUT, http.TIMEOUT, http.TIMEOUT_FOR_UPLOAD = CONNECT_S, ANSWER_S, ANSWER_S
                http.TRY_COUNT_OTHER = http.TRY_COUNT_DATA = 2  # pauses between tries are work()'s
                api.authorize_account(self._key_id, self._app_key, realm=self._realm)
                self._bucket = api.get_bucket_by_name(self._bucket_name)
            return self._bucket

    def _upload(
        self, bucket: Bucket, path: Path, name: str, content_type: str, size: int, sha1: str, on_bytes: OnBytes
    ) -> None:
        listener = _Listener(size, on_bytes)
        try:
            listener.check()
            bucket.upload_local_file(
                str(path),
                name,
                content_type=content_type,
                sha1_sum=sha1,
                file_info={LARGE_SHA1: sha1},
                min_part_size=self._part_size_bytes,
                progress_listener=listener,
            )
        except BaseException:
            with contextlib.suppress(JobError):
                self.cancel_unfinished(name)
            if listener.raised is not None:  # b2sdk may have wrapped it
                raise listener.raised from None
            raise

    def _held(self, bucket: Bucket, name: str) -> tuple[int, str] | None:
        """Size and SHA-1 of the object, by the store's own word; None if there is none."""
        try:
            found = bucket.get_file_info_by_name(name)
        except b2.FileNotPresent:
            return None
        sha1 = found.content_sha1 if found.content_sha1 not in (None, "none") else found.file_info.get(LARGE_SHA1)
        return found.size, str(sha1).removeprefix("unverified:")

    def _url(self, bucket: Bucket, name: str) -> str:
        return f"{bucket.api.account_info.get_download_url()}/file/{quote(self._bucket_name)}/{quote(name)}"


class _Listener(AbstractProgressListener):  # type: ignore[misc]
    """Passes on how far an upload is, from whatever thread sends; remembers what was raised meanwhile."""

    def __init__(self, size: int, on_bytes: OnBytes) -> None:
        super().__init__()
        self._size, self._on_bytes = size, on_bytes
        self._lock = threading.Lock()
        self.raised: BaseException | None = None

    def check(self) -> None:
        self.bytes_completed(0)

    def set_total_bytes(self, total_byte_count: int) -> None:
        pass

    def bytes_completed(self, byte_count: int) -> None:
        with self._lock:
            if self.raised is None:
                try:
                    self._on_bytes(min(byte_count, self._size), self._size)
                except BaseException as error:  # Cancelled and LostJob are not b2sdk's to handle
                    self.raised = error
            if self.raised is not None:
                raise self.raised


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """b2sdk's errors in our words. Its texts are not passed on: they may hold tokens and upload addresses."""
    try:
        yield
    except b2.CapExceeded as error:
        raise Unavailable(
            "the B2 account's storage or spending cap is reached; raise it at Backblaze", stage="upload"
        ) from error
    except b2.UnusableFileName as error:
        raise InvalidInput("the job's id cannot be part of an object's name", stage="upload") from error
    except _REFUSALS as error:
        raise Unavailable("B2 refuses the key or bucket (B2_KEY_ID, B2_APP_KEY, B2_BUCKET_NAME)", stage="upload") from error
    except (b2.B2Error, OSError) as error:
        raise Unavailable(f"the store cannot be reached or broke off ({type(error).__name__})", stage="upload") from error
