"""The words and constants of the world: what a scene can be made of.

Everything that the renderer, the synthesizer, the grammar and the oracles must agree on stands
here, once. Lengths are fractions of the picture's side, times are seconds.
"""

from itertools import product

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white", "pink")
SIZES = ("small", "medium", "large")
MOTIONS = (
    "still", "left", "right", "up", "down", "bouncing", "circling", "growing", "shrinking",
    "swaying",
)  # fmt: skip
BACKGROUNDS = ("black", "gray", "navy", "brown")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
POSITIONS = tuple(f"{row} {column}" for row, column in product(ROWS, COLUMNS))

#: Attributes of one object, with their values in code order.
OBJECT_ATTRIBUTES = {
    "shape": SHAPES,
    "color": COLORS,
    "size": SIZES,
    "motion": MOTIONS,
    "position": POSITIONS,
}

#: The last value of their tables: in no scene, unless a world is asked for it.
NOVEL = {"color": "pink", "motion": "swaying"}

COLOR_RGB = (
    (230, 40, 40), (40, 180, 60), (40, 80, 230), (240, 220, 40),
    (150, 50, 200), (250, 140, 30), (40, 210, 220), (250, 250, 250), (250, 120, 190),
)  # fmt: skip
BACKGROUND_RGB = ((10, 10, 10), (90, 90, 90), (15, 20, 80), (95, 55, 25))

# Geometry.
RADII = (0.09, 0.13, 0.19)  # of small, medium, large at t = 0
GRID = (0.28, 0.50, 0.72)  # centers of rows and columns
JITTER = 0.03  # half width of the uniform offset around a grid center
TRAVEL = 0.28  # left, right, up, down: way made in SECONDS
FALL, REBOUND = 0.20, 0.17  # bouncing: depth of the fall, height of the way back
ORBIT = 0.10  # circling: radius, one turn in SECONDS
SWAY = 0.12  # swaying: farthest way to either side, to and fro twice in SECONDS
GROWTH, SHRINKAGE = 0.60, 0.55  # radius gained or lost in SECONDS
EXTENT = 1.15  # farthest point of any shape, in radii

# Time.
SECONDS = 2.0
EVENT_RANGE = (0.4, 1.6)  # the scene's one event: the bounce, or a flash when nothing bounces
FLASH = 0.6  # how far the background goes to white during a flash

# Sound. Object 0 (the one farther left) sings in the low register, object 1 in the high one. The
# color is the height of the voice; the shape is its formants, which stay where they are whatever
# that height is, as a vowel's do.
REGISTERS = (300.0, 1600.0)  # Hz of the first color's fundamental
STEPS = 8  # colors to the octave
FORMANTS = ((750.0, 1000.0, 1250.0), (3600.0, 4400.0, 5200.0))  # Hz, possible ones by register
TIMBRES = (  # which of them a shape has
    (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1),
)  # fmt: skip
FORMANT_GAIN = 0.7  # against the fundamental
LEVELS_DB = (-16.0, -8.0, 0.0)  # of small, medium, large
FULL_SCALE = 0.15  # amplitude of a large object's fundamental
PULSE_HZ = {"left": 1.5, "right": 2.5, "up": 4.0, "down": 6.0}
FLOOR = 0.15  # quietest point of an envelope
DECAY = 0.35  # seconds, of a bouncing object's tone
THUMP_HZ, THUMP_GAIN, THUMP_DECAY = 100.0, 0.22, 0.05


def pitch_hz(register: int, color: int) -> float:
    """Return the fundamental of a color, in Hz: equal steps, eight to the octave."""
    return REGISTERS[register] * 2 ** (color / STEPS)


#: Pairs that no training ever sees: every shape loses one color, four shapes lose one motion.
HELD_OUT_COLORS = (
    ("circle", "purple"), ("square", "orange"), ("triangle", "cyan"),
    ("star", "red"), ("cross", "yellow"), ("ring", "green"),
)  # fmt: skip
HELD_OUT_MOTIONS = (
    ("circle", "up"), ("square", "circling"), ("star", "shrinking"), ("cross", "right"),
)  # fmt: skip

# Words of the grammar. The first synonym is the plain one.
SHAPE_WORDS = {
    "circle": ("circle", "disk"), "square": ("square", "box"), "triangle": ("triangle",),
    "star": ("star",), "cross": ("cross", "plus"), "ring": ("ring", "hoop"),
}  # fmt: skip
SIZE_WORDS = {
    "small": ("small", "little", "tiny"), "medium": ("medium",), "large": ("large", "big", "huge"),
}  # fmt: skip
#: Finite verb and participle of each motion.
MOTION_WORDS = {
    "still": (("stays still", "staying still"), ("rests", "resting")),
    "left": (("moves left", "moving left"), ("drifts left", "drifting left"),
             ("goes left", "going left")),
    "right": (("moves right", "moving right"), ("drifts right", "drifting right"),
              ("goes right", "going right")),
    "up": (("moves up", "moving up"), ("rises", "rising"), ("goes up", "going up")),
    "down": (("moves down", "moving down"), ("sinks", "sinking"), ("goes down", "going down")),
    "bouncing": (("bounces", "bouncing"), ("hops", "hopping")),
    "circling": (("orbits", "orbiting"), ("goes around", "going around")),
    "growing": (("grows", "growing"), ("gets bigger", "getting bigger")),
    "shrinking": (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
    "swaying": (("sways", "swaying"), ("swings", "swinging")),
}  # fmt: skip
POSITION_WORDS = {
    f"{row} {column}": " ".join(w for w in (row, column) if w not in ("middle", "center"))
    for row, column in product(ROWS, COLUMNS)
}
TIMBRE_WORDS = {
    "circle": "hum", "square": "buzz", "triangle": "chime",
    "star": "bell", "cross": "drone", "ring": "whistle",
}  # fmt: skip
REGISTER_WORDS = ("low", "high")
MAX_WORDS = 32
