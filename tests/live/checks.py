"""The live tests' small runner: named checks, one line each, a count at the end. Nothing is skipped."""

import sys
import threading
import time
import traceback


class Checks:
    """Runs functions and counts; from several threads too."""

    def __init__(self):
        self.passed, self.failed = 0, 0
        self.lock = threading.Lock()

    def run(self, name, function, *arguments):
        """Runs one check: it fails by raising. Returns whether it passed."""
        began = time.monotonic()
        try:
            function(*arguments)
        except Exception as error:  # a check's failure must not end the others
            with self.lock:
                self.failed += 1
                print(f"FAIL {name} ({time.monotonic() - began:.1f} s)", flush=True)
                print("     " + str(error).replace("\n", "\n     "), flush=True)
                if not isinstance(error, Wrong):
                    traceback.print_exc(file=sys.stdout)
            return False
        with self.lock:
            self.passed += 1
            print(f"ok   {name} ({time.monotonic() - began:.1f} s)", flush=True)
        return True

    def refuse(self, name, why):
        """Counts a check as failed that can't be tried: nothing is skipped."""
        with self.lock:
            self.failed += 1
        print(f"FAIL {name}: not tried, because {why}", flush=True)

    def close(self):
        """Prints the count; the exit code."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0


class Chain:
    """Checks that build on one another: after a needed one has failed, the rest can't pass and is counted as failed untried."""

    def __init__(self, checks):
        self.checks, self.broken = checks, None

    def run(self, name, function, *arguments, needed=False):
        """Runs one check, unless a needed one has failed."""
        if self.broken:
            self.checks.refuse(name, f"{self.broken} failed")
        elif not self.checks.run(name, function, *arguments) and needed:
            self.broken = name


class Wrong(Exception):
    """A check's finding: what was expected and what was found."""


def expect(true, message):
    """Raises Wrong with the message unless true."""
    if not true:
        raise Wrong(message)
