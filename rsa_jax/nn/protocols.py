"""Contracts of transforms."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float

from rsa_jax.ops.windows import KernelSize


@runtime_checkable
class Transform(Protocol):
    """A layer of stride 1 that keeps the shape of a feature map."""

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
        """Transform a feature map."""

    def macs(self, shape: tuple[int, ...]) -> int:
        """Number of MACs for a feature map of that shape, `B T H W C`."""


@runtime_checkable
class HasKernels(Protocol):
    """A layer that can return the kernels that its queries apply."""

    @property
    def kernel_size(self) -> KernelSize | None:
        """Window in frames, height and width; None for the whole feature map."""

    def kernels(
        self, x: Float[Array, "B T H W C"], position: tuple[int, int, int]
    ) -> dict[str, Float[Array, "B L m_t m_h m_w"]]:
        """Kernels of the L queries at a position (frame, row, column), by name. The layer applies their sum.

        Raises:
            ValueError: If the position is not in the feature map.
        """
