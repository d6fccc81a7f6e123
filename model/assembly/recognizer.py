"""The one assembler: a config to the modules of a method, each in its slot."""

from model.assembly.fusion import build_fusion, build_text_head
from model.assembly.matching import build_matcher
from model.assembly.prototypes import build_prototypes
from model.assembly.towers import build_text, build_video
from model.config.method import TUNES_IMAGE, MethodConfig
from model.errors import MethodError
from model.recognizer import Recognizer
from model.slots import Backbone, ClipBackbone, TextBackbone
from model.text import places, prompts_of


def build_recognizer(
    config: MethodConfig,
    image: Backbone | ClipBackbone,
    text: TextBackbone | None,
    *,
    name: str = "unnamed",
) -> Recognizer:
    """Put parts into their slots; they start at their initial values.

    Raises:
        MethodError: the parts do not fit each other or the towers.
    """
    video = build_video(config, image)
    matcher = build_matcher(config.matcher, video.features, video.feature_instants)
    head = build_text_head(config, image.features)
    recognizer = Recognizer(
        config,
        video,
        build_text(config.text, text),
        build_prototypes(config.prototypes, video.features, keep_shots=matcher.reads_shots),
        matcher,
        head,
        build_fusion(config, matcher),
        name=name,
    )
    features = min(config.frames, video.feature_instants)  # of a clip
    if recognizer.has_text and features < head.least_frames:
        what = "frames" if features == config.frames else "what the head along time leaves of them"
        raise MethodError(
            f"{what} is {features}; {config.stages} stages need {head.least_frames} or more a clip."
        )
    as_text = config.projected and not video.levels and video.features == image.features
    if recognizer.has_text and not as_text:
        raise MethodError(
            f"Features of width {video.features} are not in the space of text; set fusion to "
            "'video', or leave out what changes them."
        )
    _check_prompts(config)
    _tune(config, recognizer)
    return recognizer.eval()


def _tune(config: MethodConfig, recognizer: Recognizer) -> None:
    """Say which weights learn: the backbone's, the adapters' and those of the parts above."""
    video, text = recognizer.video, recognizer.text
    video.tower.model.requires_grad_(config.tune in TUNES_IMAGE)
    for name in recognizer.tuned_names if config.tune != "frozen" else ():
        recognizer.get_parameter(name).requires_grad_(True)
    if text is not None:
        text.tower.model.requires_grad_(config.tune == "towers")
    if config.tune == "frozen":
        video.adapted.requires_grad_(False)
        if text is not None:
            text.adapted.requires_grad_(False)
        if video.temporal_embedding is not None:
            video.temporal_embedding.requires_grad_(False)


def _check_prompts(config: MethodConfig) -> None:
    if not config.prompt:
        raise MethodError("The method has no prompt; give one, such as '{stage}'.")
    for prompt in prompts_of(config.prompt):
        _check_prompt(prompt)


def _check_prompt(prompt: str) -> None:
    """Refuse a prompt with places that nothing fills."""
    try:
        named = places(prompt)
    except ValueError:
        named = {prompt}
    if unknown := sorted(named - {"label", "spelled", "stage"}):
        raise MethodError(
            f"The prompt {prompt!r} has the place {unknown[0]!r}; use {{label}}, {{spelled}} and "
            "{stage}."
        )
