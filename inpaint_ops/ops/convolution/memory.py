"""Memory that is kept between calls, and how to give it back."""

from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution.packed_weights import Held, packed_weights
from inpaint_ops.ops.native import extension


def release_memory() -> None:
    """Give back what the library keeps for its next calls on the CPU.

    That is the weights of layers in the forms that the kernels read (`memory_held` says how many
    bytes), and up to 32 MB of scratch for each thread. The next call of a layer packs its
    weights again, with the same result. Calls that run at the same time in other threads keep what
    they use until they end. Memory of a GPU is kept by torch alone: `torch.cuda.empty_cache()`.
    """
    packed_weights.clear()
    native = extension()
    if native is not None:
        native.release_scratch(tensors.threads())


def memory_held() -> Held:
    """Return the bytes that the packed weights of convolutions on the CPU take at the moment.

    Kernels read the weights of most layers in forms of their own. Those of a layer that is called
    again with unchanged weights are kept; all together take at most twice the memory of the weights
    in use (of one weight alone: whatever its forms take). Others are packed at each call, into
    memory that all layers share.

    Returns:
        A tuple of three numbers of bytes: `weights` of the weights in use themselves, counted as
        float32; `kept` of the forms that are kept; `spare` of the shared memory: at most 40 MiB,
        or after a training as much as its largest form.
    """
    return packed_weights.held()
