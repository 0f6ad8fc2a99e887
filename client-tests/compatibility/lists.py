"""Reads and rewrites the lists in sql-tests/compatibility/; its README.md describes them."""

import glob
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(os.path.dirname(os.path.dirname(HERE)), "sql-tests", "compatibility")
# An example that begins with one of these is a statement, any other one an expression. The test of the engine,
# crates/testkit/src/compatibility/run.rs, has the same words.
READS = "SELECT WITH VALUES TABLE SHOW EXPLAIN EXECUTE FETCH".split()
WRITES = (
    "ALTER ANALYZE BEGIN CALL CLOSE COMMENT COMMIT COPY CREATE DEALLOCATE DECLARE DELETE DISCARD DO DROP END GRANT "
    "INSERT LISTEN LOCK MERGE MOVE NOTIFY PREPARE REFRESH RELEASE RESET REVOKE ROLLBACK SAVEPOINT SET START TRUNCATE "
    "UNLISTEN UPDATE"
).split()


def first_word(text):
    return re.match(r"\w*", text)[0].upper()


def statement(example):
    """The statement of an example."""
    word = first_word(example)
    called = re.match(r"\w+\(", example) and word not in ("VALUES", "SELECT")
    return example if word in READS + WRITES and not called else "SELECT " + example


def changes(example):
    """True if the example may leave something behind."""
    return first_word(statement(example)) in WRITES


def escaped(row):
    """Blanks at the ends are made visible."""
    inner = row.strip(" ")
    if not inner:
        return "␠" * len(row)
    left, right = row.split(inner, 1) if row != inner else ("", "")
    return "␠" * len(left) + inner + "␠" * len(right)


def examples(lines):
    """The examples of a file: the place after the line that begins with ">", and the statements up to it."""
    found, now = [], []
    for at, line in enumerate(lines):
        if line.startswith(("$ ", "> ")):
            now.append(line[2:])
        if line.startswith("> "):
            found.append((at + 1, now))
            now = []
    return found


def filled(text, results):
    """The text with the rows of its examples, in their order; None leaves the rows as they are."""
    lines = text.split("\n")
    for (at, _), rows in reversed(list(zip(examples(lines), results, strict=True))):
        if rows is None:
            continue
        end = at
        while end < len(lines) and lines[end].startswith("="):
            end += 1
        lines[at:end] = [("= " + escaped(row)).rstrip() for row in rows]
    return "\n".join(lines)


def main(system, run):
    """Rewrites the lists of a system, or compares them with --check. `run` gives the rows of a list of examples."""
    check = "--check" in sys.argv
    named = [argument for argument in sys.argv[1:] if argument != "--check"]
    problems = []
    for path in named or sorted(glob.glob(os.path.join(FOLDER, system, "*.txt"))):
        with open(path, encoding="utf-8") as file:
            old = file.read()
        found = [statements for _, statements in examples(old.split("\n"))]
        results = run(found)
        rows = [None if isinstance(result, Exception) else result for result in results]
        for statements, result in zip(found, results):
            if isinstance(result, Exception):
                problems.append(f"{os.path.basename(path)}: {'; '.join(statements)}: {result}")
        new = filled(old, rows)
        if new != old and check:
            before, after = old.split("\n"), new.split("\n")
            lines = [f"  was {a}, is {b}" for a, b in zip(before, after) if a != b][:3]
            problems.append("\n".join([f"{path}: the results are others today:", *lines]))
        elif new != old:
            with open(path, "w", encoding="utf-8") as file:
                file.write(new)
            print(f"rewrote {path}")
    print("\n".join(problems) or "all results are as recorded")
    sys.exit(1 if problems else 0)
