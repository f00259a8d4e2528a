"""Read and write media: images, video, sound and text, with the recipe of what was generated.

Reading user files happens in a limited child process, so a hostile file costs a sentence, not the
program. Nothing here imports torch, and the decoders are imported by the child only.
"""

from unigen.media.files import free_name, make_folder, new_folder, safe_stem, write_next
from unigen.media.picture import is_picture, picture, take_picture
from unigen.media.plain import read_text
from unigen.media.read import probe, read_audio, read_image, read_video, shown
from unigen.media.recipe import read_recipe
from unigen.media.results import Clip, Picture, Probe, Sound
from unigen.media.write import write_audio, write_image, write_json, write_text, write_video

__all__ = [
    "Clip",
    "Picture",
    "Probe",
    "Sound",
    "free_name",
    "is_picture",
    "make_folder",
    "new_folder",
    "picture",
    "probe",
    "read_audio",
    "read_image",
    "read_recipe",
    "read_text",
    "read_video",
    "safe_stem",
    "shown",
    "take_picture",
    "write_audio",
    "write_image",
    "write_json",
    "write_next",
    "write_text",
    "write_video",
]
