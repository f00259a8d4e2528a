"""A pipeline of UniDiffuser as diffusers has it, with tiny random components."""

import torch

SIDE = 16  # latent pixels a side
WORDS = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz",
         *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]  # fmt: skip


def tiny_pipeline(version: int = 1):
    """Return diffusers' pipeline with tiny random components, of version 0 or 1."""
    import transformers as t
    from diffusers import (
        AutoencoderKL,
        DPMSolverMultistepScheduler,
        UniDiffuserModel,
        UniDiffuserPipeline,
    )
    from diffusers.pipelines.deprecated.unidiffuser.modeling_text_decoder import (
        UniDiffuserTextDecoder,
    )

    torch.manual_seed(0)
    shape = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2, "projection_dim": 20}  # fmt: skip
    vocab = {word: i for i, word in enumerate(WORDS)}
    spelling = {w: i for i, w in enumerate([*"abcdefghijklmnopqrstuvwxyz", "Ġ", "<|EOS|>"])}
    pipe = UniDiffuserPipeline(
        vae=AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[8, 8], latent_channels=4, norm_num_groups=8, sample_size=32,
        ),
        text_encoder=t.CLIPTextModel(t.CLIPTextConfig(
            vocab_size=len(WORDS), max_position_embeddings=77, bos_token_id=0, eos_token_id=1,
            pad_token_id=1, **shape,
        )),
        image_encoder=t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(
            image_size=16, patch_size=8, **shape,
        )),
        clip_image_processor=t.CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        clip_tokenizer=t.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77),
        text_decoder=UniDiffuserTextDecoder(
            prefix_length=77, prefix_inner_dim=24, prefix_hidden_dim=16, vocab_size=len(spelling),
            n_positions=160, n_embd=32, n_layer=2, n_head=2, activation_function="gelu",
        ),
        text_tokenizer=t.GPT2Tokenizer(vocab=spelling, merges=[], unk_token="<|EOS|>",
                                       bos_token="<|EOS|>", eos_token="<|EOS|>"),
        unet=UniDiffuserModel(
            text_dim=16, clip_img_dim=20, num_text_tokens=77, num_attention_heads=2,
            attention_head_dim=16, in_channels=4, out_channels=4, num_layers=2, sample_size=SIDE,
            patch_size=2, activation_fn="gelu", num_embeds_ada_norm=1000,
            use_data_type_embedding=version == 1,
        ),
        scheduler=DPMSolverMultistepScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", solver_order=3
        ),
    )  # fmt: skip
    for module in (pipe.unet, pipe.text_decoder):
        for name, p in module.named_parameters():
            if "norm" not in name and "ln_" not in name:
                torch.nn.init.normal_(p, std=0.15)
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_pipeline(pipe, folder):
    """Write the pipeline as diffusers does."""
    head = pipe.text_decoder.transformer.lm_head  # diffusers cannot save tensors that are tied
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    pipe.save_pretrained(folder)
