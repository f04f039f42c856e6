"""The words that near-miss rules exchange: colours, objects, relations, attributes, styles.

Each tuple is a family whose members replace one another, in this order and around its end.
"""

from __future__ import annotations

from dataclasses import dataclass

from rewards.toy.captions import COMPARISONS, RELATIONS, SIZES
from rewards.toy.world import COLOURS, SHAPES

Family = tuple[str, ...]


def _words(text: str) -> Family:
    """Words of a text; an underscore stands for a space."""
    return tuple(word.replace("_", " ") for word in text.split())


@dataclass(frozen=True)
class Words:
    """A vocabulary; `groups` are (name of the kind, singular nouns), `most` is the largest number used.

    `each` is how many replacements a word gets at most.
    """

    colours: Family
    groups: tuple[tuple[str, Family], ...]
    relations: tuple[Family, ...]
    attributes: tuple[Family, ...]
    styles: Family = ()
    most: int = 20
    each: int = 3


MEDIA = {
    **dict.fromkeys(("photo", "photograph", "selfie", "snapshot"), "photo"),
    **dict.fromkeys(("drawing", "cartoon", "illustration", "comic", "sketch", "doodle"), "drawing"),
    **dict.fromkeys(("painting", "watercolor", "watercolour"), "painting"),
    **dict.fromkeys(("render", "rendering"), "render"),
    **dict.fromkeys(("sculpture", "statue"), "sculpture"),
    **dict.fromkeys(("picture", "image"), "picture"),
}
"""The word that a prompt uses for itself -> the medium; a "picture" may be of any medium."""

CONVERSE = {
    **dict.fromkeys(
        ("left of", "to the left of", "on the left of", "on the left side of"), ("left of", False)
    ),
    **dict.fromkeys(
        ("right of", "to the right of", "on the right of", "on the right side of"), ("left of", True)
    ),
    **{"above": ("above", False), "below": ("above", True), "over": ("above", False)},
    **{"under": ("above", True), "underneath": ("above", True), "beneath": ("above", True)},
    **{"on top of": ("on", False), "in front of": ("front", False), "behind": ("front", True)},
    **{"inside": ("inside", False), "outside": ("outside", False), "far from": ("far", None)},
    **{"larger than": ("larger", False), "bigger than": ("larger", False), "smaller than": ("larger", True)},
    **{"taller than": ("taller", False), "shorter than": ("taller", True)},
    **{"higher than": ("higher", False), "lower than": ("higher", True)},
    **dict.fromkeys(("next to", "beside", "near"), ("near", None)),
    **{"and": ("and", None), "with": ("with", False), "without": ("without", False)},
}
"""Link of two nouns -> its name, and whether that holds of the nouns in reverse; None where order is free."""

BOUNDARIES = frozenset(
    _words("""of in on at by with without near next beside between behind under beneath underneath below above
    over inside outside front from to into onto through across against along around and or but nor is are was
    were be been being has have had do does that which who whose where while when as than like for no not its
    his her their our my your the this that these those some many several every each both larger smaller
    bigger taller shorter higher lower far during after before amid among up down off out towards toward
    beyond past covered made dressed called named said says can will would it they he she""")
)
"""Words that end a noun phrase."""
NEGATORS = frozenset(("no", "not", "without", "never", "nor", "none", "nobody", "nothing", "isn't", "aren't"))
NOUNS_IN_ING = frozenset(
    _words("""building painting drawing ceiling king ring string wing spring swing wedding clothing earring
    evening morning lightning pudding dumpling duckling sibling thing rendering awning railing dressing""")
)
QUANTITIES = frozenset(_words("lot few couple bit little kind type sort number variety bunch dozen"))

_ANIMALS = """cat dog rabbit horse cow sheep pig goat chicken duck goose turkey bird parrot owl eagle
penguin flamingo peacock swan elephant giraffe zebra lion tiger leopard cheetah bear panda koala kangaroo
monkey gorilla wolf fox deer moose raccoon squirrel hedgehog mouse rat hamster frog turtle tortoise
crocodile lizard snake dinosaur dragon unicorn fish goldfish shark whale dolphin octopus crab lobster
snail butterfly bee spider ant camel llama donkey hippo rhino sloth otter seal walrus bat crow pigeon
rooster hen kitten puppy"""
_VEHICLES = """car truck bus van taxi motorcycle bicycle scooter train tram tractor airplane helicopter rocket
boat ship sailboat submarine canoe automobile ambulance skateboard spaceship"""
_FRUIT = (
    "apple banana orange pear peach grape lemon lime strawberry cherry pineapple watermelon mango kiwi plum"
)
_VEGETABLES = (
    "carrot tomato potato broccoli cucumber onion pepper eggplant pumpkin mushroom cabbage corn lettuce"
)
_FOOD = """cake cookie donut pizza sandwich burger hamburger croissant pancake waffle cupcake pie taco burrito
salad soup steak"""
_FURNITURE = "chair table sofa couch bed bench desk stool armchair bookshelf cabinet wardrobe dresser lamp"
_KITCHEN = "cup mug bowl plate bottle fork knife spoon teapot kettle pan pot vase jar glass"
_APPLIANCES = "microwave toaster oven refrigerator blender sink dishwasher stove toilet bathtub"
_DEVICES = "laptop phone tablet television camera clock keyboard radio monitor printer robot"
_THINGS = """book umbrella suitcase backpack handbag ball balloon kite guitar piano violin drum trumpet
teddy_bear doll candle key pencil pen box basket bag bucket ladder hammer mirror painting sign flag
newspaper frisbee snowboard surfboard parking_meter fire_hydrant traffic_light stop_sign hair_dryer
toothbrush baseball_bat tennis_racket"""
_CLOTHES = "hat cap scarf jacket coat shirt dress skirt tie shoe boot sock glove sweater crown helmet"
_PEOPLE = "man woman boy girl"
_WORKERS = """astronaut firefighter chef doctor nurse farmer soldier knight pirate wizard clown ninja
cowboy king queen"""
_PLANTS = "tree flower bush cactus rose tulip sunflower palm_tree plant"
_BUILDINGS = "house castle tower church barn lighthouse windmill skyscraper bridge temple cabin tent"
_NATURE = "mountain beach forest desert river lake ocean island waterfall volcano"
_SHAPES = "circle square triangle cross rectangle hexagon star heart cube sphere cylinder cone pyramid"


ENGLISH = Words(
    colours=(
        *("red", "blue", "green", "yellow", "purple", "black", "white", "orange", "pink", "brown"),
        *("grey", "gray", "turquoise", "teal", "beige", "violet", "golden", "silver"),
    ),
    groups=(
        *(("animal", _words(_ANIMALS)), ("vehicle", _words(_VEHICLES)), ("fruit", _words(_FRUIT))),
        *(("vegetable", _words(_VEGETABLES)), ("food", _words(_FOOD)), ("furniture", _words(_FURNITURE))),
        *(
            ("kitchenware", _words(_KITCHEN)),
            ("appliance", _words(_APPLIANCES)),
            ("device", _words(_DEVICES)),
        ),
        *(("object", _words(_THINGS)), ("garment", _words(_CLOTHES)), ("person", _words(_PEOPLE))),
        *(("person", _words(_WORKERS)), ("plant", _words(_PLANTS)), ("building", _words(_BUILDINGS))),
        *(("landscape", _words(_NATURE)), ("shape", _words(_SHAPES))),
    ),
    relations=(
        ("left of", "right of", "above", "below"),
        ("to the left of", "to the right of", "above", "below"),
        ("on the left of", "on the right of"),
        ("on the left side of", "on the right side of"),
        ("on the left", "on the right"),
        ("on top of", "underneath", "next to"),
        ("under", "on top of", "next to"),
        ("beneath", "on top of"),
        ("over", "under"),
        ("in front of", "behind"),
        ("inside", "outside"),
        ("next to", "far from"),
        ("beside", "far from"),
        ("near", "far from"),
        ("larger than", "smaller than"),
        ("bigger than", "smaller than"),
        ("taller than", "shorter than"),
        ("higher than", "lower than"),
    ),
    attributes=(
        *(("small", "large"), ("big", "small"), ("little", "big"), ("tiny", "huge"), ("giant", "tiny")),
        *(("tall", "short"), ("long", "short"), ("wide", "narrow"), ("thick", "thin"), ("fat", "thin")),
        *(("old", "new"), ("young", "old"), ("modern", "ancient"), ("open", "closed"), ("full", "empty")),
        *(("wet", "dry"), ("clean", "dirty"), ("hot", "cold"), ("broken", "intact"), ("soft", "hard")),
        *(("happy", "sad", "angry"), ("smiling", "crying"), ("fluffy", "smooth"), ("striped", "spotted")),
        *(("wooden", "metal", "stone", "plastic"), ("round", "square", "triangular"), ("shiny", "dull")),
        *(("sunny", "rainy", "snowy"), ("sitting", "standing", "lying"), ("sleeping", "running", "jumping")),
        *(("walking", "running", "sitting"), ("bright", "dark"), ("raw", "cooked"), ("straight", "curly")),
    ),
    styles=("realistic photo", "cartoon drawing", "oil painting", "3D render", "marble sculpture"),
)
"""Everyday English."""

TOY_WORLD = Words(
    colours=tuple(COLOURS),
    groups=(("shape", SHAPES),),
    relations=(RELATIONS, COMPARISONS),
    attributes=(SIZES,),
    most=4,
    each=5,
)
"""The toy world, whose captions know no other words."""
