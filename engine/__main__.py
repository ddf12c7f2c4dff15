"""`python -m engine`: the command line; `python -m engine serve`: the engine that the window talks to."""

import sys

if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        from engine.server import serve

        serve()
    else:
        from engine.cli import main

        main()
