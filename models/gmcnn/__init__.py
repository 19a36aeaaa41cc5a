"""GMCNN: three columns of different receptive fields, trained with ID-MRF and confidence."""

from inpaint_ops.models.gmcnn.model import GMCNN

__all__ = ["GMCNN"]
