"""`python -m proxy` and the console script `aegis-proxy`."""

import gc


def main() -> None:
    """Run a command. What it imports stays: looking through that for garbage would take a tenth of a second."""
    gc.disable()
    from proxy.cli import main as run

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
