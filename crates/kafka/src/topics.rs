//! The topics of a source: names, or a pattern of names.

use millstream_connect::{Error, Result};
use regex::Regex;

/// Topics that brokers use themselves begin so.
const INTERNAL: &str = "__";

/// The topics of a source.
#[derive(Clone, Debug)]
pub(crate) enum Topics {
    Named(Vec<String>),
    /// All topics whose names match.
    Matching(Regex),
}

impl Topics {
    /// Parses option `topic`. As in librdkafka, a text that begins with `^` is a pattern.
    pub fn parse(text: &str) -> Result<Topics> {
        if text.trim_start().starts_with('^') {
            let pattern = Regex::new(text.trim()).map_err(|error| {
                Error::Invalid(format!("option 'topic' is '{text}', which is no regular expression: {error}"))
            })?;
            return Ok(Topics::Matching(pattern));
        }
        let names: Vec<String> = text.split(',').map(|topic| topic.trim().to_string()).collect();
        match names.iter().any(String::is_empty) {
            true => Err(Error::Invalid(format!(
                "option 'topic' is '{text}', but names of topics separated by commas, or a pattern that begins with ^, were \
                 expected"
            ))),
            false => Ok(Topics::Named(names)),
        }
    }
}

/// Returns true if a pattern matches the name of a topic that isn't one of the brokers' own.
pub(crate) fn matches(pattern: &Regex, name: &str) -> bool {
    pattern.is_match(name) && (!name.starts_with(INTERNAL) || pattern.as_str().starts_with("^__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_begins_with_a_caret_is_a_pattern() {
        let Topics::Matching(pattern) = Topics::parse(" ^orders-[a,b]$").unwrap() else {
            panic!("no pattern")
        };
        assert!(matches(&pattern, "orders-a") && !matches(&pattern, "orders-c"));
        assert!(!matches(&Regex::new("^.*").unwrap(), "__consumer_offsets"));
        assert!(matches(&Regex::new("^__cons").unwrap(), "__consumer_offsets"));
        let Topics::Named(names) = Topics::parse("a, b").unwrap() else { panic!("a pattern") };
        assert_eq!(names, ["a", "b"]);
        for (wrong, what) in [("^(", "no regular expression"), ("a,,b", "names of topics")] {
            let error = Topics::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
