"""Sentences about scenes: a small grammar with synonyms and attributes that may be left out."""

from collections.abc import Iterator
from functools import lru_cache

from torch import Tensor

from unigen.data.world import vocabulary as v
from unigen.data.world.scenes import Scenes, uniforms

#: How often each optional attribute is said of an object (background: of a scene).
MENTION = {"color": 0.8, "size": 0.6, "motion": 0.75, "position": 0.5}
MENTION_BACKGROUND, MENTION_SOUND = 0.5, 0.3

#: The patterns of a sentence: {o} objects, {b} background. Which of an object's phrases they take.
PATTERNS = (
    ("{o} {b}", "verb"),
    ("{b} {o}", "verb"),
    ("there is {o} {b}", "participle"),
    ("{b} there is {o}", "participle"),
    ("we see {o} {b}", "participle"),
    ("a scene with {o} {b}", "participle"),
    ("here {o} {b}", "verb"),
    ("look at {o} {b}", "participle"),
    ("{o} {b}", "participle"),
    ("{o} {b}", "relative"),
)
BACKGROUND_PHRASES = ("on a {} background", "against a {} backdrop", "over {}")
SOUND_PHRASES = ("{} with {}", "{}, and {}")


def describe(seed: int, index: Tensor, scenes: Scenes, full: bool = False) -> list[str]:
    """Return one caption a scene, at most `vocabulary.MAX_WORDS` words and commas.

    `full` says every attribute of every object (and the sound while there is room).
    """
    draws = uniforms(seed, index, -2, 32).tolist()
    codes = {name: getattr(scenes, name).tolist() for name in (*v.OBJECT_ATTRIBUTES, "background")}
    rows = zip(scenes.count.tolist(), draws, strict=True)
    return [
        _sentence(
            [{k: names[codes[k][i][j]] for k, names in v.OBJECT_ATTRIBUTES.items()}
             for j in range(count)],
            v.BACKGROUNDS[codes["background"][i]], iter(draw), full,
        )
        for i, (count, draw) in enumerate(rows)
    ]  # fmt: skip


def toss(seed: int, index: Tensor, captions: list[str], share: float) -> list[str]:
    """Replace one word in five by any other word, in a share of the captions.

    It teaches a text codec to take no pair of words for granted. No held-out pair is made: its
    color never comes to stand right before its shape, nor its motion within three words after.
    """
    words = _words()
    draws = uniforms(seed, index, -3, 2 * v.MAX_WORDS + 1).tolist()
    tossed = []
    for caption, (chosen, *draw) in zip(captions, draws, strict=True):
        units = caption.replace(",", " ,").split()
        for i in range(len(units) if chosen < share else 0):
            if draw[2 * i] < 0.2:
                new = [*units[:i], words[int(draw[2 * i + 1] * len(words))], *units[i + 1 :]]
                units = units if _names_held_out(new) else new
        tossed.append(" ".join(units).replace(" ,", ","))
    return tossed


def _names_held_out(units: list[str]) -> bool:
    """Tell whether words name a held-out pair: color before shape, or motion soon after it."""
    colors, motions = _never()
    return any(
        unit in colors.get(units[i - 1], ()) or motions.get(unit, frozenset()) & set(units[i : i + 4])
        for i, unit in enumerate(units)
    )


@lru_cache
def _words() -> list[str]:
    """Return every word of the grammar."""
    phrases = [p for p, _ in PATTERNS] + [*BACKGROUND_PHRASES, *SOUND_PHRASES, *v.BACKGROUNDS]
    phrases += [*v.COLORS, *v.REGISTER_WORDS, *v.TIMBRE_WORDS.values(), *v.POSITION_WORDS.values()]
    phrases += [w for words in (*v.SHAPE_WORDS.values(), *v.SIZE_WORDS.values()) for w in words]
    phrases += [w for forms in v.MOTION_WORDS.values() for pair in forms for w in pair]
    phrases += ["a an and at near the in middle that"]
    text = " ".join(phrases).replace(",", " , ")
    return sorted({word for word in text.split() if "{" not in word})


@lru_cache
def _never() -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """Return the shape words that a color's word, and the motion words that a shape's, lack."""
    told = {m: {w for pair in forms for phrase in pair for w in phrase.split()}
            for m, forms in v.MOTION_WORDS.items()}  # fmt: skip
    colors = {c: frozenset(v.SHAPE_WORDS[s]) for s, c in v.HELD_OUT_COLORS}
    motions = {
        word: frozenset(told[m].difference(*(told[o] for o in told if o != m)))
        for s, m in v.HELD_OUT_MOTIONS
        for word in v.SHAPE_WORDS[s]
    }
    return colors, motions


def word_count(sentence: str) -> int:
    """Count words and commas, the units of the text model."""
    return len(sentence.replace(",", " ,").split())


def _pick(options, draw: Iterator[float]):
    return options[int(next(draw) * len(options))]


def _sentence(objects: list[dict], background: str, draw: Iterator[float], full: bool) -> str:
    pattern, form = _pick(PATTERNS, draw)
    said_background = next(draw) < MENTION_BACKGROUND or full
    ground = _pick(BACKGROUND_PHRASES, draw).format(background) if said_background else ""
    with_sound, joint = next(draw) < MENTION_SOUND or full, _pick(SOUND_PHRASES, draw)
    phrases = " and ".join(_object(o, form, draw, full) for o in objects)
    sentence = " ".join(pattern.format(o=phrases, b=ground).split())
    sounds = " and ".join(
        f"a {v.REGISTER_WORDS[i]} {v.TIMBRE_WORDS[o['shape']]}" for i, o in enumerate(objects)
    )
    sounding = joint.format(sentence, sounds)
    return sounding if with_sound and word_count(sounding) <= v.MAX_WORDS else sentence


def _object(attributes: dict, form: str, draw: Iterator[float], full: bool) -> str:
    said = {name: next(draw) < rate or full for name, rate in MENTION.items()}
    shape = _pick(v.SHAPE_WORDS[attributes["shape"]], draw)
    size = _pick(v.SIZE_WORDS[attributes["size"]], draw)
    verb, participle = _pick(v.MOTION_WORDS[attributes["motion"]], draw)
    place, preposition = v.POSITION_WORDS[attributes["position"]], _pick(("at", "near"), draw)
    moving = {"verb": verb, "participle": participle, "relative": f"that {verb}"}[form]
    where = f"{preposition} the {place}" if place else "in the middle"
    adjectives = [size] * said["size"] + [attributes["color"]] * said["color"]
    article = "an" if adjectives and adjectives[0] == "orange" else "a"
    words = [article, *adjectives, shape]
    return " ".join(words + [moving] * said["motion"] + [where] * said["position"])
