//! The reference pages of statements: each statement has one, each page belongs to a statement and has its
//! synopsis, and the index lists all of them.

use std::collections::BTreeSet;
use std::path::Path;

use millstream_engine::{Statement, statements};

use super::{entries, name_of, read};

pub(super) fn pages(root: &Path) -> Vec<String> {
    let folder = root.join("docs/sql/statements");
    let index = read(&root.join("docs/sql/reference.md"));
    let mut wrong: Vec<String> =
        statements().iter().flat_map(|statement| of_statement(&folder, statement)).collect();
    let known: BTreeSet<&str> = statements().iter().flat_map(|statement| statement.pages).copied().collect();
    for path in entries(&folder) {
        let name = name_of(&path);
        let page = name.trim_end_matches(".md");
        if !known.contains(page) {
            wrong.push(format!(
                "docs/sql/statements/{name}: no statement of the engine's table names this page"
            ));
        }
        if !index.contains(&format!("](statements/{page}.md)")) {
            wrong.push(format!("docs/sql/reference.md: lacks the page statements/{page}.md"));
        }
    }
    wrong
}

fn of_statement(folder: &Path, statement: &Statement) -> Vec<String> {
    let name = statement.name();
    let mut wrong = Vec::new();
    let mut synopses = String::new();
    for page in statement.pages {
        let path = folder.join(format!("{page}.md"));
        match path.is_file() {
            true => synopses.push_str(synopsis(&read(&path))),
            false => wrong.push(format!("{name}: it has no page docs/sql/statements/{page}.md")),
        }
    }
    if statement.pages.is_empty() {
        wrong.push(format!("{name}: it names no page of docs/sql/statements"));
    }
    let lacking = statement.synopsis.lines().filter(|line| !synopses.lines().any(|known| known == *line));
    wrong.extend(lacking.map(|line| format!("{name}: the synopsis of its page lacks the line: {line}")));
    wrong
}

/// Returns the section Synopsis of a page.
fn synopsis(page: &str) -> &str {
    let section = page.split_once("\n## Synopsis\n").map_or("", |(_, rest)| rest);
    section.split_once("\n## ").map_or(section, |(section, _)| section)
}
