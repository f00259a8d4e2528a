"""The limits of what is read, in one table. A file beyond one is refused, with the number."""

MEGA = 1_000_000

FILE_BYTES = 256 * MEGA  # size of any input file
IMAGE_PIXELS = 64 * MEGA  # width x height
IMAGE_FRAMES = 256  # of an animated image, of which the first is read
VIDEO_SIDE = 4096  # pixels, each side
VIDEO_SECONDS = 600.0
VIDEO_BYTES = 2_000 * MEGA  # of frames handed back by one read
AUDIO_SECONDS = 3600.0
AUDIO_CHANNELS = 8
AUDIO_RATES = (1_000, 768_000)  # lowest and highest samples a second
AUDIO_BYTES = 2_000 * MEGA  # of samples handed back by one read
RECIPE_BYTES = 256 * 1024  # of JSON; two prompts of 4096 characters take up to 96 KiB of it
TIMES = 100_000  # frames asked for in one read

WORKER_MEMORY = 1_200 * MEGA  # address space of the child; its libraries take about 300 MB of it
WORKER_SECONDS = 10.0  # of wall clock for one call; on a crowded machine, of processor time
WORKER_PATIENCE = 60.0  # of wall clock for one call, however crowded the machine is
WORKER_START = 60.0  # of wall clock to start the child and import a library
WORKER_CALLS = 500  # then the child is replaced by a new one
WORKER_FILES = 64  # open files
HEADER_BYTES = 4 * MEGA  # of one message, without its array

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
VIDEO_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mjpeg")
SOUND_CODECS = ("aac", "mp3", "mp3float", "opus", "libopus", "vorbis", "flac", "alac")
SOUND_CODECS += ("pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le")
SOUND_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")
SOUND_SUBTYPES = ("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
SOUND_SUBTYPES += ("VORBIS", "OPUS", "MPEG_LAYER_III")
