"""What the host's own code never does: make code or objects out of what it was sent (attack 57)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOST = ("agent", "tasks", "traces", "sandboxes", "marple")
INSIDE = ROOT / "sandboxes" / "inside"
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "runpy.run_path",
    "runpy.run_module", "pd.read_pickle", "zipfile.ZipFile.extractall", "shutil.unpack_archive",
}  # fmt: skip


_SAFE_LOADER = re.compile(r"yaml\.C?SafeLoader|getattr\(yaml, 'CSafeLoader', yaml\.SafeLoader\)")
"""What reads the values of JSON and nothing else, in C where that is built in."""


def faults(source: str) -> list[str]:
    """The calls and imports in a source that would let data decide what runs."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            found += _call(node)
    return found


def _call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    keywords = {one.arg: one.value for one in node.keywords if one.arg}
    if name == "yaml.load" and _SAFE_LOADER.fullmatch(ast.unparse(keywords.get("Loader", node.func))):
        return []
    found = [name] if name in CALLS or name.endswith((".extractall", ".read_pickle")) else []
    for keyword in ("shell", "allow_pickle", "trust_remote_code"):
        value = keywords.get(keyword)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            found.append(f"{name}({keyword}=...)")
    if name in ("np.load", "numpy.load") and "allow_pickle" not in keywords:
        found.append(f"{name} without allow_pickle=False")
    return found


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if not path.is_relative_to(INSIDE) and "__pycache__" not in path.parts]


def test_nothing_on_the_host_makes_code_or_objects_out_of_data() -> None:
    found = {path.relative_to(ROOT).as_posix(): bad for path in sources(*HOST) if (bad := faults(path.read_text()))}
    assert len(sources(*HOST)) > 100
    assert {name: bad for name, bad in found.items() if not _training(name, bad)} == {}


def _training(name: str, bad: list[str]) -> bool:
    """Checkpoints of one's own training, in the builder's own cache; nothing of them comes from outside."""
    safe = "weights_only=True" in (ROOT / name).read_text()
    return name.startswith("tasks/organisms/") and set(bad) == {"torch.load"} and safe


def test_the_worker_reads_one_kind_of_pickle_with_the_loader_that_takes_numbers_alone() -> None:
    """The ``ae.pt`` of dictionary_learning; the module ``pickle`` is there imported for the name of its error."""
    found = {}
    for path in sources("tools"):
        # The code worker runs code: that is what it is for.
        if not path.is_relative_to(ROOT / "tools" / "code") and (bad := faults(path.read_text())):
            found[path.relative_to(ROOT).as_posix()] = bad
    assert found == {"tools/saes/files.py": ["pickle", "torch.load"]}
    tree = ast.parse((ROOT / "tools" / "saes" / "files.py").read_text())
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in names if name.startswith("pickle")} == {"pickle.UnpicklingError"}
    (load,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load")
    assert "weights_only=True" in ast.unparse(load)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from cloudpickle import loads", "eval(x)", "exec(x)", "torch.load(f)", "np.load(f)",
        "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=x)", "yaml.load(t)", "__import__(name)",
        "yaml.load(t, Loader=yaml.UnsafeLoader)", "yaml.load(t, Loader=loader)", "yaml.load(t, yaml.FullLoader)",
        "subprocess.run(x, shell=True)", "os.system(x)", "archive.extractall(p)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "np.load(f, allow_pickle=False)",
        "yaml.safe_load(t)",
        "yaml.load(t, Loader=yaml.CSafeLoader)",
        "re.compile(x)",
        "model.eval()",
    ],
)
def test_the_search_finds_nothing_else(source: str) -> None:
    assert not faults(source)


OWN_NAMES = {
    "agent/evaluation/executor.py": "f'marple.agent.evaluation.{name}_executor'",
    "agent/endpoint_bench.py": "f'marple.tools.experiments.{name}'",
    "agent/investigators/__init__.py": "f'{__name__}.{module.name}'",
    "agent/methods/__init__.py": "name",
    "agent/models/providers.py": "module",
    "sandboxes/backend.py": "info.name",
    "tasks/kind.py": "f'marple.tasks.kinds.{module.name}'",
    "tasks/organisms/planted.py": "f'marple.tasks.organisms.{module.name}'",
}
"""Modules found in packages of Marple's own, or named in one of its tables: providers, kinds, executors, tools."""


def test_modules_are_imported_by_names_of_the_programs_own() -> None:
    found = {}
    for path in sources(*HOST):
        for node in ast.walk(ast.parse(path.read_text())):
            imports = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
            if isinstance(node, ast.Call) and imports and not isinstance(node.args[0], ast.Constant):
                found[path.relative_to(ROOT).as_posix()] = ast.unparse(node.args[0])
    assert {name: what for name, what in found.items() if OWN_NAMES.get(name) != what} == {}


def test_no_template_of_a_models_is_rendered_and_no_picture_or_archive_is_opened_on_the_host() -> None:
    readers = {"jinja2", "PIL", "tarfile", "gzip", "bz2", "lzma", "zlib", "transformers"}
    found = {}
    for path in sources("agent", "traces", "sandboxes", "marple"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
        if bad := names & readers:
            found[path.relative_to(ROOT).as_posix()] = bad
    assert {name: bad for name, bad in found.items() if not _own(name, bad)} == {}


def _own(name: str, bad: set[str]) -> bool:
    """An archive that is packed for Docker, and templates that are files of the package; data only fills them in."""
    if name == "sandboxes/docker/images.py":
        return bad == {"tarfile"}
    source = (ROOT / name).read_text()
    given = {
        "traces/review/pages.py": ["FileSystemLoader(_HERE / 'templates')"],
        "agent/evaluation/report_html.py": ["environment.from_string(_file('report.html'))"],
    }.get(name)
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    loads = [
        ast.unparse(call) for call in calls if ast.unparse(call.func).endswith(("Loader", "from_string", "Template"))
    ]
    return bad == {"jinja2"} and loads == given and "autoescape=True" in source
