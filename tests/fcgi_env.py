#!/usr/bin/env -S python3 -B
"""fcgi_env.py - a program for web servers, in place of respool.fcgi: answers
every request with the CGI variables that it came with, as JSON."""

import json
import os
import socket
import struct
import sys

BEGIN, END, PARAMS, STDIN, STDOUT = 1, 3, 4, 5, 6


def response(variables):
    body = json.dumps(variables)
    return ("Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)).encode()


def read_record(f):
    head = f.read(8)
    if len(head) < 8:
        return None
    _, kind, _, length, padding, _ = struct.unpack("!BBHHBB", head)
    return kind, f.read(length + padding)[:length]


def take_length(data):
    if data[0] < 128:
        return data[0], data[1:]
    return struct.unpack("!I", data[:4])[0] & 0x7fffffff, data[4:]


def parse(data):
    variables = {}
    while data:
        n, data = take_length(data)
        m, data = take_length(data)
        variables[data[:n].decode("latin-1")] = data[n:n + m].decode("latin-1")
        data = data[n + m:]
    return variables


def serve(connection):
    params = b""
    with connection, connection.makefile("rb") as f:
        while True:
            record = read_record(f)
            if record is None:
                return
            if record[0] == PARAMS:
                params += record[1]
            elif record == (STDIN, b""):
                break
        text = response(parse(params))
        while text:
            part, text = text[:60000], text[60000:]
            connection.sendall(struct.pack("!BBHHBB", 1, STDOUT, 1, len(part),
                                           0, 0) + part)
        connection.sendall(struct.pack("!BBHHBB", 1, STDOUT, 1, 0, 0, 0) +
                           struct.pack("!BBHHBB8x", 1, END, 1, 8, 0, 0))


def main():
    if "REQUEST_METHOD" in os.environ:
        sys.stdout.buffer.write(response(dict(os.environ)))
        return
    listener = socket.socket(fileno=0)
    while True:
        try:
            serve(listener.accept()[0])
        except OSError:
            pass  # that one has left


if __name__ == "__main__":
    main()
