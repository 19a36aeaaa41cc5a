"""Layouts of public weights of the patch-based GAN: none, as no weights were published."""

from __future__ import annotations

from inpaint_ops.models.weights.layouts import Layout

LAYOUTS: tuple[Layout, ...] = ()
