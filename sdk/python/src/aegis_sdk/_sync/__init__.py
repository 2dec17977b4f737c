"""The blocking client, made from `_sync` by `generate.py`."""
