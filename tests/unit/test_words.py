"""What has to hold of the word list and of words people type."""

from __future__ import annotations

import os
import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import UsageError
from p2pnb.words import WORDS, chosen_words, normalise_words, random_words, suggest, verification_words

# Pairs and groups that sound the same; a list read aloud may hold at most one of each.
SOUND_ALIKE = """
air heir | aisle isle | altar alter | ant aunt | ate eight | ball bawl | bare bear | beach beech | beat beet
bell belle | berry bury | blew blue | board bored | border boarder | bow bough | brake break | bread bred
bridal bridle | canon cannon | canvas canvass | carat carrot | ceiling sealing | cell sell | cellar seller
cereal serial | chord cord | cite sight site | coarse course | colonel kernel | coral choral | council counsel
creak creek | cruise crews | currant current | cymbal symbol | dear deer | desert dessert | dew due
die dye | doe dough | dual duel | ewe you | fair fare | feat feet | fir fur | flair flare | flea flee
flew flu | flour flower | for four | foul fowl | gait gate | gorilla guerrilla | grate great | grizzly grisly
groan grown | hair hare | hall haul | hangar hanger | heal heel | hear here | heard herd | hi high
hoard horde | hoarse horse | hole whole | holy wholly | hour our | idle idol | key quay | knead need
knight night | knot not | know no | lead led | leak leek | lesson lessen | liar lyre | loan lone | made maid
mail male | main mane | maize maze | mantel mantle | marshal martial | meat meet | medal meddle | metal mettle
miner minor | missed mist | moose mousse | morning mourning | muscle mussel | naval navel | nun none
oar ore | one won | pail pale | pain pane | pair pear | palate palette | pause paws | peace piece | peak peek
pedal peddle | plain plane | pole poll | pray prey | principal principle | profit prophet | rain reign
rap wrap | read reed | right write | ring wring | road rode | roll role | root route | rose rows | sail sale
scene seen | sea see | seam seem | sew so | shake sheikh | shore sure | slay sleigh | soar sore | sole soul
some sum | son sun | stair stare | stake steak | stationary stationery | steal steel | storey story
sundae sunday | tail tale | tea tee | team teem | tear tier | their there | threw through | throne thrown
thyme time | tide tied | toad towed | toe tow | vain vein | vale veil | vary very | wail whale | waist waste
wait weight | war wore | ware wear | wave waive | weak week | weather whether | which witch | wine whine
wood would | yoke yolk
"""


def _one_slip_apart(left: str, right: str) -> bool:
    short, long = sorted((left, right), key=len)
    start = next((place for place, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) == len(long):
        swapped = short[:start] + short[start + 1 : start + 2] + short[start : start + 1] + short[start + 2 :]
        return short[start + 1 :] == long[start + 1 :] or swapped == long
    return len(long) == len(short) + 1 and short[start:] == long[start + 1 :]


def test_2048_sorted_words_of_3_to_8_letters() -> None:
    assert len(WORDS) == 2048
    assert all(left < right for left, right in pairwise(WORDS))
    assert all(re.fullmatch("[a-z]{3,8}", word) for word in WORDS)


def test_four_letters_tell_every_word() -> None:
    repeated = [start for start, count in Counter(word[:4] for word in WORDS).items() if count > 1]
    assert repeated == []


def test_no_two_words_are_one_typing_slip_apart() -> None:
    # A slip keeps all but one or two letters: look only at pairs that share a word with one letter taken out.
    shared: dict[str, list[str]] = {}
    for word in WORDS:
        for place in range(len(word)):
            shared.setdefault(word[:place] + word[place + 1 :], []).append(word)
        shared.setdefault(word, []).append(word)
    close = {
        (left, right)
        for group in shared.values()
        for left in group
        for right in group
        if left < right and _one_slip_apart(left, right)
    }
    assert close == set()
    assert _one_slip_apart("angel", "angle")
    assert _one_slip_apart("cable", "table")
    assert _one_slip_apart("able", "table")


def test_no_two_words_sound_the_same() -> None:
    known = set(WORDS)
    groups = [group.split() for group in SOUND_ALIKE.replace("\n", "|").split("|") if group.strip()]
    assert [group for group in groups if len(known & set(group)) > 1] == []


def test_every_word_is_drawn_by_exactly_one_pattern_of_bits() -> None:
    drawn = [random_words(lambda n, value=value: (value << 5).to_bytes(n, "big"), 1)[0] for value in range(2048)]  # type: ignore[misc]
    assert tuple(drawn) == WORDS


def test_random_words_take_all_their_bits_from_the_source() -> None:
    assert random_words(bytes, 4) == (WORDS[0],) * 4
    assert random_words(lambda n: b"\xff" * n, 4) == (WORDS[-1],) * 4
    assert len(set(random_words(os.urandom, 16))) > 8


def test_verification_words_name_the_first_bits() -> None:
    assert verification_words(bytes([0, 0b00100000, 0b00001100]) + bytes(29), 2) == (WORDS[1], WORDS[3])
    with pytest.raises(ValueError, match="44 bits"):
        verification_words(b"\xff" * 5)


@pytest.mark.parametrize(
    "typed",
    [
        "olive-harbor-tundra-quill",
        "  Olive Harbor\tTUNDRA\nquill ",
        "olive, harbor, tundra, quill.",
        "olive_harbor_tundra_quill",
        "olive–harbor—tundra−quill",
        "olive\u2011harbor\u00a0tundra\u200bquill",
        "olive.harbor/tundra+quill",
        "«olive» “harbor” (tundra) <quill>",
        "ｏｌｉｖｅ　ｈａｒｂｏｒ tundra quill",
    ],
)
def test_the_way_words_are_typed_makes_no_difference(typed: str) -> None:
    assert normalise_words(typed) == ("olive", "harbor", "tundra", "quill")


def test_a_sequence_is_taken_like_a_text() -> None:
    assert normalise_words(["Olive", "harbor tundra", "-quill-"]) == ("olive", "harbor", "tundra", "quill")


def test_apostrophes_vanish_in_every_form() -> None:
    assert normalise_words("don't panic") == normalise_words("DON’T panic") == normalise_words("dont panic")


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert normalise_words("cafe\u0301 Ångström") == normalise_words("caf\u00e9 \u212bngstro\u0308m")


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_words(text)
    assert normalise_words(once) == once
    assert normalise_words("-".join(once)) == once


@pytest.mark.parametrize(
    "text", ["our secret phrase", "blue giraffe picnic", "correct horse battery", "grüne Wiese im Mai"]
)
def test_own_words_of_some_strength_are_taken(text: str) -> None:
    assert chosen_words(text) == normalise_words(text)


def test_words_drawn_from_the_list_are_always_strong_enough() -> None:
    for start in range(0, len(WORDS), 4):
        chosen_words(WORDS[start : start + 4])


@pytest.mark.parametrize(
    "text", ["", "...", "single", "a b", "1234 5678", "test test", "aaaaaaaaaa bbbbbbbbbb", "x " * 17]
)
def test_weak_words_are_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        chosen_words(text)
    assert not any(f" {word} " in f" {refusal.value} " for word in normalise_words(text) if word != "a")


@pytest.mark.parametrize("place", range(8))
def test_a_slip_leads_back_to_the_word(place: int) -> None:
    for word in WORDS[place::97]:
        if place < len(word) >= 5:
            assert suggest(word[:place] + word[place + 1 :]) is not None
            assert suggest(word + word[-1]) == word


def test_a_word_of_the_list_and_nonsense_get_no_suggestion() -> None:
    assert suggest("Giraffe") is None
    assert suggest("qqqqq") is None
    assert suggest("x") is None
    assert suggest("jiraffe") == "giraffe"
