"""`python -m fastrnn`: the command line, where the script `fastrnn` is not on the path."""

from fastrnn.cli.main import main

if __name__ == "__main__":
    main(prog_name="python -m fastrnn")
