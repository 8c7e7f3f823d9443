"""What all launchers do with a command line that is wrong or asks for help."""

import os
import re
import sys

from absl import flags


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a mistake is one line and exit code 2, asking for help is none."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.stderr.write(f"error: {_plain(' '.join(str(error).split()))}\n")
        sys.exit(2)
    except SystemExit:  # absl's --help exits with 1
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _let_go_of_stdout()
        sys.exit(0)
    except BrokenPipeError:  # the reader of --help, such as `head`, has seen enough
        _let_go_of_stdout()
        sys.exit(0)


def show(text: str) -> None:
    """Writes what was asked for to standard output; a reader that goes early, such as `head`, is no mistake."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_stdout()


def _plain(message: str) -> str:
    """Says in the user's words what Python says of text that is no number."""
    message = message.removeprefix("ERROR:: ")
    message = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not an integer", message)
    return re.sub(r"could not convert string to float: (.*)", r"\1 is not a number", message)


def _let_go_of_stdout() -> None:
    """Leaves nothing that Python would try to flush into the closed pipe at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
