"""The layout's promises: who imports whom, what the core must not know, what files are called."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.house import MOST_MODULE_LINES, House, count

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "service", "client", "training", "deploy")
WEB = {"fastapi", "starlette", "uvicorn", "uvloop", "redis", "openai", "httpx", "httpx2"}
DECORD = "decord"  # reads trusted files in training alone: it opens addresses that a file names
FORBIDDEN = {
    "model": {"service", "kshot_client", "training", "deploy", "tests", DECORD} | WEB,
    "service": {"kshot_client", "training", "deploy", "tests", DECORD},
    # a distribution of its own, for machines that have nothing else of kshot
    "kshot_client": {"model", "service", "training", "deploy", "tests", "torch", "numpy", DECORD}
    | (WEB - {"httpx"}),
    "training": {"service", "kshot_client", "deploy", "tests"} | (WEB - {"httpx", "openai"}),
    "deploy": {"tests"},
}
# These rooms of the service know no HTTP, and reach nothing that does.
WITHOUT_HTTP = ("service.tasks", "service.stores", "service.decoding", "service.engine")
HTTP = {"fastapi", "starlette", "uvicorn"}
MOST_FOLDER_MODULES = 14
# These still break the rule; whoever works on one makes it shorter and takes it out.
LONG_FUNCTIONS = {"_attend"}  # a kernel on CUDA is one function
FACE = "kshot_client"  # what people import a client from
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "misc", "base"}
# Whatever an untrusted byte meets must start fast and stay small: no tensors in these processes.
TORCHLESS = ("model.media.video", "service.decoding.worker")
TENSORS = {"torch", "torchvision", "timm", "open_clip", "onnxruntime"}
# A lent GPU's machine has torch, and neither codecs nor stores nor a web framework.
BARE = ("tests.cuda.test_cuda", "tests.bench.bench_engine", "tests.bench.bench_runtime")
LACKED = {"av", "redis", "fastapi", "uvicorn"}
# Inside model/, a module imports only from lower steps or its own; a name that is not listed
# stands on the step of the network's parts.
MODEL_STEPS = (
    {"errors", "files"},
    {"media", "text"},
    {"config"},
    {"methods"},
    {"(parts of the network)"},
    {"encoder"},
    {"passes"},
    {"recognizer"},
    {"assembly", "saliency"},
    {"checkpoint"},
    {"export"},
)
PARTS = 4


def name_of(path: Path) -> str:
    """Name a file as Python imports it: `model/adapters/aim.py` is `model.adapters.aim`."""
    root = ROOT / "client" if path.is_relative_to(ROOT / "client") else ROOT
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
MODULES = sorted(FILES)


@cache
def tree_of(name: str) -> ast.Module:
    """Parse a module."""
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


@cache
def nodes_of(name: str) -> Sequence[ast.AST]:
    """Every node of a module."""
    return tuple(ast.walk(tree_of(name)))


@cache
def imported(module: str) -> Set[str]:
    """Every dotted name that a module imports, wherever in it, `from a import b` as `a.b`."""
    names: set[str] = set()
    for node in nodes_of(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def tops(module: str) -> Set[str]:
    """The packages that a module imports something of."""
    return {name.partition(".")[0] for name in imported(module)}


@cache
def ours(module: str) -> Set[str]:
    """Other modules of ours that a module imports: `model.errors.ClipError` is `model.errors`."""
    found = set()
    for name in imported(module):
        while name and name not in FILES:
            name = name.rpartition(".")[0]
        found |= {name} - {"", module}
    return found


def reachable(start: str) -> set[str]:
    """Walk the import graph: `start` and every module of ours that it loads."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += ours(name)
    return seen


def step_of(name: str) -> int:
    """Place a module of `model` on its step."""
    first = name.split(".")[1]
    return next((step for step, names in enumerate(MODEL_STEPS) if first in names), PARTS)


def test_imports_point_inwards() -> None:
    wrong = {name: tops(name) & FORBIDDEN[name.partition(".")[0]] for name in MODULES}
    assert not {name: found for name, found in wrong.items() if found}


def test_decord_is_named_in_training_alone() -> None:
    named = [
        (name, node.lineno)
        for name in MODULES
        if not name.startswith("training.")
        for node in nodes_of(name)
        if isinstance(node, ast.Constant) and node.value == DECORD
    ]
    assert not named


def test_no_import_is_relative() -> None:
    relative = [
        (name, node.lineno)
        for name in MODULES
        for node in nodes_of(name)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_no_import_cycle() -> None:
    try:
        TopologicalSorter({name: ours(name) for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))


def test_core_imports_point_down() -> None:
    higher = [
        (name, other)
        for name in MODULES
        if name.startswith("model.")
        for other in ours(name)
        if other.startswith("model.") and step_of(other) > step_of(name)
    ]
    assert not higher


def test_core_reads_no_environment() -> None:
    reads = [
        (name, node.lineno)
        for name in MODULES
        if name.startswith("model")
        for node in nodes_of(name)
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"})
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {alias.name for alias in node.names} & {"environ", "getenv", "environb"}
        )
    ]
    assert not reads


def test_use_cases_and_what_they_use_know_no_http() -> None:
    starts = [name for name in MODULES if name.startswith(WITHOUT_HTTP)]
    assert starts
    for start in starts:
        for name in reachable(start):
            assert not tops(name) & HTTP, f"{start} reaches {name}"
            assert not name.startswith("service.http"), f"{start} reaches {name}"


def test_decoder_processes_name_no_tensor_library() -> None:
    for start in TORCHLESS:
        for name in reachable(start):
            assert not tops(name) & TENSORS, f"{start} reaches {name}"


MEDIA = (
    *("container", "decoding", "display", "headers", "keys", "pictures", "sampling"),
    *("tones", "video", "walk"),
)


def test_a_decoder_holds_few_modules_of_ours() -> None:
    reached = {name for name in reachable("service.decoding.worker") if "__init__" not in name}
    media = {f"model.media.{name}" for name in MEDIA}
    service = {f"service.decoding.{name}" for name in ("protocol", "sandbox", "worker")}
    assert reached - {"model", "service", "model.media"} <= media | service | {"model.errors"}


def loaded(start: Iterable[str], names: set[str]) -> str:
    """Name those packages that a fresh process holds after it has imported some modules."""
    script = f"import sys, {', '.join(start)}; print(*sorted(set(sys.modules) & {names!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_decoder_processes_load_no_tensor_library() -> None:
    assert loaded(TORCHLESS, TENSORS) == ""


def test_a_decoder_loads_neither_an_event_loop_nor_random_numbers() -> None:
    assert loaded(["service.decoding.worker"], {"asyncio", "numpy.random"}) == ""


def test_what_a_bare_machine_with_a_gpu_runs_loads_nothing_it_lacks() -> None:
    assert loaded(BARE, LACKED) == ""


def test_no_request_is_sent_through_a_thread_by_the_framework() -> None:
    routes = [name for name in MODULES if name.startswith("service.http.routes")]
    nodes = [node for name in routes for node in nodes_of(name)]
    depended = {
        argument.id
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Depends"
        for argument in node.args
        if isinstance(argument, ast.Name)
    }
    plain = {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef)
        and (
            node.name in depended
            or any("router." in ast.unparse(each) for each in node.decorator_list)
        )
    }
    assert depended
    assert not plain


SPAWNING = {"create_task", "ensure_future", "TaskGroup", "run_coroutine_threadsafe"}


def test_one_module_spawns_tasks_and_it_takes_their_errors() -> None:
    nodes = [
        (name, node) for name in MODULES if name.startswith("service") for node in nodes_of(name)
    ]
    spawned = [
        name
        for name, node in nodes
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in SPAWNING
    ]
    assert spawned == ["service.background"]
    kept = [
        (name, ast.unparse(node))
        for name, node in nodes
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "spawn"
    ]
    assert not kept, "asyncio forgets a task that nobody keeps"


def test_no_file_is_a_drawer() -> None:
    folders = [ROOT / name for name in (*PACKAGES, "tests")]
    drawers = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in folder.rglob("*")
        if path.stem in FORBIDDEN_NAMES
    ]
    assert not drawers


@pytest.fixture(scope="module")
def house() -> House:
    try:
        return count(ROOT)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: no list of tracked files")


def test_modules_are_short(house: House) -> None:
    long = {path: n for path, n in house.modules.items() if n > MOST_MODULE_LINES}
    assert not long, long


def test_functions_are_short(house: House) -> None:
    long = {function.name for function in house.long_functions}
    assert long <= LONG_FUNCTIONS, house.long_functions


def test_folders_are_small(house: House) -> None:
    full = {
        path: n
        for path, n in Counter(str(Path(path).parent) for path in house.modules).items()
        if n > MOST_FOLDER_MODULES
    }
    assert not full


def test_nothing_refers_out_of_the_repository(house: House) -> None:
    assert not house.outside


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in FILES.values()}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_package_file_is_one_docstring_line() -> None:
    names = [name for name in MODULES if FILES[name].name == "__init__.py" and name != FACE]
    assert names
    for name in names:
        assert len(tree_of(name).body) == 1, name
        text = ast.get_docstring(tree_of(name))
        assert text, name
        assert "\n" not in text, name


def test_the_client_s_face_only_names_what_is_public() -> None:
    text, *imports, names = tree_of(FACE).body
    assert isinstance(text, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert ast.unparse(names).startswith("__all__ = ")


def test_top_level_holds_what_the_design_names() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: no list of tracked files")
    tops = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert tops <= {
        *("pyproject.toml", "constraints.txt", "Makefile", "Dockerfile", "compose.yaml"),
        *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"),
        *("model", "service", "client", "training", "deploy", "docs", "tests"),
        *(".ci", ".gitignore", ".dockerignore"),
    }
