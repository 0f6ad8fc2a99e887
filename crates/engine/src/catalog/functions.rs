//! The engine's table functions: relations that are named by their subject.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use millstream_delta::{Epoch, Timestamp};
use millstream_sql::{Error, Relation, Result};

use super::{Catalog, Definition, bad_rows_schema, watermark_schema};

/// A point in time as of which a relation is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The end of an epoch.
    Epoch(Epoch),
    /// The end of the last epoch up to a time.
    Time(Timestamp),
}

impl Moment {
    pub(super) fn read(kind: &str, text: &str) -> Option<Moment> {
        match kind {
            "epoch" => text.parse().ok().map(|epoch| Moment::Epoch(Epoch(epoch))),
            "time" => {
                let nanos = string_to_timestamp_nanos(text).ok()?;
                Some(Moment::Time(Timestamp(nanos.div_euclid(1000))))
            }
            _ => None,
        }
    }
}

impl Catalog {
    /// Returns the relation as of a moment.
    pub(super) fn as_of(&self, arguments: &[String]) -> Result<Relation> {
        let [name, kind, moment] = arguments else {
            return Err(Error::bug("FOR SYSTEM_TIME AS OF without a relation, a kind and a moment"));
        };
        let object = self.get(name)?;
        if !object.definition.keeps_content() {
            let kind = object.definition.kind();
            return Err(Error::invalid(format!("\"{name}\" is a {kind}: its history isn't kept")).hint(
                "A table, a materialized view, or a stream whose rows change can be read as of a moment that is kept.",
            ));
        }
        if Moment::read(kind, moment).is_none() {
            return Err(Error::invalid(format!(
                "\"{name}\" can't be read as of {moment}: an epoch or a time was expected"
            ))
            .hint("Write AS OF 17, AS OF '2026-01-02 03:04:05+00', or AS OF now() - INTERVAL '1 minute'."));
        }
        let schema = object.definition.schema().ok_or_else(|| Error::bug("what keeps rows has columns"))?;
        let key = match &object.definition {
            Definition::Table { key, .. } if !key.is_empty() => Some(key.clone()),
            _ => None,
        };
        Ok(Relation::Rows { schema: schema.clone(), key })
    }

    /// Returns the relation `watermark('relation')`.
    pub(super) fn watermark(&self, arguments: &[String]) -> Result<Relation> {
        let [relation] = arguments else {
            return Err(Error::invalid(
                "watermark takes one argument, the name of a source or table: watermark('orders')",
            ));
        };
        let definition = &self.get(relation)?.definition;
        let (watermark, schema) = definition
            .watermark()
            .zip(definition.schema())
            .ok_or_else(|| no_watermark(relation, definition))?;
        let schema = watermark_schema(schema.field(watermark.column).data_type());
        Ok(Relation::Rows { schema, key: None })
    }

    /// Returns the relation `bad_rows('source')`.
    pub(super) fn bad_rows(&self, arguments: &[String]) -> Result<Relation> {
        let [source] = arguments else {
            return Err(Error::invalid(
                "bad_rows takes one argument, the name of a source: bad_rows('orders')",
            ));
        };
        let object = self.get(source)?;
        if !matches!(object.definition, Definition::Source { .. }) {
            return Err(Error::invalid(format!(
                "\"{source}\" is a {}: only a source has bad rows",
                object.definition.kind()
            )));
        }
        Ok(Relation::Rows { schema: bad_rows_schema(), key: None })
    }

    /// Returns the relation `late_rows('query')`.
    pub(super) fn late_rows(&self, arguments: &[String]) -> Result<Relation> {
        let [query] = arguments else {
            return Err(Error::invalid(
                "late_rows takes one argument, the name of a view, stream or sink: late_rows('per_page')",
            ));
        };
        let object = self.get(query)?;
        let schema = self.late.get(&object.name).cloned().ok_or_else(|| {
            Error::invalid(format!(
                "{} \"{query}\" has no windows that close, so no row is late for it",
                object.definition.kind()
            ))
            .hint(
                "Windows close in a materialized view, a stream or a sink over a query that has them, where what it \
                 reads has a watermark: see EXPLAIN.",
            )
        })?;
        Ok(Relation::Rows { schema, key: None })
    }
}

/// Returns the error for a relation without a watermark.
fn no_watermark(name: &str, definition: &Definition) -> Error {
    let kind = definition.kind();
    let error = Error::invalid(format!("{kind} \"{name}\" has no watermark"));
    match definition {
        Definition::Source { .. } | Definition::Table { .. } => error.hint(format!(
            "Declare one in its CREATE statement, WATERMARK FOR ts AS ts - INTERVAL '5 seconds', or use ALTER {} {name} SET \
             WATERMARK FOR ts AS ts - INTERVAL '5 seconds'.",
            kind.to_uppercase()
        )),
        _ => error.hint("Only sources and tables have one: use that of its inputs."),
    }
}
