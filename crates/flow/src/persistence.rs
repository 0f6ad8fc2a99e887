//! Saves a flow as tables for checkpoints, and loads it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use millstream_delta::{Chunk, Delta, Timestamp};
use millstream_state::Tables;

use crate::arrangement::Arrangement;
use crate::dag::{Dag, Node};
use crate::meter::Meter;
use crate::operator::Operator;
use crate::{Error, Result};

/// The name of nodes that forward the changes of a relation.
const INPUT: &str = "Input";

impl Dag {
    /// Saves the state of all operators as tables, including rows in shared arrangements.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = self.saved(|operator| operator.save())?;
        self.lookups.save(&mut all)?;
        Ok(all)
    }

    /// Saves only the changes, for a checkpoint. The arrangements of `shared` are saved beside the flow, so
    /// it saves just their places.
    pub(crate) fn save_changed(&self, shared: &[Arc<Arrangement>]) -> Result<Tables> {
        let mut all = self.saved(|operator| operator.save_changed())?;
        self.lookups.save_changed(shared, &mut all)?;
        Ok(all)
    }

    fn saved(&self, save: impl Fn(&dyn Operator) -> Result<Tables>) -> Result<Tables> {
        let mut all = Tables::default();
        all.put_number("started", i64::from(self.started));
        all.put_number("version", self.version as i64);
        all.put_number("now", self.now.0);
        for (place, (node, meter)) in self.nodes.iter().zip(&self.meters).enumerate() {
            let (name, mut kept) = match node {
                Node::Input { .. } => (INPUT, Tables::default()),
                Node::Operator { operator, .. } => (operator.describe().name, save(operator.as_ref())?),
            };
            kept.put_part("meter", meter.save());
            all.put_part(&part(place, name), kept);
        }
        Ok(all)
    }

    /// Loads the state that nodes of the same plan have saved. They share no arrangement afterwards.
    pub(crate) fn load(&mut self, mut all: Tables) -> Result<()> {
        // The saved state says which rows were in arrangements.
        self.sharing().keep_nothing_elsewhere()?;
        self.reset()?;
        self.started = all.take_number("started")? != 0;
        self.version = all.take_number("version")? as u64;
        self.now = Timestamp(all.take_number("now")?);
        for (place, (node, meter)) in self.nodes.iter_mut().zip(&mut self.meters).enumerate() {
            let name = match node {
                Node::Input { .. } => INPUT,
                Node::Operator { operator, .. } => operator.describe().name,
            };
            let mut kept = all.take_part(&part(place, name));
            meter.load(&mut kept.take_part("meter"))?;
            if let Node::Operator { operator, .. } = node {
                operator.load(&mut kept)?;
            }
            check_taken(name, &kept)?;
        }
        self.sharing().load(&mut all)?;
        check_taken("the query", &all)
    }

    /// Loads the operator at a place, and its counters.
    pub(crate) fn load_operator(&mut self, place: usize, mut state: Tables, meter: Meter) -> Result<()> {
        let Node::Operator { operator, .. } = &mut self.nodes[place] else { return Ok(()) };
        operator.load(&mut state)?;
        check_taken(operator.describe().name, &state)?;
        self.meters[place] = meter;
        Ok(())
    }
}

/// Loads the operator inside of a wrapping operator from its part of the wrapper's saved state.
pub(crate) fn load_inner(inner: &mut dyn Operator, kept: &mut Tables) -> Result<()> {
    let mut of_inner = kept.take_part("inner");
    inner.load(&mut of_inner)?;
    check_taken(inner.describe().name, &of_inner)
}

/// Adds a value, as a table of one row.
pub(crate) fn put_value(kept: &mut Tables, name: &str, value: &ScalarValue) -> Result<()> {
    Ok(kept.put_columns(name, vec![(name, value.to_array()?)])?)
}

/// Takes out a value that must be there and have this type.
pub(crate) fn take_value(kept: &mut Tables, name: &str, data_type: &DataType) -> Result<ScalarValue> {
    let batches = kept.take(name)?;
    let column = batches.first().and_then(|batch| batch.columns().first());
    match column.filter(|column| column.len() == 1 && column.data_type() == data_type) {
        Some(column) => Ok(ScalarValue::try_from_array(column, 0)?),
        None => Err(incomplete(format!("there is no value '{name}' of type {data_type}"))),
    }
}

/// Returns the texts of a column, which must not be NULL.
pub(crate) fn texts(column: &ArrayRef) -> Result<Vec<String>> {
    let texts = column.as_string_opt::<i32>().filter(|texts| texts.null_count() == 0);
    let texts = texts.ok_or_else(|| incomplete("a text is missing".into()))?;
    Ok(texts.iter().flatten().map(str::to_string).collect())
}

/// Fails if rows don't have the columns of a schema.
pub(crate) fn check_columns(rows: &Delta, schema: &Schema) -> Result<()> {
    let types = || schema.fields().iter().map(|field| field.data_type());
    let fits = |chunk: &Chunk| chunk.rows.columns().iter().map(|column| column.data_type()).eq(types());
    if rows.chunks.iter().all(fits) { Ok(()) } else { Err(incomplete("rows have other columns".into())) }
}

/// Returns the error for an incomplete saved state.
pub(crate) fn incomplete(what: String) -> Error {
    millstream_state::Error::Incomplete(what).into()
}

fn part(place: usize, name: &str) -> String {
    format!("{place}-{name}")
}

/// Fails if a saved part is left that the operator hasn't taken.
pub(crate) fn check_taken(name: &str, kept: &Tables) -> Result<()> {
    match kept.left() {
        None => Ok(()),
        Some(left) => Err(Error::Bug(format!("'{left}' was saved, but {name} doesn't know it"))),
    }
}

impl Meter {
    fn save(&self) -> Tables {
        let mut to = Tables::default();
        to.put_number("steps", self.steps as i64);
        to.put_number("rows_in", self.rows_in as i64);
        to.put_number("rows_out", self.rows_out as i64);
        to.put_number("errors", self.errors);
        to
    }

    fn load(&mut self, from: &mut Tables) -> Result<()> {
        self.steps = from.take_number("steps")? as u64;
        self.rows_in = from.take_number("rows_in")? as u64;
        self.rows_out = from.take_number("rows_out")? as u64;
        self.errors = from.take_number("errors")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
