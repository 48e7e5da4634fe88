"""Scores of a trained network: views of a video, averages, metrics, predictions for any video, the report."""
