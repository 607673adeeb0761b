"""Local model hub: the part of the HTTP interface that pushing and pulling small files needs."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


class Hub(ThreadingHTTPServer):
    """Server of repositories: for each name a list of commits, each a dictionary of files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def run_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Run a hub on this machine, which huggingface_hub takes for the real one."""
    with Hub() as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # HF_ENDPOINT sets this, but only before huggingface_hub is imported.
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        thread = Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        path = self._path()
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request.get('organization') or 'me'}/{request['name']}"
            if name in self.server.repos:
                return self._json({"error": "You already created this model repo", "url": self._url(name)}, 409)
            self.server.repos[name] = [{}]
            self.server.private[name] = request.get("visibility") == "private"
            return self._json({"url": self._url(name), "name": name, "id": name})
        if found := re.fullmatch(rf"/api/models/{REPO}/preupload/main", path):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if (found := re.fullmatch(rf"/api/models/{REPO}/commit/main", path)) and found["repo"] in self.server.repos:
            commits = self.server.repos[found["repo"]]
            lines = [json.loads(line) for line in body.splitlines()]
            added = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            commits.append({**commits[-1], **added})
            oid = self._oid(len(commits) - 1)
            return self._json(
                {"success": True, "commitOid": oid, "commitUrl": f"{self._url(found['repo'])}/commit/{oid}"}
            )
        self._missing()

    def do_GET(self) -> None:
        path = self._path()
        if found := re.fullmatch(rf"/api/models/{REPO}(?:/revision/(?P<revision>\w+))?", path):
            if commit := self._commit(found["repo"], found["revision"] or "main"):
                oid, files = commit
                siblings = [{"rfilename": name} for name in files]
                info = {"id": found["repo"], "_id": "0", "sha": oid, "siblings": siblings, "tags": []}
                card = yaml.safe_load(files.get("README.md", b"---\n---").decode().split("---")[1])
                return self._json({**info, "cardData": card or {}})
        elif found := re.fullmatch(rf"/api/models/{REPO}/tree/(?P<revision>\w+)", path):
            if commit := self._commit(found["repo"], found["revision"]):
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": _blob(content)}
                    for name, content in commit[1].items()
                ]
                return self._json(entries)
        elif found := re.fullmatch(rf"/{REPO}/resolve/(?P<revision>\w+)/(?P<file>.+)", path):
            commit = self._commit(found["repo"], found["revision"])
            if commit and (content := commit[1].get(found["file"])) is not None:
                return self._send(200, content, {"ETag": f'"{_blob(content)}"', "X-Repo-Commit": commit[0]})
        self._missing()

    do_HEAD = do_GET

    def _path(self) -> str:
        path = self.path.split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        return path

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _url(self, repo: str) -> str:
        return f"{self.server.address}/{repo}"

    def _oid(self, index: int) -> str:
        return hashlib.sha1(str(index).encode()).hexdigest()

    def _commit(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.server.repos.get(repo, [])
        for index in range(len(commits) - 1, -1, -1):
            if revision in ("main", self._oid(index)):
                return self._oid(index), commits[index]
        return None

    def _missing(self) -> None:
        self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def _json(self, answer: Any, status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _blob(content: bytes) -> str:
    """git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
