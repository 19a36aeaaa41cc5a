"""EdgeConnect: edges are completed first, then colours along them."""

from inpaint_ops.models.edge_connect.model import EdgeConnect

__all__ = ["EdgeConnect"]
