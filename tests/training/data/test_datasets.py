"""Data sets of every form, with made-up roots in the standard layouts and real tiny videos."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.errors import ClipError, NoFramesError
from tests.training.conftest import SHARED
from tests.videos import grey_frames, grey_level, make_video
from training import evaluate
from training.data.datasets import LabelledClip, open_dataset
from training.data.listed import read_labels
from training.data.listings import divide, source_group
from training.data.split_files import read_split_files
from training.errors import InputError
from training.features.clip_views import read_frames

FRAMES = 16
SPLIT_LINES = {
    "hmdb51": {
        "train": [
            "train0//videos/brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
            "train0//videos/brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_1.avi",
            "train1//videos/wave/BIG_FISH_wave_u_nm_np1_fr_goo_9.avi",
        ],
        "val": ["val0//videos/talk/(Rad)Talk_die_Bank!_talk_f_cm_np1_le_med_0.avi"],
        "test": ["test0//videos/sit/EasternPromises_sit_f_nm_np1_ri_med_4.avi"],
    },
    "ucf101": {
        "train": [
            "train0//videos/YoYo/v_YoYo_g07_c01.avi",
            "train0//videos/YoYo/v_YoYo_g07_c02.avi",
            "train0//videos/YoYo/v_YoYo_g08_c01.avi",
        ],
        "val": ["val0//videos/ApplyLipstick/v_ApplyLipstick_g01_c01.avi"],
        "test": ["test0//videos/BlowingCandles/v_BlowingCandles_g01_c01.avi"],
    },
    "kinetics100": {
        "train": ["train0//train_256/air_drumming/-VtLx-mcPds_000012_000022.mp4"],
        "val": ["val0//val_256/baking_cookies/-514AQUrSow.mp4"],
        "test": ["test0//train_256/unboxing/Yeje7BOdMns_000138_000148.mp4"],
    },
    "ssv2_small": {
        "train": ["train0//51958", "train0//78", "train1//511"],
        "val": ["val0//46768"],
        "test": ["test0//88644", "test1//57608"],
    },
    "ssv2_full": {
        "train": ["train8/78687", "train63/90244"],
        "val": ["val2/188509"],
        "test": ["test18/195025"],
    },
}
LAYOUTS = {  # where a root keeps them: without its first folder, under the suffix it has there
    "hmdb51": (0, ".avi", "avi", "mpeg4"),
    "ucf101": (1, ".mp4", "mp4", "libx264"),
    "kinetics100": (1, ".mkv", "matroska", "libx264"),
    "ssv2_small": (0, ".webm", "webm", "libvpx-vp9"),
    "ssv2_full": (0, ".mp4", "mp4", "libx264"),
}


def write_splits(folder: Path, lines: dict[str, list[str]]) -> Path:
    folder.mkdir(parents=True)
    for split, of_split in lines.items():
        (folder / f"{split}.txt").write_bytes("\r\n".join([*of_split, ""]).encode())
    return folder


def write_root(
    root: Path, name: str, *, lines: dict[str, list[str]] | None = None, as_pictures: bool
) -> Path:
    cut, suffix, container, codec = LAYOUTS[name]
    video = make_video(grey_frames(FRAMES), codec=codec, container=container)
    listed = [line for part in (lines or SPLIT_LINES[name]).values() for line in part]
    for line in listed:
        path = line.partition("/")[2].lstrip("/")
        place = root.joinpath(*path.split("/")[cut:])
        place = place if place.suffix == "" else place.with_suffix("")
        if as_pictures:
            write_pictures(place)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.with_name(place.name + suffix).write_bytes(video)
    return root


def write_pictures(folder: Path, count: int = FRAMES) -> Path:
    folder.mkdir(parents=True)
    for k, pixels in enumerate(grey_frames(count)):
        Image.fromarray(pixels).save(folder / f"frame{k + 1}.png")  # frame10 sorts before frame2
    return folder


def write_index(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.csv").write_text("\n".join(["path,label,split,source_group", *rows]) + "\n")
    return folder / "index.csv"


def touch(folder: Path, labels: list[str], clips: int = 2) -> Path:
    for label in labels:
        (folder / label).mkdir(parents=True)
        for number in range(clips):
            (folder / label / f"{number}.mp4").touch()
    return folder


@pytest.mark.parametrize("as_pictures", [False, True], ids=["videos", "pictures"])
@pytest.mark.parametrize("name", SPLIT_LINES)
def test_split_files_find_their_clips_in_the_standard_layouts(
    tmp_path: Path, name: str, as_pictures: bool
) -> None:
    data = write_splits(tmp_path / name, SPLIT_LINES[name])
    dataset = open_dataset(data, root=write_root(tmp_path / "r", name, as_pictures=as_pictures))
    assert dataset.name == name
    assert dataset.missing == ()
    assert dataset.named == (not name.startswith("ssv2"))
    assert {split: len(lines) for split, lines in SPLIT_LINES[name].items()} == {
        split: len(clips) for split, clips in dataset.clips.items()
    }
    want = [grey_level(k, FRAMES) for k in (2, 6, 10, 14)]  # centres of 4 spans of 4 frames
    for clip in dataset.split("test"):
        frames_THWC = read_frames(clip, frames=4, size=32)
        assert frames_THWC.shape == (4, 32, 32, 3)
        assert frames_THWC.mean(axis=(1, 2, 3)) == pytest.approx(want, abs=4)


TEST_LINES = {  # two classes of two clips, from different recordings
    "hmdb51": [
        f"test{n}//videos/{label}/{film}_{label}_f_nm_np1_ri_med_4.avi"
        for n, label in enumerate(("sit", "run"))
        for film in ("EasternPromises", "Crash")
    ],
    "ucf101": [
        f"test{n}//videos/{label}/v_{label}_g0{group}_c01.avi"
        for n, label in enumerate(("BlowingCandles", "WritingOnBoard"))
        for group in (1, 2)
    ],
    "kinetics100": [
        f"test{n}//train_256/{label}/{video}"
        for n, label in enumerate(("unboxing", "cutting_watermelon"))
        for video in (f"{n}eje7BOdMns_000138_000148.mp4", f"{n}VtLx-mcPds_000012_000022.mp4")
    ],
    "ssv2_small": ["test0//88644", "test0//88645", "test1//57608", "test1//57609"],
    "ssv2_full": ["test18/195025", "test18/195026", "test20/1", "test20/2"],
}


@pytest.mark.parametrize("name", TEST_LINES)
def test_one_command_leads_from_split_files_to_a_number(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {**SPLIT_LINES[name], "test": TEST_LINES[name]}
    data = write_splits(tmp_path / name, lines)
    root = write_root(tmp_path / "r", name, lines=lines, as_pictures=False)
    sizes = ["--ways", "2", "--shots", "1", "--queries", "1", "--episodes", "3"]
    given = ["--checkpoint", "compact", "--data", str(data), "--root", str(root), *sizes]
    assert evaluate.main(given) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(told["labels"]) == 2
    assert told["rows"][0]["episodes"] == 3
    assert 0 <= told["rows"][0]["accuracy"] <= 100


def test_labels_are_the_folders_of_the_paths(tmp_path: Path) -> None:
    data = write_splits(tmp_path / "hmdb51", SPLIT_LINES["hmdb51"])
    labels, named = read_labels(data)
    assert labels == {"train": ("brush_hair", "wave"), "val": ("talk",), "test": ("sit",)}
    assert named


def test_without_names_classes_are_numbered_and_the_set_says_so(tmp_path: Path) -> None:
    data = write_splits(tmp_path / "ssv2_full", SPLIT_LINES["ssv2_full"])
    labels, named = read_labels(data)
    assert labels["train"] == ("train63", "train8")
    assert not named


def test_names_are_joined_by_split_and_id(tmp_path: Path) -> None:
    data = write_splits(tmp_path / "ssv2_small", SPLIT_LINES["ssv2_small"])
    rows = ["test,1,Folding something", "train,1,Holding something", "val,0,Moving up"]
    rows += ["test,0,Pushing something", "train,0,Pouring something", "test,7,Unused"]
    (data / "classes.txt").write_text("\n".join(["split,id,name", *rows]))
    labels, named = read_labels(data)
    assert named
    assert labels["test"] == ("Folding something", "Pushing something")
    by_name = {"57608": "Folding something", "88644": "Pushing something"}
    root = write_root(tmp_path / "root", "ssv2_small", as_pictures=False)
    clips = open_dataset(data, root=root).split("test")
    assert {clip.name: clip.label for clip in clips} == by_name


def test_names_are_joined_by_video_in_the_labels_of_the_data_set(tmp_path: Path) -> None:
    data = write_splits(tmp_path / "ssv2_full", SPLIT_LINES["ssv2_full"])
    release = tmp_path / "labels"
    release.mkdir()
    templates = {"78687": "Holding [something]", "90244": "Putting [something] onto [something]"}
    more = {"188509": "Moving [part] of [something]", "195025": "Spinning [something]"}
    for file, entries in (("train.json", templates), ("validation.json", more)):
        written = [{"id": key, "template": value} for key, value in entries.items()]
        (release / file).write_text(json.dumps(written))
    (release / "test.json").write_text('[{"id": "1"}]')
    (release / "labels.json").write_text('{"Holding something": "0"}')
    labels, named = read_labels(data, names=release)
    assert named
    assert labels["train"] == ("Holding something", "Putting something onto something")
    assert labels["val"] == ("Moving part of something",)
    with pytest.raises(InputError, match=r"names 2 of 4 classes, not test18; complete it"):
        read_labels(data, names=release / "train.json")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("n.csv", "split,name\ntrain,x\n", "is no list of names .*split, id, name"),
        ("n.csv", "split,id,name\ntrain,x,y\n", "is no list of names"),
        ("n.json", "{}", "is no list of labels"),
        ("n.json", "[", "cannot be read as JSON"),
        ("n.json", '[{"id": 51958, "template": "A"}, {"id": "78", "template": "B"}]', "several"),
    ],
)
def test_names_that_do_not_fit_are_told(tmp_path: Path, name: str, text: str, said: str) -> None:
    data = write_splits(tmp_path / "ssv2_small", SPLIT_LINES["ssv2_small"])
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read_labels(data, names=tmp_path / name)


def test_one_name_for_two_classes_is_told(tmp_path: Path) -> None:
    lines = ["train0//videos/wave/a.avi", "train1//videos/wave/b.avi"]
    data = write_splits(tmp_path / "x", {"train": lines})
    with pytest.raises(InputError, match="label 'wave' twice, as train0 and train1"):
        read_labels(data)


def test_one_label_in_two_spellings_is_told(tmp_path: Path) -> None:
    lines = ["train0//videos/BrushHair/a.avi", "train1//videos/brush_hair/b.avi"]
    data = write_splits(tmp_path / "x", {"train": lines})
    with pytest.raises(InputError, match="spells one label 'BrushHair' and 'brush_hair'"):
        read_labels(data)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("videos/wave/a.avi 30 0", "Line 2 of .*train.txt is 'videos/wave/a.avi 30 0'; it should"),
        ("test0//videos/wave/a.avi", "should read train<class id>//<path of a clip>"),
        ("train0//videos/run/a.avi", "clips of 'run' and of 'wave' in class train0"),
        ("train0//videos/wave/b.avi", r"lists 'videos/wave/b.avi' 2 times; keep one"),
    ],
)
def test_lines_that_do_not_fit_are_told(tmp_path: Path, line: str, said: str) -> None:
    data = write_splits(tmp_path / "x", {"train": ["train0//videos/wave/b.avi", line]})
    with pytest.raises(InputError, match=said):
        read_labels(data)


def test_a_label_of_two_splits_is_refused(tmp_path: Path) -> None:
    rows = ["a.mp4,Sit Down,train,1", "b.mp4,sit_down,test,2"]
    with pytest.raises(
        InputError, match=r"'sit_down' is in train of .* in test of .*; test classes"
    ):
        open_dataset(write_index(tmp_path, rows))


def test_missing_files_are_listed_and_too_many_are_refused(tmp_path: Path) -> None:
    rows = [f"{n}.mp4,walk,train,{n}" for n in range(20)]
    index = write_index(tmp_path, rows)
    for n in range(1, 20):
        (tmp_path / f"{n}.mp4").touch()
    dataset = open_dataset(index)
    assert dataset.missing == (tmp_path / "0.mp4",)
    assert len(dataset.split("train")) == 19
    (tmp_path / "1.mp4").unlink()
    with pytest.raises(InputError, match=r"2 of the 20 clips of .* are missing, first .*0\.mp4; "):
        open_dataset(index)
    assert len(open_dataset(index, max_missing=0.1).missing) == 2


def test_a_class_without_any_clip_is_told(tmp_path: Path) -> None:
    data = write_splits(tmp_path / "hmdb51", SPLIT_LINES["hmdb51"])
    root = write_root(tmp_path / "root", "hmdb51", as_pictures=False)
    next((root / "videos/wave").iterdir()).unlink()
    with pytest.raises(InputError, match=r"class 'wave' of train, but .* has no clip of it"):
        open_dataset(data, root=root, max_missing=0.5)


def test_an_exact_name_and_a_video_win_over_pictures(tmp_path: Path) -> None:
    data = write_splits(tmp_path / "x", {"test": ["test0//run/a.mp4", "test0//run/b.c.avi"]})
    write_pictures(tmp_path / "x/run/a")
    for name in ("a.avi", "a.mp4", "a.txt", "b.c.webm"):
        (tmp_path / "x/run" / name).touch()
    found = [clip.path.name for clip in open_dataset(data).split("test")]
    assert found == ["a.mp4", "b.c.webm"]


def test_an_index_is_relative_to_its_folder_or_a_root(tmp_path: Path) -> None:
    index = write_index(tmp_path / "lists", ["walk/1.mp4,walk,test,g"])
    touch(tmp_path / "clips", ["walk"])
    (clip,) = open_dataset(index.parent, root=tmp_path / "clips").split("test")
    path = tmp_path / "clips/walk/1.mp4"
    assert clip == LabelledClip(path, "walk", "g", "walk/1.mp4")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.mp4,walk,dev,1", "Line 2 of .* has the split 'dev'; use train, val or test"),
        ("a.mp4,walk", "Line 2 of .* has no split; complete it"),
        (",walk,test,1", "Line 2 of .* has no path"),
    ],
)
def test_rows_that_do_not_fit_are_told(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_dataset(write_index(tmp_path, [row]))


def test_an_index_without_a_column_or_a_row_is_told(tmp_path: Path, indexed: Path) -> None:
    assert len(open_dataset(indexed / "index.csv").split("test")) == 8
    with pytest.raises(InputError, match="no split 'nope'; it has test, train, val"):
        open_dataset(indexed).split("nope")
    (tmp_path / "index.csv").write_text("path,label\na.mp4,a\n")
    with pytest.raises(InputError, match="no column 'source_group'"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="lists no clip"):
        open_dataset(write_index(tmp_path, []))
    (tmp_path / "index.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        open_dataset(tmp_path)


def test_a_folder_of_labels_is_divided(tmp_path: Path) -> None:
    labels = [f"label {n}" for n in range(40)]
    dataset = open_dataset(touch(tmp_path / "my_clips", labels))
    assert [len(dataset.labels(split)) for split in ("train", "val", "test")] == [28, 6, 6]
    assert len({clip.source_group for clip in dataset.split("test")}) == 12
    assert open_dataset(tmp_path / "my_clips", split_seed=1).labels("test") != dataset.labels(
        "test"
    )


def test_split_folders_are_respected(tmp_path: Path) -> None:
    touch(tmp_path / "train", ["run", "walk"])
    touch(tmp_path / "test", ["sit"])
    write_pictures(tmp_path / "test/sit/2")
    dataset = open_dataset(tmp_path)
    assert dataset.labels("train") == ("run", "walk")
    assert [clip.name for clip in dataset.split("test")] == [
        "test/sit/0.mp4",
        "test/sit/1.mp4",
        "test/sit/2",
    ]
    with pytest.raises(InputError, match="no split 'val'; it has test, train"):
        dataset.split("val")


def test_a_folder_that_makes_no_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no folder; put clips at <label>/<clip>"):
        open_dataset(tmp_path)
    touch(tmp_path / "few", ["run", "walk"])
    with pytest.raises(
        InputError, match="2 labels, too few to train on some and choose by others; give 20 or more"
    ):
        open_dataset(tmp_path / "few")
    touch(tmp_path / "hollow" / "test", ["run"], clips=0)
    with pytest.raises(InputError, match="run holds no clip"):
        open_dataset(tmp_path / "hollow")
    with pytest.raises(InputError, match="is not there"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is no folder"):
        open_dataset(tmp_path / "few", root=tmp_path / "nowhere")
    with pytest.raises(InputError, match="leave out the root"):
        open_dataset(tmp_path / "few", root=tmp_path)


@given(st.sets(st.text(min_size=1), min_size=20, max_size=60), st.integers(0, 3))
def test_every_label_has_one_split_whatever_the_order(labels: set[str], seed: int) -> None:
    splits = divide(sorted(labels), seed, "here")
    assert splits == divide(sorted(labels, reverse=True), seed, "here")
    counts = Counter(splits.values())
    assert counts["val"] == counts["test"] == max(5, round(0.15 * len(labels)))
    assert counts.total() == len(labels)


def test_source_groups_are_read_from_the_names_that_tell_them() -> None:
    assert source_group("videos/YoYo/v_YoYo_g07_c02.avi", "YoYo") == "YoYo_g07"
    name = "videos/talk/veoh_harold_and_kumar_talk_u_nm_np1_fr_goo_14.avi"
    assert source_group(name, "talk") == "veoh_harold_and_kumar"
    assert source_group("51958", "train0") == "51958"
    assert source_group("a/b.mp4", "a") != source_group("c/b.mp4", "c")


def test_source_groups_of_jhmdb_are_those_of_its_index_but_for_five_videos() -> None:
    index = SHARED / "data/jhmdb/index.csv"
    if not index.is_file():
        pytest.skip(f"{index} is not here; it is not part of the project")
    dataset = open_dataset(index)
    clips = [clip for clips in dataset.clips.values() for clip in clips]
    assert len(clips) == 928
    own = [source_group(clip.name, clip.label) for clip in clips]
    other = [name for name, clip in zip(own, clips, strict=True) if name != clip.source_group]
    # the index cuts at the label's first place, which is inside the names of 5 videos
    assert len(other) == 9
    assert len(set(other)) == 5


@pytest.mark.parametrize(
    ("name", "classes", "clips"),
    [
        ("hmdb51", (31, 10, 10), (4280, 1194, 1292)),
        ("ucf101", (70, 10, 21), (9154, 1421, 2745)),
        ("kinetics100", (64, 12, 24), (6400, 1200, 2400)),
        ("ssv2_small", (64, 12, 24), (6400, 1200, 2400)),
        ("ssv2_full", (64, 12, 24), (67013, 1926, 2857)),
    ],
)
def test_the_standard_split_files_have_their_published_counts(
    name: str, classes: tuple[int, ...], clips: tuple[int, ...]
) -> None:
    folder = SHARED / "text/splits" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; it is not part of the project")
    labels, named = read_labels(folder)
    assert tuple(map(len, labels.values())) == classes
    counts = Counter(line.split for line in read_split_files(folder))
    assert tuple(counts[split] for split in labels) == clips
    assert named == (not name.startswith("ssv2"))


def test_jitter_takes_one_frame_inside_each_span(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(make_video(grey_frames(FRAMES)))
    for path in (tmp_path / "a.mp4", write_pictures(tmp_path / "b")):
        clip = LabelledClip(path, "grey", "g")
        for seed in range(5):
            rng = np.random.default_rng(seed)
            frames_THWC = read_frames(clip, frames=4, size=32, rng=rng)
            rng = np.random.default_rng(seed)
            picked = [int((k + offset) * 4) for k, offset in enumerate(rng.random(4))]
            want = [grey_level(k, FRAMES) for k in picked]
            assert frames_THWC.mean(axis=(1, 2, 3)) == pytest.approx(want, abs=4)


def test_a_folder_of_few_pictures_repeats_them(tmp_path: Path) -> None:
    clip = LabelledClip(write_pictures(tmp_path / "a", 2), "grey", "g")
    levels = read_frames(clip, frames=4, size=32).mean(axis=(1, 2, 3))
    assert levels.tolist() == [grey_level(k, 2) for k in (0, 0, 1, 1)]


def test_a_clip_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.mp4").write_bytes(make_video(grey_frames(FRAMES))[:200])
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/1.png").write_bytes(b"no picture")
    for name in ("torn.mp4", "empty", "odd", "gone.mp4"):
        with pytest.raises(ClipError, match=f"^{tmp_path / name}"):
            read_frames(LabelledClip(tmp_path / name, "x", "g"), frames=2, size=32)
    with pytest.raises(NoFramesError):
        read_frames(LabelledClip(tmp_path / "empty", "x", "g"), frames=2, size=32)
