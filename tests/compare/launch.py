#!/usr/bin/env python3
"""Runs one command and prints what it took, as JSON.

    python3 -I -S launch.py LOG COMMAND...

A process begins with its parent's peak memory in its own count (`ru_maxrss`), so what measures must be smaller than what
is measured. This is as small as Python gets; its own peak is printed too. "busy" is what all processes together took from
the CPUs meanwhile, waits for the disk left out and time that the hypervisor took counted.
"""

import os
import sys
import time


def busy():
    """CPU seconds that were not idle since the machine started."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def own_peak():
    """This process's peak so far, in KB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def main(log, words):
    """Runs it."""
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, target, 1), (os.POSIX_SPAWN_DUP2, target, 2)]
    floor, others, began = own_peak(), busy(), time.perf_counter()
    pid = os.posix_spawnp(words[0], words, os.environ, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    wall, cpu = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    others = max(0.0, busy() - others - cpu) / (wall * os.cpu_count())
    print(f'{{"code": {os.waitstatus_to_exitcode(status)}, "wall": {wall}, "cpu": {cpu}, "other": {others}, '
          f'"peak": {usage.ru_maxrss * 1024}, "floor": {floor * 1024}}}')


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
