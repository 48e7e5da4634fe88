"""Scores of a split, with every video counted exactly once."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from rsa_jax.evaluation.scores import average_views
from rsa_jax.training.state import ModelDefinition, PyTree, to_devices
from rsa_jax.training.step import Batch, View, make_predict

# Places of `square_crop`, by the number of crops.
CROP_PLACES = {1: (1,), 3: (0, 1, 2)}

EvalStep = Callable[[PyTree, PyTree, Batch, View], Batch]


@dataclasses.dataclass(frozen=True)
class Views:
    """Views of each video and the averaging of their scores, as configured in `config.eval`."""

    num_clips: int = 1
    num_crops: int = 1
    average: str = "probabilities"

    @classmethod
    def of(cls, config: ConfigDict) -> "Views":
        """The views of `config.eval`."""
        return cls(config.eval.num_clips, config.eval.num_crops, config.eval.average)

    def each(self) -> list[View]:
        """List of all views of a video."""
        return list(itertools.starmap(View, itertools.product(range(self.num_clips), CROP_PLACES[self.num_crops])))


def make_eval_step(model: ModelDefinition, config: ConfigDict) -> EvalStep:
    """Function from a batch to the `logits` of one view, with `index`, `label` and `mask` of the videos."""
    predict = make_predict(model, config)

    def eval_step(params: PyTree, batch_stats: PyTree, batch: Batch, view: View) -> Batch:
        videos = {name: batch[name] for name in ("index", "label", "mask")}
        return {"logits": predict(params, batch_stats, batch["frames"], view), **videos}

    return eval_step


def evaluate(
    eval_step: EvalStep,
    params: PyTree,
    batch_stats: PyTree,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: jax.sharding.Mesh,
    views: Views,
) -> tuple[Float[np.ndarray, "N K"], Int[np.ndarray, " N"], list[str]]:
    """Runs a compiled `make_eval_step` over the batches, one view at a time.

    Args:
        eval_step: compiled evaluation step with replicated outputs.
        params: parameters of the network.
        batch_stats: running statistics of the network.
        batches: batches of this process, with the frames of `views.num_clips` clips.
        mesh: mesh of all devices.
        views: views of each video.

    Returns:
        Log-probabilities, labels and ids of all videos in the order of the split, in every process.

    Raises:
        ValueError: there are no batches.
    """
    ids: list[tuple[np.ndarray, np.ndarray]] = []

    def outputs() -> Iterator[list[Batch]]:
        for batch in batches:
            ids.append((batch["index"], batch["id"]))
            on_devices = to_devices(mesh, batch)
            yield [eval_step(params, batch_stats, on_devices, view) for view in views.each()]

    rows = []
    # One batch behind: the devices compute the next one while the host averages.
    for done, _ in itertools.pairwise(itertools.chain(outputs(), [[]])):
        videos, *_ = fetched = jax.device_get(done)
        logits = np.stack([output["logits"] for output in fetched])
        counts = videos["mask"] == 1
        rows.append((videos["index"][counts], videos["label"][counts], average_views(logits[:, counts], views.average)))
    if not rows:
        raise ValueError("evaluation: the split holds no video")
    index, label, log_probabilities = map(np.concatenate, zip(*rows, strict=True))
    order = np.argsort(index)
    return log_probabilities[order], label[order], _gather_ids(*map(np.concatenate, zip(*ids, strict=True)))


def _gather_ids(index: Int[np.ndarray, " n"], ids: np.ndarray) -> list[str]:
    """Ids of the videos of all processes, in the order of the split.

    Args:
        index: position of each video in the split; padding repeats some.
        ids: ids as bytes, equally many in every process.
    """
    ids = ids.astype(np.bytes_)
    width = int(np.max(multihost_utils.process_allgather(np.int32(ids.itemsize))))
    codes = ids.astype(f"S{width}")[:, None].view(np.uint8)
    index, codes = multihost_utils.process_allgather((index, codes), tiled=True)
    _, first = np.unique(index, return_index=True)
    return np.char.decode(codes[first].view(f"S{width}")[:, 0], "utf-8").tolist()
