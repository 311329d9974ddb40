"""Runs a program on a terminal of its own and writes what it prints there to a file: on_terminal.py FILE PROGRAM ARGUMENT…"""
import os
import pty
import sys

with open(sys.argv[1], "wb") as file:
    def keep(terminal):
        data = os.read(terminal, 4096)
        file.write(data)
        return data

    pty.spawn(sys.argv[2:], keep)
