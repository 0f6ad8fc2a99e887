//! A CREATE statement with the parts that it leaves to its connector: columns and options.

use std::ops::Range;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use millstream_connect::Findings;
use millstream_delta::{exact_sql_type, sql_type};
use millstream_sql::functions::quoted_ident;
use millstream_sql::{Error, Planner, timestamp_unit};

use crate::session::Session;

/// Positions in a statement.
#[derive(Debug)]
pub(super) struct Places {
    pub after_name: usize,
    /// The opening parenthesis of a list without columns.
    pub list: Option<Range<usize>>,
    pub first_option: usize,
}

/// A statement with inserted parts.
#[derive(Debug)]
pub(super) struct Completed {
    pub text: String,
    /// The inserted parts in the completed text, in their order.
    inserted: Vec<Range<usize>>,
}

/// Returns a statement with what its connector has found. `None` if that is nothing, or if a statement can't say it.
pub(super) fn completed(
    session: &Session,
    statement: &str,
    places: &Places,
    found: &Findings,
) -> Option<Completed> {
    let mut parts: Vec<(usize, String)> = Vec::new();
    if let Some(columns) = &found.columns {
        let columns = declarations(session, columns)?;
        parts.push(match &places.list {
            Some(list) => (list.end, format!("{columns}, ")),
            None => (places.after_name, format!(" ({columns})")),
        });
    }
    if !found.options.is_empty() {
        let option = |(name, value): &(String, String)| format!("{name} = '{}', ", value.replace('\'', "''"));
        parts.push((places.first_option, found.options.iter().map(option).collect()));
    }
    if parts.is_empty() {
        return None;
    }
    let (mut text, mut inserted, mut from) = (String::new(), Vec::new(), 0);
    for (place, part) in parts {
        text.push_str(statement.get(from..place)?);
        inserted.push(text.len()..text.len() + part.len());
        text.push_str(&part);
        from = place;
    }
    text.push_str(statement.get(from..)?);
    Some(Completed { text, inserted })
}

impl Completed {
    /// Returns an error about the completed text as one about the text as it was written.
    pub fn as_written(&self, error: Error) -> Error {
        let Some(span) = error.span.clone() else { return error };
        if self.inserted.iter().any(|part| span.start < part.end && span.end > part.start) {
            return Error { span: None, ..error };
        }
        let before = self.inserted.iter().filter(|part| part.end <= span.start);
        let shift: usize = before.map(Range::len).sum();
        Error { span: Some(span.start - shift..span.end - shift), ..error }
    }
}

/// Returns declarations of columns. `None` if CREATE would read other types from them.
fn declarations(session: &Session, columns: &Schema) -> Option<String> {
    let mut all = Vec::with_capacity(columns.fields().len());
    for field in columns.fields() {
        let written = written_type(&session.shared.planner, field.data_type());
        let read = session.shared.planner.data_type(&written).ok()?;
        // Arrow's types differ in names of zones and of nested fields, which SQL doesn't have.
        if sql_type(read.data_type()) != sql_type(field.data_type()) {
            return None;
        }
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        all.push(format!("{} {written}{not_null}", quoted_ident(field.name())));
    }
    Some(all.join(", "))
}

/// Returns a type as CREATE takes it. Names of fields keep their case.
fn written_type(planner: &Planner, data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| {
                    format!("{} {}", quoted_ident(field.name()), written_type(planner, field.data_type()))
                })
                .collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        DataType::List(item) => format!("{}[]", written_type(planner, item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => format!(
                "MAP({}, {})",
                written_type(planner, fields[0].data_type()),
                written_type(planner, fields[1].data_type())
            ),
            _ => sql_type(data_type),
        },
        // In data directories of earlier versions a type without digits means nanoseconds.
        DataType::Timestamp(..) if timestamp_unit(planner) != TimeUnit::Microsecond => {
            exact_sql_type(data_type)
        }
        _ => sql_type(data_type),
    }
}
