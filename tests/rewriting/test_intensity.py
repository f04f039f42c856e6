import pytest

from t2ialign.rewriting.intensity import INTENSITIES, intensity, leave_alone, word_count


def test_long_prompts_are_left_alone():
    assert not leave_alone("word " * 80)
    assert leave_alone("word " * 81)
    assert leave_alone("four words are long", longest=3)
    assert word_count(" a  red\ncat ") == 3


def test_the_instruction_says_the_number_of_words():
    allowed = [level.words for level in INTENSITIES.values()]
    assert allowed == sorted(allowed) and list(INTENSITIES) == ["light", "medium", "full"]
    for level in INTENSITIES.values():
        assert f"at most {level.words} more words" in level.instruction


def test_unknown_intensity():
    with pytest.raises(ValueError, match="got intensity 'strong'; expected one of light, medium, full"):
        intensity("strong")
