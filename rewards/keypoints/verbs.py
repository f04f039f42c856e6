"""Verbs of prompts, by what they ask of bodies, hands and pairs of things; every form of a verb finds it."""

from __future__ import annotations


def listed(text: str) -> frozenset[str]:
    """Words of a text; an underscore stands for a space."""
    return frozenset(word.replace("_", " ") for word in text.split())


POSES = listed("sit stand lie lean float fall fly hang rest curl")
"""Verbs that things without a body are subjects of too: a book lies, a tower stands."""

BODY = POSES | listed(
    """run walk jump dance kneel squat crouch climb swim stretch skate ski surf hike jog leap crawl bow march
    cheer perform train glide spin twirl struggle shuttle swing pose meditate bend wander stroll stride
    stumble sneak rush race camp dig fight wrestle exercise play practice compete sprint dive splash
    jumping settle roll gather gallop cycle sail serve juggle stalk step sneeze balance dodge flee escape
    drift charge work shop travel roam trudge trek parachute celebrate practise lunge soar mimic
    bathe lurk squeeze tiptoe skip hop wade paddle float sweep mow picnic garden snorkel sway fidget
    rock pedal skateboard curtsy surrender slide tumble ride"""
)
"""Whole-body poses and movements."""

ANIMAL = listed(
    """bark bite chew graze wag hunt perch flutter flap nest peck scratch lick sniff growl howl purr prowl
    hover buzz claw pounce nibble gnaw slither swoop forage swim gallop trot nuzzle crow chirp drink eat
    chase smell sleep nap doze pant roar stalk spread swish burrow trample rear frolic scamper cock
    wriggle wander paw peer"""
)
"""Verbs of animals, besides those of people."""

HAND = listed(
    """hold grip grasp wave touch write draw paint type knit sew knead stir cut slice chop grab pick throw
    toss catch wipe clap pluck pour press peel tie fix sculpt carve point strum conduct massage rub pinch
    squeeze pat stroke pet brush polish fold sketch light sprinkle sharpen operate adjust turn shake scoop
    plant grade shoot whisk juggle dip lift raise wield clutch cradle clasp flip weave fiddle plug
    assemble hammer comb braid tap knock scrub thread dissect repair stamp engrave prune poke"""
)
"""Verbs of hands: gestures, grips, tools."""

CONTACT = listed(
    """hold carry hug embrace touch kiss ride push pull lift hit strike kick bite eat pet stroke grip grab
    grasp brush wipe wash clean cut slice chop stir catch pick feed plug press climb wrap scrape claw
    scratch lick support wear crush shake dig carve cook fix sew knit write paint peel massage pluck
    squeeze rub pat clutch cradle wield operate drive drag hammer nuzzle cuddle tickle comb braid bathe
    chew drink nibble gnaw throw toss pour knead fold polish punch tackle wrestle tie open land sculpt
    repair water plant install mow sweep dribble smash pierce stab trample poke tap knock scrub assemble
    serve hand entwine intertwine taste sip swallow inspect tug pinch saw weave cling smoke entangle lean
    sharpen stack steer row blow rock spill weld bake tend mend prune milk groom shave trim"""
)
"""Verbs whose subject touches or handles their object."""

NEEDS_WITH = listed("play write wrestle fiddle dance draw paint")
"""Verbs that reach what they handle through "with"."""

LOOKING = listed("look gaze stare peer glance glare peek point wave bark shout smile talk speak")
"""Relations without contact that need a word such as "at" before what they are about."""

WATCHING = listed(
    """watch face observe admire greet follow chase guard survey examine study photograph lead teach guide
    protect call warn salute applaud address interview attract illuminate chat converse whisper listen
    discuss sing run fly pursue surround hunt aim contemplate monitor film instruct see discover direct
    frighten bow scan confront encounter hear  track beckon eavesdrop command summon"""
)
"""Relations without contact that are said of an object, or of something after a preposition."""

PURSUITS = listed("run fly swim jump leap pass cross soar sail")
"""Movements that relate to what follows "after", "around", "over", "past" or "across"."""

HUMAN = listed(
    """wear read write drive cook paint play operate sew knit type study teach conduct dress juggle sing
    dance drink sip photograph ride surf ski skate skateboard perform examine draft think work shop pilot
    serve bake greet salute meditate hold negotiate chat compare guard repair"""
)
"""Verbs whose subject is in reality always a person."""

OTHER = listed(
    """have contain show depict make cover fill hide scatter park place put set reflect shine glow burn melt
    drip flow bloom rustle contrast sparkle whisper cast surround gleam tower loom jut sway blow stretch
    create enjoy feel wrap consist compose resemble feature adorn decorate provide accompany pair form
    present adopt wave try begin lower dress complete amplify add bring give offer stream seem appear help
    let stay become await wait head echo signal grow hit turn rise extend line emit radiate exude say read
    include design"""
)
"""Verbs that only end a noun phrase."""

_PAST = {
    **{"see": "saw"},
    **{"sit": "sat", "stand": "stood", "lie": "lay", "fall": "fell", "fly": "flew", "hang": "hung"},
    **{"run": "ran", "kneel": "knelt", "swim": "swam", "leap": "leapt", "swing": "swung", "bend": "bent"},
    **{"stride": "strode", "fight": "fought", "dig": "dug", "dive": "dove", "flee": "fled", "bite": "bit"},
    **{"hold": "held", "write": "wrote", "draw": "drew", "cut": "cut", "throw": "threw", "eat": "ate"},
    **{
        "catch": "caught",
        "frolic": "frolicked",
        "shake": "shook",
        "ride": "rode",
        "hit": "hit",
        "strike": "struck",
        "feed": "fed",
    },
    **{"wear": "wore", "drive": "drove", "drink": "drank", "lead": "led", "teach": "taught", "sing": "sang"},
    **{"speak": "spoke", "read": "read", "blow": "blew", "cling": "clung", "spin": "spun", "sleep": "slept"},
    **{"make": "made", "put": "put", "set": "set", "shine": "shone", "hide": "hid", "tie": "tied"},
    **{"have": "had", "weave": "wove", "grow": "grew", "creep": "crept", "think": "thought", "rise": "rose"},
    **{"cast": "cast", "spread": "spread", "bring": "brought", "give": "gave", "feel": "felt"},
}
_THIRD = {"have": "has", "try": "tries", "fly": "flies", "carry": "carries", "study": "studies"}
_DOUBLED = listed(
    """sit run swim skip hop jog dig hug grip grab cut chop stir wag flap knit pat pet rub tap hit plug wrap
    clap spin drip cast nap pin tip step stab scrub squat sag scan set put let tug dip flip shop strum
    begin trot trim"""
)
_ALSO_NOUNS = listed(
    """building painting drawing stands rests lights waves plants hands points types cuts bands prints lines
    forms looks shows watches sets presses peels falls works runs lands faces parks ties fishes stamps
    flies glasses hangs rows covers leads dresses parts posts plays leaves grounds rings rides blows
    smiles reads turns steps spins picks taps saws hammers combs brushes races serves pieces places shops
    smokes nests crows lies calls ships rises scratches scratched studies patterns records pants dives
    scoops spreads rears pairs creates slices folds designs features trains"""
)


def _forms(verb: str) -> tuple[str, str, str]:
    """-s, past and -ing of a verb."""
    stem = verb[:-1] if verb.endswith("e") and not verb.endswith(("ee", "ye")) else verb
    stem = verb + verb[-1] if verb in _DOUBLED else stem
    third = verb + "es" if verb.endswith(("s", "x", "ch", "sh")) else verb + "s"
    past = stem + "ed"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        third, past = verb[:-1] + "ies", verb[:-1] + "ied"
    ing = {"lie": "lying", "tie": "tying"}.get(verb, stem + "ing")
    return _THIRD.get(verb, third), _PAST.get(verb, past), ing


KNOWN = BODY | ANIMAL | HAND | CONTACT | LOOKING | WATCHING | HUMAN | OTHER
"""Every verb of the lists, as it is after "to"."""

_TABLE = {form: verb for verb in sorted(KNOWN) for form in _forms(verb)}


def lemma(word: str) -> str | None:
    """The verb of which a lower-case word is the -s, past or -ing form; None for any other word."""
    return _TABLE.get(word)


def ambiguous(word: str) -> bool:
    """Whether a form of a verb is often a noun: a pot of paint, two stands, ocean waves."""
    return word in _ALSO_NOUNS
