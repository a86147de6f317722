"""`python -m heatprint`, where the command is not on the path."""

from heatprint.cli import main

if __name__ == "__main__":
    main()
