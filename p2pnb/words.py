"""The secret words of an invite and the words two people compare: a list made for being read aloud.

2048 words, so each carries 11 bits; four of them (44 bits) are far beyond the hundred guesses a room
allows. They are common English words of 3 to 8 letters, sorted, each told by its first four letters. No
two are one typing slip apart (a letter more, less, changed or swapped), so a slip never makes another
word of the list, and words that sound like another word were left out.

A room's own words may be any words (`chosen_words`): the list only serves rooms that don't choose.
What counts is `normalise_words`, which both sides and the browser apply before the words reach the
handshake: NFKC, lower case, and only letters, marks and digits; everything else separates words,
apostrophes vanish. So "Olive Harbor", "olive-harbor" and "OLIVE_harbor." are the same secret.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import Final

from p2pnb.errors import UsageError

__all__ = ["WORDS", "chosen_words", "normalise_words", "random_words", "suggest", "verification_words"]

BITS_PER_WORD: Final = 11
MIN_CHOSEN_BITS: Final = 20.0  # a room locks after a hundred wrong codes: one chance in ten thousand
MAX_WORDS: Final = 16  # longer phrases are pasted by mistake
MAX_CHARS: Final = 200
_APOSTROPHES: Final = frozenset("'\u2019\u2018\u02bc\u02b9\u0060\u00b4\u2032")


def random_words(random: Callable[[int], bytes], count: int = 4) -> tuple[str, ...]:
    """Draw `count` words, each of the 2048 equally likely; `random(n)` returns n random bytes (`os.urandom`)."""
    return _pick(random((count * BITS_PER_WORD + 7) // 8), count)


def verification_words(data: bytes, count: int = 4) -> tuple[str, ...]:
    """Name the first ``11 * count`` bits of a hash, most significant bit first, as words to compare aloud.

    ValueError if `data` is shorter than that.
    """
    return _pick(data, count)


def normalise_words(text: str | Iterable[str]) -> tuple[str, ...]:
    """Return the words as they enter the handshake; empty if there are none.

    Case, separators (spaces, dashes of any kind, commas, dots, underscores, …) and full-width or other
    compatibility forms make no difference.
    """
    joined = text if isinstance(text, str) else " ".join(text)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _without_apostrophes(joined)).lower())
    return tuple("".join(char if unicodedata.category(char)[0] in "LNM" else " " for char in folded).split())


def chosen_words(text: str | Iterable[str]) -> tuple[str, ...]:
    """Normalise words a person chose for a room; UsageError if they are too few, too many or too easy to guess.

    At least two words worth about 20 bits: a room locks after a hundred wrong codes, so what has to be
    kept out is the short and the obvious, not a search. The error's text doesn't repeat the words.
    """
    words = normalise_words(text)
    if len(words) < 2:
        raise UsageError("A room needs at least two secret words. Leave `words` out and p2pnb makes four.")
    if len(words) > MAX_WORDS or sum(map(len, words)) > MAX_CHARS:
        raise UsageError(f"A room takes at most {MAX_WORDS} secret words and {MAX_CHARS} letters. Choose fewer.")
    if _estimated_bits(words) < MIN_CHOSEN_BITS:
        raise UsageError(
            "These secret words are too easy to guess. Choose longer or more words, or leave `words` out and p2pnb "
            "makes four."
        )
    return words


def suggest(word: str) -> str | None:
    """Return the word of the list that a mistyped `word` was meant to be; None if it is in the list or far off.

    The result is as secret as the word itself: show it only where nothing is saved.
    """
    folded = "".join(normalise_words(word))
    if folded in WORDS or len(folded) < 3:
        return None
    import difflib  # 5 ms, and only ever needed after a slip

    near = difflib.get_close_matches(folded, WORDS, n=1, cutoff=0.75)
    same_start = (word for word in WORDS if len(folded) > 4 and word[:4] == folded[:4])
    return near[0] if near else next(same_start, None)


def _pick(data: bytes, count: int) -> tuple[str, ...]:
    if count < 1 or len(data) * 8 < count * BITS_PER_WORD:
        raise ValueError(f"{count} words need {count * BITS_PER_WORD} bits; {len(data) * 8} were given")
    bits = int.from_bytes(data, "big") >> (len(data) * 8 - count * BITS_PER_WORD)
    mask = len(WORDS) - 1
    return tuple(WORDS[bits >> (BITS_PER_WORD * place) & mask] for place in reversed(range(count)))


def _estimated_bits(words: tuple[str, ...]) -> float:
    # Two bits per different letter, one per different digit, at most what a drawn word has; repeats add nothing.
    return sum(
        min(float(BITS_PER_WORD), sum(1.0 if char.isdigit() else 2.0 for char in set(word))) for word in set(words)
    )


def _without_apostrophes(text: str) -> str:
    return "".join(char for char in text if char not in _APOSTROPHES)


_LIST: Final = """
abacus abalone abbey ability ablaze aboard absorb abundant academy accent accurate acorn acoustic acrobat acrylic
active address adhesive adjust admire adobe adopt adorable advice aerial aerobics afloat after again agate agency
agile agree ahead airmail airport airship album alchemy alcove alfalfa algae algebra alibi alkaline alliance almanac
almond aloft aloha alpaca alphabet alpine altitude alumni amazing amber amble ambrosia amethyst amigo amplify amulet
amuse anaconda ancestor anchor ancient anecdote anemone anew angle angora animal announce answer antenna anthem
antique antler anvil apex apology appetite applause april apron aquarium aqueduct arcade archway arctic arena armband
armchair armful aroma arrange article artwork ashore asleep aspire assemble assist asteroid astound astral athlete
atlas atoll atrium attic attract auction audio augment august aurora autumn avatar aviary avid avocado award awesome
awning axis azalea azure baboon baby backyard bacon badger bagel bagpipe bakery balance balcony balloon balmy balsam
bamboo banana bandage banister banjo banner banquet baritone barley barnyard baroque basalt baseball basic basket
bassoon bathtub batter bayou beam beanbag beard beaver bedroom bedside bedtime beehive beeswax beetroot beige belfry
bellhop belong belt beluga bench bend beneath between beverage bicycle bike billion binary bingo biology bionic
biplane birch bird birthday bison bistro blacktop blanket blender blimp blink blissful blizzard blossom blotter blouse
blowfish bluebird blur boat bobcat bobsled bobtail bodega body bogey bold bonanza bonfire bonnet bonsai bonus bookshop
borrow botany bottle bounty bowling boxcar boxer bracelet brain bramble branch brass brave breadth breeze brewery
brick bridge brief bright broad broccoli broker bronze broom brother brownie brush bubble bucket budget buffalo bugle
builder bulb bulletin bumper bundle bungalow bunk bunting bureau burger burlap burrito burst bushy business butcher
button buzzer bypass cabaret cabbage cabin cable caboose cacao cactus cadet calcium calendar calico calorie calypso
camera camping canal canine canopy canteen canvas canyon capable capsule captain caravan carbon cardinal career cargo
caribou carload carnival carol carpet cartoon carve carwash cascade case cashmere castle catapult catfish cavern
caviar cedar celery cello cement census century ceramic chain chalk champion channel chapel charm chat cheddar cheese
chemical cherry chest chicory chief child chimney chipmunk chisel chorus chubby chuckle chunk chutney cilantro cinder
cinema cinnamon circus citizen citrus city civil clap clarity classic clatter cleaner clerk clever client cliff
climate clinic clipper closet clothing cloud clown club cluster coach coastal cobalt cobbler cobra cobweb cockatoo
coconut code coffee coin collie colony comb comedy comfort computer concert condor confetti conifer contact convoy
cookie coolant copilot copper corduroy corgi cork corner corona cosmic costume cottage cougar count couple cousin
cowboy coyote crab cradle crafty crane crater creature crescent crew cricket crimson crisp critic croak crochet crop
cross crumb crunch crystal cube cubicle cucumber cuddle cuff cuisine culture cumin cupboard cupcake cupid curator curb
curious currency curtsy cushion custom cutlery cycle cylinder cypress dabble daffodil dahlia dainty daisy dancing
darkroom darling dash database date dawn daybreak daydream dazzle debut decade december decimal deckhand decorate
deliver delta deluxe demo dense dentist depot depth desk destiny detour dewdrop diagram dialect diamond digger digit
dime dimple dinghy dinner dinosaur diploma director discover display ditto diver dockyard doctor document dodge
doghouse dogsled dogwood dollar dolphin domain domestic domino donate donkey doodle doorbell dormouse dotted dove
downtown dozen dragon draw dreamy dressing drift drive drizzle drone droplet drummer drywall duchess duckling duet
duffel dugout duke dumbbell dumpling duplex durable dusty dwelling dynamic eager earlobe earnest earphone earring
earthy easel eastern easy eatery ebony eclipse ecology economy ecstatic edible educate eggnog eggplant eggshell
eighteen elastic elbow electric element elephant elevator elixir elk email embark embed emblem embrace emerald emit
emotion empathy emperor enamel enchant enclose encore endive endless energy engage engine engrave enhance enjoy
enlarge enrich entrance envelope enzyme epic episode equal equip era eraser ermine essence estate ether evening evoke
excite exercise exhibit exotic expand expert explain express extra eyeball eyelash eyesight fabric fabulous factory
fairway falafel falcon family famous fanfare fantasy farmer fashion fathom faucet feast feathery february feedback
fence ferret fertile festival fetch fiction fiddle fidget field fiesta fifth figment figure filament fillet film
filter finch finger finish firefly fishing fitness five fixture flagship flamenco flannel flashy flax fleet flexible
flicker flint flip flock floor floppy floral flotilla flourish fluent fluffy fluid flush flutter flying foal foamy
focus foggy foghorn folder folio folk fondue font food foothold forest forklift formal fortune forward fossil fountain
fourteen foxglove foyer fractal fragile frame freckle freedom freight frequent fresh friday friend fringe frog frolic
frontier frost froth frown frozen fruitful fry fudge fuel funny furlong furry future fuzzy gadget galaxy gallant
galore game gamma gander gangway garage garden gargle garlic garnet gateway gather gauze gazelle gear gecko gelatin
gem gemstone general genre gentle geology geometry geranium gerbil gesture getaway ghost giant gibbon gift gigantic
gimmick gingham ginkgo giraffe girder glacier glad glass glaze gleam gleeful glider glimpse glisten glitter glory
glossy glove glowing glucose gnome goalie gobble goblet goggles goldfish golfer gondola gong gooey goose gopher
gorgeous gossamer gourmet graceful gradual graft grammar grand grape grasp gravity greeting griddle griffin grinder
grocery groove growth guardian guava guild guitar gulf gumball gumdrop gymnast hacksaw haddock hailing hairpin
halftime hallway halo hamlet hammock hamper hamster handle hangout happy hardware harmony harness harvest hatbox
hatchery haven hawk hawthorn hayloft hayride haystack haywire hazel headline hearth heather hedgehog height helium
helmet help henna heritage heron herring hexagon hibiscus hiccup hickory hidden highway hiker hiking hilltop hinge
hint hippo history hitch hockey hoist holiday holly holster homage homemade honest hoof hopeful horizon horse hotdog
hotel huge human humble humid humming hundred huntsman hurdle hustle hybrid hydrogen hyena hyphen iceberg icicles
icing icon icy idiom igloo ignite iguana imagine imitate impala improve inbox incense inchworm incline index indigo
indoor infinite inflow inform ingot inject inkwell inlet inspire instant inventor invite iodine iris ironclad island
isolate ivory jabber jacket jaguar janitor january jargon jasmine jasper jaunty javelin jaw jawbone jazz jelly jester
jetty jewel jigsaw job jogging joke jostle journey jovial joyful joyous joyride joystick jubilee juggler juice jukebox
jumbo jump junction june jungle junior justice kale kangaroo karate kayak kazoo kebab keepsake kennel kerchief kestrel
ketchup keyboard keyhole keypad keystone kick kilogram kimchi kimono kindle kinetic kingdom kiosk kitchen kitten kiwi
knapsack knee knife knock knotted knuckle koala kudos label lacrosse ladder ladybug lagoon lakeside laminate lamp
lance landmark language lantern lanyard laptop large lark laser lasso latch latin latte laugh launch laurel lava
lavender lavish lawyer layout leafy league leapfrog learn lecture legacy legend leisure lemming lemon lemur lens
lentil leopard letter level library lifelong light lilac lilies limerick limo linen lining linkage lioness lipstick
litmus little livery loafer lobby lobster logbook logic logo lollipop longhorn lookout loop lord lottery lotus lounge
lovely lowland loyalty lozenge lucid lucky luggage lukewarm lullaby luminous lumpy lunar lunchbox luxury lyric
macaroni machine mackerel maestro magazine magenta magic magma magnet magpie mahogany mailbox maintain majesty mallard
mammoth mandarin mango manifest mansion manual maple mapping marathon marble margin mariner market maroon marriage
marsh mascot mason massive matchbox material mattress maverick maximum mayor meadow meal measure meatball mechanic
medium medley meerkat melody member memory mentor menu merchant merge mermaid mesh message meteor method metric midday
midnight midtown midweek migrate mileage milky mimic minced mineral mingle minivan minnow minty minute miracle mirror
mirth miso mixer mobile modern module moisture moment monarch money mongoose monitor monkfish monorail month monument
moonbeam mosaic mossy motor motto mouse movie muddy muffin mug mulberry mule multiply mural museum mushroom music
muslin mustang mystery nachos namesake napkin narrator narwhal native nautical navigate nebula nectar needle neon
nephew neptune nerve network newborn newsreel next nibble nickname nightcap nineteen nitrogen noise nomad notch
notebook notice noun nourish novel nozzle nugget number nurse nurture nutmeg nutshell nutty nylon oasis oatmeal oboe
observe occupant ocean ocelot octagon octopus oddball odometer odyssey offer office ointment okra oleander olive
olympic omega omnibus onion online opaque opener operator optic orange orator orbit orchid oregano original oriole
ornament osprey ostrich otter outboard outdoor outfit outline output oval oven overlap oxtail oxygen oyster ozone
pacific package padded padlock painter palomino pancake panda panorama panther papaya paper paprika parade parcel
parent parka parmesan parrot parsley partner passage pasta patchy pathway patio patrol pattern pavement pavilion
peaceful peanut pearl pebble pecan pedestal pelican pencil pendulum penguin pentagon peony people perfect permit pesto
petal pewter pharmacy phoenix phone photo piano piccolo pickup picnic picture pigeon piglet pilot pimento pinball pink
pinto pinwheel pioneer pipe piston pixel pizza place plaid planet plaster platform playful plaza pledge plenty pliers
plover plug plumage plywood pocket podium poem poetry point polecat polite polka pollen polo polygon pompom poncho
pond ponytail poolside popcorn poppy popular porridge portrait pose position postcard potato potluck pouch poultry
powder prairie prawn precise prelude premium prepare pressure pretty price primary princess prism produce profile
prompt proton province pudding puffy pulley pulp pulse puma pumpkin punch pupil puppet purchase pursue puzzle pyramid
quack quadrant quaint quality quarter quasar queen quest quiet quill quince quiver quiz quote rabbit raccoon race
radar radius ragtime railroad rainbow raisin rally ramen rancher random ranger ranking rapid rapport rattle ravioli
reader rebuild recess recipe recycle redwood refill reflect refresh refuge regatta register reindeer relax relic
remember remodel renew reopen reporter reptile rescue retro reunion reuse review rhubarb ribcage ricotta ringside
ripen ripple risotto riverbed roadside robin rocker rodeo romance rooftop roomy rooster rope rosemary rotate rotunda
round rover rowboat royal rubber rucksack rugby rugged rumba runner runway rutabaga saddle safari saffron sage
sailboat salami salmon salsa salt salute sampler sandwich sapling sapphire sardine satchel saturday sauna sausage
sawdust sawmill scallop scarf scented scholar science scissors scone scooter scout screen script scroll sculptor
scuttle seafood seagull seahorse seaport season seaweed second secret sediment seedling seesaw select self seminar
senior sentence sequence serenade series serving settle seven shadow shaker shallot shampoo shape sharp shawl sheepdog
shelter shepherd sheriff shield shimmer shiny shipyard shirt shoebox shopping shortcut shoulder shovel shower shrimp
shutter sidewalk sierra signal silent silicon silkworm silo silver similar singing siphon sister sitar sitcom sixteen
sizzle sketch skill skipper sky skyline slalom sleepy slice slogan slumber smart smile smoothie smudge snail snake
snappy snooze snorkel snowman snuggle soapy soccer social soda softball soil sojourn solar solid solstice solution
sonata songbird sonic soothe soprano soup source southern soybean space spaniel sparrow spatula speaker spectrum speed
sphere sphinx spicy spider spinning spirit splash splendid sponge spoon sport spray spread sprinkle sprout spruce
spyglass square squeeze squirrel stable stadium staff stairway stallion stamp standard starling statue steam steeple
stellar stencil stereo sticker stoat stocking stork stove streamer string stroller strudel student sturgeon stylish
sublime subtitle subway sugar suitcase summit sunbeam sunlight sunset superb supply surface surprise sushi swallow
swan sweater sweep swift swimming swing switch sycamore syllable symbol symphony syntax system tablet taco tactic
tadpole tailgate takeoff talent talisman tamarind tandem tank tapestry tapioca target tarragon tasty taxi teacup
teamwork teapot teaspoon teddy telegram temple tennis tent teriyaki terrific textile thankful thatch theme thermos
thicken think thirteen thistle thought thread thrill throttle thunder thursday tiara ticket tiger tilted timber
timeless timid tinfoil tinsel tiramisu tissue titanium toaster toboggan today toddler tofu together token tomato
tomboy tomorrow tongue tonight tool tooth topaz topic topping topsoil torch tortoise torus totem tour tower town toy
track traffic trailer tranquil trapeze travel treasure treetop trellis trestle triangle tribe tricycle trinket trip
triumph trivia trolley trombone trooper trophy trousers trowel truffle trumpet trunk trust tubing tubular tuft tugboat
tulip tumbling tuna tundra tunic tunnel turbine turkey turmeric turnip turtle tutor tuxedo tweed twelve twenty
twilight twinkle twirl twister twofold tycoon typhoon typical ultimate ultra umbrella umpire unbutton uncle uncover
unfold unicorn uniform unique unison universe unlace unlock unpack update upgrade upright upside upstairs urban urchin
useful vacation vagabond valet valiant valve vanilla variety varnish varsity vehicle velour velvet vendor venue
veranda vibrant victory vigorous village vinegar vintage vinyl violin virtue visit visor vista visual vitamin voice
volcano volley voltage volume vortex waffle wagon wake walkway wallet walnut walrus waltz warbler wardrobe warmth
warthog wasabi washer water wavy wax wayside wealth weaving website wedding wedge weekend welcome westward wetland
wharf wheat wheelie whimsy whisper wicker wiggle wigwam wildlife willow window winery wingspan winter wire wisdom
wishful witty wizard wolf wombat wonder woodland workshop wreath wrench wrinkle wrist writer yak yard yellow yodel
yoga young youth yummy zebra zenith zephyr zero zipper zither zodiac zoology zooming
"""

WORDS: Final[tuple[str, ...]] = tuple(_LIST.split())
