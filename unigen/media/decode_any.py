"""Tell what a file really is (in the worker only)."""

from unigen.media import decode_image
from unigen.media.sniff import IMAGE, SOUND


def read(file, args: dict, emit) -> dict:
    """Return kind and facts; args: family, format."""
    if args["family"] == IMAGE:
        image = decode_image.open_image(file, args["format"])
        facts = {"format": args["format"], "width": image.width, "height": image.height}
        return {"kind": "image", "facts": facts | {"frames": decode_image.count_frames(image)}}
    if args["family"] == SOUND:
        from unigen.media import decode_audio

        with decode_audio.open_sound(file) as sound:
            return {"kind": "audio", "facts": decode_audio.facts_of(sound)}
    from unigen.media import container

    with container.opened(file, args["format"]) as media:
        return container.describe(media, args["format"])
