//! The shell's own commands: their names, arguments and descriptions.
//!
//! A command is `\name` or `.name`, as the user prefers. The names are psql's if psql has such a command.

mod syntax;
mod words;

use std::fmt::Write;

pub use syntax::syntax;
pub use words::{fits, folded, words};

/// The group of a command in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The shell itself.
    General,
    /// The typed input.
    Input,
    /// The display of results.
    Output,
    /// The objects in the catalog.
    Objects,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Doc {
    /// Its name.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// Its arguments, as shown in the help.
    pub arguments: &'static str,
    /// Maximum number of words it takes.
    pub words_max: usize,
    group: Group,
    doc: &'static str,
}

const fn doc(
    group: Group,
    name: &'static str,
    aliases: &'static [&'static str],
    (arguments, words_max): (&'static str, usize),
    doc: &'static str,
) -> Doc {
    Doc { name, aliases, arguments, words_max, group, doc }
}

const NONE: (&str, usize) = ("", 0);
const PATTERN: (&str, usize) = ("[PATTERN]", 1);
const SWITCH: (&str, usize) = ("[on|off]", 1);
const ANY: usize = usize::MAX;

/// Every command.
pub const COMMANDS: &[Doc] = &[
    doc(Group::General, "?", &["help"], NONE, "this help"),
    doc(Group::General, "h", &[], ("[STATEMENT]", ANY), "the statements, or the syntax of one"),
    doc(Group::General, "q", &["quit", "exit"], NONE, "leave (so does Ctrl-D); in a file: leave the file"),
    doc(Group::General, "conninfo", &["version"], NONE, "what this shell talks to"),
    doc(
        Group::General,
        "set",
        &[],
        ("[NAME [VALUE]]", ANY),
        "set a variable (:NAME, :'NAME', …), or list them",
    ),
    doc(Group::General, "unset", &[], ("NAME", 1), "forget a variable"),
    doc(Group::General, "echo", &["print"], ("TEXT", ANY), "print a text"),
    doc(Group::General, "qecho", &[], ("TEXT", ANY), "print a text to the output of results"),
    doc(Group::General, "warn", &[], ("TEXT", ANY), "print a text on standard error"),
    doc(
        Group::General,
        "!",
        &["shell", "system"],
        ("[COMMAND]", ANY),
        "run a command of the system, or its shell",
    ),
    doc(Group::Input, "e", &["edit"], ("[FILE]", 1), "edit the statement, the last one or FILE; run it"),
    doc(Group::Input, "g", &[], ("[FILE]", 1), "run the statement or the last one; rows to FILE"),
    doc(Group::Input, "gx", &[], ("[FILE]", 1), "the same, with rows as blocks of lines"),
    doc(Group::Input, "i", &["read", "include"], ("FILE", 1), "run a file"),
    doc(
        Group::Input,
        "ir",
        &["include_relative"],
        ("FILE", 1),
        "run a file that lies beside the one that says so",
    ),
    doc(
        Group::Input,
        "live",
        &[],
        ("[NAME | SELECT …]", ANY),
        "a live view: of a relation, a query, the statement",
    ),
    doc(Group::Input, "p", &["buffer"], NONE, "show the statement that is typed, or the last one"),
    doc(Group::Input, "r", &["reset"], NONE, "drop the statement that is being typed"),
    doc(Group::Input, "s", &["history"], ("[FILE]", 1), "the history; into FILE"),
    doc(
        Group::Input,
        "watch",
        &[],
        ("[SECONDS] [c=TIMES]", 2),
        "run the statement every SECONDS until Ctrl-C",
    ),
    doc(Group::Output, "mode", &[], ("[MODE]", 1), "table, csv, json, ndjson, markdown or line"),
    doc(
        Group::Output,
        "o",
        &["output", "out"],
        ("[FILE]", 1),
        "send rows to FILE or |COMMAND; without, back here",
    ),
    doc(Group::Output, "pager", &[], SWITCH, "whether long results go to $PAGER, or less"),
    doc(Group::Output, "timing", &["timer"], SWITCH, "whether the time of each statement is shown"),
    doc(
        Group::Output,
        "x",
        &["expanded"],
        ("[on|off|auto]", 1),
        "rows as blocks of lines; auto: those too wide",
    ),
    doc(
        Group::Objects,
        "d",
        &["describe"],
        ("[NAME]", 1),
        "all objects; columns of NAME, \\d+ its statement",
    ),
    doc(Group::Objects, "ds", &["sources"], PATTERN, "sources, with the rows read"),
    doc(Group::Objects, "dt", &["tables"], PATTERN, "tables"),
    doc(Group::Objects, "dv", &["views"], PATTERN, "views"),
    doc(Group::Objects, "dm", &["mviews"], PATTERN, "materialized views, with their state"),
    doc(Group::Objects, "dr", &["streams"], PATTERN, "streams"),
    doc(Group::Objects, "dk", &["sinks"], PATTERN, "sinks, with the rows delivered"),
    doc(Group::Objects, "df", &["functions"], PATTERN, "functions created; with PATTERN built-in ones too"),
    doc(Group::Objects, "di", &["keys"], PATTERN, "primary keys, the only indexes there are"),
    doc(Group::Objects, "dS", &["system_tables"], PATTERN, "the engine's system tables"),
    doc(Group::Objects, "dc", &["settings"], PATTERN, "settings, with their values"),
    doc(Group::Objects, "sv", &["sf", "schema"], ("NAME", 1), "the statement that created NAME"),
];

/// Commands of other shells that have no use here, with the answer.
const ABSENT: &[(&[&str], &str)] = &[
    (&["c", "connect"], "this shell embeds its engine and connects to no other"),
    (&["l", "list"], "there is one database, the engine inside this shell; \\d lists what is in it"),
    (&["dn", "dn+"], "there are no schemas but millstream, the engine's own; \\dS lists its tables"),
    (&["du", "dg", "dp", "z", "password"], "there are no users: whoever runs the shell may do everything"),
    (&["copy"], "use CREATE SOURCE and CREATE SINK with connector = 'file', or \\o FILE for one result"),
    (&["pset", "a", "t", "H", "C", "f"], "\\mode, \\x and \\pager say how results are shown"),
    (&["dT"], "the types are in the documentation (docs/sql/types.md)"),
    (
        &["dump", "backup", "save", "open", "import"],
        "the engine's state lives in memory until the program ends",
    ),
];

/// Returns the command with this name, ignoring a `+` after it; or the answer if there is none.
pub fn find(name: &str) -> Result<&'static Doc, String> {
    let plain = name.strip_suffix('+').filter(|plain| !plain.is_empty()).unwrap_or(name);
    let is = |doc: &&Doc| doc.name == plain || doc.aliases.contains(&plain);
    if let Some(doc) = COMMANDS.iter().find(is) {
        return Ok(doc);
    }
    if plain.is_empty() {
        return Err("a command's name is missing after the backslash: \\? lists the commands".to_owned());
    }
    let absent = ABSENT.iter().find(|(names, _)| names.contains(&name) || names.contains(&plain));
    let advice = match absent {
        Some((_, advice)) => format!(": {advice}"),
        None => near(plain).map_or_else(
            || "; \\? lists the commands".to_owned(),
            |near| format!("\nHINT: Did you mean \\{near}? \\? lists the commands."),
        ),
    };
    Err(format!("there is no command \\{name}{advice}"))
}

/// Returns the most similar name.
fn near(name: &str) -> Option<&'static str> {
    let names = COMMANDS.iter().flat_map(|doc| std::iter::once(&doc.name).chain(doc.aliases));
    let near = names.map(|known| (distance(name, known), *known)).filter(|(_, known)| known.len() > 1);
    let (distance, known) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= (name.chars().count() / 3).max(1) && distance < known.len()).then_some(known)
}

/// Returns the number of letters to insert, delete or replace (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = (row[j] + 1).min(row[j + 1] + 1).min(diagonal + usize::from(x != *y));
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Returns the text of `\?`.
pub fn help() -> String {
    let mut text = "Statements end with a semicolon and may take several lines.\n".to_owned();
    let groups = [
        (Group::General, "General"),
        (Group::Input, "Statements"),
        (Group::Output, "Results"),
        (Group::Objects, "What there is (in PATTERN * stands for any letters, ? for any letter)"),
    ];
    for (group, title) in groups {
        let _ = writeln!(text, "\n{title}");
        for doc in COMMANDS.iter().filter(|doc| doc.group == group) {
            let call = format!("\\{} {}", doc.name, doc.arguments);
            let _ = writeln!(text, "  {call:<27} {}", doc.doc);
        }
    }
    text.push_str(KEYS);
    text
}

const KEYS: &str = "
Keys
  Tab                         complete a name, a keyword, an option, a file
  Ctrl-R                      search what was typed; Up and Down walk it
  Ctrl-C                      drop what is typed, or end what is running
  Ctrl-D                      leave, on an empty line

The same with a dot: .help, .mode csv. SQL besides: EXPLAIN SELECT …; SHOW ALL;";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_names_of_their_own() {
        let mut names: Vec<&str> = COMMANDS
            .iter()
            .flat_map(|doc| [doc.name].into_iter().chain(doc.aliases.iter().copied()))
            .collect();
        names.extend(ABSENT.iter().flat_map(|(names, _)| names.iter().copied()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn names_are_found_and_near_ones_offered() {
        assert_eq!(find("d+").unwrap().name, "d");
        assert_eq!(find("quit").unwrap().name, "q");
        let message = |name| find(name).unwrap_err();
        assert_eq!(
            message("timng"),
            "there is no command \\timng\nHINT: Did you mean \\timing? \\? lists the commands."
        );
        assert!(message("nonsense").ends_with("\\? lists the commands"), "{}", message("nonsense"));
        assert!(message("l").contains("one database"));
    }

    #[test]
    fn the_help_fits_a_screen_of_its_width() {
        for line in help().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(help().contains("\\watch [SECONDS] [c=TIMES]"));
    }
}
