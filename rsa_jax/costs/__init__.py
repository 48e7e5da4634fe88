"""Costs of a network: counted by tracing it, measured on this machine, estimated by a chip's compiler."""
