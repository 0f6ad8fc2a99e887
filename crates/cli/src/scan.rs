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

/// Returns true if `text` can be run: no piece is open and it ends with a semicolon, or it is blank.
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
    matches!(last, None | Some(';'))
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
        for complete in
            ["", "  \n", "SELECT 1;", "SELECT 1; -- done", "SELECT 1;\n\n", "-- only", "SELECT ';' ;/* a */"]
        {
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
        ] {
            assert!(!is_complete(open), "{open:?}");
        }
    }

    #[test]
    fn blank_is_white_space_and_comments() {
        assert!(is_blank(" -- x\n/* y */ "));
        assert!(!is_blank(" -- x\n;"));
    }
}
