"""What a network costs: counted by tracing it, measured on this machine, estimated by a chip's compiler."""
