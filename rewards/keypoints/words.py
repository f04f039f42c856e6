"""Word lists of the key-point rules: attributes, states, feelings, styles, people, places, numbers.

Colours, animals and everyday things are those of `contrast_words`; here is only what it lacks.
"""

from __future__ import annotations

import re

from rewards.keypoints.verbs import KNOWN, listed
from rewards.text.contrast_words import ENGLISH, NEGATORS
from rewards.text.english import NUMBERS, value


def _group(*names: str) -> frozenset[str]:
    return frozenset(noun for name, nouns in ENGLISH.groups if name in names for noun in nouns)


COLOURS = frozenset(ENGLISH.colours) | listed(
    """gold cyan magenta maroon navy crimson scarlet lavender tan cream ivory amber indigo lilac emerald
    khaki azure bronze-colored rust-colored multi-colored multicolored colorful colourful rainbow-colored
    auburn multi-colour blonde burgundy peach-colored charcoal-colored reddish bluish blond"""
)
SHADES = listed("light dark pale bright deep vivid pastel neon")
"""Words that belong to the colour after them."""

SIZES = listed(
    """big small large huge tiny giant tall short long thick thin massive gigantic enormous little miniature
    mini wide narrow colossal oversized slender fat vast microscopic immense towering tiny-sized
    life-sized palm-sized petite larger smaller bigger taller shorter monumental minuscule"""
)
MATERIALS = listed(
    """wooden wood metal metallic plastic leather rubber glass fabric stone marble brick concrete crystal
    bronze brass copper iron steel silk velvet wool woolen cotton denim lace paper cardboard clay ceramic
    porcelain jade wax bamboo straw wicker linen cloth titanium chrome aluminum aluminium foam felt quartz
    obsidian granite cobblestone terracotta mahogany oak glazed tiled lacquered stained-glass satin nylon
    gemstone vinyl diamond mosaic tile tiles gold silver ice amber agate pottery tin crystalline sandstone
    holographic origami lego silicone resin acrylic pearl plaster limestone emerald ruby sapphire"""
)
TEXTURES = listed(
    """fluffy furry fuzzy soft hard smooth rough spiky bumpy grainy glossy shiny sleek jagged silky velvety
    plush coarse polished textured translucent transparent knitted crocheted woven prickly slimy sticky
    feathery scaly crispy crunchy gritty rugged hairy spongy matte leather-bound velvet-covered rocky
    frosted reflective iridescent semi-transparent see-through frothy silken bristly thorny"""
)
PATTERNS = listed("striped spotted checkered dotted plaid floral patterned polka-dot tabby zebra-striped")
SHAPES = listed(
    """round square rectangular circular triangular oval cubic cubical cylindrical spherical pentagonal
    hexagonal octagonal pyramidal conical oblong teardrop angular curved spiral crescent geometric
    ring-shaped elliptical polygonal zigzag flat pointed arched domed"""
)
LOOKS = listed("old new young ancient modern sharp delicate heavy vibrant murky bright dull")
"""Adjectives that no kind is for: alone no key point, but among several things one more to bind."""

STATES = listed(
    """broken cracked burning burnt melting melted frozen rusty rusted withered wilted sleeping asleep open
    closed empty wet dry dirty dusty muddy glowing lit dripping flowing abandoned ruined overgrown
    scattered shattered torn worn steaming boiling smoking blooming collapsed injured dead folded stacked
    piled tangled crumbling decaying rotting rotating flickering sparkling swaying rustling rustled
    leaking overflowing spilled dilapidated damaged weathered parked foggy misty snowy stormy crashing
    shining drifting blowing half-open half-closed unfinished upright motionless peeling bleeding foaming
    swirling exploding erupting tattered faded wrinkled crumpled bent twisted sunken submerged flooded
    rippling billowing cooked sliced fallen awake tired exhausted illuminated hungry rising cascading
    dried"""
)
FEELINGS = listed(
    """smile smiles smiling smiled grin grinning laugh laughing laughs laughed cry crying cries frown
    frowning angry angrily happy happily sad sadly surprised surprise serious curious curiously fear
    scared frightened terrified worried anxious anxiously joyful joyfully joy excited excitedly melancholy
    sorrow sorrowful determined confused puzzled proud proudly shy shyly disgusted shocked amazed awe
    awe-inspired pensive tearful weeping expression expressions expressionless grim stern confident
    confidently bored sleepy cheerful cheerfully delighted marveling marvelling annoyed nervous nervously
    embarrassed disappointed astonished concern concerned helpless helplessly satisfied contented
    contentedly focused lonely tears horrified panic fearful smirking pouting scowling sneering disdain
    disdainful ecstatic gloomy wistful mischievous mischievously solemnly fierce fiercely innocent
    bewildered thoughtful determination astonishment amazement excitement sadness anger happiness
    curiosity loving lovingly affectionately relieved impatient majestic arrogant melancholic aggrieved
    distressed frustrated enraged furious emotional desperate desperately pleading grimace indifferent
    alert"""
)
STYLES = listed(
    """oil_painting ink_painting ink_wash wash_painting landscape_painting watercolor watercolour ukiyo-e
    cyberpunk steampunk surrealist surrealism surreal impressionist impressionism expressionist
    expressionism cubist cubism baroque rococo art_deco art_nouveau gothic pixel_art pixelated anime manga
    cartoon sketch pencil_drawing realistic photorealistic hyperrealistic realism cinematic film_noir
    low_poly low-poly vector_art flat_design minimalist minimalism pop_art claymation paper_cut paper-cut
    papercut collage illustration comic comics documentary black-and-white unreal_engine
    octane pixar ghibli isometric line_art woodcut fresco charcoal vaporwave synthwave bauhaus digital_art
    concept_art storybook renaissance_painting 3d_render 3d_rendering 3d_animation 3d_model retro_poster
    art_style picture_book abstract_art fauvism pointillism stop-motion macro_photography photography
    art_photo movie_still film_still movie movies film films footage film-like movie-like screenshot
    storyboard claymation_style mural watercolors gouache movie_texture film_texture flat_illustration
    children's_book crayon tilt-shift long_exposure bokeh dadaism futurism fairytale caricature
    screenprint linocut gongbi suprematism lo-fi clay_sculpture bronze_sculpture cg_rendering disney-style
    vintage_photo film_grain doodle"""
)
KNOWLEDGE = listed(
    """pyramids the_earth lunar gramophone cheongsam compass sphinx pharaoh sarcophagus samurai geisha viking
    vikings chessboard knight's_armor colosseum acropolis stonehenge zodiac dna mitosis photosynthesis
    solar_system thinker's terracotta_warriors terracotta_army phoenix minotaur unicorn centaur pegasus
    mona_lisa starry_sky starry_night great_wall alchemist alchemists gladiator gladiators sundial
    newton's_cradle moebius mobius klein_bottle yin_yang yin-yang taoist buddha buddhist zen christmas
    halloween gargoyle gondola kimono hanfu sombrero totem mandala pagoda rosetta constellation black_hole
    nebula galaxy mermaid werewolf medusa dinosaur tyrannosaurus trex mammoth tarot sumo kabuki opera_mask
    peking_opera lion_dance dragon_boat mid-autumn lantern_festival astrolabe rubik's_cube double_helix
    water_cycle eclipse schrodinger's sisyphus atlantis excalibur physicist spartan roman egyptian greek
    chinese japanese indian mexican french gothic_cathedral big_ben mars jupiter saturn eiffel venus
    neptune cupid zeus poseidon athena santa dunhuang maya mayan aztec inca"""
)
PEOPLE = _group("person") | listed(
    """child kid baby toddler person lady gentleman guy human grandmother grandfather mother father friend
    couple family crowd team group volunteer athlete acrobat tourist monk nun priest bride groom student
    guest kids artist musician pianist actor actress model ballerina cellist warrior samurai viking
    alchemist hacker traveler wizard witch princess prince elder elderly grandma grandpa mom dad twin
    sister brother people passenger guard spectator pedestrian assistant acrobats judge police seamstress
    hostess waitress waiter mannequin engineer detective philosopher inventor hermit angel robot cyborg
    android alien monster ghost skeleton snowman doll puppet fairy elf vampire zombie mermaid giant dwarf
    figure character hero heroine superhero pharaoh thief spy sailor captain diver patient customer client
    moviegoer explorer archaeologist scientist craftsman baker emperor goddess god maid nanny teen
    teenager adult physicist shaman martian bishop apprentice woodcutter swordsman cowboy rider thinker"""
)
ANIMALS = _group("animal") | listed(
    """hawk falcon beaver cub gorilla ape orangutan chimpanzee lamb calf foal pony lynx panther jaguar hyena
    coyote wolf squirrel chipmunk mole badger weasel ferret skunk porcupine pangolin meerkat bison buffalo
    yak goldfish koi carp salmon jellyfish stingray starfish seahorse worm caterpillar moth firefly beetle
    ladybug dragonfly mosquito grasshopper cricket mantis gecko chameleon iguana toad alligator
    hummingbird sparrow robin swallow pelican stork crane heron ostrich woodpecker seagull magpie raven
    vulture poodle corgi labrador retriever husky collie shiba terrier bulldog puppy kitty hen lobster
    phoenix animal creature insect bird mammoth tyrannosaurus racehorse duckling gosling herd flock
    capybara alpaca oyster antelope gazelle lioness stallion mare bull ox donkey mule rooster pup inu
    dachshund dalmatian shepherd raccoon orca piranha clownfish toucan cockatoo parakeet canary"""
)
NOT_PEOPLE = listed(
    """water paper flower tower computer container river letter poster butter corner center counter ladder
    feather leather number weather winter summer sticker cucumber burger hamburger pepper ginger layer
    border cover power cluster roller locker trailer cruiser desert finger shoulder meter theater cracker
    folder banner planter holder helicopter floor door mirror color colour motor horror interior exterior
    sensor tractor mist list fist wrist twist sweater slipper sneaker silver copper timber shower order
    laser soccer coaster printer scooter skyscraper toaster blender dresser fiber planet pier another
    other monitor projector elevator conductor's scissor wallpaper flavor lever crater glacier cylinder"""
)
ALL_THINGS = frozenset(
    noun for name, nouns in ENGLISH.groups if name not in ("person", "animal") for noun in nouns
)
"""Everyday nouns that are neither people nor animals."""
BASE_VERBS = KNOWN - ALL_THINGS
"""Verbs that a base form may be read as."""
NOUNS_IN_LY = listed(
    """butterfly dragonfly firefly family belly jelly lily assembly curly fly supply lonely elderly
    friendly"""
)
INSTRUMENTS = listed(
    """guitar piano violin drum drums trumpet flute saxophone cello harp erhu lute harmonica accordion banjo
    ukulele keyboard instrument pipa zither guqin trombone clarinet bagpipes tune chess"""
)
GROUPS = listed(
    """group pair couple crowd flock herd team bunch pack swarm school row line series set number lot"""
)
CONTAINERS = listed(
    """bottle cage jar glass box case cup mug bowl bag basket vase bucket backpack suitcase drawer cabinet
    tank aquarium container pot pan oven crate nest pocket sphere bubble egg shell greenhouse wallet
    envelope terrarium capsule cocoon chest coffin sarcophagus barrel bathtub sink refrigerator fridge
    fishbowl teacup hourglass snow-globe globe cockpit incubator briefcase purse cauldron wardrobe trunk
    birdcage teapot kettle glassware flask tube beaker shoebox handbag locket amber showcase beak mouth
    stroller cart module cabin snow_globe light_bulb bulb lantern body belly chamber"""
)
TIMES = listed(
    """night day morning evening afternoon dusk dawn way journey time weekend sunday occasion date trip
    moment style background foreground whole contrary screen verge other hand sunset sunrise summer winter"""
)
"""Nouns after "on" or "in" that are no place."""

UNITS = listed(
    """year hour minute second meter metre centimeter kilometer foot inch time percent degree day o'clock
    m cm mm km ft kg g lb ml mile ton gram kilogram liter litre centimetre kilometre"""
)
IN_TWOS = listed(
    """scissors glasses sunglasses goggles binoculars headphones trousers jeans pants shorts tights pajamas
    pyjamas shoes boots sneakers sandals slippers socks stockings gloves mittens earrings skis skates
    wings horns antlers eyes ears hands arms legs feet"""
)
"""Nouns of which a pair is one thing, or goes together: no two things to count."""
DENIERS = NEGATORS | {"no one", "no-one", "anything but"}
"""Words that rule out; `keypoint_parse` reads each as one word."""
INTANGIBLE = listed(
    """light lights lighting touch tone tones glow music voice sound breeze color colors colour colours lines
    shadow shadows background focus hue hues palette atmosphere wind whisper aroma style mood air night
    day sky melody cry rustle style-wise time journey distance history story design contrast sunlight
    moonlight"""
)
"""Nouns that are no thing with a surface or a size."""

TEXT_CUES = listed(
    """text word words title titled slogan written write writes inscription engraved inscribed printed
    caption subtitle saying says say reads reading spelled spells headline phrase message letters
    lettering letter label labeled labelled font sentence quote typography logo sign signage banner name
    named read characters calligraphy"""
)
FONT_WORDS = listed(
    """font fonts typeface bold italic serif sans-serif handwritten handwriting cursive calligraphy uppercase
    lowercase capital capitals lettering typography letters characters brushstrokes script centered
    arranged aligned vertical vertically horizontally neon embossed graffiti engraved gold golden large
    handwritten-style stencil hollow gothic"""
)
DETERMINERS = listed("a an the his her its their this that these those some several many no each")
BE = listed("is are was were be being been look looks looked")
PREPOSITIONS = listed(
    """of in on at by with without near beside between behind under beneath underneath below above over
    inside outside from to into onto through across against along around towards toward among like as for
    upon about after within alongside atop amidst past"""
)

ATTRIBUTES: dict[str, frozenset[str]] = {
    "colour": COLOURS,
    "size": SIZES,
    "shape": SHAPES,
    "texture": TEXTURES,
    "material": MATERIALS,
    "pattern": PATTERNS,
    "state": STATES,
    "look": LOOKS,
    "feeling": FEELINGS,
}
"""Kind of attribute -> its words, the first that has a word decides."""


def kind_of(word: str) -> str | None:
    """The kind of attribute that a word names; None for any other."""
    word = word.lower()
    if word.endswith(("-shaped", "-shape")):
        return "shape"
    return next((kind for kind, listed in ATTRIBUTES.items() if word in listed), None)


_TENS = {
    **{"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50},
    **{"sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90},
}
_TIMES = {
    **{"dozen": 12, "hundred": 100, "thousand": 1000},
    **{"pair": 2, "couple": 2, "duo": 2, "trio": 3, "quartet": 4},
}
_ONES, _TEENS, _TEN = "|".join(NUMBERS[1:10]), "|".join(NUMBERS[10:20]), "|".join(_TENS)
_SMALL = rf"(?:(?:{_TEN})(?:[-\s](?:{_ONES}))?|{_TEENS}|{_ONES}|\d+)"
NUMBER = re.compile(
    rf"""(?<![\w.,:/'-])(?:
        \d{{1,3}}(?:,\d{{3}})+ | \d*\.\d+ | \d+[:/]\d+
      | (?:half\s+a|an?\s+half|the|a|{_SMALL})\s+dozen(?:\s+of)?
      | (?:the|a|{_SMALL})\s+(?:pair|couple|duo|trio|quartet)s?\s+of
      | (?:(?:a|{_SMALL})\s+(?:hundred|thousand)(?:\s+and)?\s+)*(?:a|{_SMALL})\s+(?:hundred|thousand)
        (?:\s+(?:and\s+)?{_SMALL})?
      | {_SMALL}
    )(?![\w-])""",
    re.IGNORECASE | re.VERBOSE,
)
"""A number, also of several words: two dozen, a pair of, one thousand, 2.5."""


def number(words: str) -> int | None:
    """The number that words name, 1 for "a" and 0 for what counts nothing (2.5); None for other words."""
    plain = words.replace(",", "").lower()
    if (known := value(plain)) is not None or not NUMBER.fullmatch(words):
        return known
    whole = part = 0
    for word in re.split(r"[\s-]+", plain):
        if times := _TIMES.get(word.removesuffix("s")):
            part = max(part, 1) * times
        else:
            part += _TENS.get(word) or value(word) or 0
        if word == "thousand":
            whole, part = whole + part, 0
    return (whole + part) // (2 if "half" in plain else 1)
