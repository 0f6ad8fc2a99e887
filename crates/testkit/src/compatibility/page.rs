//! The tables of `docs/sql/compatibility.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::{Entry, List, SYSTEMS, State, System, Table, files, read};
use crate::docs::escaped;
use crate::drive;

/// The numbers of forms by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    /// By [`State::rank`].
    by_rank: [usize; 4],
}

impl Figures {
    fn of(tables: &[Table]) -> Figures {
        let mut figures = Figures::default();
        for table in tables.iter().filter(|table| table.not_counted.is_none()) {
            for entry in &table.entries {
                figures.by_rank[entry.state().rank()] += 1;
            }
        }
        figures
    }

    fn add(&mut self, other: Figures) {
        for (sum, more) in self.by_rank.iter_mut().zip(other.by_rank) {
            *sum += more;
        }
    }

    fn all(self) -> usize {
        self.by_rank.iter().sum()
    }

    /// Returns the forms that are there, under any name, in tenths of a percent, rounded down.
    fn share(self) -> String {
        let [there, renamed, ..] = self.by_rank;
        let tenths = (there + renamed) * 1000 / self.all().max(1);
        format!("{}.{} %", tenths / 10, tenths % 10)
    }

    fn cells(self) -> String {
        let [there, renamed, differs, missing] = self.by_rank;
        format!("{} | {there} | {renamed} | {differs} | {missing} | {}", self.all(), self.share())
    }
}

/// Returns the names and the texts of all tables.
pub fn tables(root: &Path) -> drive::Result<Vec<(String, String)>> {
    let mut tables = Vec::new();
    let mut summary = head("system");
    for system in SYSTEMS {
        let lists: Vec<List> =
            files(root, system)?.iter().map(|path| read(path)).collect::<drive::Result<_>>()?;
        for (part, figures) in parts(&lists) {
            let _ = writeln!(summary, "| {}: {part} | {} |", system.name, figures.cells());
        }
        let text = chapters(system, &lists);
        tables.push((format!("compatibility_{}", system.folder), text));
    }
    tables.insert(0, ("compatibility".to_string(), summary));
    Ok(tables)
}

fn head(what: &str) -> String {
    format!(
        "| {what} | forms | there | under another name | differs | not there | of all |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n"
    )
}

/// Returns the figures of a system's parts, in the order of its lists.
fn parts(lists: &[List]) -> Vec<(&str, Figures)> {
    let mut parts: Vec<(&str, Figures)> = Vec::new();
    for list in lists {
        let figures = Figures::of(&list.tables);
        match parts.iter_mut().find(|(part, _)| *part == part_of(&list.title)) {
            Some((_, sum)) => sum.add(figures),
            None => parts.push((part_of(&list.title), figures)),
        }
    }
    parts
}

/// Returns the part of a system to which a list belongs: chapter 9 of PostgreSQL has all functions.
fn part_of(title: &str) -> &str {
    match title.split_once(". ") {
        Some((number, _)) if number.starts_with("9.") => "functions and operators",
        Some((_, rest)) => rest,
        None => title,
    }
}

/// Returns the text about the lists of a system.
fn chapters(system: System, lists: &[List]) -> String {
    let mut sum = Figures::default();
    let mut table = head("chapter");
    let mut details = String::new();
    for list in lists {
        let figures = Figures::of(&list.tables);
        if figures.all() > 0 {
            sum.add(figures);
            let _ = writeln!(table, "| {} | {} |", escaped(&list.title), figures.cells());
        }
        let _ = write!(details, "\n### {}: {}\n", system.name, list.title);
        for part in &list.tables {
            details.push_str(&section(part, system.name));
        }
    }
    let _ = writeln!(table, "| all | {} |", sum.cells());
    format!("{table}{details}")
}

/// Returns the text about one table of a list of `system`.
fn section(table: &Table, system: &str) -> String {
    let mut text = format!("\n**{}.** ", table.title);
    if let Some(why) = &table.not_counted {
        let _ = writeln!(text, "Not counted: {why}.");
        return text;
    }
    let with = |rank: usize| table.entries.iter().filter(move |entry| entry.state().rank() == rank);
    let mixed = mixed_names(table);
    let there = names(with(0), &mixed);
    if !there.is_empty() {
        let _ = write!(text, "There: {there}. ");
    }
    let plain = |entry: &&Entry| matches!(entry.state(), State::Missing(why) if why.is_empty());
    let missing = names(with(3).filter(plain), &mixed);
    if !missing.is_empty() {
        let why = table.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let _ = write!(text, "Not there{why}: {missing}.");
    }
    text = format!("{}\n", text.trim_end());
    let rows: Vec<String> = table
        .entries
        .iter()
        .filter(|entry| entry.state().rank() > 0 && !plain(entry))
        .map(|entry| format!("| {} | {} |\n", code(&entry.name), remark(entry, system)))
        .collect();
    if !rows.is_empty() {
        let _ = write!(text, "\n| form | |\n| --- | --- |\n{}", rows.concat());
    }
    text
}

/// Returns the names of functions of which some forms are there and others aren't.
fn mixed_names(table: &Table) -> BTreeSet<&str> {
    let mut ranks: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for entry in &table.entries {
        ranks.entry(short(&entry.name)).or_default().insert(entry.state().rank());
    }
    ranks.into_iter().filter(|(_, ranks)| ranks.len() > 1).map(|(name, _)| name).collect()
}

/// Returns the names of forms in code style, each once: of a function without its arguments, unless the name is
/// `mixed`.
fn names<'a>(entries: impl Iterator<Item = &'a Entry>, mixed: &BTreeSet<&str>) -> String {
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for entry in entries {
        let name = match short(&entry.name) {
            name if mixed.contains(name) => form(&entry.name),
            name => name,
        };
        if seen.insert(name) {
            names.push(code(name).replace("\\|", "|"));
        }
    }
    names.join(", ")
}

/// Returns the name of a function, or the whole form of anything else.
fn short(name: &str) -> &str {
    let form = form(name);
    let end = form.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(form.len());
    if end > 0 && form[end..].trim_start().starts_with('(') { &form[..end] } else { form }
}

/// Returns the form without the type of its result.
fn form(name: &str) -> &str {
    name.split(" → ").next().unwrap_or(name).trim()
}

/// Says how the form is there, or why it isn't.
fn remark(entry: &Entry, system: &str) -> String {
    let worst = entry.examples.iter().max_by_key(|example| example.state.rank());
    let Some(example) = worst else { return String::new() };
    let asked = example.statements.join("; ");
    match &example.state {
        State::There => String::new(),
        State::As(statements) => format!("{}: write {}", code(&asked), code(&statements.join("; "))),
        State::Missing(why) => escaped(why),
        State::Differs(why, ours) => {
            let reason = if why.is_empty() { String::new() } else { format!("{}: ", escaped(why)) };
            let (ours, theirs) = (shown(ours), shown(&example.rows));
            format!("{reason}{} gives {ours}, {system} {theirs}", code(&asked))
        }
    }
}

/// Returns a result in one cell, cut if it is long.
fn shown(rows: &[String]) -> String {
    if rows.is_empty() {
        return "no rows".to_string();
    }
    let text = rows.join(" / ");
    match text.char_indices().nth(80) {
        None => code(&text),
        Some((end, _)) => code(&format!("{}…", &text[..end])),
    }
}

/// Returns `text` in code style, for a cell of a table.
fn code(text: &str) -> String {
    let text = text.replace('|', "\\|").replace('\0', "␀");
    let ends = text.starts_with([' ', '`']) || text.ends_with([' ', '`']);
    match (text.is_empty(), text.contains('`'), ends) {
        (true, ..) => "an empty text".to_string(),
        (_, true, _) => format!("`` {text} ``"),
        (_, _, true) => format!("` {text} `"),
        _ => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_says_the_state_of_each_form() {
        let text = "# A\n\n## T\nwhy: rare\n\nupper ( text ) → text\n> upper('a')\n= A\n\nupper ( char )\n> upper('b')\n\
            = B\n\na | b\n> 1 | 2\n= 3\nas: bit_or(1, 2)\n\nlog ( numeric )\n> log(1)\n= 0.0\ndiffers: digits\n< 0\n\n\
            point ( text )\n> point('a')\n= a\nmissing\n\nwise ( )\n> wise()\n= 1\nmissing: write `other()`\n";
        let list = List::parse(text).unwrap();
        let figures = Figures::of(&list.tables);
        assert_eq!(figures, Figures { by_rank: [2, 1, 1, 2] });
        assert_eq!(figures.share(), "50.0 %");
        let expect = "\n**T.** There: `upper`. Not there (rare): `point`.\n\n| form | |\n| --- | --- |\n\
            | `a \\| b` | `1 \\| 2`: write `bit_or(1, 2)` |\n\
            | `log ( numeric )` | digits: `log(1)` gives `0`, S 1 `0.0` |\n\
            | `wise ( )` | write `other()` |\n";
        assert_eq!(section(&list.tables[0], "S 1"), expect);
        let other = List { title: "9.2. B".into(), ..list.clone() };
        let lists = [list, other.clone(), other];
        let names: Vec<&str> = parts(&lists).iter().map(|(part, _)| *part).collect();
        assert_eq!(names, ["A", "functions and operators"]);
    }
}
