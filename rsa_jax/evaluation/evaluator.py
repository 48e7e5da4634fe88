"""Evaluation of a network on a split, and of a checkpoint with its report."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from rsa_jax.evaluation.report import write_report
from rsa_jax.evaluation.scores import Scores, average_views, save_scores
from rsa_jax.evaluation.views import View, Views, make_predict
from rsa_jax.files import write_json
from rsa_jax.input_pipeline import pipeline
from rsa_jax.input_pipeline.dataset_info import DatasetInfo
from rsa_jax.precision import describe_precision, with_precision
from rsa_jax.settings import check_config
from rsa_jax.training.dataset import load_info, with_classes
from rsa_jax.training.mesh import make_mesh, on_mesh, replicated, split_batch, to_devices
from rsa_jax.training.models import restore_state
from rsa_jax.training.state import ModelDefinition, PyTree, TrainState, define_model
from rsa_jax.training.step import Batch
from rsa_jax.training.workdir import (
    check_dataset,
    check_same,
    check_writable,
    learn_class_names,
    read_config,
    workdir_path,
)

EvalStep = Callable[[PyTree, PyTree, Batch, View], Batch]


def evaluate_checkpoint(config: ConfigDict, workdir: epath.PathLike) -> dict[str, Any]:
    """Evaluates the checkpoint `eval.checkpoint` of the workdir on the views of `config.eval`.

    Writes scores.npz, eval.json and report.html. Adds the data set's class names to a workdir without any.

    Raises:
        ValueError: the workdir holds no such checkpoint, or its network differs from `config.model`.
    """
    workdir = workdir_path(workdir)
    check_writable(workdir)
    evaluator, state = open_workdir(config, workdir, config.eval.checkpoint)
    config, info = evaluator.config, evaluator.info
    logging.info("Evaluating step %d on %s. Data preparation:\n%s", state.step, info.name, _as_text(info.provenance))
    logging.info("%s", describe_precision(config.model.dtype, config.matmul_precision))
    scores = evaluator.score(state, Views.of(config))
    result = {**scores.metrics(), **scores.origin}
    if jax.process_index() == 0:
        learn_class_names(workdir, info.name, info.class_names)
        save_scores(workdir / "scores.npz", scores)
        write_json(workdir / "eval.json", result)
        write_report(
            workdir / "report.html",
            scores,
            provenance=info.provenance,
            config=config.to_dict(),
            metrics_path=workdir / "metrics.jsonl",
            read_clips=lambda index: pipeline.read_clips(config.data, config.data.eval_split, index)["frames"],
        )
    logging.info("%s", _as_text(result, ", "))
    return result


def open_workdir(config: ConfigDict, workdir: epath.PathLike, checkpoint: str) -> tuple["Evaluator", TrainState]:
    """An evaluator for a run, and the run's state at a checkpoint.

    Args:
        config: run configuration. Its network has to be that of the workdir; data and devices may differ.
        workdir: workdir of a run.
        checkpoint: "best", "latest" or a step.

    Raises:
        WorkdirError: the workdir holds no such checkpoint, or its network differs.
        ValueError: a field of the configuration is invalid.
    """
    workdir = workdir_path(workdir)
    check_config(config)
    saved, info = read_config(workdir), load_info(config.data, config.data.eval_split)
    config = with_classes(config, info)
    check_same(saved, config, workdir, section="model.")
    check_dataset(workdir, dataclasses.asdict(info), ("class_names",))
    if config.data.num_frames != saved.data.num_frames:
        logging.warning("Trained on %d frames, evaluated on %d.", saved.data.num_frames, config.data.num_frames)
    if config.data.sampling != saved.data.sampling:
        logging.warning("Trained with data.sampling=%s, evaluated with %s.", saved.data.sampling, config.data.sampling)
    config.update(optimizer=saved.optimizer, epochs=saved.epochs, batch_size=saved.batch_size)  # for the report
    _, state = restore_state(workdir, checkpoint)
    mesh = make_mesh()
    return make_evaluator(define_model(config.model, mesh.devices.flat[0]), config, info, mesh), state


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluation of a network on the evaluation split of its configuration.

    Attributes:
        config: run configuration, with `model.num_classes` set.
        info: description of the data set.
        mesh: mesh of all devices.
        eval_step: compiled `make_eval_step`.
    """

    config: ConfigDict
    info: DatasetInfo
    mesh: jax.sharding.Mesh
    eval_step: EvalStep

    def batches(self, num_clips: int = 1) -> Iterator[dict[str, np.ndarray]]:
        """Batches of the evaluation split, with the frames of `num_clips` clips of each video."""
        return pipeline.eval_batches(
            self.config.data,
            split=self.config.data.eval_split,
            batch_size=-(-self.config.eval.batch_size // jax.device_count()) * jax.device_count(),
            num_clips=num_clips,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def score(self, state: TrainState, views: Views) -> Scores:
        """Scores of the evaluation split."""
        batches = self.batches(views.num_clips)
        scores = evaluate(self.eval_step, state.params, state.batch_stats, batches, self.mesh, views)
        origin = {
            "step": int(state.step),
            "views": len(views.each()),
            **dataclasses.asdict(views),
            "dataset": self.info.name,
            "split": self.config.data.eval_split,
            "num_frames": self.config.data.num_frames,
            "sampling": self.config.data.sampling,
            "dtype": self.config.model.dtype,
            "matmul_precision": self.config.matmul_precision,
        }
        return Scores(*scores, self.info.class_names, origin)


def make_evaluator(model: ModelDefinition, config: ConfigDict, info: DatasetInfo, mesh: jax.sharding.Mesh) -> Evaluator:
    """An evaluator. Nothing is compiled yet."""
    return Evaluator(config, info, mesh, jit_eval_step(model, config, mesh))


def make_eval_step(model: ModelDefinition, config: ConfigDict) -> EvalStep:
    """Function from a batch to the `logits` of one view, with `index`, `label` and `mask` of the videos."""
    predict = make_predict(model, config)

    def eval_step(params: PyTree, batch_stats: PyTree, batch: Batch, view: View) -> Batch:
        videos = {name: batch[name] for name in ("index", "label", "mask")}
        return {"logits": predict(params, batch_stats, batch["frames"], view), **videos}

    return eval_step


def jit_eval_step(model: ModelDefinition, config: ConfigDict, mesh: jax.sharding.Mesh) -> EvalStep:
    """`make_eval_step`, jitted: the batch is split over the mesh, and the results are replicated."""
    whole, parts = replicated(mesh), split_batch(mesh)
    return jax.jit(
        on_mesh(mesh, with_precision(make_eval_step(model, config), config.matmul_precision)),
        in_shardings=(whole, whole, parts, whole),
        out_shardings=whole,
    )


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


def _as_text(fields: dict[str, Any], separator: str = "\n") -> str:
    """Names and values as text. A long list, which may hold thousands of clips, is given by its length."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return f"{len(value)}" if isinstance(value, list) and len(value) > 2 else f"{value}"

    return separator.join(f"{name} {text(value)}" for name, value in fields.items())
