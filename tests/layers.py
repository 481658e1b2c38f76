"""Small layers of a model's options, without dropout."""

from eat_plugin.models.config import DecoderConfig, EatConfig
from eat_plugin.modules.decoders import ConvDecoder
from eat_plugin.modules.transformer import TransformerBlock


def layer_config(decoder=None, **options):
    """Options of width 8 with 2 heads; ``decoder`` changes options of the decoder."""
    no_dropout = {"encoder_dropout": 0.0, "post_mlp_drop": 0.0, "attention_dropout": 0.0}
    fixed = {"embed_dim": 8, "num_heads": 2, "convolution": "channels_last"}
    cfg = EatConfig(**{**fixed, **no_dropout, **options})
    small = {"decoder_dim": 8, "decoder_layers": 2, "decoder_kernel": 3, "decoder_groups": 4}
    cfg.modalities.image.decoder = DecoderConfig(**{**small, **(decoder or {})})
    return cfg


def make_block(drop_path=0.0, **options):
    return TransformerBlock(layer_config(**options), drop_path)


def make_decoder(decoder=None, **options):
    return ConvDecoder(layer_config(decoder, **options))
