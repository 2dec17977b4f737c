"""The blocking client, made by `sdk/generate_python.py`."""
