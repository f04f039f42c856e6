"""The shape of the code: who imports whom, how large things are, what is never done."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [ROOT / "t2ialign", ROOT / "rewards"]
SOURCES = sorted(file for package in PACKAGES for file in package.rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LAYERS = {
    "config",
    "data",
    "diffusion",
    "evaluation",
    "io",
    "methods",
    "models",
    "objectives",
    "overrides",
    "peers",
    "progress",
    "renamed",
    "api",
    "rewriting",
    "scoring",
    "tasks",
    "toy",
    "training",
    "web",
}
# Who may import which parts of this project; cli may import all of them, and scripts the cli too.
ALLOWED: dict[str, set[str]] = {
    "rewards": {"rewards"},
    "diffusion": set(),
    "objectives": set(),
    "peers": {"rewards.renamed"},
    "progress": set(),
    "io": set(),
    "renamed": {"peers", "rewards.renamed"},
    "config": {"io", "peers", "renamed"},
    "overrides": {"config", "peers"},
    "models": {
        "diffusion",
        "io",
        "rewards.assets",
        "rewards.device",
        "rewards.foreign",
        "rewards.hub",
        "rewards.permissions",
        "rewards.renamed",
        "rewards.tensor_files",
        "rewards.towers.clip_tokenizer",
        "rewards.weights",
    },
    "data": {"models", "diffusion", "io", "progress", "rewards.tensor_files"},
    "evaluation": {"rewards", "models", "diffusion", "data", "io", "progress"},
    "web": {"rewards", "data", "evaluation", "io"},
    "toy": {"rewards", "models", "diffusion", "data", "evaluation", "io"},  # it reports its own accuracy
    "scoring": {"rewards", "data", "evaluation", "io", "progress", "web"},
    "rewriting": {"rewards", "models", "data", "evaluation", "io", "progress", "web"},
    "training": {
        "config",
        "data",
        "diffusion",
        "evaluation",
        "io",
        "models",
        "objectives",
        "peers",
        "progress",
        "rewards",
        "rewriting",
    },
}
ALLOWED["methods"] = {*ALLOWED["training"], "training"}
ALLOWED["tasks"] = LAYERS - {"api"} | {"rewards"}
ALLOWED["api"] = {"io", "models", "renamed", "rewards", "rewriting", "scoring", "tasks"}
PURE = {"diffusion", "objectives"}  # torch and the standard library only
REWARDS_NEED = {
    "torch",
    "torchvision",
    "transformers",
    "open_clip",
    "scipy",
    "sklearn",
    "numpy",
    "PIL",
    "safetensors",
    "huggingface_hub",
    "anyio",
    "httpx",
    "tenacity",
}
# Of one scorer, imported when it is built.
LAZY_EXTRAS = {"networks.py": {"diffusers"}, "released.py": {"diffusers"}, "ocr.py": {"rapidocr"}}
NEVER = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "imp"}

MAX_LINES, MAX_FUNCTION, MAX_POSITIONAL = 300, 60, 6


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(dotted: str) -> str:
    """The part of the project a module belongs to: "rewards", a folder of t2ialign, or a verb's own name."""
    parts = dotted.split(".")
    return parts[0] if parts[0] != "t2ialign" else parts[1] if len(parts) > 1 else "t2ialign"


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"relative import of {node.module} at line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(home: str, dotted: str) -> bool:
    """Whether a module of layer `home` may not import `dotted`."""
    top, other = dotted.split(".")[0], layer(dotted)
    if top == "scripts" or (top == "t2ialign" and other == "cli"):
        return home not in ("cli", "__main__")
    if top not in ("t2ialign", "rewards") or home not in ALLOWED or other == home:
        return False
    if top == "t2ialign" and other not in LAYERS:
        return other not in ("t2ialign", "version")  # a layer below must not reach up to a verb
    return not any(dotted == part or dotted.startswith(part + ".") or other == part for part in ALLOWED[home])


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_dependency_rule(file):
    home = layer(module(file))
    wrong = [dotted for dotted in imports(ast.parse(file.read_text())) if breaches(home, dotted)]
    assert not wrong, f"{name(file)} ({home}) imports {wrong}"


@pytest.mark.parametrize(
    ("home", "dotted", "wrong"),
    [
        ("diffusion", "t2ialign.models.base.Policy", True),
        ("objectives", "t2ialign.diffusion.path.Kind", True),
        ("models", "t2ialign.diffusion.path.Kind", False),
        ("models", "rewards.assets.folder", False),
        ("models", "rewards.base.Reward", True),
        ("data", "t2ialign.training.base", True),
        ("training", "t2ialign.toy.render", True),
        ("training", "t2ialign.evaluation.statistics", False),
        ("evaluation", "t2ialign.cli.demo.run", True),
        ("evaluation", "t2ialign.toy.render", True),
        ("cli", "t2ialign.toy.render", False),
        ("methods", "t2ialign.cli.main.main", True),
        ("rewards", "t2ialign.data", True),
        ("rewards", "scripts.build_toy", True),
        ("models", "t2ialign.version.__version__", False),
        ("models", "t2ialign.sample", True),
    ],
)
def test_the_rule_says_what_the_architecture_says(home, dotted, wrong):
    assert breaches(home, dotted) is wrong


def import_graph(files: list[Path]) -> dict[str, set[str]]:
    """Module -> the modules of `files` that it imports, under TYPE_CHECKING and within functions too.

    Importing a module also imports the packages around it; that is not counted, nor `import_module(name)`,
    by which rewards and methods are found whose names a user gives.
    """
    modules = {module(file) for file in files}
    graph: dict[str, set[str]] = {}
    for file in files:
        targets = {
            dotted if dotted in modules else dotted.rpartition(".")[0]
            for dotted in imports(ast.parse(file.read_text()))
        }
        graph[module(file)] = targets & modules - {module(file)}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import one another, directly or through others: each set of them once, sorted."""

    def reached(start: str) -> set[str]:
        seen, waiting = set[str](), [start]
        while waiting:
            for other in graph[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    after = {node: reached(node) for node in graph}
    return [
        list(circle)
        for circle in sorted(
            {tuple(sorted(b for b in after[a] if a in after[b])) for a in graph if a in after[a]}
        )
    ]


def test_no_circle_of_files():
    assert circles(import_graph([*SOURCES, *SCRIPTS])) == []


def test_circles_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "p").mkdir()
    for stem, text in {
        "a": "from p import b",
        "b": "def f():\n    from p.c import thing",
        "c": "if TYPE_CHECKING:\n    import p.a",
        "d": "from p.a import b",
        "e": "from p import f",
        "f": "from p.e import something",
    }.items():
        (tmp_path / "p" / f"{stem}.py").write_text(text)
    graph = import_graph(sorted(tmp_path.rglob("*.py")))
    assert graph["p.d"] == {"p.a"}
    assert circles(graph) == [["p.a", "p.b", "p.c"], ["p.e", "p.f"]]


@pytest.mark.parametrize("file", [f for f in SOURCES if layer(module(f)) in PURE], ids=name)
def test_pure_layers_know_torch_only(file):
    tops = {dotted.split(".")[0] for dotted in imports(ast.parse(file.read_text()))}
    assert tops <= sys.stdlib_module_names | {"torch", "t2ialign"}, tops


@pytest.mark.parametrize("file", [f for f in SOURCES if layer(module(f)) == "rewards"], ids=name)
def test_rewards_know_scorers_only(file):
    tops = {dotted.split(".")[0] for dotted in imports(ast.parse(file.read_text()))}
    extra = LAZY_EXTRAS.get(file.name, set())
    assert tops <= sys.stdlib_module_names | REWARDS_NEED | {"rewards"} | extra, tops


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("file", [*SOURCES, *SCRIPTS], ids=name)
def test_sizes(file):
    """Lines are counted as `wc -l` counts them, blank ones included."""
    lines = len(file.read_text().splitlines())
    assert lines <= MAX_LINES, f"{name(file)} has {lines} lines"
    for node in functions(ast.parse(file.read_text())):
        assert node.end_lineno is not None
        long = node.end_lineno - node.lineno + 1
        assert long <= MAX_FUNCTION, f"{name(file)}: {node.name} has {long} lines"
        positional = [
            arg.arg for arg in node.args.posonlyargs + node.args.args if arg.arg not in ("self", "cls")
        ]
        assert len(positional) <= MAX_POSITIONAL, (
            f"{name(file)}: {node.name} takes {len(positional)} by position"
        )


@pytest.mark.parametrize("file", [*SOURCES, *SCRIPTS], ids=name)
def test_files_are_ascii(file):
    assert file.read_bytes().isascii()


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_public_names_are_documented(file):
    tree = ast.parse(file.read_text())
    assert file.name == "__main__.py" or ast.get_docstring(tree), f"{name(file)} does not say what it is for"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    bare = [
        n.name
        for n in tree.body
        if isinstance(n, kinds)
        and n.name[0] != "_"
        and not ast.get_docstring(n)
        and "overload" not in map(ast.unparse, n.decorator_list)  # its implementation has one
    ]
    assert not bare, f"{name(file)}: no docstring on {bare}"


@pytest.mark.parametrize("file", [*SOURCES, *SCRIPTS, *TESTS], ids=name)
def test_no_pickle(file):
    """A pickle runs code when it is opened: weights are safetensors, or torch.load(weights_only=True)."""
    tree = ast.parse(file.read_text())
    assert not {dotted.split(".")[0] for dotted in imports(tree)} & NEVER
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "torch.load",
            "load_state_dict_from_url",
        ):
            given = {word.arg: word.value for word in node.keywords}.get("weights_only")
            safe = isinstance(given, ast.Constant) and given.value is True
            assert safe, f"{name(file)}:{node.lineno}: torch.load without weights_only=True"


# Weights are written by rewards/tensor_files.py alone, so that equal ones are equal files.
WRITERS = {"save_file", "save_lora_weights", "save_model", "save_state", "serialize", "serialize_file"}
TORCH_SAVE = {
    "t2ialign/toy/fit.py",  # where the builder of the toy world goes on after a kill
    "scripts/bench_parts.py",  # an optimizer file whose opening is timed
}


def writes_of_weights(file: Path) -> Iterator[str]:
    """Calls that write weights, or what lies beside them, in a way of their own."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            by_library = last == "save_pretrained" and called not in (last, f"tensor_files.{last}")
            by_torch = called == "torch.save" and name(file) not in TORCH_SAVE
            if last in WRITERS or by_library or by_torch:
                yield f"{name(file)}:{node.lineno}: {called}"


@pytest.mark.parametrize("file", [f for f in [*SOURCES, *SCRIPTS] if f.name != "tensor_files.py"], ids=name)
def test_weights_are_written_in_one_place(file):
    assert not list(writes_of_weights(file)), "call write or save_pretrained of rewards.tensor_files"


def test_writers_of_weights_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "a.py"
    file.write_text(
        "save_file(x, y)\npipe.unet.save_pretrained(x)\ntorch.save(x, y)\nsafetensors.torch.save_file(x)\n"
        "save_pretrained(x, y)\ntensor_files.save_pretrained(x, y)\nimage.save(x)\ntensor_files.write(x, y)\n"
    )
    calls = [found.split(": ")[1] for found in writes_of_weights(file)]
    assert sorted(calls) == [
        "pipe.unet.save_pretrained",
        "safetensors.torch.save_file",
        "save_file",
        "torch.save",
    ]


@pytest.mark.parametrize("file", [*SOURCES, *SCRIPTS], ids=name)
def test_no_error_is_swallowed(file):
    """A bare except, or one of everything that only passes, turns a failure into a wrong number."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ExceptHandler):
            wide = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert not wide or raises, f"{name(file)}:{node.lineno} swallows every error"


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_every_module_imports(file):
    if file.name != "__main__.py":  # importing it would run it
        assert importlib.import_module(module(file))


# What belongs to others and may change without notice: (file, name) of each use we have to live with.
PRIVATE = {
    ("t2ialign/training/launch.py", "AcceleratorState._reset_state"),  # no other way to run twice
    ("t2ialign/models/adapters.py", "peft.tuners.tuners_utils.BaseTunerLayer"),  # how diffusers does it too
    ("t2ialign/toy/fit.py", "torch._foreach_lerp_"),
    ("scripts/experiments/online_cost.py", "diffusers.models.autoencoders.vae.Decoder"),  # counts images
    ("t2ialign/toy/fit.py", "torch.cpu._is_avx512_bf16_supported"),  # nothing public tells it
}
PUBLIC_DEEP = {
    *("torch.nn.functional", "torch.nn.attention", "torch.utils.checkpoint", "torch.utils.flop_counter"),
    *("torchvision.transforms.functional", "numpy.lib.format", "torch.nn.modules.module"),
}
"""Documented homes of names three levels down."""


def private_uses(file: Path) -> Iterator[tuple[str, str]]:
    """Underscored attributes that the file does not itself set, and imports from deep inside a package."""
    tree = ast.parse(file.read_text())
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own = {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in functions(tree)}
    for used in attributes:
        if used.attr.startswith("_") and not used.attr.startswith("__") and used.attr not in own:
            yield name(file), ast.unparse(used)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            for alias in node.names:
                parts = [*node.module.split("."), alias.name]
                deep = len(parts) > 3 and node.module not in PUBLIC_DEEP
                if parts[0] not in ("t2ialign", "rewards", "scripts", "tests") and (
                    deep or any(p[0] == "_" for p in parts)
                ):
                    yield name(file), ".".join(parts)


def test_no_private_parts_of_others_but_the_listed_ones():
    found = {use for file in [*SOURCES, *SCRIPTS] for use in private_uses(file)}
    assert found - PRIVATE == set(), "use a public name, or list it with the reason"
    assert PRIVATE - found == set(), "no longer used: drop it from the list"


def test_private_parts_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "a.py"
    file.write_text(
        "from a.b.c import D\nfrom a._b import c\nself._mine = 1\nother._mine\nother._theirs\nx.__len__\n"
    )
    assert [use for _, use in private_uses(file)] == ["other._theirs", "a.b.c.D", "a._b.c"]


BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError("blocked: " + name)

sys.meta_path.insert(0, Block())
import importlib
for module in {modules!r}:
    importlib.import_module(module)
loaded = {unused!r} & {{name.split(".")[0] for name in sys.modules}}
assert not loaded, loaded
"""


def import_blocked(modules: list[str], blocked: set[str], unused: set[str]) -> None:
    """Import modules in a fresh process where `blocked` cannot be imported; `unused` must not have been."""
    code = BLOCK.format(modules=modules, blocked=blocked, unused=blocked | unused)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_rewards_work_without_t2ialign():
    modules = [module(file) for file in SOURCES if layer(module(file)) == "rewards"]
    assert "rewards" in modules
    import_blocked(modules, {"t2ialign"}, unused={"diffusers", "peft"})


def test_scoring_imports_without_diffusers():
    """Scoring images must not cost an import of the sampling libraries, nor Ray unless it is asked for."""
    modules = [module(file) for file in SOURCES if layer(module(file)) == "scoring"] + ["t2ialign.cli.score"]
    import_blocked(modules, {"diffusers", "peft", "ray"}, unused=set())


def test_pure_layers_import_without_diffusers():
    modules = [module(file) for file in SOURCES if layer(module(file)) in PURE]
    import_blocked(modules, {"diffusers", "transformers", "peft", "accelerate"}, unused=set())


def passed_on(tree: ast.AST) -> Iterator[str]:
    """Words of a command line, and what argparse makes of them, where they are no longer a command's own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("Namespace", "parse_args", "argv"):
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("file", [f for f in SOURCES if layer(module(f)) != "cli"], ids=name)
def test_below_the_commands_are_plain_arguments(file):
    assert not list(passed_on(ast.parse(file.read_text()))), "take parameters; a command passes them by name"


def test_a_command_starts_no_other_command():
    for file in sorted((ROOT / "t2ialign" / "cli").glob("*.py")):
        if file.name != "main.py":
            text = file.read_text()
            assert "parse_args" not in text and "main(" not in text, f"{name(file)}: call a function of api"
    assert set(passed_on(ast.parse("def f(args: argparse.Namespace): sys.argv"))) == {
        "line 1: argparse.Namespace",
        "line 1: sys.argv",
    }
