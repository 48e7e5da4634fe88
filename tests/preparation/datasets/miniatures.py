"""The official layout of every data set, with a few tiny videos."""

import json
import pathlib
import tarfile
import zipfile

from PIL import Image

from tests.preparation.videos import moving_bar, write_video

FRAMES = 8
# Clips of the two splits: (number of the clip, class). The number of classes is the official one.
TRAIN, VALIDATION = [(i, i % 3) for i in range(16)], [(16 + i, i % 3) for i in range(4)]

ACTIONS = [f"Doing thing {i:03d} with something" for i in range(168)]
SOMETHING = sorted(
    [
        *ACTIONS,
        *(
            f"{verb} something from {way}"
            for verb in ("Pulling", "Pushing")
            for way in ("left to right", "right to left")
        ),
        *(f"Turning the camera {side} while filming something" for side in ("left", "right")),
    ]
)
GESTURES = [
    *(f"Gesture {i:02d}" for i in range(21)),
    *(f"{verb} {side}" for verb in ("Swiping", "Sliding Two Fingers") for side in ("Left", "Right")),
    *("Turning Hand Clockwise", "Turning Hand Counterclockwise"),
]


def write_frames(folder: pathlib.Path) -> None:
    """Writes a clip in the layout of data sets distributed as images: 00001.jpg, ..."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(moving_bar(FRAMES), 1):
        Image.fromarray(frame).save(folder / f"{i:05d}.jpg")


def write_clip(path: pathlib.Path, codec: str = "libx264") -> None:
    write_video(path, moving_bar(FRAMES), codec)


def write_tables(root: pathlib.Path, prefix: str, names: list[str], folder: str) -> None:
    """Writes the tables of 20BN: id;class name, no newline at the end, names not in the order of their ids."""
    root.mkdir(parents=True)
    (root / f"{prefix}-labels.csv").write_text("\n".join(reversed(names)))
    for split, clips in (("train", TRAIN), ("validation", VALIDATION)):
        lines = [f"{number};{sorted(names)[label]}" for number, label in clips]
        (root / f"{prefix}-{split}.csv").write_text("\n".join(lines))
    for number, _ in TRAIN + VALIDATION:
        write_frames(root / folder / str(number))


def something_something_v1(root: pathlib.Path) -> None:
    write_tables(root, "something-something-v1", SOMETHING, "20bn-something-something-v1")


def jester(root: pathlib.Path) -> None:
    write_tables(root, "jester-v1", GESTURES, "20bn-jester-v1")


def something_something_v2(root: pathlib.Path, prefix: str = "something-something-v2-") -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{prefix}labels.json").write_text(json.dumps({name: str(i) for i, name in enumerate(SOMETHING)}))
    for split, clips in (("train", TRAIN), ("validation", VALIDATION)):
        records = [
            {"id": str(n), "template": SOMETHING[k].replace("something", "[something]"), "placeholders": ["a cup"]}
            for n, k in clips
        ]
        (root / f"{prefix}{split}.json").write_text(json.dumps(records))
    (root / f"{prefix}test.json").write_text('[{"id":"999"}]')
    for number, _ in TRAIN + VALIDATION:
        write_clip(root / "20bn-something-something-v2" / f"{number}.webm", "libvpx-vp9")


def something_something_v2_in_archives(root: pathlib.Path) -> None:
    """As downloaded: the labels in a zip file, the videos in a tar file cut into three parts, each in a zip file."""
    files = root.with_name("files")
    something_something_v2(files, prefix="")
    root.mkdir(parents=True)
    with zipfile.ZipFile(root / "20bn-something-something-download-package-labels.zip", "w") as archive:
        for path in files.glob("*.json"):
            archive.write(path, f"labels/{path.name}")
    with tarfile.open(files / "all.tgz", "w:gz") as tar:
        tar.add(files / "20bn-something-something-v2", "20bn-something-something-v2")
    content = (files / "all.tgz").read_bytes()
    third = len(content) // 3
    for i, part in enumerate((content[:third], content[third : 2 * third], content[2 * third :])):
        with zipfile.ZipFile(root / f"20bn-something-something-v2-{i:02d}.zip", "w") as archive:
            archive.writestr(f"20bn-something-something-v2-{i:02d}", part)


def diving48(root: pathlib.Path, version: str = "_V2") -> None:
    root.mkdir(parents=True)
    vocabulary = [["Back", f"{i}som", "NoTwis", "PIKE"] for i in range(48)]
    (root / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    names = {number: f"{'-_'[number % 2]}video{number:02d}_{number:05d}" for number, _ in TRAIN + VALIDATION}
    for split, clips in (("train", TRAIN), ("test", VALIDATION)):
        records = [{"vid_name": names[n], "label": k, "start_frame": 0, "end_frame": 99} for n, k in clips]
        (root / f"Diving48{version}_{split}.json").write_text(json.dumps(records))
    for name in names.values():
        write_clip(root / "rgb" / f"{name}.mp4")


def finegym(root: pathlib.Path, num_classes: int = 99) -> None:
    """Clips cut to elements, one cut to its event, and one whole video."""
    root.mkdir(parents=True)
    lines = [f"Clabel: {i:3d}; set:  1; Glabel: {i:3d}; (VT) round-off, turn {i // 2}" for i in range(num_classes)]
    (root / f"gym{num_classes}_categories.txt").write_text("\n".join(lines))
    ids = {number: f"_a-video_{number:02d}_E_000000_000009_A_0000_0001" for number, _ in TRAIN + VALIDATION}
    for name, clips in (("train_element_v1.1", TRAIN), ("val_element", VALIDATION)):
        (root / f"gym{num_classes}_{name}.txt").write_text("".join(f"{ids[n]} {k}\n" for n, k in clips))
    segments = {"A_0000_0001": {"stages": 2, "timestamps": [[0.1, 0.2], [0.2, 0.4]]}}
    times = {"E_000000_000009": {"event": 1, "timestamps": [[0.0, 0.6]], "segments": segments}}
    events = {f"_a-video_{number:02d}": times for number in ids}
    (root / "finegym_annotation_info_v1.1.json").write_text(json.dumps(events))
    for number, name in ids.items():
        cut = {0: f"_a-video_{number:02d}", 1: f"_a-video_{number:02d}_E_000000_000009"}.get(number, name)
        write_clip(root / "videos" / f"{cut}.mp4")


def kinetics400(root: pathlib.Path) -> None:
    root.mkdir(parents=True)
    names = [f"action {i:03d}" for i in range(400)]
    header = "label,youtube_id,time_start,time_end,split,is_cc\n"
    for split, clips in (("train", TRAIN), ("val", VALIDATION)):
        rows = [f"{names[k]},{n:011d},3,13,{split},0\n" for n, k in clips]
        # The training table has to contain all classes; the videos of these rows are missing.
        rows += [f"{name},gone{i:07d},0,10,{split},0\n" for i, name in enumerate(names)] if split == "train" else []
        (root / f"kinetics-400_{split}.csv").write_text(header + "".join(rows))
    for number, label in TRAIN + VALIDATION:
        write_clip(root / names[label] / f"{number:011d}_000003_000013.mp4")


def ucf101(root: pathlib.Path) -> None:
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    names = [f"Action{i:03d}" for i in range(101)]
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\r\n" for i, name in enumerate(names, 1)), newline="")
    files = {number: f"{names[label]}/v_{names[label]}_g01_c{number:02d}.avi" for number, label in TRAIN + VALIDATION}
    (lists / "trainlist01.txt").write_text("".join(f"{files[n]} {k + 1}\r\n" for n, k in TRAIN), newline="")
    (lists / "testlist01.txt").write_text("".join(f"{files[n]}\r\n" for n, _ in VALIDATION), newline="")
    for file in files.values():
        write_clip(root / "UCF-101" / file, "mpeg4")


# Data set: function that writes its miniature, and number of missing clips.
MINIATURES = {
    "something_something_v1": (something_something_v1, 0),
    "something_something_v2": (something_something_v2, 0),
    "jester": (jester, 0),
    "diving48/v2": (diving48, 0),
    "finegym/gym99": (finegym, 0),
    "kinetics400": (kinetics400, 400),
    "ucf101/split1": (ucf101, 0),
}
