"""Speed and memory, each beside a stated peer: README.md."""
