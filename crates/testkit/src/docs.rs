//! Generates the tables of the reference pages from the doc strings in the code, and from the lists of other systems'
//! functions.
//!
//! A table lies between `<!-- generated: NAME -->` and `<!-- end -->`. A test compares it; the command
//! [`COMMAND`] rewrites it. Text outside of the markers is written by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use millstream_connect::{Connector, OptionDoc, connectors};
use millstream_engine::MetricDoc;
use millstream_kafka::Kafka;
use millstream_postgres::Postgres;

use crate::compatibility;

/// The command that rewrites all tables.
pub const COMMAND: &str = "cargo run -p millstream-testkit -- docs";

/// The page about connectors.
const CONNECTORS: &str = "docs/connectors.md";
/// The page about other systems' SQL.
const COMPATIBILITY: &str = "docs/sql/compatibility.md";
/// The page about settings.
const SETTINGS: &str = "docs/sql/settings.md";
/// The page about system tables.
const SYSTEM_TABLES: &str = "docs/sql/system-tables.md";
/// The page about watching an engine.
const WATCHING: &str = "docs/guide/watching.md";

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

/// A generated table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name in the marker.
    pub name: String,
    /// Its file, relative to the root of the repository.
    pub file: &'static str,
    /// Its text in Markdown; each line ends with a line feed.
    pub text: String,
}

/// Returns all tables: at most two per connector, the settings, the system tables, the metrics, and those about
/// the lists of `sql-tests/compatibility/` below `root`.
pub fn tables(root: &Path) -> Result<Vec<Table>, String> {
    let mut tables = Vec::new();
    let others: [Arc<dyn Connector>; 2] = [Arc::new(Kafka), Arc::new(Postgres)];
    for connector in connectors::builtin().into_iter().chain(others) {
        for (side, options) in [("source", connector.source_options()), ("sink", connector.sink_options())] {
            if !options.is_empty() {
                let name = format!("{}_{side}_options", connector.name());
                tables.push(Table { name, file: CONNECTORS, text: option_table(options) });
            }
        }
    }
    tables.push(Table { name: "settings".to_string(), file: SETTINGS, text: setting_table() });
    tables.push(Table { name: "system_tables".to_string(), file: SYSTEM_TABLES, text: system_table() });
    tables.push(Table { name: "metrics".to_string(), file: WATCHING, text: metric_table() });
    for (name, text) in compatibility::page::tables(root)? {
        tables.push(Table { name, file: COMPATIBILITY, text });
    }
    Ok(tables)
}

/// Compares `table` with the file below `root`. `Err` says how to fix a difference.
pub fn check(root: &Path, table: &Table) -> Result<(), String> {
    let text = read(root, table.file)?;
    let (begin, end) = place(&text, table)?;
    if text[begin..end] == table.text {
        return Ok(());
    }
    Err(format!(
        "{}: the table '{}' is not what the code says: write it with `{COMMAND}`",
        table.file, table.name
    ))
}

/// Finds markers in the files below `root` that belong to no table.
pub fn check_markers(root: &Path) -> Result<(), String> {
    let tables = tables(root)?;
    let mut wrong = Vec::new();
    for file in files(&tables) {
        let text = read(root, file)?;
        for rest in text.split(BEGIN).skip(1) {
            let name = rest.split(" -->").next().unwrap_or_default();
            if !tables.iter().any(|table| table.file == file && table.name == name) {
                wrong.push(format!("{file}: there is no table '{name}' for this file: remove its marker"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Writes all tables into the files below `root`, and returns the names of the changed files.
pub fn rewrite(root: &Path) -> Result<Vec<&'static str>, String> {
    let tables = tables(root)?;
    let mut changed = Vec::new();
    for file in files(&tables) {
        let old = read(root, file)?;
        let mut new = old.clone();
        for table in tables.iter().filter(|table| table.file == file) {
            let (begin, end) = place(&new, table)?;
            new.replace_range(begin..end, &table.text);
        }
        if new != old {
            fs::write(root.join(file), new).map_err(|error| format!("can't write {file}: {error}"))?;
            changed.push(file);
        }
    }
    Ok(changed)
}

fn files(tables: &[Table]) -> BTreeSet<&'static str> {
    tables.iter().map(|table| table.file).collect()
}

fn read(root: &Path, file: &str) -> Result<String, String> {
    fs::read_to_string(root.join(file)).map_err(|error| format!("can't read {file}: {error}"))
}

/// Returns the byte range between the markers of `table`.
fn place(text: &str, table: &Table) -> Result<(usize, usize), String> {
    let (file, name) = (table.file, &table.name);
    let marker = format!("{BEGIN}{name} -->\n");
    let begin = text.find(&marker).map(|begin| begin + marker.len()).ok_or_else(|| {
        format!(
            "{file}: nothing says where the table '{name}' goes: add '{BEGIN}{name} -->' and '{END}' lines"
        )
    })?;
    let rest = &text[begin..];
    let end = rest.find(END).filter(|end| !rest[..*end].contains(BEGIN));
    let end = end.ok_or_else(|| format!("{file}: no line '{END}' ends the table '{name}': add one"))?;
    Ok((begin, begin + end))
}

fn option_table(options: &[OptionDoc]) -> String {
    let rows = options.iter().map(|option| {
        let default = option.default.map_or("must be given".to_string(), escaped);
        [format!("`{}`", option.name), default, escaped(option.doc)]
    });
    markdown("option", rows)
}

fn setting_table() -> String {
    let rows = millstream_engine::settings()
        .iter()
        .map(|setting| [format!("`{}`", setting.name), escaped(setting.default), escaped(setting.doc)]);
    markdown("setting", rows)
}

fn system_table() -> String {
    let mut text = String::from("| table | column | |\n| --- | --- | --- |\n");
    for table in millstream_engine::system_tables() {
        text.push_str(&format!("| `millstream.{}` | | {} |\n", table.name, escaped(table.doc)));
        for column in table.columns {
            let kind = column.kind.sql();
            text.push_str(&format!("| | `{} {kind}` | {} |\n", column.name, escaped(column.doc)));
        }
    }
    text
}

fn metric_table() -> String {
    let mut text = String::from("| metric | type | labels | |\n| --- | --- | --- | --- |\n");
    for MetricDoc { name, kind, labels, help } in millstream_web::metrics() {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        text.push_str(&format!("| `{name}` | {kind} | {} | {} |\n", labels.join(", "), escaped(help)));
    }
    text
}

fn markdown(what: &str, rows: impl Iterator<Item = [String; 3]>) -> String {
    let mut text = format!("| {what} | default | |\n| --- | --- | --- |\n");
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

/// Escapes plain text for a Markdown table; text between backticks stays unchanged.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut code = false;
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        code ^= c == '`';
        let inside_word = before.is_alphanumeric() && rest.peek().is_some_and(|next| next.is_alphanumeric());
        let special = match c {
            '|' => true,
            '*' | '<' | '[' => !code,
            '_' => !code && !inside_word,
            _ => false,
        };
        if special {
            escaped.push('\\');
        }
        escaped.push(c);
        before = c;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table { name: "a".into(), file: "f.md", text: text.into() }
    }

    #[test]
    fn a_table_stands_between_its_markers() {
        let root = tempfile::tempdir().unwrap();
        let check = |content: &str| {
            fs::write(root.path().join("f.md"), content).unwrap();
            check(root.path(), &table("| x |\n"))
        };
        assert_eq!(check("before\n<!-- generated: a -->\n| x |\n<!-- end -->\nafter\n"), Ok(()));
        let error = check("<!-- generated: a -->\n| y |\n<!-- end -->\n").unwrap_err();
        assert!(error.contains(COMMAND), "{error}");
        let error = check("nothing\n").unwrap_err();
        assert!(error.contains("add '<!-- generated: a -->'"), "{error}");
        let error = check("<!-- generated: a -->\n<!-- generated: b -->\n<!-- end -->\n").unwrap_err();
        assert!(error.contains("no line '<!-- end -->'"), "{error}");
    }

    #[test]
    fn text_is_text_in_markdown() {
        let check = |text: &str, expect: &str| assert_eq!(escaped(text), expect);
        check("'in/*/*.csv' (`**` stands)", "'in/\\*/\\*.csv' (`**` stands)");
        check("of match_pattern, _op", "of match_pattern, \\_op");
        check("a | b, `a | b`", "a \\| b, `a \\| b`");
        check("<column>", "\\<column>");
    }

    #[test]
    fn every_name_is_there_once() {
        let tables = tables(&crate::slt::project_root()).unwrap();
        let names: BTreeSet<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names.len(), tables.len());
        assert!(names.contains("file_source_options") && names.contains("settings"), "{names:?}");
    }
}
