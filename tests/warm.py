"""An interpreter that has imported already: the workers of a test fork from it instead of importing torch each.

Started without arguments beyond a listening socket's number it serves; given a socket's path and what Python is given
to run a string, it is that Python, as far as xdist can tell.
"""

import json
import os
import signal
import socket
import sys


def serve(listening: socket.socket) -> None:
    """Fork a child for every connection; it becomes what the connection asks for."""
    import tarot.measuring
    import tarot.plugin.cache  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no child is waited for
    while True:
        connection, _ = listening.accept()
        if not os.fork():
            become(connection)
            return
        connection.close()


def become(connection: socket.socket) -> None:
    """Run the code that was sent, with the files, folder and environment of whoever sent it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    asked = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.argv = ["-c"]
    exec(asked["code"], {"__name__": "__main__"})


def ask(path: str, code: str) -> None:
    """Hand our files over, and stay until the child has ended."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    asked = {"code": code, "folder": os.getcwd(), "environment": dict(os.environ)}
    socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
    os.close(0)
    os.close(1)
    connection.recv(1)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        ask(sys.argv[1], sys.argv[-1])
