"""A preprocessor of mdBook. Links that leave the documentation, which lead to files of the repository, become text. Links to
README.md lead to index.md, as mdBook calls such a page."""

import json
import posixpath
import re
import sys

OUT = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)\s]*)\)")
README = re.compile(r"(\]\((?:[^)\s:]*/)?)README\.md(?=[)#])")


def adapted(text, folder):
    def replaced(link):
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        return link[1] if target.startswith("..") else link[0]

    return README.sub(r"\1index.md", OUT.sub(replaced, text))


def walk(sections):
    for section in sections:
        chapter = section.get("Chapter") if isinstance(section, dict) else None
        if chapter:
            folder = posixpath.dirname(chapter.get("path") or "")
            chapter["content"] = adapted(chapter["content"], folder)
            walk(chapter["sub_items"])


if sys.argv[1:2] == ["supports"]:
    sys.exit(0)
_context, book = json.load(sys.stdin)
walk(book.get("items") or book.get("sections"))
json.dump(book, sys.stdout)
