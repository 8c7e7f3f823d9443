"""What all launchers do with a command line that is wrong or asks for help."""

import sys

from absl import flags


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a mistake is one line and exit code 2, asking for help is none."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except SystemExit:  # absl's --help exits with 1
        sys.exit(0)
