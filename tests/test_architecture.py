"""Floors and doors: who may import whom, and which library has which door. Both tables are data; every module is checked."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: A package may import from floors below its own, and from itself. `errors` is the ground.
FLOORS: dict[str, int] = {
    "errors": 0,
    **dict.fromkeys(("settings", "jobqueue", "telemetry", "media", "weights"), 1),
    **dict.fromkeys(("service", "serving", "operations", "entrance", "supervision", "answers", "doctor", "support"), 2),
    **dict.fromkeys(("poller", "inference", "uploader", "api", "admin", "guard", "orchestrator", "cli"), 3),
}

#: Packages of one floor that may know each other, and why.
NEIGHBOURS = {
    ("answers", "operations"),  # it says what an operator acts on
    ("answers", "supervision"),
    ("doctor", "answers"),  # it reads what the running worker was started with
    ("doctor", "supervision"),
    ("operations", "entrance"),  # an operator makes a new token or code
    ("operations", "supervision"),  # a restart is an operator's action
    ("support", "answers"),  # a bundle holds what the API answers
    ("support", "operations"),
    ("service", "supervision"),  # supervisord's word that it stops all programs
    ("serving", "service"),  # a program that serves HTTP is a service
    ("orchestrator", "jobqueue"),  # the reference orchestrator's own SQLite is opened as the queue's is
}

#: A library and the modules that may import it.
DOORS: dict[str, tuple[str, ...]] = {
    "apsw": ("jobqueue/", "orchestrator/sqlite.py"),
    "sqlite3": (),
    "psycopg": ("orchestrator/postgres.py",),
    "requests": ("poller/", "weights/transfer.py"),
    "b2sdk": ("uploader/stores/b2.py",),
    "pynvml": ("telemetry/gpu.py",),
    "flask": ("api/", "admin/", "orchestrator/"),
    "gunicorn": ("serving.py",),
    "xmlrpc": ("supervision.py",),
    "supervisor": ("guard/",),
    "torch": ("inference/engines/", "inference/__main__.py"),
    **dict.fromkeys(("diffusers", "transformers", "safetensors", "PIL", "ftfy"), ("inference/engines/",)),
    "cv2": ("inference/engines/", "media/"),
    "av": ("media/",),
    "pydantic": ("settings.py",),
    "click": ("cli/", "cli.py", "orchestrator/"),
}

#: The house says 250; a module of 300 is looked at, one of 310 is refused. These are longer, each for a reason.
MAX_LINES, LONG_LINES = 310, 400
LONG = {
    "settings.py": "one list of every variable",
    "jobqueue/queue.py": "every move of a job in one class",
}

MODULES = sorted(
    path
    for path in (*ROOT.glob("*.py"), *(found for package in FLOORS for found in (ROOT / package).rglob("*.py")))
    if "__pycache__" not in path.parts
)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def home(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_downwards_and_each_library_has_one_door(path: Path) -> None:
    mine, name = home(path), path.relative_to(ROOT).as_posix()
    assert mine in FLOORS, f"{mine} has no floor; give it one in this file"
    for module in imports(path):
        other = module.split(".")[0]
        if other in FLOORS and other != mine and (mine, other) not in NEIGHBOURS:
            assert FLOORS[other] < FLOORS[mine], f"{name} imports {module}, which is not below it"
        if other in DOORS:
            assert name.startswith(DOORS[other]), f"{name} imports {module}; its door is {DOORS[other] or 'closed'}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_settings_reads_the_environment(path: Path) -> None:
    if path.name == "settings.py":
        return
    tree = ast.parse(path.read_text())
    names = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    ]
    assert not {"environ", "getenv", "putenv"} & set(names), f"{path.name} reads the environment; settings.py does that"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_are_for_and_stay_short(path: Path) -> None:
    source, name = path.read_text(), path.relative_to(ROOT).as_posix()
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), f"{name} does not say what it is for"
    assert len(source.splitlines()) <= (LONG_LINES if name in LONG else MAX_LINES), f"{name} is too long: is it one thing?"


def test_the_catch_all_stands_in_one_place() -> None:
    allowed = {"jobqueue/worker.py", "service.py"}
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id == "Exception":
                found.add(path.relative_to(ROOT).as_posix())
    assert found <= allowed, f"`except Exception` outside of work(): {sorted(found - allowed)}"
