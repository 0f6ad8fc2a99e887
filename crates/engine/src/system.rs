//! The tables in which an engine tells of itself: names and columns. What is in them is in `run/system.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_sql::SYSTEM_SCHEMA;

/// A table of the schema `millstream`, as the reference page shows it.
#[derive(Clone, Copy, Debug)]
pub struct SystemTableDoc {
    /// Its name in the schema.
    pub name: &'static str,
    /// What a row of it is.
    pub doc: &'static str,
    /// Its columns.
    pub columns: &'static [SystemColumnDoc],
}

/// A column of such a table.
#[derive(Clone, Copy, Debug)]
pub struct SystemColumnDoc {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds whole numbers; else it is text.
    pub number: bool,
    /// What it says.
    pub doc: &'static str,
}

const fn text(name: &'static str, doc: &'static str) -> SystemColumnDoc {
    SystemColumnDoc { name, number: false, doc }
}

const fn number(name: &'static str, doc: &'static str) -> SystemColumnDoc {
    SystemColumnDoc { name, number: true, doc }
}

/// Every system table.
pub(crate) const TABLES: &[SystemTableDoc] = &[
    SystemTableDoc {
        name: "errors",
        doc: "what a query has no answer for: a row, a key or, where it is suspended, everything",
        columns: &[
            text("query", "the materialized view or sink"),
            text("operator", "which of its operators fails; NULL where the query is suspended"),
            text("message", "why"),
            text("row", "the row or key that it fails for, as text; NULL where there is none"),
            number("count", "how many such rows there are"),
        ],
    },
    SystemTableDoc {
        name: "operators",
        doc: "an operator of a query, with what it has done since the query was made",
        columns: &[
            text("query", "the materialized view or sink"),
            number("node", "its place: what it reads has lower ones"),
            text("operator", "its name and expressions"),
            text("cost", "what an epoch costs: `delta`, `touched keys` or `whole`; NULL for an input"),
            number(
                "epochs",
                "how often it was stepped: when it was made, and in each epoch that changed its input",
            ),
            number("rows_in", "rows of the changes that it was given"),
            number("rows_out", "rows of the changes that it put out"),
            number("errors", "rows that it fails for now"),
            number("time_us", "how long it took, in microseconds"),
            number("state_rows", "rows that it keeps"),
            number("state_bytes", "bytes that it keeps, about"),
        ],
    },
    SystemTableDoc {
        name: "settings",
        doc: "a setting, as SHOW ALL shows it",
        columns: &[text("name", "its name"), text("value", "its value"), text("description", "what it does")],
    },
    SystemTableDoc {
        name: "sources",
        doc: "a source, with what it has brought",
        columns: &[
            text("name", "its name"),
            text("connector", "what `connector` says"),
            text("status", "as in SHOW SOURCES"),
            text("reason", "why it failed or is restarting; NULL where nothing is wrong"),
            number("rows", "rows taken in"),
            number("bad_rows", "records that could not be decoded"),
            number("rows_per_second", "rows and bad rows that were taken in a second lately"),
            number("waiting_rows", "rows that were read and wait for an epoch"),
            number("waiting_bytes", "how many bytes these are, about"),
            number("restarts", "how often it, or a receiver of it, was started again after a failure"),
            number("duplicates", "rows that a reliable source brought again, which were left out"),
        ],
    },
];

/// Every table of the schema `millstream` with its documentation, by name.
pub fn system_tables() -> &'static [SystemTableDoc] {
    TABLES
}

/// Whether a relation's name is in the engine's own schema.
pub(crate) fn is_name(relation: &str) -> bool {
    table_name(relation).is_some()
}

/// The name of a system table in its schema.
pub(crate) fn table_name(relation: &str) -> Option<&str> {
    relation.strip_prefix(SYSTEM_SCHEMA)?.strip_prefix('.')
}

/// The table of this name in the schema.
pub(crate) fn find(name: &str) -> Option<&'static SystemTableDoc> {
    TABLES.iter().find(|table| table.name == name)
}

impl SystemTableDoc {
    /// Its columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        let field = |column: &SystemColumnDoc| {
            let kind = if column.number { DataType::Int64 } else { DataType::Utf8View };
            Field::new(column.name, kind, true)
        };
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }
}
