"""Reads a caption: parses exactly the grammar of `captions`, whatever was left out."""

import re
from functools import lru_cache
from itertools import product

import torch

from unigen.data.world import vocabulary as v
from unigen.data.world.captions import BACKGROUND_PHRASES, PATTERNS, SOUND_PHRASES
from unigen.data.world.oracles.reading import Reading, reading

_CODES = {word: code for code, name in enumerate(v.SHAPES) for word in v.SHAPE_WORDS[name]}
_SIZES = {word: code for code, name in enumerate(v.SIZES) for word in v.SIZE_WORDS[name]}
_COLORS = {word: code for code, word in enumerate(v.COLORS)}
_FORMS = {"verb": (0, ""), "participle": (1, ""), "relative": (0, "that ")}
_TIMBRES = {v.TIMBRE_WORDS[name]: code for code, name in enumerate(v.SHAPES)}
_GROUNDS = {
    phrase.format(name): code
    for (code, name), phrase in product(enumerate(v.BACKGROUNDS), BACKGROUND_PHRASES)
}


def _motions(form: str) -> dict[str, int]:
    which, before = _FORMS[form]
    return {before + words[which]: code
            for code, name in enumerate(v.MOTIONS) for words in v.MOTION_WORDS[name]}  # fmt: skip


def _places() -> dict[str, int]:
    said = {"in the middle": v.POSITIONS.index("middle center")}
    for code, name in enumerate(v.POSITIONS):
        if place := v.POSITION_WORDS[name]:
            said |= {f"{before} the {place}": code for before in ("at", "near")}
    return said


_PLACES = _places()
_TABLES = {
    "shape": _CODES, "size": _SIZES, "color": _COLORS, "position": _PLACES, "sound": _TIMBRES,
    "background": _GROUNDS,
}  # fmt: skip


def _any(words) -> str:
    """Return a pattern of alternatives, longer ones first."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


def _object(form: str, slot: int) -> str:
    """Return the pattern of an object; every word ends with a blank."""
    optional = "".join(
        f"(?:(?P<{name}{slot}>{_any(words)}) )?"
        for name, words in (("size", _SIZES), ("color", _COLORS))
    )
    after = "".join(
        f"(?:(?P<{name}{slot}>{_any(words)}) )?"
        for name, words in (("motion", _motions(form)), ("position", _PLACES))
    )
    return f"(?:an (?=orange)|a (?!orange)){optional}(?P<shape{slot}>{_any(_CODES)}) {after}"


@lru_cache
def _grammar() -> list[tuple[re.Pattern, str]]:
    """Return one pattern for each kind of sentence, with the form of its verbs."""
    grammar = []
    sound = [f"a {v.REGISTER_WORDS[i]} (?P<sound{i}>{_any(_TIMBRES)}) " for i in range(2)]
    ground = f"(?:(?P<background>{_any(_GROUNDS)}) )?"
    for (pattern, form), count in product(PATTERNS, (1, 2)):
        objects = "and ".join(_object(form, i) for i in range(count))
        body = (pattern + " ").replace("{o} ", objects).replace("{b} ", ground)
        joints = "|".join(p.format("", "").strip() + " " for p in SOUND_PHRASES)
        tail = f"(?:(?:{joints})" + "and ".join(sound[:count]) + ")?"
        grammar.append((re.compile(body + tail), form))
    return grammar


def parse(sentence: str) -> dict[str, int] | None:
    """Return what a sentence says, such as {"shape0": 2}; None if it is outside the grammar.

    Case, blanks and a final full stop do not matter.
    """
    plain = sentence.strip().lower().removesuffix(".").replace(",", " , ")
    plain = " ".join(plain.split()) + " "
    for pattern, form in _grammar():
        if found := pattern.fullmatch(plain):
            tables = _TABLES | {"motion": _motions(form)}
            said = {name: words for name, words in found.groupdict().items() if words}
            return {name: tables[name.rstrip("01")][words] for name, words in said.items()}
    return None


def read_text(raw: list[str]) -> Reading:
    """Read captions."""
    said = [parse(sentence) for sentence in raw]
    names = (*v.OBJECT_ATTRIBUTES, "sound")
    told = {
        name: torch.tensor([[(s or {}).get(f"{name}{i}", -1) for i in range(2)] for s in said])
        for name in names
    }
    count = [-1 if s is None else 1 + ("shape1" in s) for s in said]
    background = [(s or {}).get("background", -1) for s in said]
    ok = torch.tensor([s is not None for s in said])
    return reading(
        "text", ok, count=torch.tensor(count), background=torch.tensor(background), **told
    )
