"""`python -m flightlog`: the same as the command `flightlog`."""

from .cli import main

if __name__ == "__main__":
    main()
