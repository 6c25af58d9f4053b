"""What is promised of the image, each promise looked at from outside."""

from __future__ import annotations

import json
import re
import time

from tests.image.bench import Bench, Container

#: The programs, each of which is killed once.
PROGRAMS = ("poller", "inference", "uploader", "api", "admin", "guard")
#: What root needs to hand over its rights, and to pass on a signal.
FEW_RIGHTS = ("--cap-drop=ALL", *(f"--cap-add={name}" for name in ("CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID")))
#: What no log of a healthy worker has.
COMPLAINT = re.compile(r"Read-only file system|Permission denied|Traceback|No space left| ERROR ")
WORKER_UID = 1000
#: What is added to the base image, without torch, in MB. It was 392 when this was written.
MAX_MB = 450

SIZES = """
import json, importlib.util, pathlib
folders = (pathlib.Path("/app"), pathlib.Path("/opt/venv"))
size = sum(file.lstat().st_size for folder in folders for file in folder.rglob("*"))
print(json.dumps({"mb": size // 1_000_000, "torch": importlib.util.find_spec("torch") is not None}))
"""
CONTENTS = """
import json, os, pathlib, shutil
left = ("/root", "/var/cache/apt", "/var/lib/apt/lists")
files = [file for folder in left for file in pathlib.Path(folder).rglob("*") if file.is_file()]
print(json.dumps({
    "compilers and such": [name for name in ("gcc", "cc", "make", "git") if shutil.which(name)],
    "caches": [str(file) for file in files if not file.name.startswith(".") and file.name != "lock"],
    "hidden files": [str(file) for file in pathlib.Path("/app").rglob(".*")],
    "tests": [name for name in os.listdir("/app") if name in ("tests", "benchmarks", "docs", "data")],
    "sources that a program could change": [
        str(file) for file in pathlib.Path("/app").rglob("*") if file.stat().st_uid or file.stat().st_mode & 0o022
    ],
}))
"""
PROBE = """
import pathlib, sys
sys.path.insert(0, "/app")
from media.probe import probe
print(probe(pathlib.Path(%r)))
"""
OWNERS = """
import pathlib
print(sorted({path.lstat().st_uid for path in (pathlib.Path("/data"), *pathlib.Path("/data").rglob("*"))}))
"""
GIVE = "import os; os.chown('/data', 12345, 12345); os.chmod('/data', 0o700)"


def look_at_image(bench: Bench) -> None:
    """the image says how it is run, and carries nothing else"""
    config = bench.configuration()
    bench.say(config["Entrypoint"] == ["tini", "--", "worker"], "the entry point", " ".join(config["Entrypoint"]))
    bench.say(bool(config["Healthcheck"]), "it has a health check")
    bench.say(not config.get("ExposedPorts"), "it exposes no port by itself")
    baked = [name for name in config["Env"] if re.match(r"(?i)(\w+_proxy|pip_\w+|\w*(key|token|password)\w*)=", name)]
    bench.say(not baked, "no proxy, index or key is baked in", ", ".join(baked))
    missing = {"title", "licenses", "version", "revision"} - {name.rpartition(".")[2] for name in config["Labels"] or {}}
    bench.say(not missing, "it is labelled", ", ".join(missing))
    sizes = json.loads(bench.python(SIZES))
    bench.say(sizes["torch"] or sizes["mb"] <= MAX_MB, f"it adds at most {MAX_MB} MB, or has torch", f"{sizes['mb']} MB")
    for name, found in json.loads(bench.python(CONTENTS)).items():
        bench.say(not found, f"no {name}", ", ".join(found[:5]))


def run_demo(bench: Bench) -> None:
    """the demo makes its video"""
    with bench.volume() as volume:
        mount = f"--volume={volume}:/data"
        with bench.container(mount, *FEW_RIGHTS, command=("demo", "--once", "--json")) as demo:
            began_s = time.monotonic()
            code, (answer, progress) = demo.wait(), demo.logs()
            if code:
                raise RuntimeError(f"exit code {code}: {progress[-1500:]}")
            result = json.loads(answer)
            took_s = time.monotonic() - began_s
            bench.say(True, f"the demo makes its video with the {result['engine']} engine", f"{took_s:.1f} s")
            if bench.video is not None:
                copied = bench.tool("cp", f"{demo.name}:{result['video']}", str(bench.video))
                bench.say(copied.returncode == 0, "the video is copied out", bench.video)
        found = bench.python(PROBE % result["video"], mount)
        bench.say("kind='video'" in found, "the video can be read", found)
        owners = bench.python(OWNERS, mount)
        bench.say(owners == f"[{WORKER_UID}]", "all its files are the worker's user's", owners)
    alone = bench.run("--user=worker", "--cap-drop=ALL", command=("demo", "--once"))
    bench.say(alone.returncode == 0, "with --user worker it needs no capability at all", _last_line(alone.stderr))


def run_worker(bench: Bench) -> None:
    """the worker starts without any variable, answers, does a job, and comes back from any kill"""
    with bench.container(*FEW_RIGHTS) as worker:
        began_s = time.monotonic()
        worker.until_ready()
        bench.say(True, "the worker is ready", f"{time.monotonic() - began_s:.1f} s after the start")
        ways = {
            "/health": (8000, "127.0.0.1"),
            "/hc": (8000, "::1"),
            "/metrics": (8000, "127.0.0.1"),
            "/login": (8080, "127.0.0.1"),
        }
        for path, (port, host) in ways.items():
            status = worker.status(port, path, host)
            bench.say(status == 200, f"GET {path} on port {port} of {host}", status)
        _look_at_processes(bench, worker)
        _, *health_check = bench.configuration()["Healthcheck"]["Test"]
        bench.say(worker.execute(*health_check).returncode == 0, "the health check agrees")
        job = worker.submit("--wait")
        bench.say(job["state"] == "succeeded", "a job handed in by `worker submit`", job["error"] or job["output_url"])
        complaints = [line for line in "".join(worker.logs()).splitlines() if COMPLAINT.search(line)]
        bench.say(not complaints, "its log has no complaint", "".join(complaints[:1]))
        for program in PROGRAMS:
            _kill(bench, worker, program)
        worker.until_ready()
        bench.say(worker.submit("--wait")["state"] == "succeeded", "a job after all these kills")


def stop_and_go_on(bench: Bench) -> None:
    """a worker that is stopped or dies goes on with its jobs in its next life"""
    with bench.volume() as volume:
        mount = f"--volume={volume}:/data"
        with bench.container(mount) as first:
            first.until_ready()
            jobs = [first.submit()["job"] for _ in range(4)]
            first.until(lambda: "generating" in map(first.job, jobs), "a job is being made")
            code, took_s = first.stop()
            bench.say(code == 0, "SIGTERM in the middle of a job ends it with 0", f"code {code}, {took_s:.1f} s")
            bench.say("the worker exits: stopped" in _last_line(first.logs()[0]), "the last line says why")
        _say_what_is_left(bench, mount, jobs, "the stop leaves the other jobs in the queue")
        with bench.container(mount, "--restart=always") as second:
            second.until(lambda: second.pid("inference") and "generating" in map(second.job, jobs), "a job is being made again")
            second.kill("guard.pid1")
            second.until(lambda: second.restarts() > 0, "the container is started again")
            bench.say(True, "--restart=always brings it back when its first program is killed")
            second.until(lambda: {second.job(job) for job in jobs} == {"succeeded"}, "all jobs succeed")
            bench.say(True, "all jobs are finished by the lives after", f"{len(jobs)} jobs")
            bench.say(second.stop()[0] == 0, "SIGTERM while idle ends it with 0")


def share_volumes(bench: Bench) -> None:
    """a volume of another user's works, or is refused in one line"""
    with bench.volume() as volume:
        mount = f"--volume={volume}:/data"
        bench.python(GIVE, mount)
        refused = bench.run(mount, "--user=4321", command=("up",))
        line = _last_line(refused.stderr)
        bench.say((refused.returncode, line[:14]) == (2, "DATA_DIR=/data"), "a folder that it may not write is refused", line)
        with bench.container(mount, *FEW_RIGHTS) as worker:
            worker.until_ready()
            owners = bench.python(OWNERS, mount)
            bench.say(owners == f"[{WORKER_UID}]", "a volume of user 12345 becomes the worker's", owners)
    refused = bench.run("--cap-drop=ALL", command=("up",))
    line = _last_line(refused.stderr)
    bench.say((refused.returncode, line[:12]) == (2, "WORKER_USER="), "root without rights is told what to do", line)


def _look_at_processes(bench: Bench, worker: Container) -> None:
    processes = worker.processes()
    first = next(process for process in processes if process["pid"] == 1)
    bench.say(first["words"][:3] == ["tini", "--", "worker"], "process 1 is the entry point")
    roots = [" ".join(process["words"]) for process in processes if process["uid"] != WORKER_UID and process["pid"] != 1]
    bench.say(not roots, "no program runs as root", "; ".join(roots))
    missing = [program for program in PROGRAMS if worker.pid(program) is None]
    bench.say(not missing, "all programs run", ", ".join(missing))


def _kill(bench: Bench, worker: Container, program: str) -> None:
    began_s = time.monotonic()
    old = worker.kill(program)
    worker.until(lambda: worker.pid(program) not in (old, None), f"{program} comes back")
    bench.say(True, f"{program} comes back from kill -9", f"seen after {time.monotonic() - began_s:.1f} s")


def _say_what_is_left(bench: Bench, mount: str, jobs: list[str], text: str) -> None:
    listed = {job["id"]: job["state"] for job in json.loads(bench.run(mount, command=("jobs", "--json")).stdout)}
    states = [listed.get(job, "lost") for job in jobs]
    bench.say("lost" not in states and set(states) != {"succeeded"}, text, ", ".join(states))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


ALL = (look_at_image, run_demo, run_worker, stop_and_go_on, share_volumes)
