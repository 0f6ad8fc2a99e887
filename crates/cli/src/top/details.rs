//! The details of one object: the reasons why it waits, and its operators or partitions.

use std::collections::BTreeMap;
use std::time::Instant;

use millstream::quoted_ident;

use crate::top::figures::text;
use crate::top::grid::Grid;
use crate::top::reading::Row;
use crate::top::view::Table;

/// An object whose details are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The table in which it is listed.
    pub table: Table,
    /// Its kind: `materialized view`, `stream`, `source`, `sink`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// The details of an object.
#[derive(Clone, Debug)]
pub struct Details {
    /// The object.
    pub object: Object,
    /// The reasons: pairs of an object and a reason, or a failure.
    pub why: Vec<String>,
    at: Instant,
    rows: Vec<Row>,
}

/// An operator of a query, or of a sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// Its number.
    pub node: String,
    /// Its name and what it does.
    pub title: String,
    /// Its cost class.
    pub cost: String,
    /// The share of the time that it took.
    pub busy: Option<f64>,
    /// Rows a second that it received.
    pub rows_in: Option<f64>,
    /// Rows a second that it put out.
    pub rows_out: Option<f64>,
    /// Bytes of its state.
    pub state: Option<f64>,
}

impl Object {
    /// Returns the statements for the reasons, and for the operators or partitions; `name` is its name in the engine.
    pub fn statements(&self, name: &str) -> [String; 2] {
        let literal = format!("'{}'", name.replace('\'', "''"));
        let identifier = quoted_ident(name);
        match self.table {
            Table::Sources => [
                format!("SELECT name AS about, reason AS why FROM millstream.sources WHERE name = {literal}"),
                format!(
                    "SELECT partition, position, end_position, lag, watermark, idle FROM millstream.source_partitions \
                     WHERE source = {literal} ORDER BY lag DESC NULLS LAST, partition LIMIT 1000"
                ),
            ],
            Table::Queries | Table::Sinks => [
                format!("EXPLAIN WHY {} {identifier}", self.kind.to_uppercase()),
                format!(
                    "SELECT node, operator, detail, cost, time_us, rows_in, rows_out, state_bytes \
                     FROM millstream.operators WHERE query = {literal} ORDER BY node LIMIT 1000"
                ),
            ],
        }
    }
}

impl Details {
    /// Creates the details of an object from the rows of its statements.
    pub fn new(object: Object, why: Vec<Row>, rows: Vec<Row>) -> Details {
        let reason = |row: &Row| {
            let about = text(row, "about");
            let why = row.get("why")?;
            Some(if about == object.name { why.clone() } else { format!("{about}: {why}") })
        };
        let why = why.iter().filter_map(reason).collect();
        Details { object, why, at: Instant::now(), rows }
    }

    /// Creates the details of an object that can't be explained.
    pub fn failed(object: Object, reason: String) -> Details {
        Details { object, why: vec![reason], at: Instant::now(), rows: Vec::new() }
    }

    /// Returns the operators or partitions. Rates are those since details that were read before.
    pub fn grid(&self, before: Option<&Details>) -> Grid {
        match self.object.table {
            Table::Sources => Grid::partitions(&self.rows),
            Table::Queries | Table::Sinks => {
                Grid::operators(&self.operators(before.filter(|before| before.object == self.object)))
            }
        }
    }

    fn operators(&self, before: Option<&Details>) -> Vec<Operator> {
        let seconds = before.map(|before| self.at.duration_since(before.at).as_secs_f64());
        let old: BTreeMap<_, _> =
            before.iter().flat_map(|before| &before.rows).map(|row| (row.get("node"), row)).collect();
        let number = |row: &Row, column: &str| row.get(column).and_then(|text| text.parse::<f64>().ok());
        let operator = |row: &Row| {
            let rate = |column: &str, scale: f64| {
                let growth = number(row, column)? - number(old.get(&row.get("node"))?, column)?;
                let seconds = seconds.filter(|seconds| *seconds > 0.0)?;
                (growth >= 0.0).then_some(growth * scale / seconds)
            };
            let detail = row.get("detail").map_or_else(String::new, |detail| format!(" {detail}"));
            Operator {
                node: text(row, "node"),
                title: text(row, "operator") + &detail,
                cost: text(row, "cost"),
                busy: rate("time_us", 1e-6),
                rows_in: rate("rows_in", 1.0),
                rows_out: rate("rows_out", 1.0),
                state: number(row, "state_bytes"),
            }
        };
        self.rows.iter().map(operator).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::top::figures::tests::row;

    fn object(table: Table, kind: &str, name: &str) -> Object {
        Object { table, kind: kind.into(), name: name.into() }
    }

    #[test]
    fn names_are_quoted_in_statements() {
        let [why, operators] = object(Table::Queries, "stream", "x").statements("a\"b'c");
        assert_eq!(why, "EXPLAIN WHY STREAM \"a\"\"b'c\"");
        assert!(operators.contains("WHERE query = 'a\"b''c' "), "{operators}");
        let [_, partitions] = object(Table::Sources, "source", "s").statements("s");
        assert!(partitions.contains("millstream.source_partitions"), "{partitions}");
    }

    #[test]
    fn operators_have_rates_since_the_reading_before() {
        let object = object(Table::Queries, "materialized view", "q");
        let operator = |time: &str, rows: &str| {
            vec![row(&[("node", "1"), ("operator", "Aggregate"), ("time_us", time), ("rows_in", rows)])]
        };
        let why = vec![row(&[("about", "q"), ("why", "it waits")]), row(&[("about", "s"), ("why", "idle")])];
        let before = Details::new(object.clone(), why, operator("1000", "10"));
        assert_eq!(before.why, ["it waits", "s: idle"]);
        let mut now = Details::new(object.clone(), Vec::new(), operator("501000", "30"));
        now.at = before.at + Duration::from_secs(2);
        assert_eq!(now.grid(Some(&before)).rows, [["Aggregate", "1", "", "25 %", "10", "-", "-"]]);
        assert_eq!(now.grid(None).rows[0][3], "-");
        let other = Details::failed(Object { name: "r".into(), ..object }, "gone".into());
        assert_eq!(now.grid(Some(&other)).rows[0][3], "-");
    }
}
