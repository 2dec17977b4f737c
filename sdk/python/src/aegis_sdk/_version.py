"""Which one this is: the proxy's version."""

__version__ = "0.1.0"
USER_AGENT = f"aegis-sdk-python/{__version__}"
