"""Articles by sound, plurals and back, and number words."""

import pytest

from rewards.text.contrast_words import ENGLISH
from rewards.text.english import NUMBERS, article, counted, is_plural, plural, singular, value


@pytest.mark.parametrize(
    ("an", "phrases"),
    [
        (
            "an",
            "apple|hour|honest man|heir|umbrella|egg|owl|8|11|18th-century house|80s car|SUV|X-ray|MRI|LED",
        ),
        ("an", "uninvited guest|unimportant thing|F-16|usher|urn|old unicorn|'open' sign"),
        (
            "a",
            "cat|unicorn|university|uniform|UFO|U-turn|one-eyed pirate|ewe|european city|ukulele|horse",
        ),
        ("a", "NASA rocket|LEGO brick|useful tool|union|12|1960s poster|house|100|yellow owl"),
    ],
)
def test_article_goes_by_sound(an, phrases):
    assert {phrase: article(phrase) for phrase in phrases.split("|")} == dict.fromkeys(phrases.split("|"), an)


@pytest.mark.parametrize(
    ("one", "many"),
    [
        *(("cat", "cats"), ("bus", "buses"), ("box", "boxes"), ("church", "churches"), ("bush", "bushes")),
        *(("city", "cities"), ("boy", "boys"), ("movie", "movies"), ("pie", "pies"), ("cookie", "cookies")),
        *(
            ("potato", "potatoes"),
            ("piano", "pianos"),
            ("shoe", "shoes"),
            ("mango", "mangoes"),
            ("toe", "toes"),
        ),
        *(("man", "men"), ("snowman", "snowmen"), ("human", "humans"), ("ottoman", "ottomans")),
        *(("child", "children"), ("person", "people"), ("foot", "feet"), ("tooth", "teeth"), ("ox", "oxen")),
        *(("goose", "geese"), ("mongoose", "mongooses"), ("mouse", "mice"), ("house", "houses")),
        *(("wolf", "wolves"), ("knife", "knives"), ("bookshelf", "bookshelves"), ("leaf", "leaves")),
        *(
            ("roof", "roofs"),
            ("giraffe", "giraffes"),
            ("olive", "olives"),
            ("glove", "gloves"),
            ("loaf", "loaves"),
        ),
        *(
            ("horse", "horses"),
            ("vase", "vases"),
            ("nose", "noses"),
            ("lens", "lenses"),
            ("virus", "viruses"),
        ),
        *(("glass", "glasses"), ("cross", "crosses"), ("cactus", "cacti"), ("octopus", "octopuses")),
        *(
            ("peach", "peaches"),
            ("headache", "headaches"),
            ("moustache", "moustaches"),
            ("stomach", "stomachs"),
        ),
        *(("quiz", "quizzes"), ("prize", "prizes"), ("axe", "axes"), ("ski", "skis"), ("kiwi", "kiwis")),
        *(("teddy bear", "teddy bears"), ("cup of tea", "cups of tea"), ("pair of shoes", "pairs of shoes")),
        *(("SUV", "SUVs"), ("Cat", "Cats"), ("Person", "People")),
    ],
)
def test_plural_and_back(one, many):
    assert plural(one) == many
    assert singular(many) == one
    assert singular(one) == one, "a singular must not lose an s"
    assert is_plural(many)
    assert not is_plural(one)


@pytest.mark.parametrize("noun", ["deer", "sheep", "goldfish", "aircraft", "scissors", "jeans", "moose"])
def test_some_nouns_do_not_change(noun):
    assert plural(noun) == singular(noun) == noun
    assert not is_plural(noun)


def test_every_noun_of_the_vocabulary_survives_the_round_trip():
    nouns = [noun for _, family in ENGLISH.groups for noun in family]
    assert len(nouns) > 200
    assert [noun for noun in nouns if singular(plural(noun)) != noun] == []


def test_numbers():
    assert [value(word) for word in ("a", "An", "one", "Three", "twenty", "7", "some")] == [
        1,
        1,
        1,
        3,
        20,
        7,
        None,
    ]
    assert [value(word) for word in NUMBERS] == list(range(21))
    assert counted(1, "hour") == "an hour"
    assert counted(1, "hour", article_for_one=False) == "one hour"
    assert counted(3, "deer") == "three deer"
    assert counted(25, "mouse") == "25 mice"
