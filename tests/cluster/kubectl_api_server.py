"""The part of Kubernetes' API that `kubectl` requests when this project calls it: objects in memory, by resource and name."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

RESOURCES = {"rayjobs": ("apis/ray.io/v1", "RayJob"), "pods": ("api/v1", "Pod"), "configmaps": ("api/v1", "ConfigMap")}
OBJECT = re.compile(r"/(?:api/v1|apis/ray\.io/v1)/namespaces/research/(\w+)(?:/([^/]+))?(/log)?")
Objects = dict[str, dict[str, dict[str, Any]]]


class ApiServer:
    """`with ApiServer() as server:` listens on `server.address`."""

    def __init__(self) -> None:
        self.objects: Objects = {resource: {} for resource in RESOURCES}
        handler = type("Handler", (_Handler,), {"objects": self.objects})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: Objects

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        known = _described(url.path)
        found = OBJECT.fullmatch(url.path)
        if known is not None:
            self._say(known)
        elif found is None or found[1] not in self.objects:
            self._refuse(404, "NotFound", "the server could not find the requested resource")
        elif found[2] is None:
            self._collection(found[1], parse_qs(url.query), json.loads(sent) if sent else None)
        elif found[2] not in self.objects[found[1]]:
            self._refuse(404, "NotFound", f'{found[1]} "{found[2]}" not found')
        elif found[3]:
            self._write(200, "text/plain", b"one\ntwo\n")
        else:
            self._object(found[1], found[2], sent)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer

    def _collection(self, resource: str, query: dict[str, list[str]], sent: dict[str, Any] | None) -> None:
        there = self.objects[resource]
        if sent is None:
            wanted = dict(part.split("=") for part in query["labelSelector"][0].split(","))
            items = [o for o in there.values() if wanted.items() <= o["metadata"]["labels"].items()]
            version = RESOURCES[resource][0].partition("/")[2]
            self._say({"kind": f"{RESOURCES[resource][1]}List", "apiVersion": version, "items": items})
        elif sent["metadata"]["name"] in there:
            self._refuse(409, "AlreadyExists", f'{resource} "{sent["metadata"]["name"]}" already exists')
        else:
            assert query["fieldValidation"] == ["Strict"]
            there[sent["metadata"]["name"]] = sent
            self._say(sent, 201)

    def _object(self, resource: str, name: str, sent: bytes) -> None:
        there = self.objects[resource]
        if self.command == "DELETE":
            del there[name]
            self._say({"kind": "Status", "apiVersion": "v1", "status": "Success"})
            return
        if self.command == "PATCH":
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            there[name] = _merged(there[name], json.loads(sent))
        self._say(there[name])

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
        self._say({**status, "message": message}, code)

    def _say(self, answer: dict[str, Any], code: int = 200) -> None:
        self._write(code, "application/json", json.dumps(answer).encode())

    def _write(self, code: int, kind: str, text: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _described(path: str) -> dict[str, Any] | None:
    """The resources that the server reports."""
    version = {"groupVersion": "ray.io/v1", "version": "v1"}
    group = {"name": "ray.io", "versions": [version], "preferredVersion": version}
    answers: dict[str, dict[str, Any]] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]},
        "/api/v1/namespaces/research": {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "research"}},
        "/openapi/v3": {"paths": {}},
    }  # fmt: skip
    for root in ("api/v1", "apis/ray.io/v1"):
        names = {resource: kind for resource, (of, kind) in RESOURCES.items() if of == root}
        listed = [{"name": r, "singularName": r[:-1], "namespaced": True, "kind": k, "verbs": ["get", "list"]}
                  for r, k in names.items()]  # fmt: skip
        answers[f"/{root}"] = {
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": root.split("/", 1)[1], "resources": listed,
        }  # fmt: skip
        answers["/openapi/v3"]["paths"][root] = {"serverRelativeURL": f"/openapi/v3/{root}?hash=1"}
        strict = {"parameters": [{"name": "fieldValidation", "in": "query"}], "responses": {}}
        paths = {
            f"/{root}/namespaces/{{namespace}}/{r}/{{name}}": {
                "patch": {**strict, "x-kubernetes-group-version-kind":
                          {"group": "ray.io" if "ray" in root else "", "version": "v1", "kind": k}}
            }
            for r, k in names.items()
        }  # fmt: skip
        answers[f"/openapi/v3/{root}"] = {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": paths}
    return answers.get(path)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
