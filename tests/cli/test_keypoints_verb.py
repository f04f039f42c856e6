"""t2ialign keypoints: images and prompts in, accuracy by kind out, whoever judges and whatever stops it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewards.keypoints import evaluator_head
from rewards.keypoints.oracle import ToyChecker
from t2ialign.cli import main as cli
from t2ialign.data.rewrites import read_wishes
from t2ialign.toy.render import render
from tests.rewards.chat_server import ChatServer, question

BROKEN = 3
RIGHT, LEFT = "a red circle left of a blue square", "a blue square left of a red circle"
THREE, TWO = "three green crosses", "two green crosses"


def make_images(folder: Path, pairs: list[tuple[str, str]]) -> Path:
    """A manifest of (prompt, what is drawn)."""
    folder.mkdir(parents=True)
    rows = []
    for number, pixels in enumerate(render([drawn for _, drawn in pairs], 0)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"file": f"{number}.png", "prompt": pairs[number][0], "seed": number})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def samples(tmp_path) -> Path:
    """Two prompts, two images each, one of them wrong in one thing."""
    return make_images(tmp_path / "samples", [(RIGHT, RIGHT), (RIGHT, LEFT), (THREE, THREE), (THREE, TWO)])


def judge(samples: Path, output: Path, *more: str) -> int:
    return cli.main(["keypoints", str(samples), "--output", str(output), *more])


def result(output: Path) -> dict:
    return json.loads((output / "keypoints.json").read_text())


def rows(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "keypoints.jsonl").read_text().splitlines()]


def means(found: dict) -> dict[str, tuple[float, int]]:
    return {name: (one["mean"], one["count"]) for name, one in found.items()}


def test_help_imports_neither_torch_nor_transformers():
    code = (
        "import sys\nfrom t2ialign.cli.main import main\n"
        "try:\n    main(['keypoints', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'diffusers', 'numpy', 'pyarrow', 'PIL', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "T2I-Keypoints-Eval" in done.stdout


def test_the_oracle_finds_what_is_wrong_and_nothing_else(samples, tmp_path, capsys):
    assert judge(samples, tmp_path / "out") == 0
    found = result(tmp_path / "out")
    accuracy = found["accuracy"]
    assert means(accuracy["kinds"]) == {
        "negation": (0.75, 4),  # nothing else lies there, but of three crosses one is missing
        "counting": (0.5, 2),
        "cross_entity_binding": (1.0, 4),
        "entity_layout": (0.5, 2),
    }
    assert means(accuracy["categories"]) == {
        "linguistic": (0.75, 4),
        "visual": (0.5, 2),
        "relations": (5 / 6, 6),
    }
    assert accuracy["over_kinds"]["mean"] == pytest.approx((0.75 + 0.5 + 1 + 0.5) / 4)
    assert (accuracy["points"]["mean"], accuracy["pictures"]["mean"]) == (9 / 12, 0.5)
    assert accuracy["points"]["prompts"] == 2 and len(accuracy["points"]["ci95"]) == 2
    assert found["unreadable"] == 0 and found["unreadable_as_wrong"] is None and found["errors"] == []

    wrong = [row for row in rows(tmp_path / "out") if not row["correct"]]
    assert [(row["file"], row["kind"]) for row in wrong] == [
        ("1.png", "entity_layout"),
        ("3.png", "counting"),
        ("3.png", "negation"),
    ]
    assert all(row["reason"].startswith("there is ") for row in wrong)
    page = (tmp_path / "out" / "keypoints.html").read_text()
    assert page.count("<td>3.png</td>") == 2 and "there is" in page and "<td>0.png" not in page
    assert page.count("<img") == 2, "the two images that miss something"
    out = capsys.readouterr().out
    assert "Entity Layout" in out and "mean over kinds" in out and "as wrong" not in out


def test_a_stopped_run_goes_on_and_ends_as_a_whole_one(samples, tmp_path, monkeypatch, capsys):
    asked: list[int] = []
    check = ToyChecker.check

    def stopping(self, images, points):
        if stop and sum(asked) >= 2:
            raise KeyboardInterrupt
        asked.append(len(images))
        return check(self, images, points)

    monkeypatch.setattr(ToyChecker, "check", stopping)
    stop = True
    assert judge(samples, tmp_path / "out", "--batch-size", "1") == 130
    journal = tmp_path / "out" / "journal.jsonl"
    assert len(journal.read_text().splitlines()) == 3 and not (tmp_path / "out" / "keypoints.json").exists()
    stop = False
    assert judge(samples, tmp_path / "out") == 2
    assert "keep its verdicts with --resume latest" in capsys.readouterr().err
    with journal.open("a") as file:
        file.write('{"id": "torn')
    assert judge(samples, tmp_path / "out", "--resume", "latest") == 0
    assert sum(asked) == 4, "no image is judged twice"
    assert judge(samples, tmp_path / "whole") == 0
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    assert result(tmp_path / "out") == result(tmp_path / "whole")
    whole = (tmp_path / "whole" / "journal.jsonl").read_text(encoding="utf-8")
    for damage in (
        ("description", "descriptioo"),
        ("verdicts", "verdictr"),
        ('"match": 1.0', '"match": "1"'),
    ):
        (tmp_path / "whole" / "journal.jsonl").write_text(whole.replace(*damage, 1), encoding="utf-8")
        assert judge(samples, tmp_path / "whole", "--resume", "latest") == 2
        assert "expected a row of a journal; delete the file" in capsys.readouterr().err
    more = ("--backend", "head", "--weights", "folder")
    capsys.readouterr()
    assert judge(samples, tmp_path / "out", "--resume", "latest", *more) == 2
    assert "which holds scores with backend 'oracle'; expected the same" in capsys.readouterr().err


def test_a_broken_image_is_an_error_and_no_wrong_answer(samples, tmp_path, capsys):
    whole = (samples / "0.png").read_bytes()
    (samples / "0.png").write_bytes(whole[:50])
    assert judge(samples, tmp_path / "out") == BROKEN
    found = result(tmp_path / "out")
    assert found["accuracy"]["kinds"]["entity_layout"] | {"ci95": None} == {
        **{"mean": 0.0, "ci95": None},
        **{"count": 1, "prompts": 1},
    }
    (error,) = found["errors"]
    assert error["file"] == "0.png" and f"not judged: {samples / '0.png'}: got" in capsys.readouterr().out
    (samples / "0.png").write_bytes(whole)
    assert judge(samples, tmp_path / "out", "--resume", "latest") == 0
    assert result(tmp_path / "out")["accuracy"]["points"]["count"] == 12


def test_images_without_prompt_or_key_point_are_told_apart(tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, pixels in zip("abc", render([THREE] * 3, 0), strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "a.txt").write_text("three green crosses")
    (folder / "b.txt").write_text("a cross")
    points = tmp_path / "points.jsonl"
    spec = {"tag": "counting", "prompt": "a cross", "include": [{"class": "cross", "count": 1}]}
    table = [spec, spec | {"prompt": THREE, "include": [{"class": "cross", "count": 3}]}]
    points.write_text("".join(json.dumps(row) + "\n" for row in table))
    with ChatServer(lambda _: reply("I count three. accept")) as server:
        assert judge(folder, tmp_path / "out", "--points", str(points), *served(server)) == BROKEN
        assert len(server.requests) == 1
    found = result(tmp_path / "out")
    assert means(found["accuracy"]["kinds"]) == {"counting": (1.0, 1)}
    assert found["prompts_without_key_points"] == 1
    assert [error["error"] for error in found["errors"]] == [
        "c.png: got no prompt; expected a column prompt, or NAME.txt beside it; add it"
    ]


def reply(text: str):
    return 200, {"choices": [{"message": {"content": text}}]}, {}


def served(server: ChatServer) -> tuple[str, ...]:
    return ("--backend", "written", "--url", server.url, "--weights", "judge", "--option", "tokens=64")


def test_the_written_protocol_counts_unreadable_answers_both_ways(samples, tmp_path, capsys):
    """A judge that accepts bindings, rejects counts and never answers on layout."""
    points = tmp_path / "points.jsonl"
    table = [
        {"prompt": RIGHT, "prompt_points": ["Entity Layout", "Cross-Entity Binding"]},
        {"prompt": THREE, "prompt_points": ["Counting"]},
    ]
    said = [["left of", "a red circle"], ["three crosses"]]
    points.write_text(
        "".join(json.dumps(row | {"prompt_points_des": s}) + "\n" for row, s in zip(table, said, strict=True))
    )

    def answer(request):
        text = question(request)
        if "Kind: Entity Layout" in text:
            return reply("I cannot tell.")
        return reply("It is so. **Accept**" if "Kind: Cross-Entity" in text else "One is missing. reject")

    with ChatServer(answer) as server:
        assert judge(samples, tmp_path / "out", "--points", str(points), *served(server)) == BROKEN
        asked = [question(request) for request in server.requests]
        assert {request["max_tokens"] for request in server.requests} == {64}
    assert len(asked) == 6 + 2, "one question a key point, and what was unreadable once more"
    assert all(RIGHT in text or THREE in text for text in asked), "with the user's prompt"
    found = result(tmp_path / "out")
    assert found["unreadable"] == 2
    assert means(found["accuracy"]["kinds"]) == {"counting": (0.0, 2), "cross_entity_binding": (1.0, 2)}
    assert found["accuracy"]["pictures"]["count"] == 2, "of two images nobody can say"
    official = found["unreadable_as_wrong"]
    assert means(official["kinds"])["entity_layout"] == (0.0, 2)
    assert (official["pictures"]["mean"], official["pictures"]["count"]) == (0.0, 4)
    assert (found["accuracy"]["points"]["mean"], official["points"]["mean"]) == (0.5, 2 / 6)
    blank = [row for row in rows(tmp_path / "out") if row["match"] is None]
    assert [row["reason"] for row in blank] == ["I cannot tell."] * 2 and blank[0]["correct"] is None
    out = capsys.readouterr().out
    assert "as wrong" in out and "2 answers unreadable" in out


def test_a_server_that_fails_stops_the_run_and_loses_nothing(samples, tmp_path, capsys):
    points = tmp_path / "points.jsonl"
    spec = {"tag": "counting", "include": [{"class": "cross", "count": 3}]}
    points.write_text("".join(json.dumps(spec | {"prompt": prompt}) + "\n" for prompt in (RIGHT, THREE)))

    def answer(_):
        return (400, {"error": "no such model"}, {}) if len(server.requests) == 2 else reply("accept")

    with ChatServer(answer) as server:
        given = ("--points", str(points), "--batch-size", "1", *served(server))
        assert judge(samples, tmp_path / "out", *given) == 2
        assert "got status 400" in capsys.readouterr().err
        assert judge(samples, tmp_path / "out", "--resume", "latest", *given) == 0
        assert len(server.requests) == 5, "the one that failed is asked again, the first is not"
    assert means(result(tmp_path / "out")["accuracy"]["kinds"]) == {"counting": (1.0, 4)}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--batch-size", "0"), "got --batch-size 0"),
        (("--points", "none.jsonl"), "got --points none.jsonl, which does not exist"),
        (("--backend", "head"), "got --backend head without --weights"),
        (("--weights", "x"), "expected no weights for oracle"),
        (("--extract-url", "http://127.0.0.1/v1"), "without --extract"),
        (("--extract", "x", "--points", __file__), "got --points and --extract"),
        (
            ("--extract", "x", "--extract-option", "tokens"),
            "got --extract-option 'tokens'; expected KEY=VALUE",
        ),
        (("--option", "tokens"), "got --option 'tokens'; expected KEY=VALUE"),
    ],
)
def test_arguments_that_do_not_fit(samples, tmp_path, capsys, more, said):
    assert judge(samples, tmp_path / "out", *more) == 2
    assert said in capsys.readouterr().err


def test_a_prompt_that_the_oracle_does_not_know_names_the_way_out(tmp_path, capsys):
    samples = make_images(tmp_path / "samples", [("a photo of a dog", THREE)])
    assert judge(samples, tmp_path / "out") == 2
    assert "judge other images with another --backend" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_continuous_match_is_counted_above_a_half(samples, tmp_path):
    """A head of random weights: rows hold the match, figures the share above 1/2."""
    evaluator_head.save(evaluator_head.MatchHead(64), tmp_path / "head", reward="toy-clip")
    more = ("--backend", "head", "--weights", str(tmp_path / "head"))
    assert judge(samples, tmp_path / "out", *more) == 0
    found = rows(tmp_path / "out")
    matches = np.array([row["match"] for row in found])
    assert ((matches > 0) & (matches < 1)).all() and len(set(matches.tolist())) > 2
    assert [row["correct"] for row in found] == (matches > 0.5).tolist()
    assert result(tmp_path / "out")["accuracy"]["points"]["mean"] == pytest.approx((matches > 0.5).mean())
    assert {row["kind"] for row in found} >= {"counting", "cross_entity_binding", "entity_layout"}, "by rules"


def test_what_is_refused_leaves_nothing_behind(samples, tmp_path, capsys):
    """A key that somebody put where it does not belong is on no disk, and a mended command goes on."""
    table = tmp_path / "points.jsonl"
    spec = {"tag": "counting", "include": [{"class": "cross", "count": 3}]}
    table.write_text("".join(json.dumps(spec | {"prompt": prompt}) + "\n" for prompt in (RIGHT, THREE)))
    with ChatServer(lambda _: reply("accept")) as server:
        given = ("--points", str(table), *served(server))
        for wrong in (("--url", "http://me:SECRET@127.0.0.1/v1"), ("--option", "api_key=SECRET")):
            assert judge(samples, tmp_path / "out", *given, *wrong) == 2
            assert not list((tmp_path / "out").glob("*"))
        assert judge(samples, tmp_path / "out", *given) == 0
    assert "SECRET" not in (tmp_path / "out" / "journal.jsonl").read_text()


def test_a_resumed_run_may_wait_longer_and_asks_again_what_was_unreadable(samples, tmp_path, capsys):
    table = tmp_path / "points.jsonl"
    spec = {"tag": "counting", "include": [{"class": "cross", "count": 3}]}
    table.write_text("".join(json.dumps(spec | {"prompt": prompt}) + "\n" for prompt in (RIGHT, THREE)))
    readable = False
    with ChatServer(lambda _: reply("accept" if readable or len(server.requests) == 1 else "hm")) as server:
        given = ("--points", str(table), "--batch-size", "1", *served(server))
        assert judge(samples, tmp_path / "out", *given, "--option", "timeout=30") == BROKEN
        assert result(tmp_path / "out")["unreadable"] == 3 and len(server.requests) == 1 + 2 * 3
        readable = True
        more = ("--resume", "latest", "--option", "timeout=60", "--option", "tries=2")
        assert judge(samples, tmp_path / "out", *given, *more) == 0
        assert len(server.requests) == 7 + 3, "what was read is not asked again"
        assert result(tmp_path / "out")["unreadable"] == 0
        assert means(result(tmp_path / "out")["accuracy"]["kinds"]) == {"counting": (1.0, 4)}
        assert judge(samples, tmp_path / "out", *given, "--resume", "latest", "--option", "tokens=9") == 2
    assert "holds scores with options" in capsys.readouterr().err


def test_a_language_model_finds_the_key_points_once(samples, tmp_path, capsys):
    """Its points are kept for --points and training; what it leaves unread is an error, and asked again."""
    points = [{"kind": "counting", "description": "three crosses"}]

    def answer(request):
        if "image generator" not in json.dumps(request["messages"]):
            return reply("I see them. accept")
        asked_for.append(THREE if THREE in request["messages"][1]["content"] else RIGHT)
        return reply(json.dumps(points) if asked_for[-1] == THREE or mended else "None come to mind.")

    mended, asked_for = False, list[str]()
    with ChatServer(answer) as server:
        given = ("--extract", "reader", "--extract-url", server.url, *served(server))
        assert judge(samples, tmp_path / "out", *given) == BROKEN
        assert sorted(asked_for) == [RIGHT, RIGHT, THREE]
        found = result(tmp_path / "out")
        assert means(found["accuracy"]["kinds"]) == {"counting": (1.0, 2)}
        assert [error["file"] for error in found["errors"]] == ["0.png", "1.png"]
        assert "got no key points that could be read" in found["errors"][0]["error"]
        mended = True
        assert judge(samples, tmp_path / "out", "--resume", "latest", *given) == 0
        assert sorted(asked_for) == [RIGHT] * 3 + [THREE]
        assert means(result(tmp_path / "out")["accuracy"]["kinds"]) == {"counting": (1.0, 4)}
        kept = str(tmp_path / "out" / "points.jsonl")
        assert judge(samples, tmp_path / "again", "--points", kept, *served(server)) == 0
        assert len(asked_for) == 4
    assert rows(tmp_path / "again") == rows(tmp_path / "out")
    assert [wish.prompt for wish in read_wishes(kept)] == [THREE, RIGHT]
    capsys.readouterr()
    other = ("--resume", "latest", "--extract", "other", *served(server))
    assert judge(samples, tmp_path / "out", *other) == 2
    assert "got key points by 'reader'" in capsys.readouterr().err


def test_images_and_prompts_that_are_too_large_are_errors_of_their_rows(samples, tmp_path, monkeypatch):
    monkeypatch.setattr("rewards.toy.vision.LARGEST", 2_000)
    Image.new("RGB", (64, 64), "white").save(samples / "0.png")
    row = {"file": "1.png", "prompt": "x" * 300_000, "seed": 9}
    with (samples / "manifest.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    assert judge(samples, tmp_path / "out", "--max-batch-pixels", "1500") == BROKEN
    errors = [error["error"] for error in result(tmp_path / "out")["errors"]]
    assert len(errors) == 2 and "got an image of 64x64 pixels" in errors[0]
    assert "got a prompt of 300000 letters" in errors[1] and len(errors[1]) < 300
