//! Compiled patterns and their matches.
//!
//! Patterns with back references or lookaround run on the crate `fancy-regex`, which tries alternatives one after the other and
//! gives up after a number of steps. All others run on `regex`, in a time linear in the text.

use std::ops::Range;

use super::options::Options;
use super::translate::{translate, wrong};
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most steps back in a search for one match.
const STEPS_MAX: usize = 1_000_000;

enum Matcher {
    Linear(regex::Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

/// A pattern that was compiled, with its options.
pub(super) struct Pattern {
    matcher: Matcher,
    pub(super) options: Options,
    written: String,
}

/// A match.
pub(super) enum Found<'t> {
    Linear(regex::Captures<'t>),
    Backtracking(fancy_regex::Captures<'t, str>),
}

impl Found<'_> {
    /// Returns the bytes of a group; 0 is the whole match.
    pub(super) fn get(&self, group: usize) -> Option<Range<usize>> {
        match self {
            Found::Linear(found) => found.get(group).map(|part| part.range()),
            Found::Backtracking(found) => found.get(group).map(|part| part.range()),
        }
    }
}

impl Pattern {
    /// Compiles a pattern of PostgreSQL with the flags of a call.
    pub(super) fn new(written: &str, flags: &str) -> Result<Pattern> {
        let options = Options::of_flags(flags)?;
        let translated = translate(written, options)?;
        let matcher = if translated.backtracks {
            let built = fancy_regex::RegexBuilder::new(&translated.text).backtrack_limit(STEPS_MAX).build();
            built.map(|regex| Matcher::Backtracking(Box::new(regex))).map_err(|error| error.to_string())
        } else {
            regex::Regex::new(&translated.text).map(Matcher::Linear).map_err(|error| error.to_string())
        };
        let matcher = matcher.map_err(|problem| wrong(written, &problem))?;
        Ok(Pattern { matcher, options, written: written.to_string() })
    }

    fn at<'t>(&self, text: &'t str, from: usize) -> Result<Option<Found<'t>>> {
        match &self.matcher {
            Matcher::Linear(regex) => Ok(regex.captures_at(text, from).map(Found::Linear)),
            Matcher::Backtracking(regex) => regex
                .captures_from_pos(text, from)
                .map(|found| found.map(Found::Backtracking))
                .map_err(|_| self.too_slow()),
        }
    }

    /// Returns the matches from a byte on, as PostgreSQL finds them: an empty one may follow another.
    pub(super) fn matches<'t>(
        &self,
        text: &'t str,
        from: usize,
    ) -> impl Iterator<Item = Result<Found<'t>>> + use<'_, 't> {
        let mut next = Some(from);
        std::iter::from_fn(move || {
            let at = next.take().filter(|at| *at <= text.len())?;
            let found = match self.at(text, at) {
                Ok(found) => found?,
                Err(error) => return Some(Err(error)),
            };
            let whole = found.get(0)?;
            next = Some(match whole.is_empty() {
                true => whole.end + text[whole.end..].chars().next().map_or(1, char::len_utf8),
                false => whole.end,
            });
            Some(Ok(found))
        })
    }

    pub(super) fn is_match(&self, text: &str) -> Result<bool> {
        match &self.matcher {
            Matcher::Linear(regex) => Ok(regex.is_match(text)),
            Matcher::Backtracking(regex) => regex.is_match(text).map_err(|_| self.too_slow()),
        }
    }

    fn too_slow(&self) -> Error {
        Error::invalid(format!(
            "the pattern '{}' needs more than {STEPS_MAX} steps back to match a text",
            self.written
        ))
        .hint("Write it without nested repetitions, back references or lookaround.")
        .code(sqlstate::STATEMENT_TOO_COMPLEX)
    }

    /// Returns the number of groups, without the whole match.
    pub(super) fn groups(&self) -> usize {
        match &self.matcher {
            Matcher::Linear(regex) => regex.captures_len() - 1,
            Matcher::Backtracking(regex) => regex.captures_len() - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, text: &str) -> Vec<String> {
        let pattern = Pattern::new(pattern, "").unwrap();
        let parts = |found: Found<'_>| {
            let groups = (0..=pattern.groups())
                .map(|group| found.get(group).map_or("-".to_string(), |part| text[part].to_string()));
            groups.collect::<Vec<_>>().join("/")
        };
        pattern.matches(text, 0).map(|found| parts(found.unwrap())).collect()
    }

    #[test]
    fn patterns_look_around_and_back() {
        assert_eq!(found("(a+)b\\1", "aabaa ab abab"), ["aabaa/aa", "aba/a"]);
        assert_eq!(found("(.)(.)\\2\\1", "xxabbaxx"), ["abba/a/b"]);
        assert_eq!(found("a(?=b)", "ab ac"), ["a"]);
        assert_eq!(found("\\w(?!b)\\M", "ab c"), ["b", "c"]);
        assert_eq!(found("(?<=\\mx+)\\d", "x1 xx2 y3"), ["1", "2"]);
        assert_eq!(found("(?<!x)(\\d)", "x1 y2"), ["2/2"]);
        // Groups within lookaround have no number.
        assert_eq!(found("(?=(a))(.)", "ba"), ["a/a"]);
        assert_eq!(found("(?i)(a)\\1", "aA"), ["aA/a"]);
        assert_eq!(found("(a)\\101", "aA"), ["aA/a"]);
        assert_eq!(found("(a)(?:\\1)0", "aa0"), ["aa0/a"]);
    }

    #[test]
    fn searches_end() {
        let pattern = Pattern::new("^(\\w+\\s?)+\\1$", "").unwrap();
        let text = "word ".repeat(40) + "!";
        let error = pattern.is_match(&text).unwrap_err();
        assert!(error.message.contains("needs more than 1000000 steps"), "{}", error.message);
        assert!(pattern.matches(&text, 0).next().unwrap().is_err());
        let deep = format!("{}a{}\\1", "(".repeat(5_000), ")".repeat(5_000));
        assert!(Pattern::new(&deep, "").is_err());
        assert!(Pattern::new("a\\1", "").is_err());
    }
}
