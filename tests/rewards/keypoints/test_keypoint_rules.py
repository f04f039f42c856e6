"""Each kind of key point in prompts written for it, and what must not be taken for one."""

import pytest

from rewards.keypoints.rules import extract
from rewards.keypoints.taxonomy import kinds
from rewards.keypoints.verbs import lemma


def descriptions(prompt: str, kind: str) -> list[str]:
    return [point.description for point in extract(prompt) if point.kind == kind]


def shown(prompt: str, kind: str) -> list[str]:
    return [point.evidence for point in extract(prompt) if point.kind == kind]


@pytest.mark.parametrize(
    ("prompt", "kind", "expected"),
    [
        ("no dogs on the beach", "negation", ["there are no dogs"]),
        ("a street without a car", "negation", ["there is no car"]),
        ("two mice and 25 geese", "counting", ["there are exactly two mice", "there are exactly 25 geese"]),
        ("four traffic lights", "counting", ["there are exactly four traffic lights"]),
        ("a tiny cat", "size", ["the cat is tiny"]),
        ("a wooden boat", "material", ["the boat is wooden"]),
        ("a chair made of glass", "material", ["the chair is made of glass"]),
        ("a soft towel", "material", ["the towel is soft"]),
        ("a dark green vase", "material", ["the vase is dark green"]),
        ("a round clock", "similarity_relation", ["the clock is round"]),
        ("a watercolor painting of a village", "artistic_style", ["the picture is a watercolor painting"]),
        ("a red car and a blue bench", "cross_entity_binding", ["the car is red", "the bench is blue"]),
        (
            "The walls are white and the roof is red.",
            "cross_entity_binding",
            ["the walls are white", "the roof is red"],
        ),
        ("a melting candle", "state", ["the candle is melting"]),
        ("a bird below a kite", "entity_layout", ["the bird is below the kite"]),
        ("a cat to the left of a box", "entity_layout", ["the cat is to the left of the box"]),
        ("a bird in a cage", "containment_relation", ["the bird in the cage"]),
        ("a horse made out of fruit", "compositional_relation", ["the horse is made out of fruit"]),
        ("a view of the Eiffel Tower", "knowledge_application", ["Eiffel Tower is drawn as it is known"]),
        (
            'a sign that says "Open Now"',
            "text_rendering",
            ['the text "Open Now" can be read, letter for letter'],
        ),
    ],
)
def test_a_description_says_what_must_be_seen(prompt, kind, expected):
    assert descriptions(prompt, kind) == expected


@pytest.mark.parametrize(
    ("prompt", "kind", "expected"),
    [
        ("both cups are green", "attribute_consistency", ["both cups are green"]),
        ("a surprised girl and a man who smiles", "expression", ["surprised", "smiles"]),
        ("A man is running and singing.", "full_body_action", ["running"]),
        ("A group of friends are dancing.", "full_body_action", ["dancing"]),
        ("a potter paints a bowl", "hand_action", ["paints a bowl"]),
        ("A dog is running.", "animal_action", ["running"]),
        ("A child is hugging a bear.", "contact_interaction", ["hugging a bear"]),
        ("A boy is looking at a kite.", "non_contact_interaction", ["looking at a kite"]),
        ("a tree taller than a house", "comparative_relation", ["a tree taller than a house"]),
        ("a cloud shaped like a heart", "similarity_relation", ["a cloud shaped like a heart"]),
        ("A cat is reading a newspaper.", "counterfactual", ["cat is reading a newspaper"]),
        ("a whale flying over a city", "counterfactual", ["flying"]),
        ('a poster with the title "Moon" in bold', "text_layout", ["bold"]),
        ("a lamp in the corner", "entity_layout", ["a lamp in the corner"]),
        ("a dog at the top of the picture", "entity_layout", ["dog at the top of the picture"]),
        ("a picture book of a fox", "artistic_style", ["picture book"]),
    ],
)
def test_the_evidence_is_in_the_prompt(prompt, kind, expected):
    assert shown(prompt, kind) == expected
    assert all(words in prompt for words in expected)


def test_a_pronoun_stands_for_what_it_agrees_with():
    prompt = "A woman sees a dog. It wags its tail while she laughs."
    stands_for = [text.split(" in: ")[0] for text in descriptions(prompt, "pronoun_resolution")]
    assert stands_for == ['"it" is the dog', '"its" is the dog', '"she" is the woman']
    assert not descriptions("It is raining.", "pronoun_resolution")


def test_a_thing_keeps_its_own_attributes_only():
    points = descriptions("a red apple, a small blue cup and a plate", "cross_entity_binding")
    assert points == ["the apple is red", "the cup is small", "the cup is blue"]
    assert descriptions("a brown and white kitchen", "material") == [
        "the kitchen is brown",
        "the kitchen is white",
    ]
    assert not descriptions("a red apple", "cross_entity_binding")
    assert not descriptions("an apple and no red cup", "material")


@pytest.mark.parametrize("colour", ["red", "orange", "purple", "black", "turquoise"])
def test_every_colour_of_a_thing_is_found(colour):
    sole, beside = extract(f"a photo of a {colour} orange"), extract(f"a {colour} cup and a white plate")
    assert f"the orange is {colour}" in [point.description for point in sole]
    assert f"the cup is {colour}" in [point.description for point in beside]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a pair of dogs", ["two dogs"]),
        ("two pairs of dogs", ["four dogs"]),
        ("A couple of red cats", ["two cats"]),
        ("a pair of dogs wearing glasses", ["two dogs"]),
        ("a trio of dogs and a quartet of cats", ["three dogs", "four cats"]),
        ("a dozen eggs", ["twelve eggs"]),
        ("two dozen eggs", ["24 eggs"]),
        ("half a dozen eggs", ["six eggs"]),
        ("one thousand balloons", ["1000 balloons"]),
        ("two hundred and fifty red balloons", ["250 balloons"]),
        ("one thousand two hundred balloons", ["1200 balloons"]),
        ("2,500 apples", ["2500 apples"]),
        ("thirty-five dogs", ["35 dogs"]),
        ("two black and white cats", ["two cats"]),
        ("three red and two blue balls", ["three red balls", "two blue balls"]),
        ("three red balls, two blue balls", ["three red balls", "two blue balls"]),
        ("three red, two dark red and one blue ball", ["three red balls", "two dark red balls"]),
        ("three ceramic tiles and two metal tiles", ["three ceramic tiles", "two metal tiles"]),
        ("three red apples and two dogs", ["three apples", "two dogs"]),
        ("a monster with four feet", ["four feet"]),
    ],
)
def test_numbers_are_read_as_they_are_said(prompt, expected):
    assert descriptions(prompt, "counting") == [f"there are exactly {number}" for number in expected]
    assert all(words.lower() in prompt.lower() for words in shown(prompt, "counting"))


@pytest.mark.parametrize(
    "prompt",
    [
        *("2.5 apples", "at 7:30 people walk", "1980 cars", "a few dozen eggs", "dozens of eggs"),
        *("a pair of glasses", "a pair of old brown leather boots", "a pair of scissors", "A couple dances."),
        *("a cup 2 m tall", "a 2 m tall cup", "a 5 year old child", "a statue two feet tall"),
        *("three red", "three red and two blue", "five large"),
    ],
)
def test_what_is_no_number_of_things(prompt):
    assert not descriptions(prompt, "counting")


def test_counted_colours_share_a_noun():
    colours = ["the balls are red", "the balls are blue"]
    assert descriptions("three red and two blue balls", "cross_entity_binding") == colours
    assert descriptions("three red tiles and two dogs", "material") == ["the tiles are red"]
    assert descriptions("a cat next to a pair of dogs", "entity_layout") == ["the cat is next to the dogs"]
    assert shown("a man holding a pair of balls", "contact_interaction") == ["holding a pair of balls"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("nothing but a chair", "it holds that: nothing but a chair"),
        ("nothing but a chair and a table", "it holds that: nothing but a chair and a table"),
        ("a hat that no one wears", "it holds that: no one wears"),
        ("anything but a red cat", "there is no cat"),
        ("anything but cats", "there are no cats"),
        ("anything but ordinary", "it holds that: anything but ordinary"),
    ],
)
def test_negations_of_two_words(prompt, expected):
    assert [point.description for point in extract(prompt)] == [expected]


def test_a_bare_photo_is_no_style():
    assert descriptions("a photo of a bench", "artistic_style") == []
    assert not extract("a photo of a bench") and not extract("Please create an image of a bench.")
    assert not extract("The image shows a bench.") and not extract("photographs of a bench")
    assert not extract("Please create a picture of a bench.") and not extract("The picture shows a bench.")
    for medium in ("black and white photo", "polaroid photo", "photorealistic photo", "sketch"):
        assert descriptions(f"a {medium} of a bench", "artistic_style")[0] == f"the picture is a {medium}"


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("one dog", "counting"),
        ("a photo of an orange", "material"),
        ("three years ago", "counting"),
        ("a giant panda", "size"),
        ("a bird flying", "counterfactual"),
        ("a bottle next to a cage", "containment_relation"),
        ("a plate sits on a table", "full_body_action"),
        ("a painting behind a chair", "artistic_style"),
        ("A couple is watching a movie.", "artistic_style"),
        ("a man on a red chair", "animal_action"),
        ("The Dog sleeps.", "knowledge_application"),
        ('"Blue dogs" on a poster', "material"),
        ("a dog in front of a cabinet", "containment_relation"),
        ("Not only dogs", "negation"),
    ],
)
def test_what_is_no_key_point_of_a_kind(prompt, kind):
    assert not descriptions(prompt, kind)


def test_forms_of_verbs():
    forms = ("sat", "running", "carries", "lying", "kneels", "waved", "squatting")
    assert [lemma(form) for form in forms] == ["sit", "run", "carry", "lie", "kneel", "wave", "squat"]
    assert lemma("table") is None


def test_points_come_in_order_once_and_the_same_again():
    prompt = 'In an oil painting, two small dogs chase a red ball below a sign that reads "Run". No cats.'
    points = extract(prompt)
    assert points == extract(prompt) and len(points) == len(set(points))
    order = [list(kinds()).index(point.kind) for point in points]
    assert order == sorted(order)
    kinds_extracted = {point.kind for point in points}
    assert kinds_extracted >= {
        "negation",
        "counting",
        "size",
        "artistic_style",
        "text_rendering",
        "entity_layout",
    }


@pytest.mark.parametrize("prompt", ["", "  ", None])
def test_no_prompt_is_refused(prompt):
    with pytest.raises(ValueError, match="expected a prompt"):
        extract(prompt)
