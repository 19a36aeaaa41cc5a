"""Telling: from the results of a run to a terminal, a page and a file.

- `report`: all results, and their JSON form; `stored` reads it back.
- `tables`: rows of text; `terminal` and `page` dress them.
- `plots`: pictures.
"""
