//! A reading of a server: the rows of its system tables at one moment.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::form::visible;

/// A row: the texts of its columns that are not NULL.
pub type Row = BTreeMap<String, String>;

/// A reading.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The time at which it was complete.
    pub at: Instant,
    /// The metrics.
    pub metrics: Metrics,
    /// The sources.
    pub sources: Vec<Row>,
    /// The materialized views and streams, with their kind.
    pub queries: Vec<Row>,
    /// The sinks.
    pub sinks: Vec<Row>,
    /// The problems, the worst first.
    pub problems: Vec<Row>,
    /// Facts of the engine.
    pub facts: Row,
}

/// The values of metrics by their names and the objects that they are of.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<(String, String), f64>);

impl Metrics {
    /// Converts the rows of `millstream.metrics`.
    pub fn of(rows: &[Row]) -> Metrics {
        let value = |row: &Row| {
            let number = row.get("value")?.parse().ok()?;
            let labels = row.get("labels").map_or("", String::as_str);
            Some(((row.get("name")?.clone(), label(labels)), number))
        };
        Metrics(rows.iter().filter_map(value).collect())
    }

    /// Returns the value of a metric; that of an engine has an empty object.
    pub fn get(&self, name: &str, object: &str) -> Option<f64> {
        self.0.get(&(name.to_owned(), object.to_owned())).copied()
    }

    /// Returns the object of the first value of a metric.
    pub fn object(&self, name: &str) -> Option<&str> {
        self.0.keys().find(|(own, _)| own == name).map(|(_, object)| object.as_str())
    }
}

/// Returns the value of the label in a JSON object with one; else an empty text.
fn label(labels: &str) -> String {
    let Ok(Value::Object(labels)) = serde_json::from_str(labels) else { return String::new() };
    labels.values().next().and_then(Value::as_str).map(clean).unwrap_or_default()
}

/// Returns a text with the characters spelled out that would command a terminal, or reorder its line.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' => cleaned.extend(letter.escape_unicode()),
            _ => cleaned.push(letter),
        }
    }
    visible(&cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_name_and_object() {
        let row = |name: &str, labels: &str, value: &str| -> Row {
            [("name", name), ("labels", labels), ("value", value)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        let metrics = Metrics::of(&[
            row("a", "{}", "1.5"),
            row("b", r#"{"query": "x\"\u001b[2J"}"#, "2"),
            row("c", "", "nothing"),
            row("i", r#"{"version": "0.1.0"}"#, "1"),
        ]);
        assert_eq!(metrics.get("a", ""), Some(1.5));
        assert_eq!(metrics.get("b", "x\"\\u{1b}[2J"), Some(2.0));
        assert_eq!(metrics.get("c", ""), None);
        assert_eq!(metrics.object("i"), Some("0.1.0"));
    }

    #[test]
    fn a_text_can_not_command_the_terminal() {
        assert_eq!(clean("a\u{1b}[2J\r\n\tb\u{9b}1m"), "a\\u{1b}[2J\\r\\n\\tb\\u{9b}1m");
        assert_eq!(clean("x\u{202e}y\u{2066}z\u{200b}"), "x\\u{202e}y\\u{2066}z\\u{200b}");
        assert_eq!(clean("größe 数 😀"), "größe 数 😀");
    }
}
