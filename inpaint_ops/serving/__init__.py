"""The page to paint holes on, and the server behind it, for this machine alone.

In the order a request passes: `server` listens and keeps the time, `guard` refuses requests of
other sites and of other machines, `routes` finds what is asked for, `pictures` opens a picture and
keeps it, `jobs` fills one at a time with a `methods` entry. The page itself is in ``page/``. The
server writes no file and opens none that a request names.
"""

from inpaint_ops.serving.methods import Method
from inpaint_ops.serving.server import PageServer

__all__ = ["Method", "PageServer"]
