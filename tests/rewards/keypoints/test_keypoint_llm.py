"""Key points by a language model: what is read, what is asked again, and that nothing is lost silently."""

import json
import threading

import pytest

from rewards.keypoints import taxonomy as keypoints
from rewards.keypoints.llm import EXAMPLE, Extractor, instruction, read
from rewards.keypoints.taxonomy import KeyPoint
from rewards.llm.choose import writer
from rewards.llm.local import local_writer
from tests.rewards.chat_server import ChatServer, says
from tests.rewards.tiny_llm import build_llama

POINTS = [
    KeyPoint("counting", "there are exactly three dogs", "three dogs"),
    KeyPoint("state", "a dog is wet"),
]
LIST = json.dumps(keypoints.to_json(POINTS))
CUT = LIST[: LIST.index("}") + 3]


@pytest.mark.parametrize(
    "answer",
    [
        LIST,
        f"Here are the [2] key points of {{prompt}}:\n```json\n{LIST}\n```\nDone.",
        f"<think>[ {{ what is this, []</think>\n{LIST}",
        f"First I thought {json.dumps(keypoints.to_json(EXAMPLE))}, but it is\n{LIST}",
        json.dumps({"prompt": "dogs", "key_points": keypoints.to_json(POINTS)}),
        json.dumps(
            [
                {"kind": "Counting", "description": POINTS[0].description, "evidence": "three dogs", "id": 1},
                {"kind": "STATE", "description": "a dog is wet", "evidence": None},
            ]
        ),
    ],
)
def test_lists_that_can_be_read(answer):
    assert read(answer) == POINTS


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "no JSON list"),
        ("There are three dogs.", "no JSON list"),
        ("[1, 2]", "no JSON list"),
        ('{"kind": "state", "description": "a dog is wet"}', "no JSON list"),
        (CUT, "breaks off"),
        (f'{{"key_points": {CUT}', "breaks off"),
        (LIST.replace('",', '"'), "breaks off or is wrong"),
        (f"{LIST} no: {CUT}", "breaks off"),
        (LIST.replace("state", "weather"), "got key point 'weather'"),
        (LIST.replace("a dog is wet", " "), "without a description"),
        (LIST.replace('"evidence": "three dogs"', '"evidence": []'), "got evidence"),
        ('[{"kind": "state"}]', "key point 0"),
        ('[{"kind": 3, "description": "x"}]', "got kind 3"),
        ('[{"kind": ["state"], "description": "x"}]', "got kind"),
    ],
)
def test_what_cannot_be_read_says_why(answer, message):
    with pytest.raises(ValueError, match=message):
        read(answer)


def test_an_empty_list_is_an_answer_and_silence_is_none():
    assert read("[]") == [] and read('{"key_points": []}') == []
    with pytest.raises(ValueError, match="no JSON list"):
        read("none")


@pytest.mark.parametrize("stray", ["[]", 'There are no others: [] {"key_points": []}'])
def test_a_stray_empty_list_wipes_nothing_out(stray):
    assert read(f"{LIST}\n{stray}") == POINTS
    assert read(f"[]\n{LIST}\n{stray}") == POINTS


def test_the_instruction_names_every_kind_and_its_own_example_is_read():
    text = instruction()
    for kind in keypoints.kinds().values():
        assert f"- {kind.id}: {kind.definition}\n" in text
    assert json.dumps(keypoints.schema()["items"]) in text
    assert read(text.rpartition("the answer is:")[2]) == EXAMPLE


@pytest.fixture
def serving(monkeypatch):
    """An extractor over a server, and the server: a script of answers for each prompt, the last for ever."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    lock = threading.Lock()

    def start(script):
        def answer(request):
            prompt = request["messages"][1]["content"].removeprefix("The prompt:\n")
            with lock:
                left = script[prompt]
                reply = left.pop(0) if len(left) > 1 else left[0]
            return reply if isinstance(reply, tuple) else (200, says(reply), {})

        return ChatServer(answer)

    return start


def extractor(server):
    return Extractor(writer("tiny", server.url, wait=0.01, tries=3, timeout=5.0), tokens=99)


def test_only_what_was_unreadable_is_asked_again_with_the_reason(serving):
    script = {
        "dogs {x}": [LIST],
        "cut": [CUT, f"```\n{LIST}```"],
        "never": ["Sure!"],
        "busy": [(429, b"", {}), "[]"],
    }
    with serving(script) as server:
        ours = extractor(server)
        assert ours.extract(list(script)) == [POINTS, POINTS, None, []]
    assert (ours.retried, ours.unreadable) == (2, 1)
    second = [r["messages"] for r in server.requests if len(r["messages"]) > 2]
    (cut,) = [talk for talk in second if talk[2]["content"] == CUT]
    assert [message["role"] for message in cut] == ["system", "user", "assistant", "user"]
    assert "breaks off" in cut[3]["content"] and len(second) == 2
    assert server.requests[0]["temperature"] == 0 and server.requests[0]["max_tokens"] == 99


def test_silence_is_asked_again_and_counted(serving):
    with serving({"late": [(200, says(None), {}), LIST], "never": [(200, says(None), {})]}) as server:
        ours = extractor(server)
        assert ours.extract(["late", "never"]) == [POINTS, None]
    assert (ours.retried, ours.unreadable) == (2, 1)
    contents = [message["content"] for request in server.requests for message in request["messages"]]
    assert all(contents)  # some servers refuse an empty turn


def test_one_prompt_that_cannot_be_read_is_an_error(serving):
    with serving({"never": ["Sure!"], "dogs": [LIST]}) as server:
        ours = extractor(server)
        assert ours("dogs") == POINTS
        with pytest.raises(ValueError, match="got no key points that can be read for 'never', asked twice"):
            ours("never")
        assert ours.unreadable == 1


def test_a_model_that_writes_nonsense_yields_nothing_not_an_empty_list(tmp_path):
    ours = Extractor(local_writer(str(build_llama(tmp_path, template=None)), batch=1), tokens=4)
    assert ours.extract(["a red circle", "no circle"]) == [None, None]
    assert (ours.retried, ours.unreadable) == (2, 2)
