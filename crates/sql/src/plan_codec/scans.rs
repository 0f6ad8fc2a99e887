//! Stores the inputs of scans: relations by name, and the rows so far of a recursive query.

use std::any::Any;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Constraint;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::TableSource;
use serde_json::{Value, json};

use super::CodecResult;
use super::reader::{PlanDecoder, flag, list, member, number, numbers, text};
use super::writer::PlanEncoder;
use crate::relation::RelationTable;

impl PlanEncoder<'_> {
    pub(super) fn source(&mut self, source: &Arc<dyn TableSource>) -> CodecResult<Value> {
        let provider = source_as_provider(source).map_err(|error| error.to_string())?;
        let provider = provider.as_ref() as &dyn Any;
        if let Some(relation) = provider.downcast_ref::<RelationTable>() {
            return self.relation(relation);
        }
        if let Some(rows) = provider.downcast_ref::<CteWorkTable>() {
            let schema = self.schema(&rows.schema());
            return Ok(json!({"is": "so_far", "name": rows.name(), "schema": schema}));
        }
        Err("a table function of the query engine's".into())
    }

    fn relation(&mut self, relation: &RelationTable) -> CodecResult<Value> {
        let constraint = |constraint: &Constraint| match constraint {
            Constraint::PrimaryKey(columns) => json!([true, columns]),
            Constraint::Unique(columns) => json!([false, columns]),
        };
        let constraints: Option<Vec<Value>> =
            relation.constraints().map(|constraints| constraints.iter().map(constraint).collect());
        let declared: Vec<Option<&str>> = relation.declared().iter().map(Option::as_deref).collect();
        Ok(json!({
            "is": "relation", "name": relation.name(), "schema": self.schema(relation.columns()),
            "constraints": constraints, "event_time": relation.event_time(), "declared": declared,
        }))
    }
}

impl PlanDecoder<'_> {
    pub(super) fn source(&mut self, written: &Value) -> CodecResult<Arc<dyn TableSource>> {
        let schema = self.schema(member(written, "schema")?)?;
        let name = text(written, "name")?;
        match text(written, "is")? {
            "so_far" => Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema)))),
            "relation" => {
                let constraint = |of: &Value| {
                    let columns = numbers(of.get(1))?;
                    Ok(match flag(of.get(0))? {
                        true => Constraint::PrimaryKey(columns),
                        false => Constraint::Unique(columns),
                    })
                };
                let constraints = match member(written, "constraints")? {
                    Value::Null => None,
                    all => Some(list(Some(all), constraint)?),
                };
                let event_time = member(written, "event_time")?.as_str().map(str::to_string);
                let declared = list(written.get("declared"), |of| Ok(of.as_str().map(Arc::from)))?;
                let table = RelationTable::stored(name.into(), schema, constraints, event_time, declared);
                Ok(provider_as_source(Arc::new(table)))
            }
            other => Err(format!("a scan of '{other}' is unknown")),
        }
    }
}

/// Decodes a number that may be missing.
pub(super) fn maybe_number(of: Option<&Value>) -> CodecResult<Option<usize>> {
    match of {
        None | Some(Value::Null) => Ok(None),
        some => number(some).map(Some),
    }
}
