//! Splits a text into tokens: words, numbers, hosts, tags and others.
//!
//! The tokens are those of PostgreSQL's default parser. The lexer takes the first step of a state whose condition holds,
//! and goes back to other steps if a token can't be completed. It remembers long attempts that failed, so the time is
//! linear in the length of the text.

use std::collections::HashSet;

use super::characters::{is_alpha, is_mark, is_space, is_url};
use super::grammar::{On, State, Step, steps};
use super::token::Kind;

/// A token of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
}

/// The shortest attempt in bytes that is remembered if it fails.
const REMEMBERED_MIN: usize = 32;

/// A way back.
#[derive(Debug, Clone, Copy)]
struct Back {
    state: State,
    step: usize,
    at: usize,
    /// The state and the place of the attempt.
    tried: (State, usize),
}

/// Reads the tokens of a text.
#[derive(Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    /// The beginning of the next token.
    start: usize,
    state: State,
    /// True within a script or a style sheet.
    is_code: bool,
    host_only: bool,
    back: Vec<Back>,
    failed: HashSet<(State, usize)>,
    /// True if the last comment isn't closed: then no later one is.
    is_unclosed: bool,
}

impl<'t> Lexer<'t> {
    /// Creates a lexer.
    pub(super) fn new(text: &'t str) -> Lexer<'t> {
        Lexer::at(text, 0, State::Base, false)
    }

    fn at(text: &'t str, start: usize, state: State, host_only: bool) -> Lexer<'t> {
        Lexer {
            text,
            start,
            state,
            is_code: false,
            host_only,
            back: Vec::new(),
            failed: HashSet::new(),
            is_unclosed: false,
        }
    }

    fn char(&self, at: usize) -> Option<char> {
        self.text.get(at..)?.chars().next()
    }

    /// Returns true if a condition holds. Conditions that read a host or a path move the place behind it.
    fn holds(&mut self, on: On, at: &mut usize) -> bool {
        let Some(next) = self.char(*at) else { return matches!(on, On::End | On::Any) };
        match on {
            On::End => false,
            On::Is(characters) => characters.contains(next),
            On::Letter => next.is_ascii_alphabetic(),
            On::Alpha => is_alpha(next),
            On::Digit => next.is_ascii_digit(),
            On::Hex => next.is_ascii_hexdigit(),
            On::Alnum => next.is_ascii_digit() || is_alpha(next),
            On::Mark => is_mark(next),
            On::Space => is_space(next),
            On::Url => is_url(next),
            On::Code => self.is_code,
            On::HostOnly => std::mem::take(&mut self.host_only),
            On::Host => self.passes(at, State::Base, true, Kind::Host),
            On::Path => self.passes(at, State::UrlPathFirst, false, Kind::UrlPath),
            On::Any => true,
        }
    }

    /// Moves the place behind a token of a kind, if there is one.
    fn passes(&self, at: &mut usize, state: State, host_only: bool, kind: Kind) -> bool {
        let mut within = Lexer::at(self.text, *at, state, host_only);
        match within.next() {
            Some(found) if found.kind == kind => {
                *at += found.text.len();
                true
            }
            _ => false,
        }
    }

    /// Returns to the last way back. A long attempt that failed isn't tried again.
    fn fail(&mut self, farthest: usize) -> Option<(State, usize, usize)> {
        let Back { state, step, at, tried } = self.back.pop()?;
        if farthest.saturating_sub(at) >= REMEMBERED_MIN {
            self.failed.insert(tried);
        }
        Some((state, step, at))
    }

    /// Notes that a tag begins or ends a script or a style sheet.
    fn note_tag(&mut self, end: usize) {
        let tag = self.text.get(self.start..end).unwrap_or_default();
        let is = |name: &str| tag.eq_ignore_ascii_case(name);
        if is("<script") || is("<style") {
            self.is_code = true;
        } else if is("</script") || is("</style") {
            self.is_code = false;
        }
    }

    fn token(&mut self, kind: Kind, end: usize, next: usize, state: State) -> Option<Token<'t>> {
        let text = self.text.get(self.start..end)?;
        self.start = next;
        self.state = state;
        self.back.clear();
        Some(Token { kind, text })
    }
}

impl<'t> Iterator for Lexer<'t> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Token<'t>> {
        if self.start >= self.text.len() {
            return None;
        }
        let (mut state, mut step, mut at, mut farthest) = (self.state, 0, self.start, self.start);
        loop {
            farthest = farthest.max(at);
            let Some((on, action)) = steps(state).get(step).copied() else {
                (state, step, at) = self.fail(farthest)?;
                continue;
            };
            let mut end = at;
            if !self.holds(on, &mut end) {
                step += 1;
                continue;
            }
            self.is_unclosed |=
                matches!((on, state), (On::End, State::Comment | State::CommentDash | State::CommentDashes));
            let after = end + self.char(end).map_or(0, char::len_utf8);
            match action {
                Step::To(State::Comment) if self.is_unclosed => (state, step, at) = self.fail(farthest)?,
                Step::To(next) => (state, step, at) = (next, 0, after),
                Step::Again(next) => (state, step) = (next, 0),
                Step::Named(next) => {
                    self.note_tag(end);
                    (state, step, at) = (next, 0, after);
                }
                Step::Sure(next) => {
                    self.back.pop();
                    (state, step, at) = (next, 0, after);
                }
                Step::Try(next) if self.failed.contains(&(next, after)) => step += 1,
                Step::Try(next) => {
                    self.back.push(Back { state, step: step + 1, at, tried: (next, after) });
                    (state, step, at) = (next, 0, after);
                }
                Step::Fail => (state, step, at) = self.fail(farthest)?,
                Step::Emit(kind) => return self.token(kind, end, end, State::Base),
                Step::Then(kind, next) => return self.token(kind, end, end, next),
                Step::Parts(kind) => return self.token(kind, end, self.start, State::Parts),
                Step::Url => {
                    self.host_only = true;
                    return self.token(Kind::Url, end, self.start, State::Base);
                }
                Step::Sign => {
                    let sign = self.start + 1;
                    return self.token(Kind::Blank, sign, sign, State::Uint);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(Kind, &str)]) {
        let found: Vec<(Kind, &str)> = Lexer::new(text).map(|token| (token.kind, token.text)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn tokens_are_postgresql_s() {
        use Kind::*;
        check("", &[]);
        check("foo - bar", &[(AsciiWord, "foo"), (Blank, " "), (Blank, "- "), (AsciiWord, "bar")]);
        check("x1 ß é2", &[(NumWord, "x1"), (Blank, " "), (Word, "ß"), (Blank, " "), (NumWord, "é2")]);
        check(
            "up-to-date",
            &[
                (AsciiHword, "up-to-date"),
                (HwordAsciiPart, "up"),
                (Blank, "-"),
                (HwordAsciiPart, "to"),
                (Blank, "-"),
                (HwordAsciiPart, "date"),
            ],
        );
        check(
            "http://a.com/b?c me@a.org",
            &[
                (Protocol, "http://"),
                (Url, "a.com/b?c"),
                (Host, "a.com"),
                (UrlPath, "/b?c"),
                (Blank, " "),
                (Email, "me@a.org"),
            ],
        );
        check(
            "-1.5 2 +3 1e-5 1.2.3",
            &[
                (Float, "-1.5"),
                (Blank, " "),
                (Uint, "2"),
                (Blank, " "),
                (Int, "+3"),
                (Blank, " "),
                (Scientific, "1e-5"),
                (Blank, " "),
                (Version, "1.2.3"),
            ],
        );
        check("-1.2.3", &[(Blank, "-"), (Version, "1.2.3")]);
        check("<a b='>'>&amp;/usr/bin", &[(Tag, "<a b='>'>"), (Entity, "&amp;"), (File, "/usr/bin")]);
        check("<script>a</script>", &[(Tag, "<script>"), (Blank, "a"), (Tag, "</script>")]);
    }

    #[test]
    fn long_texts_take_linear_time() {
        for part in ["a_", "<!--", "a.b_", "<a '", "1-a", "x@a_", "-1.", "é-", "&a", "a.b/", "/a.b./", "1e+"]
        {
            let text = part.repeat(20_000);
            assert!(Lexer::new(&text).count() > 0, "{part}");
        }
    }
}
