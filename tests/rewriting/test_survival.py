"""What must survive a rewrite: quotations, numbers and negations, by hand."""

import pytest

from t2ialign.rewriting.negations import negations, stem
from t2ialign.rewriting.numbers import numbers
from t2ialign.rewriting.quotes import letters, quoted, without_quotes
from t2ialign.rewriting.survival import KINDS, Lost, check


def kinds(original, rewrite):
    return [lost.what for lost in check(original, rewrite)]


@pytest.mark.parametrize(
    ("text", "quotes"),
    [
        ('a sign "Open now"', ["Open now"]),
        ("a sign \u201cOpen\u201d and \u201eZu\u201c", ["Open", "Zu"]),
        ("a sign \u00abOuvert\u00bb, \u300c\u958b\u300d, \u300e\u9589\u300f", ["Ouvert", "\u958b", "\u9589"]),
        ("a sign 'Around the World' on it", ["Around the World"]),
        ("a sign \u2018I\u2019m here\u2019 on it", ["I\u2019m here"]),
        ("a sign 'I'm here' on it", ["I'm here"]),
        ("the dogs' beds and the cats' bowls", []),
        ("rock 'n' roll of the '90s and the girl's cat's hat", []),
        ('a 12" record beside a 7" record', []),
        ('he says,"Go"', ["Go"]),
        ('an open " mark', []),
        ('""', []),
        ("a `label` here", ["label"]),
    ],
)
def test_quoted(text, quotes):
    assert [quote.text for quote in quoted(text)] == quotes


def test_spelling_of_marks_is_no_loss_but_letters_are():
    sign = 'a sign "Don\'t  stop."'
    assert kinds(sign, "a sign \u201cDon\u2019t stop\u201d") == []
    assert kinds(sign, "Don't stop, says a sign") == []
    assert kinds(sign, 'a sign "DON\'T STOP"') == ["quote"]
    assert kinds(sign, 'a sign "Do not stop"') == ["quote"]
    assert kinds('a sign "cat"', 'a sign "cats"') == ["quote"]
    assert check('"A" and "B!"', '"A" and "B"') == [Lost("quote", "B!")]
    assert letters("a  b.") == "a b"
    assert without_quotes('x "two dogs" y "no"') == 'x  "  y  " '


def test_numbers_and_negations_in_quotations_are_letters():
    assert kinds('a sign "no dogs" and "3 cats"', 'the sign "no dogs", under it "3 cats"') == []
    assert kinds('a sign "2" above 2 dogs', 'a sign "2" above two dogs') == []
    assert kinds('a sign "2" above 2 dogs', 'a sign "2" above dogs') == ["number"]


@pytest.mark.parametrize(
    ("original", "rewrite"),
    [
        ("three dogs", "3 dogs"),
        ("3 dogs", "exactly three brown dogs"),
        ("a pair of cats", "two cats"),
        ("two cats", "a pair of cats"),
        ("two cats", "a white cat beside an old cat"),
        ("two robots", "one is red, the other blue"),
        ("three robots", "a red one, a blue one and a third in green"),
        ("a couple of birds", "2 birds"),
        ("a dozen eggs", "twelve eggs"),
        ("half a dozen eggs", "6 eggs"),
        ("two dozen roses", "24 roses"),
        ("a hundred balloons", "100 balloons"),
        ("two hundred and five books", "205 books"),
        ("twenty-five books", "25 books"),
        ("1,000 lanterns", "one thousand lanterns"),
        ("three dogs", "two dogs lie and one dog stands"),
        ("four dogs", "Four dogs: two dogs lie, two dogs run"),
        ("six-legged alien", "an alien on six legs"),
        ("a fox with nine tails", "a nine-tailed fox"),
        ("three persons", "three people"),
        ("two pandas", "both pandas"),
        ("Apollo 11", "the Apollo 11 module"),
        ("a clock at 10:10", "a clock that shows 10:10"),
    ],
)
def test_numbers_survive(original, rewrite):
    assert kinds(original, rewrite) == []


@pytest.mark.parametrize(
    ("original", "rewrite", "evidence"),
    [
        ("three small dogs", "small dogs", "three small dogs"),
        ("three dogs", "four dogs", "three dogs"),
        ("three dogs", "two dogs, and three bones", "three dogs"),
        ("two dogs and three cats", "two dogs and cats", "three cats"),
        ("a pair of cats", "some cats", "a pair of cats"),
        ("a dozen eggs", "many eggs", "a dozen eggs"),
        ("Apollo 11", "a moon module", "11"),
        ("six-legged alien", "an alien", "six-legged"),
        ("1.5 apples", "15 apples", "1.5 apples"),
        ("one cat", "cats on a roof", "one cat"),
        ("a shirt with number seven", "a shirt", "seven"),
        ("a clock at 10:10", "a clock", "10:10"),
    ],
)
def test_lost_numbers(original, rewrite, evidence):
    assert check(original, rewrite) == [Lost("number", evidence)]


def test_swapped_numbers_are_both_lost():
    assert kinds("two dogs and three cats", "three dogs and two cats") == ["number", "number"]


@pytest.mark.parametrize(
    "idiom",
    [
        "one of the dogs",
        "no one else",
        "one holds the other",
        "one by one",
        "the 21st century",
        "the 1980s",
        "a 50mm lens in 4K",
        "a two-story house",
        "three-dimensional art",
        "a pair of scissors",
        "a pair of white wings",
        "the lines of the two are similar",
        "on one side",
        "dozens of hundreds",
    ],
)
def test_idioms_need_not_survive(idiom):
    assert not any(number.required for number in numbers(idiom))
    assert "number" not in kinds(idiom, "something else, said otherwise")


@pytest.mark.parametrize(
    ("original", "rewrite"),
    [
        ("a man without a hat", "a man who wears no hat"),
        ("a man without a hat", "a hatless man"),
        ("a dog, no leash", "an unleashed dog"),
        ("a sky free of clouds", "a cloudless sky"),
        ("a sugar-free cake", "a cake without sugar"),
        ("anything but red cars", "cars that are not red"),
        ("he did not open the bag", "the bag is unopened"),
        ("the bag was not opened", "a closed bag"),
        ("no sound is heard", "a silent scene"),
        ("there is no one on the wall", "the wall is deserted"),
        ("no ships at sea", "no trace of any boats at sea"),
        ("without crew", "there are no passengers"),
        ("his camel is not around.", "there is no camel"),
        ("neither hat nor coat", "without hat and coat"),
        ("he never smiles", "he does not smile"),
        ("the boy did not draw the sword", "the sword is not unsheathed"),
        ("the door is not locked", "the door is ajar"),
        ("it does not look panicked", "it shows no sign of panic"),
    ],
)
def test_negations_survive(original, rewrite):
    assert kinds(original, rewrite) == []


@pytest.mark.parametrize(
    ("original", "rewrite", "evidence"),
    [
        ("a man without a hat", "a man with a hat", "without a hat"),
        ("a man without a hat", "a man", "without a hat"),
        ("a cat with no tail on a sofa", "a cat with a long tail", "no tail"),
        ("a sleeveless dress", "a dress", "sleeveless"),
        ("anything but red", "red", "anything but red"),
        ("a man without a hat", "a man who is not tall", "without a hat"),
        ("a bowl free of fruit", "a bowl of fruit", "free of fruit"),
        ("he isn\u2019t smiling", "he smiles", "isn\u2019t smiling"),
    ],
)
def test_lost_negations(original, rewrite, evidence):
    assert check(original, rewrite) == [Lost("negation", evidence)]


def test_one_vague_negation_does_not_answer_two():
    original = "no cups on the table, no plates on the table"
    assert kinds(original, "on the table there is not a single dish") == ["negation"]


@pytest.mark.parametrize(
    "figure",
    [
        "countless stars",
        "a stainless steel pot",
        "not only red",
        "not far behind him",
        "nothing but roses",
        "in zero gravity",
        "No. 5",
        "unless it rains",
    ],
)
def test_figures_of_speech_deny_nothing(figure):
    assert negations(figure) == []


def test_stems():
    assert stem("opened") == stem("opening") == stem("open")
    assert stem("panicked") == stem("panic")
    assert stem("leafless") == stem("leaves")
    assert stem("plugged") == stem("plug")


def test_kinds_come_in_order_and_nothing_is_lost_by_keeping_the_prompt():
    prompt = 'three cats without hats under "Meow"'
    assert kinds(prompt, "") == list(KINDS)
    assert check(prompt, prompt) == [] and check("", "") == [] and check("a cat", "") == []


def test_other_languages_are_not_read():
    """What docs/rewrite.md warns of: three cats, no dog -> one dog."""
    assert check("\u4e09\u53ea\u732b\uff0c\u6ca1\u6709\u72d7", "\u4e00\u53ea\u72d7") == []
