"""Parts have names; a sample's noise is a function of its seed and the part's name."""

import torch

from unigen.tokens import modality_of, noise, pick, role_of, slerp


def test_a_part_is_a_modality_and_a_role():
    assert (modality_of("text"), role_of("text")) == ("text", "")
    assert (modality_of("text:question"), role_of("text:question")) == ("text", "question")


def test_noise_is_a_function_of_seed_and_name():
    many = noise("image", [3, 1, 2], (4, 5))
    assert many.shape == (3, 4, 5)
    for row, seed in zip(many, (3, 1, 2), strict=True):
        assert torch.equal(row, noise("image", [seed], (4, 5))[0])
    torch.manual_seed(1)
    assert torch.equal(many, noise("image", [3, 1, 2], (4, 5)))


def test_noise_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    noise("image", [0], (4, 5))
    assert torch.equal(state, torch.get_rng_state())


def test_other_seeds_and_names_make_other_noise():
    draws = [
        noise(p, [s], (8, 8))[0] for p in ("image", "video", "image:global") for s in (-1, 0, 1)
    ]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert (a * b).mean().abs() < 0.6  # a copy would give about 1


def test_noise_is_standard_normal():
    x = noise("audio", range(64), (32, 8))
    assert x.mean().abs() < 0.03
    assert (x.std() - 1).abs() < 0.03


def test_on_the_arc_between_two_noises_lengths_are_kept():
    a, b = ({"image": noise("image", [s, s + 1], (40, 8))} for s in (0, 5))
    for share, end in ((0.0, a), (1.0, b)):
        assert torch.allclose(slerp(a, b, share)["image"], end["image"], atol=1e-5)
    half = slerp(a, b, 0.5)["image"]
    assert torch.allclose(half, slerp(b, a, 0.5)["image"], atol=1e-5)
    length = half.flatten(1).norm(dim=1)
    assert ((length / (40 * 8) ** 0.5 - 1).abs() < 0.15).all()
    assert torch.allclose(slerp(a, a, 0.3)["image"], a["image"], atol=1e-3)


def test_pick():
    tokens = {"image": torch.randn(2, 3, 4), "text": torch.randn(2, 1, 4)}
    assert list(pick(tokens, ["text", "audio"])) == ["text"]
