//! EXPLAIN of change feeds: the Upsert that keeps the current row of each key for all readers.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use millstream_flow::{Cost, Explained, ExplainedState, Growth, Meter, NodePlace};
use millstream_state::Spillable;

use super::sources::Sources;
use super::tables::BaseTables;
use crate::catalog::{Catalog, Definition};

impl Sources {
    /// Returns the Upserts of all change feeds, by name.
    pub(super) fn upserts<'a>(
        &'a self,
        tables: &BaseTables,
        catalog: &Catalog,
    ) -> Vec<(&'a Arc<str>, Explained)> {
        self.keys().filter_map(|name| Some((name, self.upsert_of(tables, catalog, name)?))).collect()
    }

    /// Adds the Upserts of the change feeds that a query reads to its operators, below its inputs.
    pub(super) fn with_upserts(
        &self,
        tables: &BaseTables,
        catalog: &Catalog,
        operators: Vec<Explained>,
    ) -> Vec<Explained> {
        let mut all = Vec::with_capacity(operators.len());
        for operator in operators {
            let name = operator.title.strip_prefix("Input ").filter(|_| operator.cost.is_none());
            let upsert = name.and_then(|name| self.upsert_of(tables, catalog, name));
            let place = NodePlace { depth: operator.place.depth + 1, ..operator.place };
            all.push(operator);
            all.extend(upsert.map(|upsert| Explained { place, ..upsert }));
        }
        all
    }

    fn upsert_of(&self, tables: &BaseTables, catalog: &Catalog, name: &str) -> Option<Explained> {
        let (source, table) = (self.get(name)?, tables.get(name)?);
        let Definition::Source { schema, spec, .. } = &catalog.find(name)?.definition else {
            return None;
        };
        let key: Vec<FieldRef> = spec.key.iter().map(|place| schema.fields()[*place].clone()).collect();
        let names: Vec<&str> = key.iter().map(|field| field.name().as_str()).collect();
        let names = names.join(", ");
        let kept = match key.is_empty() {
            true => Explained {
                state: ExplainedState::of("all rows".into(), Growth::With("the rows of the source".into())),
                ..Explained::above(0, "Table".to_string(), true)
            },
            false => Explained {
                key: Some(format!("({names})")),
                state: ExplainedState {
                    key: Some(format!("({names})")),
                    ..ExplainedState::of("the current row of each key".into(), Growth::of_values(&key))
                },
                ..Explained::above(0, format!("Upsert [by {names}]"), false)
            },
        };
        let state = kept.state.with_size(table.size());
        let meter = Meter { spilled_bytes: table.spilled_bytes(), ..source.counts.upsert() };
        Some(Explained { cost: Some(Cost::Delta), state, meter, ..kept })
    }
}
