"""The packaged compact towers: a small ViT, and a word-level text tower in its feature space."""

from open_clip.transformer import TextTransformer
from timm.models.vision_transformer import VisionTransformer

from model.backbones.clip import ClipTextTower
from model.backbones.timm import TimmImageTower
from model.backbones.words import WordTokenizer
from model.config.towers import CompactConfig, CompactTextConfig


def compact_image_tower(config: CompactConfig) -> TimmImageTower:
    """Build the compact image tower at random."""
    vit = VisionTransformer(
        img_size=config.size,
        patch_size=config.patch,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        num_classes=0,
    )
    return TimmImageTower(vit.eval(), config.mean, config.std)


def compact_text_tower(config: CompactTextConfig, features: int) -> ClipTextTower:
    """Build the compact text tower at random; it ends in the image tower's feature space."""
    tokenizer = WordTokenizer(config.words, config.context)
    model = TextTransformer(
        context_length=config.context,
        vocab_size=tokenizer.size,
        width=config.width,
        heads=config.heads,
        layers=config.layers,
        output_dim=features,
    )
    return ClipTextTower(model.eval(), tokenizer)
