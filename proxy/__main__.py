"""`python -m proxy` and the console script `aegis-proxy`."""

from proxy.cli import main

if __name__ == "__main__":
    main()
