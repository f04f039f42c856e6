"""Words: help texts are sentences, the examples of --help parse, no variable has a filler name, and the words
that were given up for the field's stay away."""

import argparse
import ast
import re
import shlex
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from t2ialign import config
from t2ialign.cli import main as cli
from t2ialign.cli import train
from t2ialign.cli.examples import EXAMPLES
from t2ialign.overrides import as_overrides
from t2ialign.tasks import recipe_files
from t2ialign.training.methods import methods

ROOT = Path(__file__).resolve().parents[1]
FRAGMENT = re.compile(r"(Of|And|So|But|As|Its|Their|Most|At most)\b")
"""How a help text begins that hangs on another one."""


def is_sentence(text: str) -> bool:
    """Whether a help text begins with a capital letter, is no fragment, and ends with a full stop."""
    return text[:1].isupper() and text.endswith(".") and not FRAGMENT.match(text)


@pytest.mark.parametrize("text", ["Of AdamW.", "And at most so much.", "the seed.", "The seed"])
def test_fragments_are_no_sentences(text):
    assert not is_sentence(text)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_texts_are_sentences(verb):
    parser = cli.parser_of(verb)
    texts = {"/".join(action.option_strings) or action.dest: action.help for action in parser._actions}
    texts.pop("-h/--help", None)  # argparse's own
    texts |= {f"group {group.title}": group.description for group in parser._action_groups[2:]}
    texts["description"] = parser.description
    wrong = {name: text for name, text in texts.items() if not is_sentence(text.strip())}
    if verb == "rewrite":
        del wrong["description"]  # ends with the list of presets
    assert not wrong


@pytest.mark.parametrize("method", methods())
def test_descriptions_of_settings_are_sentences(method):
    fields: dict[str, FieldInfo] = train.settings_of(method).model_fields
    texts = {name: " ".join((field.description or "").split()) for name, field in fields.items()}
    assert not {name: text for name, text in texts.items() if not is_sentence(text)}


def commands(text: str) -> list[list[str]]:
    """The words of each example after t2ialign, without what the shell redirects."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("    t2ialign ")]
    return [line[1 : line.index(">") if ">" in line else None] for line in words]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_examples_of_a_verb_parse(verb):
    text = cli.parser_of(verb).format_help()
    assert text.endswith(f"examples:{EXAMPLES[verb]}")
    assert len(commands(EXAMPLES[verb])) >= 3
    for name, *words in commands(EXAMPLES[verb]):
        assert name == verb
        if verb == "train":
            settings(words)
            continue
        parser = cli.parser_of(verb)
        parser.check_words(parser.parse_intermixed_args(words))


@pytest.mark.parametrize("method", methods())
def test_examples_of_a_method_validate(method, capsys):
    assert cli.main(["train", method, "--help"]) == 0
    examples = commands(capsys.readouterr().out)
    assert len(examples) >= 3
    for verb, name, *words in examples:
        assert (verb, name) == ("train", method)
        settings([name, *words])


def settings(words: list[str]) -> config.Config | None:
    """What train makes of the words: a checked configuration; None if they ask for the help."""
    args: argparse.Namespace = cli.parser_of("train").parse_intermixed_args(
        as_overrides(words, methods(), train.settings_of)
    )
    if args.help:
        return None
    file = recipe_files.find(args.config) if args.config else None
    return config.load(train.settings_of(args.method), file, args.overrides, folders=(recipe_files.folder(),))


FILLERS = {"found", "asked", "said", "own", "mine", "kept"}
PUBLIC = {"rewards/text/contrast.py": {"asked"}}
"""Names that docs/ gives to users; they stay."""


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


SOURCES = [file for package in ("rewards", "t2ialign") for file in sorted((ROOT / package).rglob("*.py"))]


def names(tree: ast.AST) -> set[str]:
    """Every name that a file gives to variables, parameters, attributes, functions and imports."""
    given: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                given.add(name)
            case ast.arg(arg=name) | ast.FunctionDef(name=name):
                given.add(name)
            case ast.alias(asname=str(name)):
                given.add(name)
    return given


def filler(tree: ast.AST) -> set[str]:
    """The names that say nothing: found, _own."""
    return {name for name in names(tree) if name.strip("_").lower() in FILLERS}


def test_no_variable_has_a_filler_name():
    wrong = {name(file): filler(ast.parse(file.read_text(encoding="utf-8"))) for file in SOURCES}
    wrong = {file: names - PUBLIC.get(file, set()) for file, names in wrong.items()}
    assert not {file: names for file, names in wrong.items() if names}


@pytest.mark.parametrize(
    "code", ["found = 1", "for mine in x: pass", "def f(said): pass", "def _own(): pass", "a.kept = 1"]
)
def test_filler_names_are_found(code):
    assert filler(ast.parse(code))
    assert not filler(ast.parse("print(found, a.kept)"))  # somebody else's


FORMER = re.compile(
    r"\bshapes \((the|that of)|\bshapes-|_shapes\b|/shapes/|\bmodel\S? ?shapes\b|\bnum_steps\b|\bsiblings\b"
)
"""Names of the release before, which only the changelog and what takes them say."""


def test_no_page_recipe_or_help_text_says_a_former_name():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    pages += [*ROOT.glob("*/README.md"), *ROOT.glob("assets/*/README.md"), *recipe_files.folder().iterdir()]
    texts = {str(page): page.read_text(encoding="utf-8") for page in pages}
    texts |= {f"{verb} --help": cli.parser_of(verb).format_help() for verb in cli.VERBS}
    for method in methods():
        fields = train.settings_of(method).model_fields
        texts |= {f"train {method} {key}": field.description or "" for key, field in fields.items()}
    assert len(texts) > 50
    assert not {name: match[0] for name, text in texts.items() if (match := FORMER.search(text))}


GIVEN_UP = re.compile(r"picture|sibling|embedded\W+(?:world|model)|\bshapes (?:model|\(th)", re.IGNORECASE)
"""Words in whose place the project says image, candidate and toy model."""
ALLOWED = {
    # words of users' prompts, and descriptions of key points that a judge reads
    "rewards/keypoints/keypoints.json": {"picture"},
    "rewards/keypoints/language.py": {"picture"},
    "rewards/keypoints/relations.py": {"picture"},
    "rewards/keypoints/words.py": {"picture"},
    "rewards/text/contrast_rules.py": {"picture"},
    "rewards/text/contrast_words.py": {"picture", "sibling"},
    "t2ialign/rewriting/clarify.py": {"picture"},
    "t2ialign/rewriting/negation_words.py": {"picture"},
    "t2ialign/rewriting/style.py": {"picture"},
    "docs/keypoints.md": {"picture"},
    "docs/rewrite.md": {"picture"},
    # instructions to models, whose figures were measured with these words
    "rewards/keypoints/llm.py": {"picture"},
    "rewards/scorers/rubric.py": {"picture"},
    "rewards/text/contrast.py": {"picture"},
    "t2ialign/rewriting/instructions.py": {"picture"},
    "t2ialign/rewriting/intensity.py": {"picture"},
    # keys and names of stored files, and the column of a user's table
    "t2ialign/data/cache/claim.py": {"picture"},
    "t2ialign/data/cache/comparisons.py": {"picture"},
    "t2ialign/data/cache/ledger.py": {"picture"},
    "t2ialign/evaluation/keypoints/accuracy.py": {"picture"},
    "t2ialign/evaluation/keypoints/embedded.py": {"picture"},
    "t2ialign/scoring/rows.py": {"picture"},
    "t2ialign/tasks/filtering.py": {"picture"},
    "t2ialign/web/keypoint_report.py": {"picture"},
    "scripts/experiments/keypoint_checked.json": {"picture"},
    "scripts/experiments/rewrite.py": {"picture"},
    # former names of settings
    "t2ialign/peers.py": {"picture", "sibling"},
}
"""The files that hold such a word as data, which no rename may touch: each must still hold its words."""
TEXTS = [
    file
    for top in ("rewards", "t2ialign", "scripts", "docs", "assets", "README.md", "CONTRIBUTING.md")
    for file in ([ROOT / top] if "." in top else sorted((ROOT / top).rglob("*")))
    if file.suffix in {".py", ".md", ".html", ".js", ".css", ".yaml", ".json"}
    and file.name not in {"tokenizer.json", "vocab.json", "facts.json"}
]


def given_up(text: str) -> set[str]:
    """The words of a text that the project has given up, in small letters."""
    return {" ".join(word.lower().split()) for word in GIVEN_UP.findall(text)}


def test_words_that_were_given_up_stay_away():
    words = {name(file): given_up(file.read_text(encoding="utf-8")) for file in TEXTS}
    assert len(words) > 400
    assert {file: each for file, each in words.items() if each} == ALLOWED


@pytest.mark.parametrize(
    "text", ["a Picture", "siblings", "the embedded\nworld", "embedded model", "shapes (the toy model)"]
)
def test_words_that_were_given_up_are_found(text):
    assert given_up(text)
    assert not given_up("an image, a candidate, embedded images, four shapes, tensors of other shapes")


IN_DATA = re.compile(r"(\b\w{3,})\|\1\b")
"""A word that stands twice in an alternation, as a rename of one of two leaves it."""


def test_no_alternation_has_a_word_twice():
    wrong = {name(file): IN_DATA.findall(file.read_text(encoding="utf-8")) for file in SOURCES}
    assert not {file: words for file, words in wrong.items() if words}
    assert IN_DATA.findall("(?:photo|image|image)s?") == ["image"]
