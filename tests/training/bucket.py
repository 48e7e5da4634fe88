"""Trains, resumes, evaluates and predicts in an emulated bucket; prints what the bucket holds. Run by a test."""

import json
import sys

import numpy as np
from etils import epath
from gcp_storage_emulator.server import create_server

URL = "gs://bucket/runs/a"


def main(data_dir: str, port: int) -> None:
    server = create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    from rsa_jax.evaluation.evaluator import evaluate_checkpoint
    from rsa_jax.evaluation.inference import Predictor
    from rsa_jax.evaluation.scores import load_scores
    from rsa_jax.training import loop
    from tests.tiny import tiny_config

    config = tiny_config(data_dir)
    requested = loop.StopSignal.requested
    loop.StopSignal.requested = lambda self, step: step == 3
    done = [loop.train(config, URL)]
    loop.StopSignal.requested = requested
    done.append(loop.train(config, URL))
    result = evaluate_checkpoint(config, URL)
    workdir = epath.Path(URL)
    scores = load_scores(workdir / "scores.npz")
    frames = np.zeros((1, 4, 24, 24, 3), np.uint8)
    summary = {
        "done": done,
        "top1": [result["top1"], json.loads((workdir / "eval.json").read_text())["top1"], scores.metrics()["top1"]],
        "steps": [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()],
        "files": sorted(path.name for path in workdir.iterdir()),
        "events": len(list((workdir / "tensorboard").iterdir())),
        "probability": float(Predictor(URL)(frames).sum()),
    }
    print(json.dumps(summary))
    server.stop()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
