"""python -m heatgen.app VERB ...: what the console script `heatgen` does, for processes that are started by this Python."""

from heatgen.app.cli import main

if __name__ == "__main__":
    main()
