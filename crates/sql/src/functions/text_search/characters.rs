//! The classes of characters that tokens consist of, as in PostgreSQL with the locale C.UTF-8.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// True for letters, and for digits of other scripts.
pub(super) fn is_alpha(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphabetic();
    }
    // Letters above others are marks.
    let is_small_mark = matches!(c, '\u{363}'..='\u{36f}' | '\u{1dd3}'..='\u{1de6}');
    (c.is_alphabetic() && !is_small_mark) || c.general_category() == GeneralCategory::DecimalNumber
}

/// True for marks that belong to the letter before them.
pub(super) fn is_mark(c: char) -> bool {
    use GeneralCategory::{EnclosingMark, NonspacingMark, SpacingMark};
    !c.is_ascii() && matches!(c.general_category(), NonspacingMark | EnclosingMark | SpacingMark)
}

/// True for the characters that may be in the path of a URL.
pub(super) fn is_url(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')
}

/// True for blanks.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// Returns a text in lower case, character by character.
pub(super) fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().map(lower_char).collect()
}

fn lower_char(c: char) -> char {
    if c == '\u{130}' {
        return 'i';
    }
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) => single,
        _ => c,
    }
}
