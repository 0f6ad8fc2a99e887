#!/usr/bin/env python3
"""Fills the lists in sql-tests/compatibility/postgresql/ with the results of PostgreSQL 15.

    client-tests/compatibility/postgresql.py [--check] [FILE…]

Starts a PostgreSQL 15 of its own in a temporary folder, runs every example with psql, and rewrites the lines that
begin with "=". With --check it changes nothing, and fails if a line would change. The folder with initdb is found in
the path, or named by PG_BIN. PostgreSQL doesn't run as root: started as root, it runs as the user PG_USER, `postgres`
by default. sql-tests/compatibility/README.md describes the lists.
"""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

import lists

SETTINGS = "-c TimeZone=UTC -c statement_timeout=10s -c lc_monetary=C -c lc_numeric=C"


class Server:
    """A PostgreSQL of this program's own."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="compatibility-")
        program = shutil.which("initdb") or shutil.which("postgres") or ""
        self.bin = os.environ.get("PG_BIN") or os.path.dirname(os.path.realpath(program))
        self.user = None
        if os.geteuid() == 0:
            self.user = os.environ.get("PG_USER", "postgres")
            shutil.chown(self.folder, self.user)
        os.chmod(self.folder, 0o755)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        data = os.path.join(self.folder, "data")
        self.program("initdb", "-D", data, "-U", "tester", "-A", "trust", "--locale=C.UTF-8", "-E", "UTF8")
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_wal_size=64MB"
        self.program("pg_ctl", "-D", data, "-o", options, "-l", os.path.join(self.folder, "log"), "-w", "start")
        self.data = data
        self.databases = itertools.count()
        version = self.psql("postgres", ["SHOW server_version"])[0]
        if not version.startswith("15."):
            raise SystemExit(f"PostgreSQL is {version}, but 15 is wanted: name its folder in PG_BIN")

    def program(self, name, *arguments):
        command = [os.path.join(self.bin, name), *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        done = subprocess.run(command, user=self.user, cwd="/", text=True, **quiet)
        if done.returncode:
            raise SystemExit(f"{name} failed: {done.stderr}")

    def psql(self, database, statements):
        environment = {**os.environ, "PGOPTIONS": SETTINGS, "PGCLIENTENCODING": "UTF8"}
        command = f"psql -X -q -A -t -F | -P null=NULL -v ON_ERROR_STOP=1 -h 127.0.0.1 -p {self.port} -U tester -f -"
        script = "".join(text + "\n;\n" for text in statements)
        command = [*command.split(" "), database]
        done = subprocess.run(command, input=script, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise ValueError(done.stderr.strip())
        return done.stdout.removesuffix("\n").split("\n") if done.stdout else []

    def run(self, lines):
        statements = [lists.statement(line) for line in lines]
        if not any(lists.changes(line) for line in lines):
            return self.psql("postgres", statements)
        database = f"example_{next(self.databases)}"
        self.psql("postgres", [f"CREATE DATABASE {database}"])
        try:
            return self.psql(database, statements)
        finally:
            self.psql("postgres", [f"DROP DATABASE {database}"])

    def stop(self):
        try:
            self.program("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def main():
    server = Server()

    def run(example):
        try:
            return server.run(example)
        except ValueError as error:
            return error

    def run_all(found):
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(run, found))

    try:
        lists.main("postgresql", run_all)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
