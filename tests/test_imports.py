import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import analytics_batcher

PACKAGE = "analytics_batcher"
FOLDER = Path(analytics_batcher.__file__).parent
ROOT = FOLDER.parent

# The import law: a part imports parts of lower steps only, so no two of one step know each other and there is no cycle.
# A part is a module, or a folder of several of one kind. What is not named here is outside, on top of the client.
STEPS = [
    {"version", "errors", "answer", "stamp", "encoding", "plain", "settings", "text", "log", "off_loop"},
    {"message", "batch", "connection", "retry", "stats", "lifecycle", "calls", "streams"},
    {"given", "buffers", "destinations", "transport", "dead_letters", "report", "sender", "options"},
    {"before_send"},
    {"delivery"},
    {"consumer"},
    {"concurrency"},
    {"pipeline"},
    {"lanes", "direct", "environment"},
    {"fleet"},
    {"assembly"},
    {"client", "signals"},
]
STEP_OF = {part: step for step, parts in enumerate(STEPS) for part in parts}
OUTSIDE = len(STEPS)
KINDS = {"buffers", "destinations", "integrations"}
# What the consumer's thread runs: it may import nothing that is not there already (a fork, the interpreter's end).
IN_THE_CONSUMER = {
    *(
        "consumer",
        "pipeline",
        "before_send",
        "delivery",
        "report",
        "transport",
        "connection",
        "retry",
        "message",
        "encoding",
        "plain",
        "batch",
        "stats",
        "log",
        "dead_letters",
    ),
    *(
        "buffers",
        "buffers.memory",
        "buffers.spool",
        "buffers.spool_books",
        "buffers.spool_lines",
        "buffers.spool_heirs",
        "buffers.owners",
        "stamp",
        "text",
    ),
    *("destinations.vitally", "destinations.customerio", "destinations.segment"),
}
# The same of a client whose buffer is Redis; nobody else loads these.
IN_A_PRODUCER = {"fleet.shipping", "fleet.server", "fleet.entries"}
# Modules that are one implementation together.
TOGETHER = [
    {
        f"{PACKAGE}.buffers.{name}"
        for name in (
            "sqlite",
            "spool",
            "spool_books",
            "spool_lines",
            "spool_heirs",
            "spool_file",
            "spool_statements",
            "spool_connections",
            "spool_schema",
            "spool_disk",
            "owners",
        )
    }
]
HEAVY = ["requests", "sqlite3", "redis", "urllib3", "orjson", "backoff", "dateutil", "logging", "ssl"]


class Import(NamedTuple):
    """One import: the name that is imported, where, and whether only inside a function."""

    name: str
    place: str
    deferred: bool


def _name_of(path):
    parts = [PACKAGE, *path.relative_to(FOLDER).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name_of(path): path for path in sorted(FOLDER.rglob("*.py"))}


def _statements(tree, *, deferred=False):
    """Every import under `tree` that can run, and whether it is inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, deferred
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _statements(ast.Module([other], []), deferred=deferred)
        else:
            inside = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _statements(node, deferred=inside)


def _imports(name):
    """What a module imports, by full names: of `from x import y` it is `x.y` if that is a module of ours, else `x`."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node, deferred in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        place = f"{path.relative_to(ROOT)}:{node.lineno}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, place, deferred)
            continue
        source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        for alias in node.names:
            full = f"{source}.{alias.name}"
            yield Import(full if full in MODULES else source, place, deferred)


def _own_imports(name):
    return [one for one in _imports(name) if one.name.partition(".")[0] == PACKAGE]


def _are_one(name, other):
    """Whether two modules are parts of one implementation."""
    return any({name, other} <= modules for modules in TOGETHER)


def _part(name):
    """The part of the package that a module belongs to; nothing for the package itself."""
    return name.split(".")[1] if "." in name else ""


def _step(name):
    return STEP_OF.get(_part(name), OUTSIDE)


def _in_fresh_python(program, cwd=ROOT, *options):
    """What a program, run in a Python of its own, prints as JSON."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"
    command = [sys.executable, "-B", "-W", "error", *options, "-c", program]
    # This process has imported the package already: what that did to the environment is not to be inherited.
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, check=False, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


# --- The import law ---------------------------------------------------------------------------------------------------


def test_the_law_is_about_this_package():
    """The law names parts that are there, and the reader of imports sees them."""
    parts = {_part(name) for name in MODULES}
    assert {"errors", "message", "buffers", "destinations", "transport", "consumer", "client"} <= parts
    assert f"{PACKAGE}.buffers" in {one.name for one in _own_imports(f"{PACKAGE}.buffers.memory")}
    assert f"{PACKAGE}.errors" in {one.name for one in _own_imports(f"{PACKAGE}.message")}
    assert len(STEP_OF) == sum(map(len, STEPS))


@pytest.mark.parametrize("name", [name for name in MODULES if _step(name) < OUTSIDE])
def test_imports_go_downwards(name):
    """A part imports nothing of its own step or above: siblings do not know each other, and nobody knows the client."""
    wrong = [
        f"{one.place} imports {one.name}"
        for one in _own_imports(name)
        if _part(one.name) != _part(name) and not (_part(one.name) and _step(one.name) < _step(name))
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("name", [name for name in MODULES if _part(name) in KINDS])
def test_siblings_do_not_import_each_other(name):
    """In a folder of one kind a module imports the contract, and the contract imports none of them."""
    contract = f"{PACKAGE}.{_part(name)}"
    wrong = [
        f"{one.place} imports {one.name}"
        for one in _own_imports(name)
        if _part(one.name) == _part(name)
        and (name == contract or one.name != contract)
        and not _are_one(name, one.name)
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("part", ["consumer", "pipeline"])
def test_the_loop_knows_contracts_only(part):
    """The consumer knows the contracts of a buffer and of a sender, and no implementation of either."""
    known = {one.name.removeprefix(f"{PACKAGE}.") for one in _own_imports(f"{PACKAGE}.{part}")}
    assert not known & {"delivery", "transport", "destinations", "message", "encoding"}
    assert not [name for name in known if name.startswith(("buffers.", "destinations."))]


@pytest.mark.parametrize(
    ("part", "strangers"),
    [
        ("buffers", {"message", "encoding", "batch", "retry"}),
        ("transport", {"destinations", "message", "batch", "stamp", "retry"}),
        ("destinations", {"transport", "buffers", "delivery", "log"}),
        ("batch", {"message", "stamp", "encoding"}),
        ("dead_letters", {"destinations", "buffers", "transport", "report"}),
    ],
)
def test_each_part_minds_its_own(part, strangers):
    """Buffers never see what bytes mean, the transport never a vendor, a destination never a connection."""
    known = {_part(one.name): one.place for name in MODULES if _part(name) == part for one in _own_imports(name)}
    assert not strangers & known.keys(), known


@pytest.mark.parametrize("name", [name for name in MODULES if _part(name) == "destinations"])
def test_destinations_do_no_input_or_output(name):
    """A destination imports nothing with which to reach a network, a file, a clock or a thread."""
    forbidden = {"socket", "ssl", "http", "requests", "urllib3", "os", "io", "pathlib", "time", "threading", "asyncio"}
    tops = {one.name.partition(".")[0]: one.place for one in _imports(name)}
    assert not forbidden & tops.keys(), tops
    assert "urllib.request" not in {one.name for one in _imports(name)}


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("requests", {"transport"}),
        ("urllib3", {"connection"}),
        ("redis", {"fleet.server"}),
        ("sqlite3", {"buffers.spool_connections"}),
        ("orjson", {"encoding"}),
        ("rich", {"cli.drawing"}),
        ("django", {"integrations.django"}),
        ("flask", {"integrations.flask"}),
        ("celery", {"integrations.celery"}),
        ("starlette", set()),
        ("fastapi", set()),
    ],
)
def test_a_library_is_imported_in_one_file(library, homes):
    """What we depend on is known to one file, so that it can be replaced there."""
    users = {
        name.removeprefix(f"{PACKAGE}."): one.place
        for name in MODULES
        for one in _imports(name)
        if one.name.partition(".")[0] == library
    }
    assert users.keys() <= homes, users


def test_the_library_does_not_need_its_tools():
    """What stands outside, the receiver and the command line among it, is imported by nothing inside."""
    wrong = [
        f"{one.place} imports {one.name}"
        for name in MODULES
        if _step(name) < OUTSIDE
        for one in _own_imports(name)
        if _step(one.name) == OUTSIDE and one.name != PACKAGE
    ]
    assert not wrong, wrong


def test_the_receiver_does_not_know_its_page():
    """A test's stand-in loads nothing of the live page, which is put upon it by `inspect` alone."""
    users = {name for name in MODULES for one in _own_imports(name) if _part(one.name) == "live" != _part(name)}
    assert users == {f"{PACKAGE}.cli.inspect"}
    program = "import json, analytics_batcher.receiver\nprint(json.dumps(sorted(sys.modules)))\n"
    assert not [name for name in _in_fresh_python(program) if name.startswith(f"{PACKAGE}.live")]


# --- What an import costs ---------------------------------------------------------------------------------------------

IMPORT = """
import _thread, atexit, json, os
written = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def audit(event, arguments):
    if event == "open" and (arguments[2] or 0) & WRITES:
        written.append(f"open {arguments[0]}")
    elif event.startswith(("socket.", "subprocess.", "os.mkdir", "os.remove", "os.rename", "os.putenv")):
        written.append(event)
sys.addaudithook(audit)
before = set(sys.modules)
hooks, environment = atexit._ncallbacks(), dict(os.environ)
import analytics_batcher
found = {
    "modules": sorted(set(sys.modules) - before),
    "hooks": atexit._ncallbacks() - hooks,
    "threads": _thread._count(),
    "written": written,
    "environment": dict(os.environ) == environment,
}
print(json.dumps(found))
"""


@pytest.fixture
def imported(tmp_path):
    """What importing the package did to a fresh interpreter, in a folder with an application's `.env` in it."""
    (tmp_path / ".env").write_text("ANALYTICS_BATCHER_VITALLY_API_TOKEN=from-the-file\n")
    found = _in_fresh_python(IMPORT, tmp_path, "-I")
    found["files"] = [path.name for path in tmp_path.iterdir()]
    return found


def test_import_loads_nothing_heavy(imported):
    """Importing the package loads none of its dependencies, and of itself next to nothing."""
    loaded = {name.partition(".")[0] for name in imported["modules"]}
    assert not loaded & {*HEAVY}
    assert {name for name in imported["modules"] if name.startswith(PACKAGE)} == {PACKAGE, f"{PACKAGE}.version"}


def test_import_does_nothing(imported):
    """Importing the package starts no thread, registers no exit hook, writes nothing and changes no environment."""
    assert imported["threads"] == 0
    assert imported["hooks"] == 0
    assert imported["written"] == []
    assert imported["environment"]
    assert imported["files"] == [".env"]


def test_logging_is_left_to_the_application():
    """Importing the package and every name in it, and making a client, leaves the application's logging as it was."""
    program = (
        "import json, analytics_batcher\n"
        "for name in analytics_batcher.__all__: getattr(analytics_batcher, name)\n"
        "analytics_batcher.Client(analytics_batcher.Vitally('acme', api_token='t'), background=False).shutdown(0)\n"
        "import logging\n"
        "root = logging.getLogger()\n"
        "print(json.dumps([len(root.handlers), root.level, logging.root.manager.disable]))\n"
    )
    assert _in_fresh_python(program) == [0, 30, 0]


@pytest.mark.parametrize("name", ["asgi", "aws_lambda"])
def test_glue_loads_nothing_heavy(name):
    """What names no framework needs none, and loads of this package only itself: it is imported at a cold start."""
    program = f"import json, analytics_batcher.integrations.{name}\nprint(json.dumps(sorted(sys.modules)))\n"
    loaded = _in_fresh_python(program)
    assert not {one.partition(".")[0] for one in loaded} & {"starlette", "asyncio", "requests", "urllib3"}
    ours = {one for one in loaded if one.startswith(PACKAGE)}
    assert ours == {PACKAGE, f"{PACKAGE}.version", f"{PACKAGE}.integrations", f"{PACKAGE}.integrations.{name}"}


def test_messages_need_no_network():
    """Making a destination loads nothing that talks to a network: only a client does."""
    program = (
        "import json, analytics_batcher\n"
        "analytics_batcher.Vitally('acme', api_token='t'), analytics_batcher.Retry(), analytics_batcher.Stats()\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    loaded = {name.partition(".")[0] for name in _in_fresh_python(program)}
    assert not loaded & {"requests", "urllib3", "ssl", "http", "redis", "sqlite3"}


def _deferred(parts):
    """What modules import where they use it, and where that is."""
    return {
        one.name: one.place
        for part in parts
        if f"{PACKAGE}.{part}" in MODULES
        for one in _imports(f"{PACKAGE}.{part}")
        if one.deferred
    }


def _loaded_with_client(options=""):
    """The modules that are there once a client was made."""
    return _in_fresh_python(
        "import json\nfrom analytics_batcher import Client, RedisBuffer, Vitally\n"
        f"client = Client(Vitally('acme', api_token='t'), background=False, {options})\n"
        "loaded = sorted(sys.modules)\nclient.shutdown(0)\nprint(json.dumps(loaded))\n"
    )


def test_client_loads_what_its_consumer_needs():
    """Whatever the consumer's modules import where they use it was loaded with the client, in its caller's thread."""
    needed = _deferred(IN_THE_CONSUMER)
    assert "backoff" in needed
    missing = needed.keys() - {*_loaded_with_client()}
    assert not missing, {name: needed[name] for name in missing}


def test_only_a_producer_loads_redis():
    """What the sender to Redis needs is loaded with its client, and with no other."""
    needed = _deferred(IN_THE_CONSUMER | IN_A_PRODUCER)
    assert "redis" in needed
    missing = needed.keys() - {*_loaded_with_client("buffer=RedisBuffer('redis://127.0.0.1:9')")}
    assert not missing, {name: needed[name] for name in missing}
    for options in ("", "buffer=RedisBuffer('redis://127.0.0.1:9'), enabled=False"):
        loaded = {*_loaded_with_client(options)}
        assert "redis" not in loaded
        assert not {f"{PACKAGE}.{part}" for part in IN_A_PRODUCER} & loaded


# --- The public names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", analytics_batcher.__all__)
def test_public_name_exists(name):
    """Every public name is there, is listed, and belongs to the package."""
    value = getattr(analytics_batcher, name)
    assert name in dir(analytics_batcher)
    assert value is getattr(analytics_batcher, name)
    if isinstance(value, type):
        assert value.__name__ == name
        assert value.__module__.partition(".")[0] == PACKAGE
        assert value.__doc__


def test_public_names_are_listed_once_and_before_they_are_used():
    """`dir()` of the package, freshly imported, has every public name, and `__all__` has each once and in order."""
    program = "import json, analytics_batcher\nprint(json.dumps([analytics_batcher.__all__, dir(analytics_batcher)]))\n"
    names, listed = _in_fresh_python(program)
    assert names == sorted(set(names))
    assert set(names) <= set(listed)


def test_public_names_come_with_a_star():
    """`from analytics_batcher import *` brings every public name."""
    program = "import json\nfrom analytics_batcher import *\nprint(json.dumps(sorted(globals())))\n"
    assert {*analytics_batcher.__all__} <= {*_in_fresh_python(program)}


def test_type_checkers_see_the_same_names():
    """What is imported for type checkers is what is loaded at run time: each name from the module it is loaded from."""
    tree = ast.parse(MODULES[PACKAGE].read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen.keys() == {*analytics_batcher.__all__} - {"__version__"}
    for name, module in seen.items():
        home = importlib.import_module(f"{PACKAGE}.{module}")
        assert getattr(home, name) is getattr(analytics_batcher, name)


@pytest.mark.parametrize("name", ["client_", "Cleint", "_nothing", "__wrapped__"])
def test_unknown_name(name):
    """A name that is not there is an `AttributeError` that says so, as in any module."""
    with pytest.raises(AttributeError, match=rf"^module 'analytics_batcher' has no attribute '{name}'$"):
        getattr(analytics_batcher, name)
    assert not hasattr(analytics_batcher, name)


def test_unknown_name_cannot_be_imported():
    """`from analytics_batcher import` of an unknown name is an `ImportError`."""
    with pytest.raises(ImportError):
        exec("from analytics_batcher import Cleint", {})  # noqa: S102 - as an application would
