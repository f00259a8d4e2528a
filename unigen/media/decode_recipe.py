"""Take the recipe's text out of a file (in the worker only). It is parsed by the reader."""

from unigen.media import decode_image, wav
from unigen.media.sniff import IMAGE, SOUND


def read(file, args: dict, emit) -> dict:
    """Return {"text": str or None}; args: family, format."""
    if args["family"] == IMAGE:
        image = decode_image.open_image(file, args["format"])
        text = image.info.get("unigen") or image.info.get("comment")
    elif args["format"] == "WAV":
        text = wav.comment_of(file)
    elif args["family"] == SOUND:
        import soundfile

        with soundfile.SoundFile(file) as sound:
            text = sound.comment
    else:
        from unigen.media import container

        with container.opened(file, args["format"]) as media:
            text = media.metadata.get("comment") or media.metadata.get("COMMENT")
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return {"text": str(text) if text else None}
