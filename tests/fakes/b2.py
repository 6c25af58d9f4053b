"""A server that speaks enough of Backblaze B2's native API for an unmodified b2sdk, with faults that can be switched on.

Our own reading of the public API's documentation. `with serving(folder) as store:` runs it on a loopback port; the key, the
bucket and the base URL (`B2_REALM`) are its attributes. Objects live in memory: (name → newest version).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

BUCKET_ID, ACCOUNT = "bucket-0001", "account-0001"
MIN_PART_BYTES = 100_000

#: What test_torture.py takes out of uploader/stores/b2.py to see that it is noticed.
MUTANT_WITHOUT_CHECK = ("            if held != (size, sha1):", "            if held == 'never':")


@dataclass
class Version:
    """One version of an object."""

    file_id: str
    name: str
    content: bytes
    sha1: str | None
    content_type: str
    info: dict[str, str]


@dataclass
class Large:
    """A large file that was begun."""

    file_id: str
    name: str
    content_type: str
    info: dict[str, str]
    parts: dict[int, tuple[bytes, str]] = field(default_factory=dict)


class Store:
    """The server's state, and the switches for its faults."""

    key_id, app_key, bucket = "0011223344556677", "K001-fake-application-key", "videos"

    def __init__(self, seed: int) -> None:
        self.versions: dict[str, Version] = {}
        self.large: dict[str, Large] = {}
        self.calls: list[str] = []
        self.lock = threading.Lock()
        self.url = ""
        #: What the key may do.
        self.capabilities = ["listBuckets", "listFiles", "readFiles", "writeFiles", "deleteFiles"]
        #: Calls that are taken and never answered: b2_…, upload_file, upload_part.
        self.mute: set[str] = set()
        #: What a proxy in front says to everything, with status 200.
        self.page: bytes | None = None
        #: Seconds that each upload waits before its bytes are read.
        self.pause_s = 0.0
        self.ending = threading.Event()
        self._ids, self._random = itertools.count(1), random.Random(seed)
        self._shares: dict[str, float] = {}
        self._next: list[str] = []

    def faults(self, **shares: float) -> None:
        """The share of uploads that meet a fault: p_503, p_cut, p_lose_answer (kept, but not said), p_lie (said, not kept)."""
        unknown = set(shares) - {"p_503", "p_cut", "p_lose_answer", "p_lie"}
        assert not unknown, unknown
        self._shares = shares

    def next_faults(self, *names: str) -> None:
        """The faults that the next uploads meet, one each: 503, cut, lose_answer, lie, expired, cap."""
        self._next.extend(names)

    def fault(self) -> str | None:
        with self.lock:
            if self._next:
                return self._next.pop(0)
            chance = self._random.random()
            for name, share in self._shares.items():
                chance -= share
                if chance < 0:
                    return name.removeprefix("p_")
        return None

    def new_id(self) -> str:
        return f"4_z{BUCKET_ID}_f{next(self._ids):06d}"

    def objects(self) -> dict[str, tuple[int, str]]:
        """Size and SHA-1 of every object."""
        kept = list(self.versions.items())  # in one step: uploads go on meanwhile
        return {name: (len(v.content), hashlib.sha1(v.content, usedforsecurity=False).hexdigest()) for name, v in kept}


@contextlib.contextmanager
def serving(folder: Path | None = None, seed: int = 0) -> Iterator[Store]:
    """The server on a loopback port, until the block ends."""
    store = Store(seed)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store}))
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield store
    finally:
        store.ending.set()
        server.shutdown()
        server.server_close()


class _Error(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message or code


class _Handler(BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(head_only=False)

    def do_HEAD(self) -> None:
        self._serve(head_only=True)

    def do_POST(self) -> None:
        self._serve(head_only=False)

    def _serve(self, head_only: bool) -> None:
        call = self.path.split("?")[0].rsplit("/", 1)[-1]
        try:
            if self.path.startswith("/file/"):
                return self._download(head_only)
            if self.path.startswith(("/upload/", "/part/")):
                return self._uploaded()
            self.store.calls.append(call)
            self._silent(call)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.store.page is not None:
                return self._send(self.store.page, 200, "text/html")
            if call == "b2_authorize_account":
                return self._json(self._authorize())
            self._known()
            answer = getattr(self, "_" + call, None)
            if answer is None:
                raise _Error(400, "bad_request", f"{call} is not spoken here")
            return self._json(answer(json.loads(body or b"{}")))
        except _Error as error:
            self._json({"status": error.status, "code": error.code, "message": error.message}, error.status)
        except OSError:
            self.close_connection = True

    def _silent(self, call: str) -> None:
        if call in self.store.mute:
            self.store.ending.wait()
            raise ConnectionAbortedError

    # ---- the account --------------------------------------------------------------------------------------------------------

    def _authorize(self) -> dict[str, Any]:
        given = base64.b64decode(self.headers.get("Authorization", "Basic ").removeprefix("Basic ")).decode()
        if given != f"{self.store.key_id}:{self.store.app_key}":
            raise _Error(401, "unauthorized")
        return {
            "accountId": ACCOUNT,
            "authorizationToken": "token-for-tests",
            "applicationKeyExpirationTimestamp": None,
            "apiInfo": {
                "storageApi": {
                    "infoType": "storageApi",
                    "apiUrl": self.store.url,
                    "downloadUrl": self.store.url,
                    "s3ApiUrl": self.store.url,
                    "absoluteMinimumPartSize": MIN_PART_BYTES,
                    "recommendedPartSize": 2 * MIN_PART_BYTES,
                    "allowed": {"buckets": None, "capabilities": self.store.capabilities, "namePrefix": None},
                }
            },
        }

    def _known(self) -> None:
        if self.headers.get("Authorization") != "token-for-tests":
            raise _Error(401, "bad_auth_token")

    def _b2_list_buckets(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked.get("bucketName") not in (None, self.store.bucket):
            return {"buckets": []}
        hidden = {"isClientAuthorizedToRead": False, "value": None}
        bucket = {
            "accountId": ACCOUNT,
            "bucketId": BUCKET_ID,
            "bucketName": self.store.bucket,
            "bucketType": "allPublic",
            "bucketInfo": {},
            "corsRules": [],
            "lifecycleRules": [],
            "options": [],
            "revision": 1,
            "defaultServerSideEncryption": {"isClientAuthorizedToRead": True, "value": {"mode": None}},
            "fileLockConfiguration": hidden,
            "replicationConfiguration": hidden,
        }
        return {"buckets": [bucket]}

    # ---- uploads ------------------------------------------------------------------------------------------------------------

    def _b2_get_upload_url(self, asked: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.store.url}/upload/{BUCKET_ID}"
        return {"bucketId": BUCKET_ID, "uploadUrl": url, "authorizationToken": "upload-token"}

    def _b2_get_upload_part_url(self, asked: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.store.url}/part/{asked['fileId']}"
        return {"fileId": asked["fileId"], "uploadUrl": url, "authorizationToken": "upload-token"}

    def _uploaded(self) -> None:
        part = self.path.startswith("/part/")
        self.store.calls.append("upload_part" if part else "upload_file")
        self._silent("upload_part" if part else "upload_file")
        self.store.ending.wait(self.store.pause_s)
        length = int(self.headers["Content-Length"])
        fault = self.store.fault()
        if fault == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        content = self.rfile.read(length)
        wrong = {
            "503": (503, "service_unavailable"),
            "expired": (401, "expired_auth_token"),
            "cap": (403, "storage_cap_exceeded"),
        }
        if fault in wrong:
            raise _Error(*wrong[fault])
        sha1 = self.headers["X-Bz-Content-Sha1"]
        if sha1 == "hex_digits_at_end":
            content, sha1 = content[:-40], content[-40:].decode()
        if hashlib.sha1(content, usedforsecurity=False).hexdigest() != sha1:
            raise _Error(400, "bad_request", "Checksum did not match data received")
        answer = self._keep_part(content, sha1) if part else self._keep_file(content, sha1, lie=fault == "lie")
        if fault == "lose_answer":
            self.close_connection = True
            self.connection.close()
            return
        self._json(answer)

    def _keep_file(self, content: bytes, sha1: str, lie: bool) -> dict[str, Any]:
        info = {k[10:].lower(): unquote(v) for k, v in self.headers.items() if k.lower().startswith("x-bz-info-")}
        name = unquote(self.headers["X-Bz-File-Name"])
        version = Version(self.store.new_id(), name, content, sha1, self.headers["Content-Type"], info)
        if not lie:
            self.store.versions[name] = version
        return _described(version)

    def _keep_part(self, content: bytes, sha1: str) -> dict[str, Any]:
        file = self._large(self.path.rsplit("/", 1)[-1])
        number = int(self.headers["X-Bz-Part-Number"])
        file.parts[number] = (content, sha1)
        return {
            "fileId": file.file_id,
            "partNumber": number,
            "contentLength": len(content),
            "contentSha1": sha1,
            "uploadTimestamp": 1,
        }

    def _large(self, file_id: str) -> Large:
        if file_id not in self.store.large:
            raise _Error(400, "bad_request", f"No active upload for: {file_id}")
        return self.store.large[file_id]

    def _b2_start_large_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        file = Large(self.store.new_id(), asked["fileName"], asked["contentType"], asked.get("fileInfo") or {})
        self.store.large[file.file_id] = file
        return _begun(file)

    def _b2_list_unfinished_large_files(self, asked: dict[str, Any]) -> dict[str, Any]:
        prefix = asked.get("namePrefix") or ""
        files = [_begun(file) for file in list(self.store.large.values()) if file.name.startswith(prefix)]
        return {"files": files, "nextFileId": None}

    def _b2_list_parts(self, asked: dict[str, Any]) -> dict[str, Any]:
        file = self._large(asked["fileId"])
        parts = [
            {"fileId": file.file_id, "partNumber": n, "contentLength": len(c), "contentSha1": s, "uploadTimestamp": 1}
            for n, (c, s) in sorted(file.parts.items())
        ]
        return {"parts": parts, "nextPartNumber": None}

    def _b2_cancel_large_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        file = self._large(asked["fileId"])
        del self.store.large[file.file_id]
        return {"fileId": file.file_id, "accountId": ACCOUNT, "bucketId": BUCKET_ID, "fileName": file.name}

    def _b2_finish_large_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        file = self._large(asked["fileId"])
        if asked["partSha1Array"] != [sha1 for _, (_, sha1) in sorted(file.parts.items())]:
            raise _Error(400, "bad_request", "the parts are not those")
        content = b"".join(part for _, (part, _) in sorted(file.parts.items()))
        del self.store.large[file.file_id]
        version = Version(file.file_id, file.name, content, None, file.content_type, file.info)
        self.store.versions[file.name] = version
        return _described(version)

    # ---- downloads ----------------------------------------------------------------------------------------------------------

    def _download(self, head_only: bool) -> None:
        _, _, bucket, name = unquote(self.path.split("?")[0]).split("/", 3)
        if self.headers.get("Authorization") and "readFiles" not in self.store.capabilities:
            return self._empty(401)
        version = self.store.versions.get(name) if bucket == self.store.bucket else None
        if version is None:
            if head_only:
                return self._empty(404)
            raise _Error(404, "not_found")
        self.send_response(200)
        headers = {
            "Content-Length": str(len(version.content)),
            "Content-Type": version.content_type,
            "Accept-Ranges": "bytes",
            "X-Bz-File-Id": version.file_id,
            "X-Bz-File-Name": self.path.split("/", 3)[3],
            "X-Bz-Content-Sha1": version.sha1 or "none",
            "X-Bz-Upload-Timestamp": "1",
            **{f"X-Bz-Info-{key}": value for key, value in version.info.items()},
        }
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if not head_only:
            self.wfile.write(version.content)

    def _empty(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, answer: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(answer).encode(), status, "application/json")

    def _send(self, body: bytes, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _described(version: Version) -> dict[str, Any]:
    return {
        "accountId": ACCOUNT,
        "action": "upload",
        "bucketId": BUCKET_ID,
        "contentLength": len(version.content),
        "contentMd5": None,
        "contentSha1": version.sha1 or "none",
        "contentType": version.content_type,
        "fileId": version.file_id,
        "fileInfo": version.info,
        "fileName": version.name,
        "fileRetention": {"isClientAuthorizedToRead": False, "value": None},
        "legalHold": {"isClientAuthorizedToRead": False, "value": None},
        "serverSideEncryption": {"algorithm": None, "mode": None},
        "uploadTimestamp": 1,
    }


def _begun(file: Large) -> dict[str, Any]:
    return {
        "accountId": ACCOUNT,
        "bucketId": BUCKET_ID,
        "contentType": file.content_type,
        "fileId": file.file_id,
        "fileInfo": file.info,
        "fileName": file.name,
        "fileRetention": {"isClientAuthorizedToRead": False, "value": None},
        "legalHold": {"isClientAuthorizedToRead": False, "value": None},
        "serverSideEncryption": {"algorithm": None, "mode": None},
        "uploadTimestamp": 1,
    }
