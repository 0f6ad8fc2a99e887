"""The picture of the shell in README.md: shell_picture.py PATH-TO-MILLSTREAM OUT.svg

Runs a real session on a pseudo-terminal, and draws what the terminal shows at its end. Needs pyte."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from xml.sax.saxutils import escape

import pyte

COLUMNS, LINES = 96, 27
WIDTH, HEIGHT, MARGIN = 8.4, 18, 14
PAPER, INK = "#11161b", "#e6ebef"
COLORS = {
    "black": "#3a4650", "red": "#ff8a80", "green": "#6fd08c", "brown": "#ffb547", "yellow": "#ffb547", "blue": "#74b4ff",
    "magenta": "#d7a6ff", "cyan": "#7fd9e0", "white": "#e6ebef", "brightblack": "#a9b5bf", "brightgreen": "#6fd08c",
    "brightblue": "#74b4ff", "brightcyan": "#7fd9e0", "brightred": "#ff8a80", "brightbrown": "#ffb547",
    "brightmagenta": "#d7a6ff", "brightwhite": "#ffffff",
}
STATEMENTS = [
    "CREATE TABLE orders (id INT PRIMARY KEY, city TEXT, amount NUMERIC(10, 2));",
    "CREATE MATERIALIZED VIEW by_city AS SELECT city, count(*) AS n, sum(amount) AS total FROM orders GROUP BY city;",
    "INSERT INTO orders VALUES (1, 'London', 10), (2, 'Paris', 20), (3, 'Paris', 5);",
    "DELETE FROM orders WHERE id = 2;",
    "SELECT * FROM by_city ORDER BY city;",
    "VERIFY by_city;",
    "SELECT cty FROM by_city;",
]


def color(name, default):
    if name == "default":
        return default
    return COLORS.get(name, f"#{name}" if len(name) == 6 else default)


def record(program):
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if child == 0:
        environment = {**os.environ, "TERM": "xterm-256color", "MILLSTREAM_HISTORY": "/dev/null", "HOME": "/nonexistent"}
        environment.pop("NO_COLOR", None)
        os.execve(program, [program], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def follow(quiet):
        """Reads until the terminal has been quiet for some seconds."""
        while select.select([terminal], [], [], quiet)[0]:
            try:
                received = os.read(terminal, 65536)
            except OSError:
                return
            stream.feed(received)
            # The editor asks where the cursor is.
            if b"\x1b[6n" in received:
                os.write(terminal, f"\x1b[{screen.cursor.y + 1};{screen.cursor.x + 1}R".encode())

    follow(1.5)
    for statement in STATEMENTS:
        for letter in statement:
            os.write(terminal, letter.encode())
            follow(0.01)
        os.write(terminal, b"\r")
        follow(0.8)
    os.write(terminal, b"\x04")
    time.sleep(0.2)
    os.close(terminal)
    os.waitpid(child, 0)
    return screen


def draw(screen):
    lines = [screen.buffer[y] for y in range(LINES)]
    used = max((y for y in range(LINES) if screen.display[y].strip()), default=0) + 1
    width, height = COLUMNS * WIDTH + 2 * MARGIN, used * HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="A session in the shell of Millstream">',
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>',
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">',
    ]
    for y, line in enumerate(lines[:used]):
        x = 0
        while x < COLUMNS:
            cell, begin = line[x], x
            style = (cell.fg, cell.bold)
            text = ""
            while x < COLUMNS and (line[x].fg, line[x].bold) == style:
                text += line[x].data
                x += 1
            if not text.strip():
                continue
            weight = ' font-weight="bold"' if cell.bold else ""
            begin += len(text) - len(text.lstrip())
            # Spaces in SVG collapse.
            text = text.strip().replace(" ", "\u00a0")
            left, top = MARGIN + begin * WIDTH, MARGIN + (y + 0.75) * HEIGHT
            parts.append(
                f'<text x="{left:.1f}" y="{top:.1f}" textLength="{len(text) * WIDTH:.1f}" fill="{color(cell.fg, INK)}"{weight}>'
                f"{escape(text)}</text>"
            )
    return "\n".join([*parts, "</g>", "</svg>", ""])


def main():
    program, out = sys.argv[1:]
    with open(out, "w", encoding="utf-8") as file:
        file.write(draw(record(os.path.abspath(program))))


main()
