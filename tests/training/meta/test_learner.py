"""The learner: what it learns, that a resume repeats it, and that processes add up to one."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from deploy.local_service import free_port
from model.adapters.bottleneck import Bottleneck
from model.backbones.opening import towers
from model.checkpoint import save_checkpoint
from model.views import alone_view
from tests.episodes import score_episode
from tests.forked import ForkedCommand
from tests.model.tiny import TOWERS, WORDS, tiny_recognizer
from tests.training.learners import RECIPE, tiny_learner
from training.errors import InputError
from training.meta.learner import Learner, rate, training_mode
from training.meta.losses.answers import disagreement
from training.meta.optimizer import build_optimizer
from training.meta.passes import frozen_features
from training.meta.recipe import FitRecipe
from training.meta.recipes.named import RECIPES


@pytest.mark.parametrize("preset", ["task_adapter_pp", "ted", "clip_fsar", "ma_clip"])
def test_training_lowers_the_loss_of_its_episodes(preset: str) -> None:
    own = RECIPES[preset].weights if preset in RECIPES else {}
    own = {**own, "global_class": 0.0}  # of frozen towers it cannot fall: it learns a scale alone
    recipe = replace(RECIPE, episodes=120, dropout=0.0, lr=5e-3, text_dropout=0.0, weights=own)
    assert TOWERS.text is not None
    words = tuple(sorted({*WORDS, "a", "of", "photo"}))  # of every prompt: text takes part
    towers = replace(TOWERS, text=replace(TOWERS.text, words=words))
    learner = tiny_learner(recipe, preset=preset, backbone=towers)
    assert learner.passes.output(0).described == learner.recognizer.has_text
    losses = [learner.step() for _ in range(recipe.steps)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize(("augmentation", "behind"), [("queries", 3), ("crop", 0), ("full", 0)])
def test_queries_see_draws_behind_those_of_supports_where_the_recipe_parts_them(
    augmentation: Literal["queries", "crop", "full"], behind: int
) -> None:
    recipe = replace(RECIPE, draws=3, augmentation=augmentation)
    learner = tiny_learner(recipe)
    source, shown = learner.passes.source, {"supports": set[int](), "queries": set[int]()}
    read = source.tokens

    def recorded(clips: Sequence[int], draws: Sequence[int] | None = None) -> torch.Tensor:
        assert draws is not None
        supports = len(episode.support)
        shown["supports"] |= set(draws[:supports])
        shown["queries"] |= set(draws[supports:])
        return read(clips, draws)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(source, "tokens", recorded)
        for number in range(8):
            episode = learner.passes.episodes.draw(number)
            learner.passes.output(number)
    assert shown == {"supports": {1, 2, 3}, "queries": {behind + draw for draw in (1, 2, 3)}}
    assert recipe.views == behind + 3


@pytest.mark.parametrize(
    ("preset", "recipe"),
    [("d2st", "d2st"), ("sloshnet", "sloshnet"), ("sloshnet_vit", "sloshnet")],
)
def test_a_methods_own_recipe_moves_what_learns_and_nothing_else(preset: str, recipe: str) -> None:
    small = replace(RECIPES[recipe], episodes=8, per_step=4, ways=(2, 2), draws=0, warmup=0.0)
    learner = tiny_learner(small, preset=preset)
    before = {n: p.detach().clone() for n, p in learner.recognizer.named_parameters()}
    losses = [learner.step(), learner.step()]
    assert all(map(math.isfinite, losses))
    parameters = dict(learner.recognizer.named_parameters())
    moved = {name for name, p in parameters.items() if not torch.equal(p, before[name])}
    assert not [name for name in moved if not parameters[name].requires_grad]
    above = [name for name in parameters if ".tower." not in name]
    above = [name for name in above if not name.startswith("video.temporal_embedding")]
    assert set(above) <= moved  # tokens were made before: what learns below them stays


def test_a_clip_is_counted_among_all_classes_of_training() -> None:
    passes = tiny_learner(replace(RECIPE, text_dropout=0.0)).passes
    output, episode = passes.output(3), passes.episodes.draw(3)
    labels = sorted(passes.episodes.labels)
    assert len(labels) > len(episode.labels)
    told = [labels[place] for place in output.base_B.tolist()]
    places = (*episode.support_classes, *episode.query_classes)
    assert told == [episode.labels[place] for place in places]
    text_CAE = output.base_text_CAE()
    assert text_CAE is not None
    assert output.text_NAE is not None
    found_NAE = text_CAE[[labels.index(label) for label in episode.labels]]
    torch.testing.assert_close(found_NAE, output.text_NAE, atol=1e-5, rtol=0)


def test_texts_of_all_classes_carry_gradients_where_text_learns_and_are_kept_where_not() -> None:
    learns, kept = tiny_learner().passes, tiny_learner(preset="aim_top").passes
    text_CAE = learns.base_text()
    assert text_CAE is not None
    assert text_CAE.requires_grad
    assert kept.base_text() is kept.base_text()
    assert not kept.output(0).base_text_CAE().requires_grad  # type: ignore[union-attr]


def test_a_classifier_of_training_classes_learns_and_is_no_part_of_the_method() -> None:
    recipe = replace(RECIPE, weights={"base_class": 1.0}, rates={"losses.": 5.0}, average=0.0)
    learner = tiny_learner(recipe)
    names = {"losses.base_class.classify.weight", "losses.base_class.classify.bias"}
    before = {name: learner.trained[name].detach().clone() for name in names}
    learner.step()
    assert all(not torch.equal(before[name], learner.trained[name]) for name in names)
    assert not any("classify" in name for name in learner.recognizer.state_dict())
    shares = {group["share"] for group in learner.optimizer.param_groups if group["params"]}
    assert shares == {1.0, 5.0}
    again = tiny_learner(recipe)
    again.resume(copy.deepcopy(learner.state()))
    assert again.step() == learner.step()


def test_only_adapters_and_the_places_of_frames_learn() -> None:
    learner = tiny_learner()
    before = {name: tensor.clone() for name, tensor in learner.recognizer.state_dict().items()}
    learner.step()
    changed = {
        name
        for name, tensor in learner.recognizer.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed
    assert changed <= set(learner.trained)


def test_a_resumed_learner_repeats_the_others_steps_to_the_bit() -> None:
    whole, first = tiny_learner(), tiny_learner()
    losses = [whole.step() for _ in range(3)]
    first.step()
    resumed = tiny_learner()
    torch.manual_seed(99)  # whatever the process did meanwhile
    resumed.resume(first.state())
    assert [resumed.step() for _ in range(2)] == losses[1:]
    for name, parameter in whole.trained.items():
        assert torch.equal(parameter, resumed.trained[name])
        assert torch.equal(whole.average[name], resumed.average[name])


class Measuring(nn.Module):
    """A foreign part along time that measures its batches, as batch normalisation does."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)

    def is_initial(self) -> bool:
        return False

    def forward(self, features_BTE: torch.Tensor) -> torch.Tensor:
        return self.norm(features_BTE.flatten(0, 1)).unflatten(0, features_BTE.shape[:2])


def measuring_learner() -> Learner:
    plain = tiny_learner(preset="aim_top", query_context="none")
    recognizer = plain.recognizer
    recognizer.video.temporal = Measuring(recognizer.video.tower.features)
    return Learner(recognizer.eval(), RECIPE, plain.passes.episodes, plain.passes.source)


def test_what_batches_measured_is_resumed_and_stored_with_the_weights(tmp_path: Path) -> None:
    whole, first, resumed = (measuring_learner() for _ in range(3))
    whole.step()
    first.step()
    resumed.resume(first.state())
    assert resumed.step() == whole.step()
    names = {f"video.temporal.norm.running_{what}" for what in ("mean", "var")}
    save_checkpoint(resumed.recognizer, tmp_path, "card")
    stored, live = load_file(tmp_path / "weights.safetensors"), whole.recognizer.state_dict()
    for name in names:
        assert not torch.equal(stored[name], measuring_learner().recognizer.state_dict()[name])
        assert torch.equal(stored[name], live[name])


def test_a_frozen_norm_keeps_what_it_measured_before() -> None:
    learner = measuring_learner()
    learner.recognizer.video.temporal.requires_grad_(False)  # type: ignore[union-attr]
    frozen = Learner(learner.recognizer, RECIPE, learner.passes.episodes, learner.passes.source)
    frozen.step()
    start = measuring_learner().recognizer.state_dict()
    for name, value in frozen.recognizer.state_dict().items():
        if "temporal.norm" in name:
            assert torch.equal(value, start[name]), name


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    started = [
        ForkedCommand(
            "tests.training.meta.gradient_process",
            [str(tmp_path)],
            told | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            log,
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in started] == [0, 0], log.read_text()
    learner = tiny_learner()
    loss = learner.accumulate()
    for rank in range(2):
        shared = load_file(tmp_path / f"{rank}-of-2.safetensors")
        assert float(shared.pop("loss")) == pytest.approx(loss, abs=1e-6)
        assert set(shared) == set(learner.trained)
        for name, gradient in shared.items():
            own = learner.trained[name].grad
            torch.testing.assert_close(gradient, own, atol=1e-6, rtol=0)
        assert any(bool(gradient.any()) for gradient in shared.values())


def test_dropout_changes_training_alone() -> None:
    learner = tiny_learner(replace(RECIPE, dropout=0.5))
    learner.step()
    episode = learner.passes.episodes.draw(0)
    tokens = learner.passes.source.tokens([*episode.support, *episode.query])
    classes = torch.tensor(episode.support_classes)
    split = [len(episode.support), len(episode.query)]
    with torch.inference_mode():
        support, query = tokens.split(split)
        first = learner.recognizer.encode_episodes(support[None], classes, query[None])
        again = learner.recognizer.encode_episodes(support[None], classes, query[None])
    torch.testing.assert_close(first, again, atol=0, rtol=0)


def test_an_episode_goes_without_the_adapters_that_are_left_out() -> None:
    learner = tiny_learner(replace(RECIPE, dropout=0.0))
    video, tokens = learner.recognizer.video, learner.passes.source.tokens([0, 1])
    for module in learner.recognizer.modules():
        if isinstance(module, Bottleneck):
            torch.nn.init.normal_(module.up.bias)
    alone = alone_view(learner.recognizer.config.query_context)
    served = video(tokens, alone)
    with training_mode(learner.recognizer, replace(RECIPE, dropout=0.0, drop_path=0.5)):
        seen = {video(tokens, alone).sum().item() for _ in range(16)}
    with training_mode(learner.recognizer, replace(RECIPE, dropout=0.0, drop_path=0.999999)):
        bare = video(tokens, alone)
    assert len(seen) > 8
    torch.testing.assert_close(bare, frozen_features(learner.recognizer, tokens))
    assert torch.equal(video(tokens, alone), served)


def test_what_is_left_out_grows_over_the_blocks_and_spares_the_adapter_in_space() -> None:
    learner = tiny_learner(preset="aim_top")
    first, last = learner.recognizer.video.adapted
    recipe = replace(RECIPE, drop_path=0.2, drop_path_grows=True)
    with training_mode(learner.recognizer, recipe):
        assert (first.time.drop_path, first.joint.drop_path) == (0.0, 0.0)
        assert (last.time.drop_path, last.joint.drop_path) == (0.2, 0.2)
        assert last.space.drop_path == 0.0


def test_consistency_teaches_two_draws_of_a_clip_one_answer() -> None:
    ends = []
    for consistency in (0.0, 10.0):
        recipe = replace(RECIPE, episodes=64, draws=4, dropout=0.0, consistency=consistency)
        learner = tiny_learner(recipe)
        for _ in range(recipe.steps):
            learner.step()
        ends.append(between_draws(learner))
    assert ends[1] < 0.7 * ends[0]


@torch.inference_mode()
def between_draws(learner: Learner) -> float:
    """Return how two draws of the queries of twenty episodes differ in their answers."""
    found = []
    for number in range(20):
        episode = learner.passes.episodes.draw(number)
        clips = [*episode.support, *episode.query, *episode.query]
        draws = [0] * len(episode.support) + [1] * len(episode.query) + [2] * len(episode.query)
        tokens = learner.passes.source.tokens(clips, draws)
        support, query = tokens.tensor_split([len(episode.support)])
        scores = score_episode(learner.recognizer, support, episode.support_classes, query, None)
        found.append(disagreement(*(scores.logits_QN / learner.recipe.temperature).chunk(2)))
    return float(torch.stack(found).mean())


def test_an_untrained_method_is_at_no_distance_from_its_frozen_tower() -> None:
    plain = tiny_learner(replace(RECIPE, dropout=0.0))
    near = tiny_learner(replace(RECIPE, dropout=0.0, near_frozen=10.0))
    assert near.loss(0).item() == pytest.approx(plain.loss(0).item(), abs=1e-4)
    near.step()
    tokens = near.passes.source.tokens([0, 1])
    with torch.inference_mode():
        frozen = frozen_features(near.recognizer, tokens)
    assert frozen.shape == (2, 8, near.recognizer.video.tower.features)


def test_a_high_temperature_leaves_the_loss_of_a_guess() -> None:
    learner = tiny_learner(replace(RECIPE, temperature=1e6))
    ways = len(learner.passes.episodes.draw(0).labels)
    assert learner.loss(0).item() == pytest.approx(math.log(ways), abs=1e-3)


def test_an_episode_looks_at_the_class_token_and_the_share_of_patches_of_the_recipe() -> None:
    learner = tiny_learner(replace(RECIPE, patches=0.5))
    held_CTLD = learner.passes.source.tokens_CTLD
    plain = learner.loss(0).item()
    looked_at = []
    for token in range(held_CTLD.shape[2]):
        changed_CTLD = held_CTLD.clone()
        changed_CTLD[:, :, token] *= -1
        learner.passes.source.tokens_CTLD = changed_CTLD
        looked_at.append(learner.loss(0).item() != plain)
    assert looked_at[0]
    assert sum(looked_at) == 1 + round(0.5 * (len(looked_at) - 1))


def test_the_contrast_of_stages_is_part_of_the_loss_where_there_is_text() -> None:
    plain = tiny_learner(replace(RECIPE, text_dropout=0.0))
    added = tiny_learner(replace(RECIPE, text_dropout=0.0, stages=1.0))
    assert added.loss(0) > plain.loss(0) + 0.1
    never = replace(RECIPE, text_dropout=0.999999)
    assert tiny_learner(replace(never, stages=1.0)).loss(0) == tiny_learner(never).loss(0)


TEXT = pytest.mark.parametrize(
    ("text", "asked"), [("there", False), ("dropped", False), ("none", True)]
)


def learner_with_text(text: str, **changes: float) -> Learner:
    """Make a learner whose labels have text, or of which it is dropped, or that have none."""
    dropout = 0.999999 if text == "dropped" else 0.0
    learner = tiny_learner(replace(RECIPE, text_dropout=dropout, **changes))
    if text == "none":
        learner.passes.stages = None
    return learner


@TEXT
def test_nearness_to_the_frozen_tower_can_be_asked_of_labels_without_text_alone(
    text: str, asked: bool
) -> None:
    learner = learner_with_text(text)
    learner.step()
    plain = learner.loss(7).item()
    learner.recipe = replace(learner.recipe, near_frozen_textless=5.0)
    assert (learner.loss(7).item() > plain + 1e-6) == asked


@TEXT
def test_labels_without_text_can_be_held_to_what_the_start_made_of_their_clips(
    text: str, asked: bool
) -> None:
    learner = learner_with_text(text, near_start_textless=5.0)
    learner.step()
    held = learner.loss(7).item()
    learner.recipe = replace(learner.recipe, near_start_textless=0.0)
    assert (held > learner.loss(7).item() + 1e-6) == asked


def test_the_places_of_frames_learn_at_their_own_rate() -> None:
    moved = {}
    for share in (1.0, 4.0):
        learner = tiny_learner(replace(RECIPE, place_rate=share, warmup=0.0))
        learner.step()
        moved[share] = {name: p.detach().clone() for name, p in learner.trained.items()}
    places = "video.temporal_embedding"
    torch.testing.assert_close(4 * moved[1.0][places], moved[4.0][places])
    others = moved[1.0].keys() - {places}
    assert all(torch.equal(moved[1.0][name], moved[4.0][name]) for name in others)


def test_episodes_with_a_label_that_has_no_text_learn_from_video_alone() -> None:
    recipe = replace(RECIPE, text_dropout=0.0, dropout=0.0)
    with_text, video, partly = (tiny_learner(recipe) for _ in range(3))
    assert partly.passes.stages
    left_out = partly.passes.episodes.draw(0).labels[0]
    other = next(n for n in range(50) if left_out not in partly.passes.episodes.draw(n).labels)
    video.passes.stages = None
    partly.passes.stages = {
        label: s for label, s in partly.passes.stages.items() if label != left_out
    }
    assert partly.loss(0).item() == pytest.approx(video.loss(0).item(), abs=1e-5)
    assert partly.loss(other).item() == pytest.approx(with_text.loss(other).item(), abs=1e-5)
    assert with_text.loss(0).item() != pytest.approx(video.loss(0).item(), abs=1e-3)


def test_parts_of_text_stay_as_they_are_where_no_text_is_given() -> None:
    with_text = tiny_learner()
    recognizer = with_text.recognizer
    assert recognizer.text is not None
    before = {name: p.detach().clone() for name, p in recognizer.text.named_parameters()}
    learner = Learner(
        recognizer,
        replace(RECIPE, weight_decay=0.5),
        with_text.passes.episodes,
        with_text.passes.source,
    )
    learner.step()
    assert not any(name.startswith("text.") for name in learner.trained)
    for name, parameter in recognizer.text.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_a_loss_that_is_no_number_stops_with_the_remedy() -> None:
    learner = tiny_learner()
    with torch.no_grad():
        next(iter(learner.trained.values())).fill_(torch.nan)
    with pytest.raises(InputError, match="lower lr"):
        learner.step()


def test_a_method_without_adapters_has_nothing_to_train() -> None:
    with pytest.raises(InputError, match="nothing to train"):
        tiny_learner(preset="frozen", query_context="none")


def test_the_rate_falls_in_steps_where_the_recipe_says_so() -> None:
    steps = FitRecipe(
        warmup=0.05, warmup_from=0.5, schedule="steps", milestones=((0.15, 0.1), (0.25, 0.01))
    )
    shares = {0.0: 0.51, 0.05: 1.0, 0.1499: 1.0, 0.15: 0.1, 0.25: 0.01, 1.0: 0.01}
    for progress, share in shares.items():
        assert rate(progress, steps) == pytest.approx(share, abs=1e-3), progress


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_published_optimisers_follow_their_formulas(optimizer: str) -> None:
    recipe = replace(
        RECIPE, optimizer=optimizer, momentum=0.9, weight_decay=0.0, warmup=0.0, schedule="constant"
    )
    learner = tiny_learner(recipe)
    name = "video.temporal_embedding"
    before = learner.trained[name].detach().clone()
    learner.step()
    gradient = learner.trained[name].grad
    assert gradient is not None
    moved = before - learner.trained[name]
    wanted = gradient if optimizer == "sgd" else gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(moved, recipe.lr * wanted, atol=1e-7, rtol=1e-3)


def test_edges_of_sloshnet_have_an_adam_of_their_own_and_all_else_learns_by_sgd() -> None:
    published = RECIPES["sloshnet"]
    recipe = replace(RECIPE, optimizer="sgd", apart=published.apart, warmup=0.0, weight_decay=0.0)
    recipe = replace(recipe, schedule="constant", text_dropout=0.0)
    learner = tiny_learner(recipe, preset="sloshnet_vit", query_context="none")
    edges = [name for name in learner.trained if "fusion.edges" in name]
    assert len(edges) == 3
    before = {name: p.detach().clone() for name, p in learner.trained.items()}
    learner.step()
    for name, start in before.items():
        gradient = learner.trained[name].grad
        assert gradient is not None
        wanted = recipe.lr * gradient
        if name in edges:
            decayed = gradient + 1e-3 * start
            wanted = 3e-3 * decayed / (decayed.abs() + 1e-8)
        torch.testing.assert_close(start - learner.trained[name], wanted, atol=1e-6, rtol=2e-3)
    again = tiny_learner(recipe, preset="sloshnet_vit", query_context="none")
    again.resume(copy.deepcopy(learner.state()))
    for one in (learner, again):
        one.step()
    for name, parameter in learner.trained.items():
        assert torch.equal(parameter, again.trained[name]), name


def test_the_loss_of_d2st_falls() -> None:
    recipe = replace(RECIPES["d2st"], episodes=16, per_step=2, ways=(2, 2), queries=1, draws=0)
    recipe = replace(recipe, lr=2e-2, warmup=0.0, schedule="constant")
    learner = tiny_learner(recipe, preset="d2st", query_context="none")
    losses = [learner.step() for _ in range(recipe.steps)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3]), losses


def test_the_rate_rises_then_falls_or_stays() -> None:
    cosine = FitRecipe(warmup=0.1)
    assert rate(0.0, cosine) < 0.02
    assert rate(0.1, cosine) == pytest.approx(1.0)
    assert rate(1.0, cosine) == pytest.approx(0.0, abs=1e-6)
    assert rate(0.9, FitRecipe(schedule="constant", warmup=0.1)) == 1.0


def test_what_decays_follows_from_the_kind_of_module_in_tuned_towers_too() -> None:
    model = nn.ModuleDict(
        {
            "tower": tiny_recognizer("clip_fsar").video.tower.model,
            "text": towers(TOWERS)[1].model,
            "kernel": nn.Conv3d(2, 2, 3),
            "norm": nn.LayerNorm([2, 3]),
            "own": _Own(),
        }
    )
    decayed, kept = (
        {
            name
            for name, p in model.named_parameters()
            for group in build_optimizer({"": model}, FitRecipe(place_rate=3.0)).param_groups
            if (group["weight_decay"] > 0) == decays and any(p is one for one in group["params"])
        }
        for decays in (True, False)
    )
    assert {"tower.patch_embed.proj.weight", "tower.blocks.0.attn.qkv.weight"} <= decayed
    assert {"text.text_projection", "kernel.weight", "own.taps"} <= decayed
    assert "text.transformer.resblocks.0.attn.in_proj_weight" in decayed
    assert {"tower.pos_embed", "tower.cls_token", "text.positional_embedding"} <= kept
    assert {"text.token_embedding.weight", "norm.weight", "own.scale", "kernel.bias"} <= kept


class _Own(nn.Module):
    """A part with weights that are in no module of torch: a kernel over time, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.ones(2, 1, 3))
        self.scale = nn.Parameter(torch.ones(()))


def test_convolution_kernels_decay_as_matrices_do_and_embeddings_of_places_do_not() -> None:
    decaying = {}
    for preset in ("task_adapter_pp", "ted"):
        learner = tiny_learner(replace(RECIPE, weight_decay=0.5), preset=preset)
        groups = learner.optimizer.param_groups
        decaying[preset] = {
            name
            for name, parameter in learner.trained.items()
            for group in groups
            if group["weight_decay"] and any(p is parameter for p in group["params"])
        }
        assert sum(len(group["params"]) for group in groups) == len(learner.trained)
    assert "video.temporal_embedding" not in decaying["task_adapter_pp"]
    assert any("before_mlp.difference.weight" in name for name in decaying["ted"])
    assert not any(name.endswith("bias") for names in decaying.values() for name in names)
