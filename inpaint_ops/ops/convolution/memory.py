"""Memory that is kept between calls, and how to give it back."""

from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution.packed_weights import packed_weights
from inpaint_ops.ops.native import extension


def release_memory() -> None:
    """Give back what the library keeps for its next calls on the CPU.

    That is the weights of layers in the forms that the kernels read (`docs/measured.md` says how
    large they are), and up to 32 MB of scratch for each thread. The next call of a layer packs its
    weights again, with the same result. Calls that run at the same time in other threads keep what
    they use until they end. Memory of a GPU is kept by torch alone: `torch.cuda.empty_cache()`.
    """
    packed_weights.clear()
    native = extension()
    if native is not None:
        native.release_scratch(tensors.threads())
