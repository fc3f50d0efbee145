"""A stand-in for kubectl, the API server, the operator and the nodes, for tests: objects are JSON files below $KUBE.

It implements the calls of this project, refuses everything else, and prints what kubectl 1.32 prints. Manifests are
validated, by the operator's schemas where $KUBE/schemas has them. Commands in pods really run, with the variables of their
manifest.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

KUBE = Path(os.environ["KUBE"])
KINDS = {"rayjobs.ray.io": "RayJob", "pods": "Pod", "pod": "Pod", "configmap": "ConfigMap"}
NAMESPACE = "research"


def fail(message: str, status: int = 1) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)


def plan() -> dict[str, Any]:
    return json.loads((KUBE / "plan.json").read_text())


def objects(kind: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((KUBE / kind).glob("*.json"))]


def path_of(kind: str, name: str) -> Path:
    return KUBE / kind / f"{name}.json"


def load(kind: str, name: str) -> dict[str, Any]:
    path = path_of(kind, name)
    if not path.is_file():
        plural = {"RayJob": "rayjobs.ray.io", "Pod": "pods", "ConfigMap": "configmaps"}[kind]
        fail(f'Error from server (NotFound): {plural} "{name}" not found')
    return json.loads(path.read_text())


def save(found: dict[str, Any]) -> None:
    path = path_of(found["kind"], found["metadata"]["name"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


def get(words: list[str], options: dict[str, str]) -> None:
    assert options.pop("output") == "json"
    wanted = dict(part.split("=", 1) for part in options.pop("selector").split(","))
    found = [
        one for one in objects(KINDS[words[0]])
        if wanted.items() <= (one["metadata"].get("labels") or {}).items()
    ]  # fmt: skip
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": found}))


def create(words: list[str], options: dict[str, str]) -> None:
    import yaml

    assert options.pop("filename") == "-" and not words
    for manifest in yaml.safe_load_all(sys.stdin.read()):
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        wrong = invalid(manifest)
        if wrong:
            fail(f'The {kind} "{name}" is invalid: {wrong}')
        if path_of(kind, name).is_file():
            fail(f'Error from server (AlreadyExists): error when creating "STDIN": {kind} "{name}" already exists')
        refused = plan().get("refuse", {}).get(kind)
        if refused:
            fail(refused)
        manifest["metadata"]["creationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        save(manifest)
        print(f"{kind.lower()}/{name} created")
        if kind == "Pod":
            run_pod(manifest)


def invalid(manifest: dict[str, Any]) -> str:
    name, kind = manifest["metadata"]["name"], manifest["kind"]
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
        return f"metadata.name: Invalid value: {name!r}"
    for key, value in manifest["metadata"].get("labels", {}).items():
        if not re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?", value):
            return f"metadata.labels: Invalid value: {key}: {value!r}"
    if manifest["metadata"].get("namespace") != NAMESPACE:
        return "the namespace from the provided object does not match the namespace"
    if kind == "ConfigMap":
        entries = {**manifest.get("data", {}), **manifest.get("binaryData", {})}
        for key, value in entries.items():
            if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) or not isinstance(value, str):
                return f"data[{key}]: Invalid value"
        if sum(map(len, entries.values())) > 1024**2:
            return "[]: Too long: may not be more than 1048576 bytes"
        return ""
    if kind == "RayJob" and len(name) > 47:
        return "the RayJob name should be no more than 47 characters"
    if kind not in ("RayJob", "Pod"):
        return f"no such kind: {kind}"
    schema = KUBE / "schemas" / f"{kind}.json"
    if not schema.is_file():
        return ""
    import jsonschema

    checked = manifest["spec"] if kind == "Pod" else manifest
    errors = jsonschema.Draft7Validator(json.loads(schema.read_text())).iter_errors(checked)
    return "; ".join(error.message for error in errors)


def patch(words: list[str], options: dict[str, str]) -> None:
    assert options.pop("type") == "merge"
    job = merged(load(KINDS[words[0]], words[1]), json.loads(options.pop("patch")))
    save(job)
    if job["spec"].get("suspend"):  # the operator takes the cluster and the submitter away
        job["status"] = {"jobDeploymentStatus": "Suspended"}
        save(job)
        for pod in objects("Pod"):
            path_of("Pod", pod["metadata"]["name"]).unlink()
    print(f"rayjob.ray.io/{words[1]} patched")


def delete(words: list[str], options: dict[str, str]) -> None:
    assert options.pop("wait") == "false" and options.pop("ignore-not-found") == ""
    path_of(KINDS[words[0]], words[1]).unlink(missing_ok=True)


def logs(words: list[str], options: dict[str, str]) -> None:
    (name,) = words
    pod = load("Pod", name)
    log = KUBE / "logs" / f"{name}.txt"
    if pod["status"]["phase"] == "Pending" or not log.is_file():
        fail(f'Error from server (BadRequest): container "main" in pod "{name}" is waiting to start: ContainerCreating')
    if options.pop("follow", None) is None:
        sys.stdout.write(log.read_text())
        return
    planned = plan()
    if planned.get("tails"):  # this one breaks off: then the world goes on
        tail = planned["tails"].pop(0)
        (KUBE / "plan.json").write_text(json.dumps(planned))
        sys.stdout.write(log.read_text()[: tail["letters"]])
        sys.stdout.flush()
        for kind, name, changes in tail.get("then", ()):
            old = load(kind, name) if path_of(kind, name).is_file() else {"kind": kind}
            save(merged(old, changes))
        if tail.get("complaint"):
            fail(tail["complaint"])
        return
    given = 0
    while True:
        ended = load("Pod", name)["status"]["phase"] in ("Succeeded", "Failed")
        text = log.read_text()
        sys.stdout.write(text[given:])
        sys.stdout.flush()
        given = len(text)
        if ended:
            return
        time.sleep(0.05)


def run_exec(words: list[str], options: dict[str, str]) -> None:
    name, *command = words
    pod = load("Pod", name)
    container = next(c for c in pod["spec"]["containers"] if c["name"] == options.pop("container", c["name"]))
    status = subprocess.run(command, env=variables(pod, container), check=False).returncode
    if status:
        fail(f"command terminated with exit code {status}", status)


def run_pod(pod: dict[str, Any]) -> None:
    container = pod["spec"]["containers"][0]
    command = [expanded(word) for word in container["command"]]
    log = KUBE / "logs" / f"{pod['metadata']['name']}.txt"
    with log.open("wb") as out:
        done = subprocess.run(command, env=variables(pod, container), stdout=out, stderr=out, check=False, cwd=KUBE)
    pod["status"] = {"phase": "Failed" if done.returncode else "Succeeded"}
    save(pod)


def variables(pod: dict[str, Any], container: dict[str, Any]) -> dict[str, str]:
    """A container's, with what the image and the node bring."""
    found = {"PATH": f"{KUBE / 'image'}:/usr/bin:/bin", "KUBE": str(KUBE), "POD": pod["metadata"]["name"]}
    for variable in container["env"]:
        source = variable.get("valueFrom", {}).get("secretKeyRef")
        if source:
            secret = json.loads(path_of("Secret", source["name"]).read_text())
            found[variable["name"]] = base64.b64decode(secret["data"][source["key"]]).decode()
        else:
            found[variable["name"]] = expanded(variable["value"])
    claims = {
        v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    }  # fmt: skip
    for mount in container["volumeMounts"]:
        if mount["name"] in claims and found["SWEEPS_STORE"] == mount["mountPath"]:
            found["SWEEPS_STORE"] = str(KUBE / "claims" / claims[mount["name"]])
    return found


def expanded(text: str) -> str:
    """$(NAME) of a name that is not set stays; $$( is $(."""
    return text.replace("$$(", "$(")


def ray_job_stop(words: list[str]) -> None:
    """What `ray` does in the head's pod, and what the operator then sees."""
    assert words[:3] == ["job", "stop", "--address=http://127.0.0.1:8265"], words
    cluster = load("Pod", os.environ["POD"])["metadata"]["labels"]["ray.io/cluster"]
    job = next(j for j in objects("RayJob") if (j.get("status") or {}).get("rayClusterName") == cluster)
    assert words[3:] == [job["status"]["jobId"]], words
    assert int(os.environ["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30
    for pod in objects("Pod"):
        if pod["metadata"]["labels"].get("job-name") == job["metadata"]["name"]:
            with (KUBE / "logs" / f"{pod['metadata']['name']}.txt").open("a") as log:
                log.write("SIGTERM was received: checkpoints are kept\n")
    job["status"] |= {"jobStatus": "STOPPED", "jobDeploymentStatus": "Complete"}
    save(job)
    print(f"Attempting to stop job '{words[3]}'")


def main() -> None:
    with (KUBE / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    arguments = list(itertools.takewhile(lambda word: word != "--", sys.argv[1:]))
    rest = sys.argv[2 + len(arguments) :]
    options = {}
    for word in arguments:
        if word.startswith("-"):
            key, _, value = word.removeprefix("--").partition("=")
            options[key] = value
    verb, *words = [word for word in arguments if not word.startswith("-")]
    if options.pop("context", "there") != "there":
        fail("Error in configuration: context was not found for specified context: elsewhere")
    if options.pop("namespace") != NAMESPACE:
        fail("error: the namespace is not this one")
    options.pop("request-timeout", None)
    fault = plan().get("fault")
    if fault:
        fail(fault)
    verbs = {"get": get, "create": create, "patch": patch, "delete": delete, "logs": logs, "exec": run_exec}
    verbs[verb]([*words, *rest], options)
    if options:
        fail(f"error: unknown flag: --{next(iter(options))}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ray"]:
        ray_job_stop(sys.argv[2:])
    else:
        main()
