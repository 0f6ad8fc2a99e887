//! Describes the open part of a statement in words, for the prompt of the next line.

use crate::scan::{self, Kind};

/// Returns what `text` still needs to be run.
pub fn open(text: &str) -> &'static str {
    let pieces = scan::pieces(text);
    if let Some(piece) = pieces.last().filter(|piece| piece.open) {
        let start = &text[piece.range.clone()];
        return match piece.kind {
            Kind::Text if start.starts_with('$') => "in a dollar-quoted text",
            Kind::Text => "in a text: ' ends it",
            Kind::Name if start.starts_with('`') => "in a name: ` ends it",
            Kind::Name => "in a quoted name: \" ends it",
            Kind::Comment if start.starts_with("/*") => "in a comment: */ ends it",
            Kind::Comment | Kind::Code => "; runs it",
        };
    }
    let signs = pieces
        .iter()
        .filter(|piece| piece.kind == Kind::Code)
        .flat_map(|piece| text[piece.range.clone()].chars());
    let depth = signs.fold(0_i32, |depth, sign| match sign {
        '(' => depth + 1,
        ')' => depth - 1,
        ';' => 0,
        _ => depth,
    });
    if depth > 0 { "in a parenthesis" } else { "; runs it" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_said() {
        assert_eq!(open("SELECT 'a\n"), "in a text: ' ends it");
        assert_eq!(open("SELECT \"a\n"), "in a quoted name: \" ends it");
        assert_eq!(open("SELECT $a$ x\n"), "in a dollar-quoted text");
        assert_eq!(open("SELECT /* a\n"), "in a comment: */ ends it");
        assert_eq!(open("SELECT f(1, (2)\n"), "in a parenthesis");
        assert_eq!(open("SELECT f(1)\n"), "; runs it");
    }
}
