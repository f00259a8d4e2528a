"""What Hydra refused is one sentence, with the nearest thing that there is."""

import pytest

from unigen.cli import main


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("experiment=wrld", "experiment has no option 'wrld'; did you mean 'world'?"),
        ("experiment=world/imge", "no option 'world/imge'; did you mean 'world/image'?"),
        ("experiment=wrld/anchor", "no option 'wrld/anchor'; did you mean 'world/anchor'?"),
        ("experiment=zzz", "known are: digits, digits/align, "),
        ("modality=[text,imge]", "modality has no option 'imge'; did you mean 'image'?"),
        ("data@validation=foldr", "data has no option 'foldr'; did you mean 'folder'?"),
        ("hydra/job_logging=nope", "hydra/job_logging has no option 'nope'; did you mean 'none'?"),
        ("trainer.step=3", "train has no key 'trainer.step'; did you mean 'trainer.steps'?"),
        ("modalities.image.sise=3", "did you mean 'modalities.image.size'?"),
        ("+data.size=96", "data.size is there already; type data.size=..., without +"),
        ("validation.seed=1", "validation.seed is of no source; type data@validation=..., too"),
    ],
)
def test_the_nearest_thing_is_named(word, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", word, "--cfg", "job"]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
