"""Published data sets, made here in the exact form in which they lie on disk."""

import json

import pytest
from media_folder import mp4, png, wav

from unigen import cli
from unigen.data.layouts import audiocaps, coco, msrvtt, webvid
from unigen.errors import MediaError, UsageError


@pytest.fixture
def checked(capfd, monkeypatch):
    """Return how many items `unigen data check` finds, nothing broken, with the layout's YAML."""
    monkeypatch.delenv("UNIGEN_TRACEBACK", raising=False)

    def check(layout, index, root):
        line = ["data", "check", f"data={layout}", f"data.index={index}", f"data.root={root}"]
        assert cli.main(line) == 0, capfd.readouterr().err
        return int(capfd.readouterr().out.split()[0])

    return check


def items_of(source):
    return dict(zip(source.names, source.listing.items, strict=True))


def test_coco_captions(tmp_path, checked):
    for number in (9, 25):
        png(tmp_path / f"train2017/{number:012d}.png", number)
    images = [{"id": n, "file_name": f"{n:012d}.png", "height": 16, "width": 16, "license": 3,
               "coco_url": f"http://images.cocodataset.org/train2017/{n:012d}.png"}
              for n in (9, 25, 30)]  # fmt: skip
    annotations = [{"id": i, "image_id": n, "caption": c} for i, (n, c) in
                   enumerate([(9, "A plate. "), (25, "A giraffe."), (9, "Food.")])]  # fmt: skip
    index = tmp_path / "captions_train2017.json"
    table = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    index.write_text(json.dumps(table))
    source = coco(str(index), str(tmp_path / "train2017"))
    assert {k: v["text"] for k, v in items_of(source).items()} == {
        "000000000009.png": ["A plate.", "Food."], "000000000025.png": ["A giraffe."]
    }  # fmt: skip
    assert "1 rows of captions_train2017.json have no file here" in source.notes
    assert checked("coco", index, tmp_path / "train2017") == 2


def test_audiocaps(tmp_path, checked):
    wav(tmp_path / "train/r1nicOVtvkQ_130.wav", 0)
    wav(tmp_path / "train/sub/yoSyLVNSz6w.wav", 1)
    index = tmp_path / "train.csv"
    index.write_text(
        "audiocap_id,youtube_id,start_time,caption\n"
        "91139,r1nicOVtvkQ,130,A woman talks nearby as water pours\n"
        '58146,yoSyLVNSz6w,20,"Multiple clanging, then a tap"\n'
        "58147,r1nicOVtvkQ,130,Water pours\n"
        "58148,gone,0,Nothing here\n"
    )
    items = items_of(audiocaps(str(index), str(tmp_path)))
    assert items["train/r1nicOVtvkQ_130.wav"]["text"] == [
        "A woman talks nearby as water pours", "Water pours"
    ]  # fmt: skip
    assert items["train/sub/yoSyLVNSz6w.wav"]["text"] == ["Multiple clanging, then a tap"]
    assert len(items) == checked("audiocaps", index, tmp_path) == 2


def test_msrvtt(tmp_path, checked):
    mp4(tmp_path / "videos/video0.mp4", 0)
    index = tmp_path / "videodatainfo.json"
    index.write_text(json.dumps({
        "info": {"contributor": "x"},
        "videos": [{"category": 9, "url": "https://x", "video_id": "video0", "start time": 137.7,
                    "end time": 149.4, "split": "train", "id": 0},
                   {"category": 1, "video_id": "video1", "id": 1}],
        "sentences": [{"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
                      {"caption": "a man drives", "video_id": "video0", "sen_id": 1}],
    }))  # fmt: skip
    items = items_of(msrvtt(str(index), str(tmp_path / "videos")))
    assert items == {"video0.mp4": {"video": (tmp_path / "videos/video0.mp4").resolve(),
                                    "text": ["a car is shown", "a man drives"]}}  # fmt: skip
    split = tmp_path / "MSRVTT_JSFUSION_test.csv"
    split.write_text(
        "key,vid_key,video_id,sentence\n"
        'ret0,msr0,video0,"a car is shown"\nret1,msr0,video0,a man drives\nret2,msr1,video1,x\n'
    )
    assert items_of(msrvtt(str(split), str(tmp_path / "videos"))) == items
    assert checked("msrvtt", index, tmp_path / "videos") == 1
    assert checked("msrvtt", split, tmp_path / "videos") == 1


def test_webvid(tmp_path, checked):
    mp4(tmp_path / "000001_000050/1066674784.mp4", 0)
    index = tmp_path / "results_2M_val.csv"
    index.write_text(
        "videoid,contentUrl,duration,page_dir,name\n"
        '1066674784,https://x/a.mp4,PT00H00M10S,000001_000050,"Rural areas, from above"\n'
        "2,https://x/b.mp4,PT00H00M10S,000001_000050,Gone\n"
    )
    items = items_of(webvid(str(index), str(tmp_path)))
    assert items["000001_000050/1066674784.mp4"]["text"] == ["Rural areas, from above"]
    assert checked("webvid", index, tmp_path) == 1


@pytest.mark.parametrize(
    ("layout", "name", "text", "error", "words"),
    [
        (coco, "a.json", "{", MediaError, "is not valid JSON"),
        (coco, "a.json", '{"images": []}', MediaError, "no list 'annotations'; it has images"),
        (coco, "a.json", '{"images": [{}], "annotations": []}', MediaError, "without id and file"),
        (
            coco,
            "a.json",
            '{"images": [{"id": [9], "file_name": "a.png"}], "annotations": []}',
            MediaError,
            r"images\[0\] with id=\[9\]; a text or a number",
        ),
        (
            coco,
            "a.json",
            '{"images": [], "annotations": [{"image_id": {}, "caption": "a"}]}',
            MediaError,
            r"annotations\[0\] with image_id=\{\};",
        ),
        (
            audiocaps,
            "a.jsonl",
            '{"audiocap_id": 1, "youtube_id": [2], "start_time": 0, "caption": "x"}',
            MediaError,
            "1 rows of a.jsonl have no file here",
        ),
        (msrvtt, "a.json", "[]", MediaError, "no list 'videos'; it has list"),
        (audiocaps, "a.csv", "id,caption\n1,x\n", UsageError, "no column 'audiocap_id'; it has id"),
        (webvid, "a.csv", "videoid,name\n1,x\n", UsageError, "no column 'contentUrl'"),
        (webvid, "none.csv", None, UsageError, "cannot be read: No such file"),
    ],
)
def test_an_index_of_another_form_says_what_it_has(tmp_path, layout, name, text, error, words):
    png(tmp_path / "media/a.png", 0)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=words):
        layout(str(tmp_path / name), str(tmp_path / "media"))


def test_an_index_without_any_of_its_files_says_so(tmp_path):
    png(tmp_path / "media/a.png", 0)
    index = tmp_path / "train.csv"
    index.write_text("audiocap_id,youtube_id,start_time,caption\n1,abc,0,words\n")
    with pytest.raises(MediaError, match="holds no items.*1 rows of train.csv have no file here"):
        audiocaps(str(index), str(tmp_path / "media"))
