//! Row events of Maxwell and of Canal, which capture the changes of MySQL: JSON with an operation and the rows that it
//! changed. A message of Canal may have several rows. An update that changes the key deletes the row of the old key.
//!
//! Formats: [Maxwell](https://maxwells-daemon.io/dataformat/),
//! [Canal](https://github.com/alibaba/canal/wiki), flat messages.

use regex::Regex;

use crate::formats::json_grammar::{fields, items, string};
use crate::{Error, Options, Result};

/// The options that choose databases and tables.
pub(super) const DATABASES: &str = "database.include";
pub(super) const TABLES: &str = "table.include";

/// A reader of row events.
#[derive(Debug)]
pub(super) struct RowEvents {
    dialect: Dialect,
    key: Vec<String>,
    databases: Option<Regex>,
    tables: Option<Regex>,
}

/// The system whose events are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Maxwell,
    Canal,
}

/// The change of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowChange<'m> {
    /// The row as an object. A delete may lack columns.
    pub row: &'m [u8],
    /// The object with the columns of the key that the row lacks.
    pub rest: Option<&'m [u8]>,
    pub deletes: bool,
}

/// The parts of a message, as text.
#[derive(Default)]
struct Event<'m> {
    kind: String,
    database: Option<String>,
    table: Option<String>,
    is_ddl: bool,
    data: Option<&'m [u8]>,
    old: Option<&'m [u8]>,
}

impl Dialect {
    /// Returns the dialect of a format's name.
    pub fn named(format: &str) -> Option<Dialect> {
        match format {
            "maxwell_json" => Some(Dialect::Maxwell),
            "canal_json" => Some(Dialect::Canal),
            _ => None,
        }
    }

    /// Returns the format's name.
    pub fn format(self) -> &'static str {
        match self {
            Dialect::Maxwell => "maxwell_json",
            Dialect::Canal => "canal_json",
        }
    }
}

impl RowEvents {
    /// Creates a reader of the events of tables with this key.
    pub fn new(dialect: Dialect, key: Vec<String>, options: &Options) -> Result<RowEvents> {
        let (databases, tables) = (pattern(options, DATABASES)?, pattern(options, TABLES)?);
        Ok(RowEvents { dialect, key, databases, tables })
    }

    /// Returns the changes of a message, in their order. Messages about other tables, and about the definition of tables,
    /// have none.
    pub fn changes<'m>(&self, message: &'m [u8]) -> std::result::Result<Vec<RowChange<'m>>, String> {
        let event = Event::of(message)?;
        let is_included = |pattern: &Option<Regex>, name: &Option<String>, field: &str| match (pattern, name)
        {
            (None, _) => Ok(true),
            (Some(pattern), Some(name)) => Ok(pattern.is_match(name)),
            (Some(_), None) => Err(format!("field '{field}' is missing, but a name was expected")),
        };
        let is_included = is_included(&self.databases, &event.database, "database")?
            && is_included(&self.tables, &event.table, "table")?;
        if !is_included {
            return Ok(Vec::new());
        }
        match (event.kind.to_ascii_lowercase().as_str(), self.dialect) {
            ("insert", _) | ("bootstrap-insert", Dialect::Maxwell) => {
                let put = |row| Ok(vec![RowChange { row, rest: None, deletes: false }]);
                self.each(&event, |row, _| put(row))
            }
            ("update", _) => self.each(&event, |row, old| self.update(row, old)),
            ("delete", _) => {
                self.each(&event, |row, _| Ok(vec![RowChange { row, rest: None, deletes: true }]))
            }
            ("truncate", _) => Err(
                "type 'TRUNCATE' is not supported yet: it names no rows; delete the rows one by one, or start again with \
                 another source"
                    .to_string(),
            ),
            ("bootstrap-start" | "bootstrap-complete", Dialect::Maxwell) => Ok(Vec::new()),
            (kind, Dialect::Maxwell) if kind.starts_with("table-") || kind.starts_with("database-") => {
                Ok(Vec::new())
            }
            (_, Dialect::Canal) if event.is_ddl => Ok(Vec::new()),
            ("", _) => Err("field 'type' is missing, but insert, update or delete was expected".to_string()),
            _ => Err(format!("field 'type' is '{}', but insert, update or delete was expected", event.kind)),
        }
    }

    /// Returns the changes of each row of an event.
    fn each<'m>(
        &self,
        event: &Event<'m>,
        change: impl Fn(&'m [u8], Option<&'m [u8]>) -> std::result::Result<Vec<RowChange<'m>>, String>,
    ) -> std::result::Result<Vec<RowChange<'m>>, String> {
        let data = event
            .data
            .ok_or_else(|| format!("field 'data' is missing or null, but type is '{}'", event.kind))?;
        if self.dialect == Dialect::Maxwell {
            return change(data, event.old);
        }
        let rows = items(data).map_err(|error| format!("field 'data': {error}"))?;
        let old = event.old.map(items).transpose().map_err(|error| format!("field 'old': {error}"))?;
        if let Some(old) = old.as_ref().filter(|old| old.len() != rows.len()) {
            return Err(format!("field 'data' has {} rows, but field 'old' has {}", rows.len(), old.len()));
        }
        let mut changes = Vec::with_capacity(rows.len());
        for (place, row) in rows.into_iter().enumerate() {
            let old = old.as_ref().and_then(|old| old.get(place)).filter(|old| **old != b"null");
            changes.extend(change(row, old.copied())?);
        }
        Ok(changes)
    }

    /// Returns the changes of an update. `old` has the earlier values of the changed columns.
    fn update<'m>(
        &self,
        row: &'m [u8],
        old: Option<&'m [u8]>,
    ) -> std::result::Result<Vec<RowChange<'m>>, String> {
        let put = RowChange { row, rest: None, deletes: false };
        let Some(old) = old else { return Ok(vec![put]) };
        let changed = fields(old).map_err(|error| format!("field 'old': {error}"))?;
        let moves = changed.iter().any(|(name, _)| self.key.contains(name));
        let gone = RowChange { row: old, rest: Some(row), deletes: true };
        Ok(if moves { vec![gone, put] } else { vec![put] })
    }
}

impl<'m> Event<'m> {
    fn of(message: &'m [u8]) -> std::result::Result<Event<'m>, String> {
        let mut event = Event::default();
        for (name, value) in fields(message)? {
            let present = Some(value).filter(|value| *value != b"null");
            match name.as_str() {
                "type" => event.kind = present.and_then(string).unwrap_or_default(),
                "database" => event.database = present.and_then(string),
                "table" => event.table = present.and_then(string),
                "isDdl" => event.is_ddl = value == b"true",
                "data" => event.data = present,
                "old" => event.old = present,
                _ => {}
            }
        }
        Ok(event)
    }
}

/// Returns the regular expression of an option, for a whole name.
fn pattern(options: &Options, name: &str) -> Result<Option<Regex>> {
    let Some(text) = options.get(name) else { return Ok(None) };
    let pattern = Regex::new(&format!("^(?:{text})$"));
    pattern.map(Some).map_err(|error| {
        Error::Invalid(format!(
            "option '{name}' is '{text}', but a regular expression of names was expected: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn events(dialect: Dialect, options: &[(&str, &str)]) -> RowEvents {
        let options: BTreeMap<String, String> =
            options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        RowEvents::new(dialect, vec!["id".into(), "k".into()], &Options(options)).unwrap()
    }

    /// Returns the changes as text: `+row`, `-row`, `-row of rest`.
    fn shown(events: &RowEvents, message: &str) -> std::result::Result<Vec<String>, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let one = |change: RowChange<'_>| {
            let rest = change.rest.map(|rest| format!(" of {}", text(rest))).unwrap_or_default();
            format!("{}{}{rest}", if change.deletes { "-" } else { "+" }, text(change.row))
        };
        Ok(events.changes(message.as_bytes())?.into_iter().map(one).collect())
    }

    #[test]
    fn maxwell_has_one_row_a_message() {
        let events = events(Dialect::Maxwell, &[]);
        let check = |message: &str, expected: &[&str]| {
            assert_eq!(shown(&events, message).unwrap(), expected, "{message}");
        };
        check(r#"{"database": "d", "table": "t", "type": "insert", "data": {"id": 1}}"#, &[r#"+{"id": 1}"#]);
        check(r#"{"type": "bootstrap-insert", "data": {"id": 1}}"#, &[r#"+{"id": 1}"#]);
        check(r#"{"type": "bootstrap-start", "data": {}}"#, &[]);
        check(r#"{"type": "table-alter", "old": {}, "def": {}}"#, &[]);
        check(
            r#"{"type": "update", "data": {"id": 1, "v": 2}, "old": {"v": 1}}"#,
            &[r#"+{"id": 1, "v": 2}"#],
        );
        check(r#"{"data": {"id": 1}, "old": {}, "type": "delete"}"#, &[r#"-{"id": 1}"#]);
        // The key has changed.
        check(
            r#"{"type": "update", "data": {"id": 2, "k": 0}, "old": {"\u0069d": 1}}"#,
            &[r#"-{"\u0069d": 1} of {"id": 2, "k": 0}"#, r#"+{"id": 2, "k": 0}"#],
        );
    }

    #[test]
    fn canal_has_several_rows_a_message() {
        let events = events(Dialect::Canal, &[]);
        let check = |message: &str, expected: &[&str]| {
            assert_eq!(shown(&events, message).unwrap(), expected, "{message}");
        };
        check(
            r#"{"data": [{"id": "1"}, {"id": "2"}], "isDdl": false, "old": null, "type": "INSERT"}"#,
            &[r#"+{"id": "1"}"#, r#"+{"id": "2"}"#],
        );
        check(
            r#"{"data": [{"id": "1"}, {"id": "2"}], "old": [{"v": "0"}, {"id": "3"}], "type": "UPDATE"}"#,
            &[r#"+{"id": "1"}"#, r#"-{"id": "3"} of {"id": "2"}"#, r#"+{"id": "2"}"#],
        );
        check(r#"{"data": [{"id": "1"}], "old": [null], "type": "UPDATE"}"#, &[r#"+{"id": "1"}"#]);
        check(r#"{"data": [{"id": "1"}], "type": "DELETE"}"#, &[r#"-{"id": "1"}"#]);
        check(r#"{"data": null, "isDdl": true, "sql": "CREATE …", "type": "CREATE"}"#, &[]);
    }

    #[test]
    fn other_tables_are_skipped() {
        let events =
            events(Dialect::Maxwell, &[("database.include", "shop|store"), ("table.include", "orders_\\d+")]);
        let count = |database: &str, table: &str| {
            let message = format!(
                r#"{{"database": "{database}", "table": "{table}", "type": "insert", "data": {{"id": 1}}}}"#
            );
            shown(&events, &message).unwrap().len()
        };
        assert_eq!([count("shop", "orders_1"), count("store", "orders_22")], [1, 1]);
        assert_eq!(
            [count("shops", "orders_1"), count("shop", "orders_x"), count("shop", "my_orders_1")],
            [0; 3]
        );
        assert!(
            shown(&events, r#"{"table": "orders_1", "type": "insert"}"#).unwrap_err().contains("'database'")
        );
        let options = Options(BTreeMap::from([("table.include".to_string(), "(".to_string())]));
        let error = RowEvents::new(Dialect::Canal, Vec::new(), &options).unwrap_err().to_string();
        assert!(error.contains("option 'table.include' is '('"), "{error}");
    }

    #[test]
    fn bad_messages_have_a_reason() {
        let check = |dialect, message: &str, reason: &str| {
            let error = shown(&events(dialect, &[]), message).unwrap_err();
            assert!(error.contains(reason), "{message}: {error}");
        };
        let (maxwell, canal) = (Dialect::Maxwell, Dialect::Canal);
        check(maxwell, "{", "no JSON at byte 1");
        check(maxwell, "[]", "an object was expected");
        check(maxwell, "{}", "field 'type' is missing");
        check(maxwell, r#"{"type": "upsert", "data": {}}"#, "field 'type' is 'upsert'");
        check(maxwell, r#"{"type": "insert", "data": null}"#, "field 'data' is missing or null, but type is");
        check(maxwell, r#"{"type": "update", "data": {}, "old": 3}"#, "field 'old': no JSON at byte 0");
        check(canal, r#"{"type": "INSERT", "data": {"id": 1}}"#, "field 'data': no JSON at byte 0");
        check(canal, r#"{"type": "UPDATE", "data": [{}], "old": []}"#, "has 1 rows, but field 'old' has 0");
        check(canal, r#"{"type": "TRUNCATE", "isDdl": true}"#, "not supported yet");
    }
}
