"""The program ``inpaint-ops``, in the order a call passes.

`entry` starts it and answers Ctrl-C; `commands` lists the commands. ``fill`` passes `fill_command`
(options), `fillers` (the function that fills), `filling` (one file or a folder of them) and
`outputs` (names of a folder's files). ``masks`` is `masks_command`, ``models`` is `model_table`,
``serve`` is `serve_command`, before the server of `inpaint_ops.serving`. ``export`` is
`export_command`, ``doctor`` is `inpaint_ops.doctor`. ``train`` is `train_command`, with the display
of `training_display`; ``check-data`` is `check_data_command`, ``completion`` is `completion`.
`messages` prints failures and notes.
"""

from inpaint_ops.cli.entry import main

__all__ = ["main"]
