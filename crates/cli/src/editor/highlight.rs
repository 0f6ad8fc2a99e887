//! Colours for the typed text: keywords, strings, numbers, comments, commands, matching parentheses.

use std::fmt::Write;
use std::ops::Range;

use crate::editor::words::is_keyword;
use crate::scan::{self, Kind};
use crate::split::{self, Item};

const KEYWORD: &str = "\x1b[1;34m";
const TEXT: &str = "\x1b[32m";
const NUMBER: &str = "\x1b[36m";
const COMMENT: &str = "\x1b[2m";
const COMMAND: &str = "\x1b[35m";
const MATCH: &str = "\x1b[1;33m";
const END: &str = "\x1b[0m";

/// A range of text with its colour.
type Painted = (Range<usize>, &'static str);

/// Returns the text with colours. `cursor` is the cursor's position, if a parenthesis there is to be
/// matched.
pub fn highlight(text: &str, inside: bool, cursor: Option<usize>) -> String {
    let mut painted = Vec::new();
    for item in split::items(text, inside) {
        match item {
            Item::Sql(range) => sql(text, range, &mut painted),
            Item::Rows(..) => {}
            Item::Command(name, rest) => {
                painted.push((name.start.saturating_sub(1)..name.end, COMMAND));
                if &text[name] == "live" {
                    sql(text, rest, &mut painted);
                }
            }
        }
    }
    if let Some((one, other)) = cursor.and_then(|cursor| matching(text, cursor)) {
        painted.retain(|(range, _)| !range.contains(&one) && !range.contains(&other));
        painted.extend([(one..one + 1, MATCH), (other..other + 1, MATCH)]);
    }
    painted.sort_by_key(|(range, _)| range.start);
    let mut result = String::with_capacity(text.len() * 2);
    let mut at = 0;
    for (range, color) in painted {
        let _ = write!(result, "{}{color}{}{END}", &text[at..range.start], &text[range.clone()]);
        at = range.end;
    }
    result.push_str(&text[at..]);
    result
}

fn sql(text: &str, part: Range<usize>, painted: &mut Vec<Painted>) {
    for piece in scan::pieces(&text[part.clone()]) {
        let range = part.start + piece.range.start..part.start + piece.range.end;
        match piece.kind {
            Kind::Code => code(text, range, painted),
            Kind::Text => painted.push((range, TEXT)),
            Kind::Comment => painted.push((range, COMMENT)),
            Kind::Name => {}
        }
    }
}

fn code(text: &str, part: Range<usize>, painted: &mut Vec<Painted>) {
    let bytes = text.as_bytes();
    let mut at = part.start;
    while at < part.end {
        if !scan::is_name_byte(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        let is_number = bytes[at].is_ascii_digit();
        while at < part.end && (scan::is_name_byte(bytes[at]) || (is_number && bytes[at] == b'.')) {
            at += 1;
        }
        // A name after a dot is a column, even if it is a keyword.
        let qualified = start > 0 && bytes[start - 1] == b'.';
        if is_number {
            painted.push((start..at, NUMBER));
        } else if !qualified && is_keyword(&text[start..at]) {
            painted.push((start..at, KEYWORD));
        }
    }
}

/// Returns the parenthesis at the cursor or right before it, and the matching one.
fn matching(text: &str, cursor: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let is_one = |at: &usize| matches!(bytes.get(*at), Some(b'(' | b')' | b'[' | b']'));
    let place = [Some(cursor), cursor.checked_sub(1)].into_iter().flatten().find(is_one)?;
    let pieces = scan::pieces(text);
    let code = pieces.iter().filter(|piece| piece.kind == Kind::Code);
    let all: Vec<usize> = code.flat_map(|piece| piece.range.clone()).filter(is_one).collect();
    let mut open: Vec<usize> = Vec::new();
    for at in all {
        if matches!(bytes[at], b'(' | b'[') {
            open.push(at);
            continue;
        }
        let partner = if bytes[at] == b')' { b'(' } else { b'[' };
        let Some(start) = open.pop_if(|start| bytes[*start] == partner) else { continue };
        if start == place || at == place {
            return Some((start, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, cursor: Option<usize>, expect: &str) {
        let shown = highlight(text, false, cursor);
        let names = [
            (KEYWORD, "<k:"),
            (TEXT, "<t:"),
            (NUMBER, "<n:"),
            (COMMENT, "<c:"),
            (COMMAND, "<m:"),
            (MATCH, "<p:"),
            (END, ">"),
        ];
        let marked = names.iter().fold(shown, |text, (color, name)| text.replace(color, name));
        assert_eq!(marked, expect);
    }

    #[test]
    fn parts_have_their_colours() {
        check("select a1, 1.5e3 FROM t -- x", None, "<k:select> a1, <n:1.5e3> <k:FROM> t <c:-- x>");
        check("SELECT 'a", None, "<k:SELECT> <t:'a>");
        check("SELECT t.from, \"select\"", None, "<k:SELECT> t.from, \"select\"");
        check("\\d orders", None, "<m:\\d> orders");
        check(".mode csv", None, "<m:.mode> csv");
    }

    #[test]
    fn parentheses_match() {
        check("f(a, (b), ')')", Some(1), "f<p:(>a, (b), <t:')'><p:)>");
        check("f(a, (b))", Some(9), "f<p:(>a, (b)<p:)>");
        check("f(a", Some(1), "f(a");
        check("größe(1)", Some("größe(1)".len()), "größe<p:(><n:1><p:)>");
    }
}
