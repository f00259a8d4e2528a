"""Sentences about scenes: a small grammar with synonyms and attributes that may be left out."""

from collections.abc import Iterator

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
