"""The episodes and draws that a recipe asks for; small data makes episodes smaller."""

from collections.abc import Callable, Sequence

from training.data.datasets import LabelledClip
from training.data.episodes import EpisodePlan, EpisodeSampler, fewest_labels
from training.errors import InputError
from training.features.clip_views import ClipAugmentation, plain_crop, query_draws
from training.meta.recipe import FitRecipe


def training_episodes(
    clips: Sequence[LabelledClip], recipe: FitRecipe, say: Callable[[str], None]
) -> EpisodeSampler:
    """Return the training episodes; small data makes the largest ones smaller, and says so.

    Raises:
        InputError: not even the smallest episodes of the recipe can be drawn.
    """
    labels = fewest_labels(clips)
    ways = (min(recipe.ways[0], labels), min(recipe.ways[1], labels))
    least, most = recipe.shots
    for shots in range(most, least, -1):
        plan = EpisodePlan(ways, (least, shots), recipe.queries)
        if (sampler := _sampler(clips, plan, recipe.seed)) is not None:
            if (shots, ways[1]) != (most, recipe.ways[1]):
                say(f"training episodes have at most {ways[1]} ways and {shots} shots")
            return sampler
    return EpisodeSampler(clips, EpisodePlan(ways, least, recipe.queries), recipe.seed)


def val_samplers(
    clips: Sequence[LabelledClip], recipe: FitRecipe, say: Callable[[str], None]
) -> dict[int, EpisodeSampler]:
    """Return val episodes for each number of shots, of up to 5 ways, the same for every seed.

    Small data makes fewer queries, or leaves numbers of shots out, and says so.

    Raises:
        InputError: no number of shots is left.
    """
    ways = min(5, fewest_labels(clips))
    found: dict[int, EpisodeSampler] = {}
    for shots in recipe.val_shots:
        for queries in range(recipe.val_queries, 0, -1):
            sampler = _sampler(clips, EpisodePlan(ways, shots, queries), 0)
            if sampler is not None:
                found[shots] = sampler
                if queries < recipe.val_queries:
                    say(f"{shots}-shot val episodes have {queries} queries a label")
                break
        else:
            say(f"no {shots}-shot val episodes: the val labels have too few clips")
    if not found:
        EpisodeSampler(clips, EpisodePlan(ways, min(recipe.val_shots), 1), 0)  # says why
    return found


def _sampler(clips: Sequence[LabelledClip], plan: EpisodePlan, seed: int) -> EpisodeSampler | None:
    try:
        return EpisodeSampler(clips, plan, seed)
    except InputError:
        return None


def augmentation_of(recipe: FitRecipe) -> ClipAugmentation:
    """Return how a recipe's draws differ from the plain view."""
    match recipe.augmentation:
        case "full":
            return ClipAugmentation(mirror=recipe.mirror)
        case "crop":
            return plain_crop(recipe.mirror)
        case "frame_crops":
            return plain_crop(recipe.mirror, each_frame=True)
        case "queries":
            return query_draws(recipe.mirror, of_supports=recipe.draws)


def draws_name(recipe: FitRecipe) -> str:
    """Return the part of a cache's name that tells its draws from others."""
    mirrored = f"-mirror{recipe.mirror:g}"
    match recipe.augmentation:
        case "full":
            return mirrored
        case "queries":  # how many are of supports says where those of queries begin
            return f"{mirrored}-queries{recipe.draws}"
        case other:
            return f"{mirrored}-{other}"
