"""The slots of a method: what each part takes and gives, and what it declares.

    frames -> Backbone -> tokens -> adapted blocks under a View -> Temporal -> features
    support features, class text -> Prototypes -> ClassSet
    query features, ClassSet -> Matcher -> video score; text -> TextHead -> text score
    video score, text score -> Fusion -> logits

Recognizer, service, training and export read these declarations and nothing else; no part asks
which other part it meets.

Dimensions: B S Q clips or frames, N classes, A stages, T frames, C H W pixels, L tokens, R tokens
that are read, D token width, E feature width, J heads, W width of a head.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from model.episode import ClassSet
from model.matching.trust import TextTrust

RGB = tuple[float, float, float]


class Block(Protocol):
    """A block of a backbone, whole: a transformer block, or a stage of convolutions."""

    def run(self, tokens_BLD: Tensor, mask: Tensor | None = None, /) -> Tensor:
        """Run it; a stage has no attention to mask, and may change L and D."""


class TransformerBlock(Block, Protocol):
    """A pre-norm transformer block of a backbone, in the parts that adapters reuse."""

    def norm_attention(self, tokens_BLD: Tensor) -> Tensor:
        """Apply the LayerNorm in front of attention."""

    def heads(self, normed_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries, keys and values, each [B, J, L, W]."""

    def placed(self, query_BJLW: Tensor, key_BJLW: Tensor) -> tuple[Tensor, Tensor]:
        """Turn queries and keys of a frame's L tokens to their places, where the tower does so."""

    def merge(self, attended_BJLW: Tensor) -> Tensor:
        """Project attended heads back to tokens [B, L, D]."""

    def norm_mlp(self, tokens_BLD: Tensor) -> Tensor:
        """Apply the LayerNorm in front of the MLP."""

    def mlp(self, normed_BLD: Tensor) -> Tensor:
        """Apply the MLP."""


class Backbone(Protocol):
    """An image tower: frames to tokens, blocks that adapters may wrap, tokens to features."""

    model: Any  # the library's own module
    size: int  # pixels, square
    mean: RGB  # of RGB in [0, 1]
    std: RGB
    width: int  # D
    features: int  # E
    prefix_tokens: int  # tokens in front of the patches, the class token first
    reads_class_token: bool  # whether `head` looks at the first token alone
    staged: bool  # whether its blocks are stages of convolutions, without attention
    blocks: Sequence[Block]
    parts: Mapping[str, Sequence[str]]  # names in `model` of what may learn alone, by its name

    @property
    def levels(self) -> Sequence[int]:
        """How many blocks stand below each of its four levels; the last level is the end."""

    @property
    def level_widths(self) -> Sequence[int]:
        """C of each level."""

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """Turn normalised pixels into tokens [B, L, D] with their places added."""

    def norm(self, tokens_BLD: Tensor) -> Tensor:
        """Apply what stands between places and the first block."""

    def head(self, tokens_BLD: Tensor) -> Tensor:
        """Turn the last block's tokens into one feature [B, E] a frame."""

    def pooled(self, tokens_BLD: Tensor) -> Tensor:
        """Do so without the projection into the space of text; [B, D]."""

    def map(self, tokens_BLD: Tensor) -> Tensor:
        """Lay a level's tokens out as a map [B, C, H, W], without those in front of the patches."""


class ClipBackbone(Protocol):
    """A network that sees a whole clip: nothing of it can be adapted."""

    model: Any
    size: int
    mean: RGB
    std: RGB
    width: int
    features: int

    def instants(self, frames: int) -> int:
        """Return how many features, in their order of time, a clip of so many frames has."""

    def clip(self, pixels_BTCHW: Tensor) -> Tensor:
        """Turn normalised pixels into features [B, U, E], one of each instant."""

    def begin(self, pixels_NCHW: Tensor) -> Tensor:
        """Do with frames what is each one's own, if anything is; of any shape a frame."""

    def finish(self, begun_BT: Tensor) -> Tensor:
        """Do the rest of `clip` with clips whose frames have begun."""

    def cells(self, pixels_BTCHW: Tensor) -> Tensor:
        """Return its last tokens [B, U, L, C], which lie on a square grid, row by row."""

    def read(self, cells_BULC: Tensor) -> Tensor:
        """Turn these into features [B, U, E]; `clip` is both."""

    def head(self, features_N1E: Tensor) -> Tensor:
        """Take the features [N, E] out of what `clip` gave as tokens."""


class TextBackbone(Protocol):
    """A causal text tower, in the parts that adapters need."""

    model: Any
    width: int
    features: int
    context: int  # L: tokens of a text, its start and end included
    blocks: Sequence[TransformerBlock]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into token ids [B, L]."""

    def read(self, text: str) -> tuple[int, ...] | None:
        """Return the tokens of a text as the tower reads it; None where it would be cut."""

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Name the words and signs of a text that the tower cannot represent."""

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Look up tokens [B, L, D] and add their places."""

    def mask(self) -> Tensor:
        """Return the additive causal mask [L, L]."""

    def pool(self, tokens_BLD: Tensor, ids_BL: Tensor) -> Tensor:
        """Turn the last block's tokens into one feature [B, E] a text."""


class BlockView(Protocol):
    """Who is seen in one adapted block of a pass."""

    def attend(self, block: TransformerBlock, tokens_BTRD: Tensor) -> Tensor | None:
        """Run a block's attention over clips at each frame and token.

        Args:
            block: The block whose LayerNorm and attention are used.
            tokens_BTRD: All clips of the pass.

        Returns:
            update_BTRD, or None where no clip attends to any.
        """


class View(Protocol):
    """Who is seen in a pass through the adapted blocks."""

    @property
    def alone(self) -> bool:
        """Whether no clip of the pass sees another."""

    def at(self, place: int, /) -> BlockView:
        """Return the view of one adapted block; 0 is the lowest."""


class Part(Protocol):
    """What every part of a method says of itself."""

    def is_initial(self) -> bool:
        """Tell whether it computes what the frozen backbone would without it."""


class AdaptedBlock(Part, Protocol):
    """A block with adapters around it or in it."""

    across_clips: bool  # whether it asks its view for attention across clips
    reads_text: bool  # whether supports bring their class text_BE, which it then takes too

    def __call__(self, tokens_BTLD: Tensor, view: BlockView, /) -> Tensor:
        """Run the block over all clips of a pass; returns tokens_BTRD.

        One that reads text takes it as a third value, which queries leave out; as only clips that
        all have text share such a pass, it cannot look across clips.
        """


class AdaptedTextBlock(Part, Protocol):
    """A text block with adapters; the stages of one class may see each other, classes never."""

    def __call__(self, tokens_NALD: Tensor, mask_LL: Tensor, /) -> Tensor:
        """Run the block; returns tokens_NALD."""


class Temporal(Part, Protocol):
    """What happens along time above the backbone: to features, or to the maps of its levels."""

    reads_levels: int  # how many, counted from the last; 0 reads the features of frames
    transductive: bool  # whether clips of a pass see each other
    features: int  # E
    one_instant: bool  # whether it gives one feature a clip, T = 1

    def __call__(self, read: Any, /) -> Tensor:  # noqa: ANN401  as `reads_levels` says
        """Return features_BTE of clips, each by itself.

        Args:
            read: features_BTE; or the maps [B, T, C, H, W] of the levels that it reads, the lowest
                first.
        """


class Prototypes(Part, Protocol):
    """Support features, and class text where the part wants it, to a `ClassSet`."""

    needs_text: bool  # class text enters the support features: other text, other supports
    per_query: bool  # whether each query meets other classes: it is a `QueryPrototypes`
    per_task: bool  # whether a class depends on the other classes
    transductive: bool  # whether what a query meets depends on the other queries

    def __call__(
        self, support_STE: Tensor, classes_S: Tensor, text_NE: Tensor | None, /
    ) -> ClassSet:
        """Return the classes of one task; without text, of what the clips alone give."""

    def query(self, query_QTE: Tensor) -> Tensor:
        """Return query features as matchers compare them with the `ClassSet`."""


class QueryPrototypes(Prototypes, Protocol):
    """Prototypes that are not the same for each query."""

    def meet(self, query_QTE: Tensor, classes: ClassSet, /) -> Iterable[tuple[Tensor, ClassSet]]:
        """Give each query [1, T, E], and the classes as it meets them."""

    def edges(self, query_QTE: Tensor, classes: ClassSet, /) -> Sequence[Tensor]:
        """Return what joins the nodes after each layer of a graph, each [G, 2, V, V].

        Nodes are the classes, then one query in each of G graphs, or all of them in one. The first
        channel says how alike two nodes are.
        """


class Matcher(Part, Protocol):
    """Query features and a `ClassSet` to the video score."""

    bounded: bool  # a similarity in [-1, 1]; else a negative distance
    reads_shots: bool  # whether it compares with each shot, not with prototypes alone
    per_task: bool  # whether queries must be scored against their own task's classes alone

    def __call__(self, query_QTE: Tensor, classes: ClassSet, /) -> Tensor:
        """Return video_QN; larger is better."""


class TextHead(Part, Protocol):
    """Query features and class text to the text score."""

    transductive: bool  # whether a query's score depends on the other queries
    per_task: bool  # whether a class's score depends on the other classes
    least_frames: int  # frames that a clip needs

    @property
    def scale(self) -> Tensor | float:
        """What its cosines are multiplied by; a weight where it is learned."""

    def __call__(self, query_QTE: Tensor, text_NAE: Tensor, /) -> tuple[Tensor, Tensor | None]:
        """Return text_QN and, where the head has them, the scores of the stages [Q, N, A]."""


class Fusion(Part, Protocol):
    """How the video score and the text score meet."""

    reads_text: bool
    reads_video: bool  # whether the video score counts where there is text
    needs_bounded: bool  # whether the video score has to be a similarity
    per_task: bool  # whether a class's logit depends on the other classes
    asks_supports: bool  # whether supports say how much text counts: it is an `AskingFusion`

    def __call__(self, video_QN: Tensor, text_QN: Tensor | None, /) -> Tensor:
        """Return logits_QN; without text, of the video score alone."""


class AskingFusion(Fusion, Protocol):
    """A fusion that weighs the text of a task by what it says of the task's supports."""

    def trust(self, video_SN: Tensor, text_SN: Tensor, classes_S: Tensor, /) -> TextTrust:
        """Return how much text counts; a support alone in its class has video scores of 0."""
