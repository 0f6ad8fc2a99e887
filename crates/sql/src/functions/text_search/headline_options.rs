//! The options of `ts_headline`.

use crate::error::{Error, Result};
use crate::sqlstate;

/// The options of a headline.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) start: String,
    pub(super) stop: String,
    pub(super) delimiter: String,
    pub(super) words_max: usize,
    pub(super) words_min: usize,
    pub(super) short_word: usize,
    pub(super) all: bool,
    pub(super) fragments_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            start: "<b>".into(),
            stop: "</b>".into(),
            delimiter: " ... ".into(),
            words_max: 35,
            words_min: 15,
            short_word: 3,
            all: false,
            fragments_max: 0,
        }
    }
}

impl Options {
    /// Reads options: `MaxWords=10, StartSel=<`.
    pub(super) fn read(text: &str) -> Result<Options> {
        let mut options = Options::default();
        for (name, value) in pairs(text)? {
            options.set(&name, value)?;
        }
        let wrong = |message: &str| Err(Error::invalid(message).code(sqlstate::INVALID_PARAMETER_VALUE));
        if options.words_min >= options.words_max && !options.all {
            return wrong("MinWords should be less than MaxWords");
        }
        if options.words_min == 0 && !options.all {
            return wrong("MinWords should be positive");
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        let number = || {
            value.trim().parse::<i32>().ok().and_then(|found| usize::try_from(found).ok()).ok_or_else(|| {
                Error::invalid(format!("{name} should be an integer of at least 0, not \"{value}\""))
                    .code(sqlstate::INVALID_PARAMETER_VALUE)
            })
        };
        match name.to_ascii_lowercase().as_str() {
            "maxwords" => self.words_max = number()?,
            "minwords" => self.words_min = number()?,
            "shortword" => self.short_word = number()?,
            "maxfragments" => self.fragments_max = number()?,
            "startsel" => self.start = value,
            "stopsel" => self.stop = value,
            "fragmentdelimiter" => self.delimiter = value,
            "highlightall" => {
                let yes = ["1", "on", "true", "t", "y", "yes"];
                self.all = yes.iter().any(|yes| value.eq_ignore_ascii_case(yes));
            }
            _ => {
                return Err(Error::invalid(format!("unrecognized headline parameter: \"{name}\""))
                    .hint(
                        "There are: StartSel, StopSel, MaxWords, MinWords, ShortWord, HighlightAll, MaxFragments, \
                         FragmentDelimiter.",
                    )
                    .code(sqlstate::INVALID_PARAMETER_VALUE));
            }
        }
        Ok(())
    }
}

/// Reads `name = value, …`, with values in quotes or without.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let wrong = || {
        Error::invalid(format!("invalid parameter list format: \"{text}\""))
            .hint("Write options as in 'MaxWords=10, StartSel=\"<i>\"'.")
            .code(sqlstate::SYNTAX_ERROR)
    };
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',', '\t', '\n']);
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(wrong)?;
        let after = after.trim_start();
        let (value, next) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                quoted(after.get(1..).unwrap_or_default(), quote).ok_or_else(wrong)?
            }
            Some(_) => {
                let end = after.find([',', ' ', '\t', '\n']).unwrap_or(after.len());
                let (value, next) = after.split_at(end);
                (value.to_string(), next)
            }
            None => return Err(wrong()),
        };
        let name = name.trim();
        if name.is_empty() {
            return Err(wrong());
        }
        found.push((name.trim_matches('"').to_string(), value));
        rest = next.trim_start_matches([' ', ',', '\t', '\n']);
    }
    Ok(found)
}

/// Returns a text up to its closing quote, and the rest.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if c == quote {
            if characters.next_if(|(_, next)| *next == quote).is_none() {
                return Some((value, text.get(at + 1..)?));
            }
        } else if c == '\\' && quote == '\'' {
            value.push(characters.next()?.1);
            continue;
        }
        value.push(c);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let read = |text: &str| {
            let found = Options::read(text).unwrap();
            (found.start, found.stop, found.words_max, found.words_min, found.all)
        };
        assert_eq!(read(""), ("<b>".into(), "</b>".into(), 35, 15, false));
        let given = "StartSel = '[', StopSel=\"\"\"]\", MaxWords=9, minwords=3,HighlightAll=TRUE";
        assert_eq!(read(given), ("[".into(), "\"]".into(), 9, 3, true));
        for wrong in
            ["MaxWords", "MaxWords=x", "MinWords=-1", "x=1", "StartSel='a", "MinWords=40", "=", "a=é'"]
        {
            assert!(Options::read(wrong).is_err(), "{wrong}");
        }
    }
}
