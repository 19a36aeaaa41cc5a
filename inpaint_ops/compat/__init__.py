"""Classes of public ports under their own names: change the import, nothing else.

One module for each repository. Its classes have the port's names, arguments in the port's order
with the port's defaults, its buffers, state-dict keys and return values; what they compute runs on
the kernels of this package. docs/guides/drop_in.md lists the import lines and what differs on
purpose.

    nvidia       NVIDIA/partialconv
    naoto0804    naoto0804/pytorch-inpainting-with-partial-conv
    nipponjo     nipponjo/deepfillv2-pytorch: model/networks.py
    nipponjo_tf  the same: model/networks_tf.py
    daa233       daa233/generative-inpainting-pytorch
    zhaoyuzhi    zhaoyuzhi/deepfillv2
    zhaoyiyan    Zhaoyi-Yan/Shift-Net_pytorch
    shepnerd     shepnerd/inpainting_gmcnn: pytorch

A class agrees with its port wherever the port gives a number; it goes on where the port stops or
gives NaN. Imported on demand: ``from inpaint_ops.compat.nipponjo import GConv``.
"""
