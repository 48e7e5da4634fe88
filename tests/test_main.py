"""Whole runs on synthetic clips: train, stop, resume, evaluate; on one device and on eight."""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from rsa_jax.evaluation.evaluator import evaluate_checkpoint, open_workdir
from rsa_jax.evaluation.scores import load_scores
from rsa_jax.evaluation.views import View
from rsa_jax.preparation.store import PreparationError
from rsa_jax.tools import combine, gallery, visualize
from rsa_jax.training import loop
from rsa_jax.training.checkpoints import Checkpoints
from rsa_jax.training.loop import make_run, train
from rsa_jax.training.mesh import to_devices
from rsa_jax.training.workdir import WorkdirError

ROOT = Path(__file__).parents[1]
NUM_STEPS = 8
IDS = [f"validation_{i:05d}" for i in range(32)]


def lines(workdir):
    """Training records in metrics.jsonl, by step."""
    path = workdir / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {record["step"]: record for record in records if "loss" in record}


def final_state(config, workdir, step=NUM_STEPS):
    checkpoints = Checkpoints(workdir, config.checkpoint)
    state = jax.device_get(checkpoints.restore(make_run(config).abstract_state(), step))
    checkpoints.close()
    return state


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def command(workdir, data_dir, *flags, devices=1):
    """Starts main.py on the smallest run in a separate process."""
    several = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"} if devices > 1 else {}
    arguments = ["--config", "tests/tiny.py", "--workdir", str(workdir), *flags]
    return subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATA_DIR": str(data_dir), "JAX_PLATFORMS": "cpu"} | several,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def wait_for(condition, process):
    for _ in range(3600):
        if condition():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("waited too long")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data_dir):
    """Workdir of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    finish(command(workdir, data_dir))
    return workdir


def test_a_run_logs_evaluates_and_saves(undisturbed, config):
    assert list(lines(undisturbed)) == list(range(1, NUM_STEPS + 1))
    expected = {"loss", "accuracy", "learning_rate", "clips_per_second", "data_wait"}
    expected |= {"gradient_norm", "parameter_norm", "update_norm"}
    assert expected <= set(lines(undisturbed)[1])
    assert any("validation_top1" in line for line in (undisturbed / "metrics.jsonl").read_text().splitlines())
    assert list((undisturbed / "tensorboard").glob("events.*"))
    config.log.every_steps = 100
    before = (undisturbed / "metrics.jsonl").read_text()
    train(config, undisturbed)  # nothing is left to do
    assert (undisturbed / "metrics.jsonl").read_text() == before


def test_evaluation_counts_every_clip_once(undisturbed, config):
    config.eval.checkpoint = "latest"
    result = evaluate_checkpoint(config, undisturbed)
    assert json.loads((undisturbed / "eval.json").read_text()) == result
    report = (undisturbed / "report.html").read_text()
    assert f"Step {NUM_STEPS} on 32 videos" in report
    for text in ("drawn by rsa_jax.preparation.datasets.motion", "validation_00", "training, last"):
        assert text in report
    assert (result["num_examples"], result["step"], result["views"]) == (32, NUM_STEPS, 1)
    records = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    for name in ("top1", "top5", "mean_class", "loss"):
        np.testing.assert_allclose(result[name], records[-1][f"validation_{name}"], rtol=1e-5)
    config.eval.batch_size = 7  # different padding, same result
    again = evaluate_checkpoint(config, undisturbed)
    assert again["num_frames"] == 4
    np.testing.assert_allclose(again["loss"], result["loss"], rtol=1e-5)
    assert again["top1"] == result["top1"]


def test_evaluation_averages_views(undisturbed, config, capsys):
    """Against single views: frames selected by hand, and shifted so that the centre crop becomes a side crop."""
    single = undisturbed / "single.npz"
    evaluate_checkpoint(config, undisturbed)
    (undisturbed / "scores.npz").rename(single)
    config.eval.num_clips, config.eval.num_crops, config.eval.batch_size = 2, 3, 24
    result = evaluate_checkpoint(config, undisturbed)
    assert {name: result[name] for name in ("views", "num_clips", "num_crops", "average", "num_examples")} == {
        "views": 6,
        "num_clips": 2,
        "num_crops": 3,
        "average": "probabilities",
        "num_examples": 32,
    }
    scores = load_scores(undisturbed / "scores.npz")
    assert result == {**scores.metrics(), **scores.origin}
    assert scores.ids == IDS
    evaluator, state = open_workdir(config, undisturbed, "best")
    batch = next(evaluator.batches(2))
    frames, probabilities = batch.pop("frames"), []
    for clip in (frames[:, :4], frames[:, 4:]):
        for shift in (1, 0, -1):
            batch["frames"] = np.roll(clip, shift, axis=3)
            output = evaluator.eval_step(state.params, state.batch_stats, to_devices(evaluator.mesh, batch), View())
            probabilities.append(jax.nn.softmax(output["logits"]))
    assert np.std(probabilities, axis=0).max() > 1e-4  # the views differ by more than rounding
    np.testing.assert_allclose(np.exp(scores.log_probabilities[:24]), np.mean(probabilities, axis=0), atol=1e-6)
    combine.main([str(single), str(undisturbed)])
    assert f"{result['loss']:.4f}" in capsys.readouterr().out


def test_the_picture_of_predictions(undisturbed, tmp_path):
    gallery.main(["--workdir", str(undisturbed), "--out", str(tmp_path / "picture.png"), "--clips", "3"])
    width, height = Image.open(tmp_path / "picture.png").size
    assert width > height > 100


def test_the_picture_of_kernels(undisturbed, config, tmp_path, capsys):
    from rsa_jax.training.models import blank_model, save_model

    flags = ["--workdir", str(undisturbed), "--out", str(tmp_path / "kernels.png"), "--index"]
    visualize.main([*flags, "3"])
    assert "Kernels of stages.0.0.conv2 for validation_00003" in capsys.readouterr().out
    assert min(Image.open(tmp_path / "kernels.png").size) > 300
    with pytest.raises(SystemExit, match="'validation' of 'motion/tiny' holds clips 0 to 31, not 32"):
        visualize.main([*flags, "32"])
    config.model.num_classes, config.model.transform = 3, "self_attention"
    config.model.self_attention.num_heads, config.model.self_attention.kernel_size = 2, (3, 3, 3)
    save_model(blank_model(config.model), config, tmp_path / "attention", source="a test")
    visualize.main(["--workdir", str(undisturbed), "--workdir", str(tmp_path / "attention"), *flags[2:], "3"])
    assert "stages.0.0.conv2 in attention for validation_00003" in capsys.readouterr().out


def test_two_steps_and_two_are_four(tmp_path, config, monkeypatch):
    """Parameters, statistics, optimizer, clip order and random numbers are equal bit for bit.

    The run is interrupted in the first epoch and at its end; the second epoch begins with a restart step.
    """
    config.batch_size, config.epochs, config.optimizer.restart_step = 32, 2, True
    train(config, tmp_path / "whole")
    for stop in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(loop.StopSignal, "requested", lambda self, step, stop=stop: step == stop)
            train(config, tmp_path / "halves")
        assert list(lines(tmp_path / "halves")) == list(range(1, stop + 1))
    train(config, tmp_path / "halves")
    records = [json.loads(line) for line in (tmp_path / "halves" / "metrics.jsonl").read_text().splitlines()]
    restarts = {record["step"]: record["restart_norm"] for record in records if "restart_norm" in record}
    assert list(restarts) == [3]
    assert restarts[3] > 0
    assert [line["loss"] for line in lines(tmp_path / "halves").values()] == [
        line["loss"] for line in lines(tmp_path / "whole").values()
    ]
    assert_equal(final_state(config, tmp_path / "halves", 4), final_state(config, tmp_path / "whole", 4))


def test_killed_and_started_again(tmp_path, data_dir, config, undisturbed):
    process = command(tmp_path, data_dir, "--config.checkpoint.every_steps=1")
    wait_for(lambda: 5 in lines(tmp_path), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finish(command(tmp_path, data_dir))
    assert [record["loss"] for record in lines(tmp_path).values()] == [
        record["loss"] for record in lines(undisturbed).values()
    ]
    assert_equal(final_state(config, tmp_path), final_state(config, undisturbed))


def test_sigterm_saves_and_exits(tmp_path, data_dir, config):
    process = command(tmp_path, data_dir, "--config.epochs=1000")
    wait_for(lambda: 2 in lines(tmp_path), process)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    checkpoints = Checkpoints(tmp_path, config.checkpoint)
    assert f"step {checkpoints.latest()} is saved" in output
    checkpoints.close()


def test_ctrl_c_stops_after_the_step_and_again_at_once(request):
    """The handler is set here, because the parent process may have made the tests ignore Ctrl-C."""
    request.addfinalizer(functools.partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGINT)
    with loop.StopSignal() as stop:
        assert not stop.requested(1)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested(1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_eight_devices_give_the_losses_of_one_and_restore_its_checkpoints(tmp_path, data_dir, undisturbed):
    finish(command(tmp_path, data_dir, devices=8))
    for step, record in lines(undisturbed).items():
        np.testing.assert_allclose(lines(tmp_path)[step]["loss"], record["loss"], rtol=2e-3)
    np.testing.assert_allclose(lines(tmp_path)[1]["loss"], lines(undisturbed)[1]["loss"], rtol=1e-5)
    finish(command(undisturbed, data_dir, "--mode=eval", devices=8))
    assert json.loads((undisturbed / "eval.json").read_text())["num_examples"] == 32
    assert load_scores(undisturbed / "scores.npz").ids == IDS


def test_another_configuration_is_refused_in_words(data_dir, undisturbed):
    process = command(undisturbed, data_dir, "--config.batch_size=8")
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "batch_size: saved 16, current 8" in output
    assert "Traceback" not in output


def test_a_field_that_does_not_exist_is_refused(data_dir, tmp_path):
    process = command(tmp_path, data_dir, "--config.batchsize=8")
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "batchsize" in output


def test_nothing_is_saved_after_a_loss_that_is_not_finite(tmp_path, config):
    """The first step's loss is finite, but its parameters are not."""
    config.optimizer.learning_rate, config.optimizer.gradient_clip = 1e38, 1e30
    config.checkpoint.every_steps = 1
    with pytest.raises(RuntimeError, match=r"not finite at steps \[1\]"):
        train(config, tmp_path)
    checkpoints = Checkpoints(tmp_path, config.checkpoint)
    assert checkpoints.steps() == []
    checkpoints.close()


def test_two_processes_train_and_evaluate_together_and_stop_together(tmp_path, data_dir, undisturbed, config):
    """Like two hosts that share a disk; only one of them receives the signal."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = ["--config.epochs=1000", "--multihost", f"--coordinator={address}", "--num_processes=2"]
    first, second = (command(tmp_path, data_dir, *flags, f"--process_id={i}") for i in range(2))
    try:
        wait_for(lambda: 5 in lines(tmp_path), first)  # past the end of an epoch
        second.send_signal(signal.SIGTERM)
        assert "Stopped by a signal" in finish(first)
        finish(second)
    finally:
        first.kill()
        second.kill()
    assert '"validation_num_examples": 32' in (tmp_path / "metrics.jsonl").read_text()
    # Same clips, parameters and random numbers; only the learning rates of the two runs diverge later.
    np.testing.assert_allclose(lines(tmp_path)[1]["loss"], lines(undisturbed)[1]["loss"], rtol=1e-5)
    checkpoints = Checkpoints(tmp_path, config.checkpoint)
    assert checkpoints.latest() >= 5
    checkpoints.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.batch_norm_clips": 5}, "batch_norm_clips: a batch of 16 clips is not a multiple of 5"),
        ({"eval.every_epochs": 0}, "eval.every_epochs: expected at least 1, got 0"),
        ({"eval.num_clips": 0}, "eval.num_clips: expected at least 1, got 0"),
        ({"eval.num_crops": 2}, r"eval.num_crops: expected one of \(1, 3\), got 2"),
        ({"eval.average": "votes"}, "eval.average: expected one of .*'logits'.*, got 'votes'"),
        ({"batch_size": 65}, "fewer than config.batch_size = 65"),
        ({"optimizer.accumulation": 3}, "batch_size: expected a multiple of 3"),
        ({"model.num_classes": 9}, "has 10 classes, got 9"),
        ({"data.train_split": "training"}, "has no split 'training'"),
        ({"data.sampling": "random"}, r"data.sampling: expected one of \('whole', 'published'\), got 'random'"),
        ({"matmul_precision": "double"}, "matmul_precision: expected one of .*'float32'.*, got 'double'"),
        ({"data.flip_policy": "never"}, r"data.flip_policy: expected one of \('skip', 'swap'\), got 'never'"),
        ({"data.name": "motion/huge"}, "motion/huge"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(tmp_path, config, change, message):
    config.update_from_flattened_dict(change)
    with pytest.raises((ValueError, RuntimeError), match=message):
        train(config, tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists()


def test_a_damaged_data_set_ends_training_and_names_the_file(tmp_path, config, data_dir):
    shutil.copytree(data_dir / "motion/tiny", tmp_path / "motion/tiny")
    shard = next(tmp_path.glob("motion/tiny/*/*train.array_record*"))
    shard.write_bytes(bytes(shard.stat().st_size))
    config.data.data_dir = str(tmp_path)
    with pytest.raises(PreparationError, match=f"{shard}: record .* of split 'train'.* is damaged"):
        train(config, tmp_path / "workdir")


def test_evaluation_of_another_network_is_refused(undisturbed, config):
    config.model.width = 16
    with pytest.raises(WorkdirError, match="model.width: saved 8, current 16"):
        evaluate_checkpoint(config, undisturbed)


def test_the_layers_import_no_tensorflow():
    code = "import rsa_jax, rsa_jax.training.step, rsa_jax.training.optimizer, sys; print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
