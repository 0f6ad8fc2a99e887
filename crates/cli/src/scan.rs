//! Splits SQL text into code, strings, quoted names and comments.
//!
//! The scanner knows just enough SQL to find the end of a typed statement and the places where variables
//! are allowed. Only the engine knows the meaning of the text.

use std::ops::Range;

/// The kind of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keywords, names, numbers, operators, white space.
    Code,
    /// `'…'`, `E'…'` without its E, or `$tag$…$tag$`.
    Text,
    /// `"…"` or a name in backticks.
    Name,
    /// `-- …` up to the end of the line, or `/* … */`, which nest.
    Comment,
}

/// A range of text of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its kind.
    pub kind: Kind,
    /// Its range in bytes.
    pub range: Range<usize>,
    /// True if the text ended before the piece did.
    pub open: bool,
}

/// Returns the pieces of `text`, in order and without gaps.
pub fn pieces(text: &str) -> Vec<Piece> {
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let mut code = 0;
    let mut at = 0;
    while at < bytes.len() {
        let Some((kind, end, open)) = special(bytes, at) else {
            at += 1;
            continue;
        };
        if code < at {
            pieces.push(Piece { kind: Kind::Code, range: code..at, open: false });
        }
        pieces.push(Piece { kind, range: at..end, open });
        at = end;
        code = end;
    }
    if code < bytes.len() {
        pieces.push(Piece { kind: Kind::Code, range: code..bytes.len(), open: false });
    }
    pieces
}

/// Returns true if `text` can be run: no piece is open and it ends with a statement's semicolon, or it is blank. A semicolon
/// within `BEGIN ATOMIC … END` doesn't count.
pub fn is_complete(text: &str) -> bool {
    let pieces = pieces(text);
    let mut last = None;
    for piece in &pieces {
        match piece.kind {
            // An open line comment at the very end only lacks a line break.
            Kind::Comment if !text[piece.range.clone()].starts_with("--") && piece.open => return false,
            Kind::Comment => {}
            Kind::Text | Kind::Name if piece.open => return false,
            Kind::Text | Kind::Name => last = Some('x'),
            Kind::Code => last = text[piece.range.clone()].trim_end().chars().last().or(last),
        }
    }
    match last {
        None => true,
        Some(';') => statement_ends(text).last().is_some_and(|end| is_blank(&text[*end..])),
        Some(_) => false,
    }
}

/// Follows `BEGIN ATOMIC … END`.
#[derive(Default)]
struct AtomicBlock {
    /// The number of open blocks and CASEs.
    depth: usize,
    /// True after BEGIN.
    begins: bool,
}

impl AtomicBlock {
    /// Reads a word of code.
    fn read(&mut self, word: &str) {
        let begins = std::mem::replace(&mut self.begins, word.eq_ignore_ascii_case("BEGIN"));
        match self.depth {
            0 if begins && word.eq_ignore_ascii_case("ATOMIC") => self.depth = 1,
            0 => {}
            _ if word.eq_ignore_ascii_case("CASE") => self.depth += 1,
            _ if word.eq_ignore_ascii_case("END") => self.depth -= 1,
            _ => {}
        }
    }
}

/// The statements of Flink that may contain a statement set.
const BEFORE_SETS: [&str; 3] = ["EXECUTE", "EXPLAIN", "COMPILE"];

/// The words that begin a statement set.
const SET_BEGINS: [&str; 3] = ["STATEMENT", "SET", "BEGIN"];

/// Returns the positions behind the semicolons that end statements, in order. The semicolons within a statement set of
/// Flink don't: `EXECUTE STATEMENT SET BEGIN …; …; END;`.
pub fn statement_ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let (mut is_in_set, mut block) = (false, AtomicBlock::default());
    for piece in pieces(text) {
        match piece.kind {
            Kind::Comment => continue,
            // No keyword.
            Kind::Text | Kind::Name => {
                words.push("");
                continue;
            }
            Kind::Code => {}
        }
        let is_in_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let mut at = piece.range.start;
        for part in text[piece.range].split_inclusive(|letter: char| !is_in_word(letter)) {
            at += part.len();
            let word = part.trim_end_matches(|letter: char| !is_in_word(letter));
            if !word.is_empty() {
                words.push(word);
                block.read(word);
            }
            if part.ends_with(';') && block.depth == 0 {
                if !words.is_empty() {
                    is_in_set = continues_set(&words, is_in_set);
                    words.clear();
                }
                if !is_in_set {
                    ends.push(at);
                }
            }
        }
    }
    ends
}

/// Returns true if the text after these words and a semicolon belongs to a statement set. `is_in_set`: true if the words
/// do.
fn continues_set(words: &[&str], is_in_set: bool) -> bool {
    let is = |at: usize, word: &str| words.get(at).is_some_and(|found| found.eq_ignore_ascii_case(word));
    if is_in_set {
        return !is(0, "END");
    }
    if !BEFORE_SETS.iter().any(|word| is(0, word)) {
        return false;
    }
    let begins = |at: &usize| SET_BEGINS.iter().enumerate().all(|(next, word)| is(at + next, word));
    (1..words.len()).find(begins).is_some_and(|at| !is(at + SET_BEGINS.len(), "END"))
}

/// Returns true if `text` has white space and comments only.
pub fn is_blank(text: &str) -> bool {
    pieces(text).iter().all(|piece| match piece.kind {
        Kind::Comment => true,
        Kind::Code => text[piece.range.clone()].trim().is_empty(),
        Kind::Text | Kind::Name => false,
    })
}

/// Returns true if `byte` may be part of a name. All bytes beyond ASCII may.
pub fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Returns the string, quoted name or comment that starts at `at`: its kind, its end, and true if it is
/// open.
fn special(bytes: &[u8], at: usize) -> Option<(Kind, usize, bool)> {
    match bytes[at] {
        b'\'' => {
            let (end, open) = quoted(bytes, at, has_escapes(bytes, at));
            Some((Kind::Text, end, open))
        }
        b'"' | b'`' => {
            let (end, open) = quoted(bytes, at, false);
            Some((Kind::Name, end, open))
        }
        b'-' if bytes.get(at + 1) == Some(&b'-') => {
            let length = bytes[at..].iter().position(|byte| *byte == b'\n');
            Some((Kind::Comment, length.map_or(bytes.len(), |length| at + length), length.is_none()))
        }
        b'/' if bytes.get(at + 1) == Some(&b'*') => {
            let (end, open) = block_comment(bytes, at);
            Some((Kind::Comment, end, open))
        }
        b'$' if at == 0 || !is_name_byte(bytes[at - 1]) => {
            dollar_quoted(bytes, at).map(|(end, open)| (Kind::Text, end, open))
        }
        _ => None,
    }
}

/// Returns true if the string that starts at `at` has an E before it, so that a backslash escapes.
fn has_escapes(bytes: &[u8], at: usize) -> bool {
    at >= 1 && matches!(bytes[at - 1], b'e' | b'E') && (at == 1 || !is_name_byte(bytes[at - 2]))
}

fn quoted(bytes: &[u8], start: usize, escapes: bool) -> (usize, bool) {
    let quote = bytes[start];
    let mut at = start + 1;
    while at < bytes.len() {
        if bytes[at] == b'\\' && escapes {
            at += 2;
        } else if bytes[at] != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return (at + 1, false);
        }
    }
    (bytes.len(), true)
}

fn block_comment(bytes: &[u8], start: usize) -> (usize, bool) {
    let mut depth = 1;
    let mut at = start + 2;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            (b'*', Some(b'/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return (at, false);
                }
            }
            _ => at += 1,
        }
    }
    (bytes.len(), true)
}

fn dollar_quoted(bytes: &[u8], start: usize) -> Option<(usize, bool)> {
    let length = bytes[start + 1..].iter().position(|byte| !is_name_byte(*byte))?;
    let tag_end = start + 1 + length;
    // `$1` is a parameter, and a tag never starts with a digit.
    if bytes[tag_end] != b'$' || bytes[start + 1].is_ascii_digit() {
        return None;
    }
    let tag = &bytes[start..=tag_end];
    let rest = &bytes[tag_end + 1..];
    let found = rest.windows(tag.len()).position(|window| window == tag);
    Some(found.map_or((bytes.len(), true), |length| (tag_end + 1 + length + tag.len(), false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        pieces(text).into_iter().map(|piece| (piece.kind, &text[piece.range])).collect()
    }

    #[test]
    fn pieces_are_told_apart() {
        assert_eq!(
            kinds("SELECT 'a''b;', \"x\"\"y\" -- c;\n/* a /* b */ ; */ + E'\\'' || $q$ ; $q$;"),
            [
                (Kind::Code, "SELECT "),
                (Kind::Text, "'a''b;'"),
                (Kind::Code, ", "),
                (Kind::Name, "\"x\"\"y\""),
                (Kind::Code, " "),
                (Kind::Comment, "-- c;"),
                (Kind::Code, "\n"),
                (Kind::Comment, "/* a /* b */ ; */"),
                (Kind::Code, " + E"),
                (Kind::Text, "'\\''"),
                (Kind::Code, " || "),
                (Kind::Text, "$q$ ; $q$"),
                (Kind::Code, ";"),
            ]
        );
        assert_eq!(kinds("a$b$c"), [(Kind::Code, "a$b$c")]);
        assert_eq!(kinds("$1 + $2"), [(Kind::Code, "$1 + $2")]);
        assert_eq!(kinds("$"), [(Kind::Code, "$")]);
        assert_eq!(kinds("'größe' € -"), [(Kind::Text, "'größe'"), (Kind::Code, " € -")]);
        assert_eq!(kinds(""), []);
    }

    #[test]
    fn input_is_complete_at_its_semicolon() {
        for complete in [
            "",
            "  \n",
            "SELECT 1;",
            "SELECT 1; -- done",
            "SELECT 1;\n\n",
            "SELECT 1;;",
            "-- only",
            "SELECT ';' ;/* a */",
            "EXECUTE STATEMENT SET BEGIN INSERT INTO a VALUES (1); END;",
        ] {
            assert!(is_complete(complete), "{complete:?}");
        }
        for open in [
            "SELECT 1",
            "SELECT ';",
            "SELECT \";",
            "SELECT 1 /* ;",
            "SELECT 1; SELECT",
            "SELECT $a$;",
            "SELECT 'a'",
            "SELECT 1 -- ;",
            "EXECUTE STATEMENT SET BEGIN INSERT INTO a VALUES (1);",
            "EXECUTE STATEMENT SET BEGIN INSERT INTO a VALUES (1); END",
            "CREATE FUNCTION f() RETURNS INT BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END;",
        ] {
            assert!(!is_complete(open), "{open:?}");
        }
    }

    #[test]
    fn a_statement_set_ends_at_its_last_semicolon() {
        let set = "execute statement set begin SELECT CASE WHEN x THEN 1 END; VALUES ('; END;'); END;";
        assert_eq!(statement_ends(set), [set.len()]);
        assert_eq!(statement_ends("a; b;"), [2, 5]);
        assert_eq!(statement_ends("EXECUTE STATEMENT SET BEGIN END; b"), [32]);
        assert_eq!(statement_ends("EXECUTE p; END; BEGIN STATEMENT SET; c"), [10, 15, 36]);
    }

    #[test]
    fn blank_is_white_space_and_comments() {
        assert!(is_blank(" -- x\n/* y */ "));
        assert!(!is_blank(" -- x\n;"));
    }
}
