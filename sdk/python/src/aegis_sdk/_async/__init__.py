"""The asynchronous client, written by hand. `_sync` is made from it, word for word, by `sdk/generate_python.py`."""
