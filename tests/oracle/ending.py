"""How a Python process of the tests ends.

pyarrow's threads may still be there when the interpreter takes its libraries down, which then aborts the process one
time in six ("terminate called without an active exception"), after everything was said and done.
"""

import os
import sys


def leave(code):
    """Ends the process with this code, all output written and no library taken down. For the last line of a program."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def leave_after(program):
    """The same after `unittest.main(exit=False)`."""
    leave(0 if program.result.wasSuccessful() else 1)
