//! Splits typed text into SQL and the shell's own commands.
//!
//! A command begins with a backslash outside of strings and comments, and ends with its line; one line may
//! have several. At the beginning of a statement, a line may also start with a dot and a name, as in `.mode
//! csv`. The lines after `COPY … FROM STDIN;` are rows, up to a line `\.`, as in psql.

use std::ops::Range;

use crate::scan::{self, Kind};

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// SQL up to a command or the end: complete statements, and possibly the beginning of one.
    Sql(Range<usize>),
    /// Rows for the preceding COPY: complete lines, and true if a line `\.` ends them.
    Rows(Range<usize>, bool),
    /// A command of the shell: its name without `\` or `.`, and the range of the rest.
    Command(Range<usize>, Range<usize>),
}

/// Commands that take the rest of the line unchanged, including backslashes.
const TAKE_ALL: &[&str] = &["!", "live", "echo", "warn", "qecho"];

/// Commands that consume the statement before them, by all their names.
const TAKE_STATEMENT: &[&str] = &["g", "gx", "e", "edit", "r", "reset", "watch", "live"];

/// Returns the parts of `text`, in order. `inside` is true if it continues an earlier statement.
pub fn items(text: &str, inside: bool) -> Vec<Item> {
    let mut items = Vec::new();
    let mut inside = inside;
    let mut at = 0;
    while at < text.len() {
        let (sql, next) = next_part(text, at, inside);
        if !text[sql.clone()].trim().is_empty() {
            inside = !scan::is_complete(&text[sql.clone()]);
        }
        if !sql.is_empty() {
            items.push(Item::Sql(sql));
        }
        let command = match next {
            Part::Command(command) => command,
            Part::Rows(rows) => {
                let (end, next) = rows_end(text, rows);
                items.push(Item::Rows(rows..end, next.is_some()));
                at = next.unwrap_or(text.len());
                continue;
            }
            Part::End => break,
        };
        at = commands(text, command, &mut items);
        inside &= !matches!(items.last(), Some(Item::Command(name, _)) if TAKE_STATEMENT.contains(&&text[name.clone()]));
    }
    items
}

/// The part after SQL.
enum Part {
    /// A command that begins there.
    Command(usize),
    /// Rows of a COPY that begin there.
    Rows(usize),
    End,
}

/// Returns the SQL from `at` on, and the part after it.
fn next_part(text: &str, at: usize, mut inside: bool) -> (Range<usize>, Part) {
    let rest = &text[at..];
    // Start of the statement; `None` if the statement began in an earlier text.
    let mut start = (!inside).then_some(at);
    for piece in scan::pieces(rest) {
        if piece.kind != Kind::Code {
            inside |= piece.kind != Kind::Comment;
            continue;
        }
        for (offset, letter) in rest[piece.range.clone()].char_indices() {
            let place = at + piece.range.start + offset;
            match letter {
                '\\' => return (at..place, Part::Command(place)),
                '.' if !inside && is_dot_command(text, place) => return (at..place, Part::Command(place)),
                ';' => {
                    let next = place + 1;
                    if let Some(rows) = start.and_then(|start| rows_after(text, start..next)) {
                        return (at..next, Part::Rows(rows));
                    }
                    (inside, start) = (false, Some(next));
                }
                letter => inside |= !letter.is_whitespace(),
            }
        }
    }
    (at..text.len(), Part::End)
}

/// Returns the start of the rows that a statement reads: the line after it.
fn rows_after(text: &str, statement: Range<usize>) -> Option<usize> {
    let rest = &text[statement.end..];
    let line = rest.find('\n').unwrap_or(rest.len());
    let wanted = scan::is_blank(&rest[..line]) && takes_rows(&text[statement.clone()]);
    wanted.then_some((statement.end + line + 1).min(text.len()))
}

/// Returns the end of rows from `start` on, and the position after the line `\.`, if there is one.
fn rows_end(text: &str, start: usize) -> (usize, Option<usize>) {
    let mut at = start;
    for line in text[start..].split_inclusive('\n') {
        if line.trim_end_matches(['\n', '\r']) == "\\." {
            return (at, Some(at + line.len()));
        }
        at += line.len();
    }
    (at, None)
}

/// Returns true if a statement is `COPY … FROM STDIN …`.
fn takes_rows(statement: &str) -> bool {
    let mut words: Vec<String> = Vec::new();
    let mut depth = 0;
    for piece in scan::pieces(statement).into_iter().filter(|piece| piece.kind != Kind::Comment) {
        let text = &statement[piece.range];
        if piece.kind != Kind::Code {
            words.push(text.into());
            continue;
        }
        for word in text.split_inclusive(|letter: char| !letter.is_alphanumeric() && letter != '_') {
            let bare = word.trim_end_matches(|letter: char| !letter.is_alphanumeric() && letter != '_');
            if depth == 0 && !bare.is_empty() {
                words.push(bare.to_uppercase());
            }
            depth += match word.chars().last() {
                Some('(') => 1,
                Some(')') => -1,
                _ => 0,
            };
        }
    }
    words.first().is_some_and(|word| word == "COPY") && words.windows(2).any(|pair| pair == ["FROM", "STDIN"])
}

/// Returns true if a dot is the first character of its line and a letter follows.
fn is_dot_command(text: &str, place: usize) -> bool {
    let line = text[..place].rfind('\n').map_or(0, |feed| feed + 1);
    text[line..place].trim().is_empty()
        && text[place + 1..].chars().next().is_some_and(|letter| letter.is_ascii_alphabetic())
}

/// Adds the commands that begin at `start`. Returns the end of their line.
fn commands(text: &str, start: usize, items: &mut Vec<Item>) -> usize {
    let end = text[start..].find('\n').map_or(text.len(), |length| start + length);
    let mut at = start;
    loop {
        let name_end = name_end(text, at + 1, end);
        let name = at + 1..name_end;
        let rest = if TAKE_ALL.contains(&&text[name.clone()]) { end } else { another(text, name_end, end) };
        items.push(Item::Command(name, name_end..rest));
        // Two backslashes end a line of commands, as in psql; SQL follows.
        if text[rest..end].starts_with("\\\\") {
            return rest + 2;
        }
        if rest == end {
            return end;
        }
        at = rest;
    }
}

/// Returns the end of a command's name: a word or a symbol.
fn name_end(text: &str, from: usize, end: usize) -> usize {
    let rest = &text[from..end];
    match rest.chars().next() {
        Some(sign @ ('!' | '?')) => from + sign.len_utf8(),
        _ => from + rest.find(|letter: char| letter.is_whitespace() || letter == '\\').unwrap_or(rest.len()),
    }
}

/// Returns the start of the next command in the same line: a backslash outside of quotes.
fn another(text: &str, from: usize, end: usize) -> usize {
    let mut quote = None;
    for (offset, letter) in text[from..end].char_indices() {
        match (quote, letter) {
            (None, '\\') => return from + offset,
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), letter) if letter == open => quote = None,
            _ => {}
        }
    }
    end
}

/// Returns the last statement of a text, without its semicolon; empty if there is none.
pub fn last_statement(text: &str) -> &str {
    let mut starts = vec![0];
    starts.extend(scan::statement_ends(text));
    let mut end = text.len();
    for start in starts.into_iter().rev() {
        let statement = text[start..end].trim();
        if !scan::is_blank(statement) {
            return statement;
        }
        end = start.saturating_sub(1);
    }
    ""
}

/// Returns the end of the last complete statement of a text, behind its semicolon.
pub fn whole_end(text: &str) -> usize {
    scan::statement_ends(text).last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        let shown: Vec<String> = items(text, false)
            .into_iter()
            .map(|item| match item {
                Item::Sql(range) => format!("sql {:?}", &text[range]),
                Item::Command(name, rest) => format!("{} {:?}", &text[name], text[rest].trim()),
                Item::Rows(rows, ended) => format!("rows {:?} {ended}", &text[rows]),
            })
            .collect();
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn commands_are_told_from_sql() {
        check("SELECT 1;", &["sql \"SELECT 1;\""]);
        check("\\d orders", &["d \"orders\""]);
        check("\\d\nSELECT 1;\n\\q", &["d \"\"", "sql \"\\nSELECT 1;\\n\"", "q \"\""]);
        check("SELECT 1 \\gx", &["sql \"SELECT 1 \"", "gx \"\""]);
        check("\\x \\timing on", &["x \"\"", "timing \"on\""]);
        check("\\i 'a\\b.sql' \\x", &["i \"'a\\\\b.sql'\"", "x \"\""]);
        check("\\! echo \\n", &["! \"echo \\\\n\""]);
        check("\\?", &["? \"\""]);
        check("\\x \\\\ SELECT 1", &["x \"\"", "sql \" SELECT 1\""]);
    }

    #[test]
    fn rows_stand_behind_their_copy() {
        check(
            "SELECT 1; copy t (a, \"from\") from stdin (FORMAT csv); -- rows\n1;\\d\n\\.\nSELECT 2;",
            &[
                "sql \"SELECT 1; copy t (a, \\\"from\\\") from stdin (FORMAT csv);\"",
                "rows \"1;\\\\d\\n\" true",
                "sql \"SELECT 2;\"",
            ],
        );
        check("COPY t FROM STDIN;\n1\n", &["sql \"COPY t FROM STDIN;\"", "rows \"1\\n\" false"]);
        check("COPY t FROM STDIN;", &["sql \"COPY t FROM STDIN;\"", "rows \"\" false"]);
        check("COPY t FROM STDIN;\n\\.", &["sql \"COPY t FROM STDIN;\"", "rows \"\" true"]);
        for other in ["COPY (SELECT 1 FROM STDIN) TO STDOUT;\n1;", "SELECT 'COPY FROM STDIN';\n1;"] {
            check(other, &[&format!("sql {other:?}")]);
        }
    }

    #[test]
    fn strings_and_comments_have_no_commands() {
        for text in ["SELECT '\\d'", "SELECT 1 -- \\d", "/* \\d */ SELECT $$ \\d $$", "SELECT \"\\d\""] {
            check(text, &[&format!("sql {text:?}")]);
        }
    }

    #[test]
    fn dots_are_commands_at_the_start_of_a_statement_only() {
        check(".mode csv\nSELECT 1;", &["mode \"csv\"", "sql \"\\nSELECT 1;\""]);
        check("SELECT t\n.mode FROM t", &["sql \"SELECT t\\n.mode FROM t\""]);
        check("SELECT 1;\n.help", &["sql \"SELECT 1;\\n\"", "help \"\""]);
        check("SELECT 1 \\g\n.mode csv", &["sql \"SELECT 1 \"", "g \"\"", "sql \"\\n\"", "mode \"csv\""]);
        check("SELECT 1; .5", &["sql \"SELECT 1; .5\""]);
    }

    #[test]
    fn the_last_statement_is_found() {
        assert_eq!(last_statement("SELECT 1; SELECT ';' ; -- x"), "SELECT ';'");
        assert_eq!(last_statement("SELECT 2"), "SELECT 2");
        assert_eq!(last_statement(" ; -- x"), "");
        assert_eq!(whole_end("SELECT 1; SELECT ';'"), 9);
        assert_eq!(whole_end("SELECT 1 -- ;"), 0);
        let set = "EXECUTE STATEMENT SET BEGIN INSERT INTO a VALUES (1); END";
        assert_eq!(whole_end(set), 0);
        assert_eq!(last_statement(&format!("SELECT 1; {set};")), set);
    }
}
