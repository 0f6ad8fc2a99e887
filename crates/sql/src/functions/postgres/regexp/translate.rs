//! Translates PostgreSQL's regular expressions to those of the crates `regex` and `fancy-regex`.
//!
//! Syntax that `regex` has in common with them is copied, its own groups `(?i:…)` and `(?P<name>…)` included. Back
//! references and lookaround need `fancy-regex`: `regex` guarantees a time linear in the text, which excludes them.

use std::str::Chars;

use super::bracket;
use super::options::{Options, Syntax};
use crate::error::{Error, Result};
use crate::sqlstate;

/// The greatest bound of a repetition.
const BOUND_MAX: u32 = 255;

/// A translated pattern.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    pub(super) text: String,
    /// True if the pattern has back references or lookaround.
    pub(super) backtracks: bool,
}

/// Returns the translation of a pattern with the options of a call.
pub(super) fn translate(pattern: &str, mut options: Options) -> Result<Translated> {
    let body = options.embedded(pattern);
    let mut translator = Translator {
        pattern,
        options,
        chars: body.chars(),
        out: String::new(),
        groups: 0,
        open: Vec::new(),
        dots: false,
        backtracks: false,
    };
    match options.syntax {
        Syntax::Literal => translator.out = regex::escape(body),
        Syntax::Basic => translator.basic()?,
        Syntax::Advanced | Syntax::Extended => translator.advanced()?,
    }
    let Translator { out, dots, backtracks, .. } = translator;
    let mut flags = String::new();
    if options.ignore_case == Some(true) {
        flags.push('i');
    }
    if dots {
        flags.push('s');
    }
    if options.anchors {
        flags.push('m');
    }
    if options.ignore_case == Some(false) {
        flags.push_str("-i");
    }
    let text = if flags.is_empty() { out } else { format!("(?{flags}){out}") };
    Ok(Translated { text, backtracks })
}

/// Returns the error of a pattern.
pub(super) fn wrong(pattern: &str, problem: &str) -> Error {
    Error::invalid(format!("'{pattern}' is no regular expression: {problem}"))
        .code(sqlstate::INVALID_REGULAR_EXPRESSION)
}

struct Translator<'a> {
    pattern: &'a str,
    options: Options,
    chars: Chars<'a>,
    out: String,
    /// The groups so far.
    groups: u32,
    /// The parentheses that are open, each true if it lies within lookaround.
    open: Vec<bool>,
    /// True if a `.` matches any character.
    dots: bool,
    /// True if there are back references or lookaround.
    backtracks: bool,
}

impl Translator<'_> {
    fn wrong(&self, problem: &str) -> Error {
        wrong(self.pattern, problem)
    }

    fn starts_with(&self, text: &str) -> bool {
        self.chars.as_str().starts_with(text)
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.chars.next();
        }
    }

    /// Writes a character that stands for itself.
    fn literal(&mut self, c: char) {
        let mut buffer = [0; 4];
        self.out.push_str(&regex::escape(c.encode_utf8(&mut buffer)));
    }

    /// Writes a pattern for any character.
    fn any(&mut self) {
        self.out.push('.');
        self.dots = true;
    }

    fn code(&mut self, code: u32) -> Result<()> {
        match char::from_u32(code) {
            Some(c) if c.is_ascii_graphic() => self.literal(c),
            Some(_) => self.out.push_str(&format!("\\x{{{code:X}}}")),
            None => return Err(self.wrong(&format!("there is no character {code:X}"))),
        }
        Ok(())
    }

    fn advanced(&mut self) -> Result<()> {
        while let Some(c) = self.chars.next() {
            match c {
                '\\' if self.options.syntax == Syntax::Advanced => self.escape()?,
                '\\' => match self.chars.next() {
                    Some(c) => self.literal(c),
                    None => return Err(self.wrong("it ends with a backslash")),
                },
                '[' => self.bracket()?,
                '(' => self.group(),
                ')' => {
                    self.open.pop();
                    self.out.push(')');
                }
                '{' => match self.chars.as_str().starts_with(|c: char| c.is_ascii_digit()) {
                    true => self.bound("}")?,
                    false => self.out.push_str("\\{"),
                },
                '}' => self.out.push_str("\\}"),
                '.' if self.options.lines => self.out.push_str("[^\\n]"),
                '#' if self.options.expanded => while self.chars.next().is_some_and(|c| c != '\n') {},
                '.' => self.any(),
                c if self.options.expanded && c.is_whitespace() => {}
                c => self.out.push(c),
            }
        }
        Ok(())
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<()> {
        let Some(c) = self.chars.next() else { return Err(self.wrong("it ends with a backslash")) };
        match c {
            'm' => self.out.push_str("\\b{start}"),
            'M' => self.out.push_str("\\b{end}"),
            'y' => self.out.push_str("\\b"),
            'Y' => self.out.push_str("\\B"),
            'Z' => self.out.push_str("\\z"),
            '1'..='9' => self.reference(c)?,
            // A class of Unicode, which only `regex` has.
            'p' | 'P' if self.starts_with("{") => {
                let rest = self.chars.as_str();
                let end = rest.find('}').map_or(rest.len(), |end| end + 1);
                self.out.extend(['\\', c]);
                self.out.push_str(&rest[..end]);
                self.chars = rest[end..].chars();
            }
            c => {
                if let Some(code) = character(c, &mut self.chars) {
                    return self.code(code);
                }
                match c.is_ascii_alphanumeric() {
                    // Classes, and escapes that only `regex` has.
                    true => self.out.extend(['\\', c]),
                    false => self.literal(c),
                }
            }
        }
        Ok(())
    }

    /// Reads a back reference, or a character's number in octal digits.
    fn reference(&mut self, first: char) -> Result<()> {
        let rest = self.chars.as_str();
        let more = rest.chars().take(2).take_while(|c| c.is_digit(8)).count();
        let digits = format!("{first}{}", &rest[..more]);
        let number: u32 = digits.parse().unwrap_or(u32::MAX);
        let code = u32::from_str_radix(&digits, 8).ok().filter(|_| more > 0 && number > self.groups);
        if let Some(code) = code {
            self.skip(more);
            return self.code(code);
        }
        let (group, read) = if number <= self.groups { (number, more) } else { (u32::from(first) - 48, 0) };
        if group > self.groups {
            return Err(self.wrong(&format!("there is no group {group} before \\{group}")));
        }
        self.skip(read);
        self.out.push_str(&format!("(?:\\{group})"));
        self.backtracks = true;
        Ok(())
    }

    fn bracket(&mut self) -> Result<()> {
        for (written, border) in [("[:<:]]", "\\b{start}"), ("[:>:]]", "\\b{end}")] {
            if self.starts_with(written) {
                self.skip(written.len());
                self.out.push_str(border);
                return Ok(());
            }
        }
        let escapes = self.options.syntax == Syntax::Advanced;
        let class = bracket::translate(&mut self.chars, escapes, self.options.lines)
            .map_err(|problem| self.wrong(&problem))?;
        self.out.push_str(&class);
        Ok(())
    }

    fn group(&mut self) {
        let is_within = self.open.last().copied().unwrap_or(false);
        let is_advanced = self.options.syntax == Syntax::Advanced;
        if is_advanced && self.starts_with("?#") {
            while self.chars.next().is_some_and(|c| c != ')') {}
            return;
        }
        if is_advanced && self.starts_with("?") {
            let is_around = ["?=", "?!", "?<=", "?<!"].iter().any(|around| self.starts_with(around));
            self.backtracks |= is_around;
            self.open.push(is_within || is_around);
            self.out.push('(');
            return;
        }
        self.open.push(is_within);
        // Groups within lookaround have no number.
        self.out.push_str(if is_within { "(?:" } else { "(" });
        self.groups += u32::from(!is_within);
    }

    /// Copies the bounds of a repetition.
    fn bound(&mut self, closing: &str) -> Result<()> {
        let rest = self.chars.as_str();
        let Some((bounds, _)) = rest.split_once(closing) else {
            return Err(self.wrong("braces {} are not balanced"));
        };
        let (least, most) = bounds.split_once(',').unwrap_or((bounds, bounds));
        let number = |text: &str| text.parse::<u32>().ok().filter(|bound| *bound <= BOUND_MAX);
        let valid = match (number(least), number(most)) {
            (Some(_), None) => most.is_empty(),
            (Some(least), Some(most)) => least <= most,
            _ => false,
        };
        if !valid {
            return Err(self.wrong(&format!(
                "the repetition count {{{bounds}}} is invalid; counts go up to {BOUND_MAX}"
            )));
        }
        self.skip(bounds.chars().count() + closing.len());
        self.out.push_str(&format!("{{{bounds}}}"));
        Ok(())
    }

    /// Translates a basic regular expression, with `\(…\)` and `\{…\}`.
    fn basic(&mut self) -> Result<()> {
        let mut at_start = true;
        while let Some(c) = self.chars.next() {
            let starts = std::mem::take(&mut at_start);
            match c {
                '\\' => match self.chars.next() {
                    Some('(') => {
                        self.out.push('(');
                        self.groups += 1;
                        at_start = true;
                    }
                    Some(')') => self.out.push(')'),
                    Some('{') => self.bound("\\}")?,
                    Some('<') => self.out.push_str("\\b{start}"),
                    Some('>') => self.out.push_str("\\b{end}"),
                    Some(digit @ '1'..='9') => self.reference(digit)?,
                    Some(c) => self.literal(c),
                    None => return Err(self.wrong("it ends with a backslash")),
                },
                '[' => self.bracket()?,
                '*' if !starts => self.out.push('*'),
                '^' if starts => {
                    self.out.push('^');
                    at_start = true;
                }
                '$' if self.chars.as_str().is_empty() || self.starts_with("\\)") => self.out.push('$'),
                '.' if self.options.lines => self.out.push_str("[^\\n]"),
                '.' => self.any(),
                c => self.literal(c),
            }
        }
        Ok(())
    }
}

/// Reads an escape for one character, whose letter has been read. None if it is no such escape.
pub(super) fn character(letter: char, rest: &mut Chars<'_>) -> Option<u32> {
    let mut digits = |radix: u32, most: usize| {
        let text = rest.as_str();
        let count = text.chars().take(most).take_while(|c| c.is_digit(radix)).count();
        let number = u32::from_str_radix(&text[..count], radix).ok()?;
        *rest = text[count..].chars();
        Some(number)
    };
    Some(match letter {
        'a' => 7,
        'b' => 8,
        'B' => u32::from('\\'),
        'e' => 27,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        'u' => digits(16, 4)?,
        'U' => digits(16, 8)?,
        'x' => digits(16, 8)?,
        '0' => digits(8, 2).unwrap_or(0),
        'c' => u32::from(rest.next()?) & 31,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: &str) {
        let translated = translate(pattern, Options::default()).unwrap();
        assert_eq!(translated, Translated { text: expected.into(), backtracks: false }, "{pattern}");
        regex::Regex::new(&translated.text).unwrap();
    }

    #[test]
    fn patterns_are_those_of_the_crate_regex() {
        check("abc", "abc");
        check("a.c", "(?s)a.c");
        check("a{b", "a\\{b");
        check("a{1,2}?b", "a{1,2}?b");
        check("\\mab\\M \\y\\Y\\Z", "\\b{start}ab\\b{end} \\b\\B\\z");
        check("[[:<:]]cd[[:>:]]", "\\b{start}cd\\b{end}");
        check("\\d\\101\\10\\x41\\cA\\0", "\\dA\\x{8}A\\x{1}\\x{0}");
        check("(?b)a+\\(b\\)*$", "a\\+(b)*$");
        check("(?q)a.b", "a\\.b");
        check("***=a.b", "a\\.b");
        check("(?i)a", "(?i)a");
        check("(?n)^a.b[^c]$", "(?m)^a[^\\n]b[^c\\n]$");
        check("(?x)a b # comment", "ab");
        check("(?e)\\d", "d");
        check("[]a]", "[\\]a]");
        check("^\\p{Arabic}+$", "^\\p{Arabic}+$");
        check("[^a-c\\d[:alpha:][.x.][=y=]-]", "[^a-c\\d\\p{Alphabetic}xy\\-]");
    }

    #[test]
    fn other_patterns_are_refused() {
        for pattern in ["(ab)\\2", "a\\", "a{2,1}", "a{1000}", "a{2", "[a", "[b-a]", "[[.xy.]]"] {
            assert!(translate(pattern, Options::default()).is_err(), "{pattern}");
        }
        assert!(Options::of_flags("z").is_err());
    }
}
