"""From the files of a download to a prepared data set: finding, decoding, storing.

Only `builder`, `store` and `datasets` import TensorFlow.
"""
