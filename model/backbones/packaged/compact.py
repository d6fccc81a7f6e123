"""The packaged compact towers: a small ViT, and a word-level text tower in its feature space."""

from model.backbones.packaged.text import TextNetwork
from model.backbones.packaged.vit import Vit
from model.backbones.views.clip import ClipTextTower
from model.backbones.views.timm import TimmImageTower
from model.backbones.words import WordTokenizer
from model.config.towers import CompactConfig, CompactTextConfig


def compact_image_tower(config: CompactConfig) -> TimmImageTower:
    """Build the compact image tower at random."""
    vit = Vit(
        size=config.size,
        patch=config.patch,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
    )
    return TimmImageTower(vit.eval(), config.mean, config.std)


def compact_text_tower(config: CompactTextConfig, features: int) -> ClipTextTower:
    """Build the compact text tower at random; it ends in the image tower's feature space."""
    tokenizer = WordTokenizer(config.words, config.context)
    network = TextNetwork(
        context=config.context,
        vocabulary=tokenizer.size,
        width=config.width,
        heads=config.heads,
        layers=config.layers,
        features=features,
    )
    return ClipTextTower(network.eval(), tokenizer)
