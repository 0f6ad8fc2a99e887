//! The parts of a plan that is being read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, Dependency, FunctionalDependence, FunctionalDependencies, TableReference,
};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::scalar::ScalarValue;
use serde_json::Value;

use super::CodecResult;
use crate::batches::BatchClock;
use crate::planner::Planner;
use crate::relation::Relations;

/// A decoded part.
pub(super) enum Part {
    Plan(Arc<LogicalPlan>),
    Expression(Expr),
}

/// The parts decoded so far, and the environment of the plan.
pub(crate) struct PlanDecoder<'a> {
    pub(crate) planner: &'a Planner,
    pub(super) state: &'a SessionState,
    pub(super) relations: &'a dyn Relations,
    /// The clocks of the functions of the present time.
    clocks: Vec<BatchClock>,
    fields: SchemaRef,
    values: Option<RecordBatch>,
    schemas: Vec<DFSchemaRef>,
    /// The parts. Each is taken by the one part that refers to it.
    parts: Vec<Option<Part>>,
}

impl<'a> PlanDecoder<'a> {
    /// Decodes all parts of the plan with this head.
    pub(super) fn open(
        bytes: &[u8],
        head: &Value,
        planner: &'a Planner,
        relations: &'a dyn Relations,
        clocks: Vec<BatchClock>,
    ) -> CodecResult<PlanDecoder<'a>> {
        let (_, fields, values) = split(bytes)?;
        let (fields, _) = stream(fields)?;
        let (_, values) = stream(values)?;
        let (schemas, parts) = (Vec::new(), Vec::new());
        let state = planner.state();
        let mut reader = PlanDecoder { planner, state, relations, clocks, fields, values, schemas, parts };
        for schema in list(head.get("schemas"), Ok)? {
            let schema = reader.read_columns(schema)?;
            reader.schemas.push(schema);
        }
        for part in list(head.get("parts"), Ok)? {
            let part = reader.part(part)?;
            reader.parts.push(Some(part));
        }
        Ok(reader)
    }

    fn part(&mut self, part: &Value) -> CodecResult<Part> {
        let is = text(part, "is")?;
        match self.read_plan(is, part)? {
            Some(plan) => Ok(Part::Plan(Arc::new(plan))),
            None => self.read_expression(is, part).map(Part::Expression),
        }
    }

    fn take(&mut self, place: Option<&Value>) -> CodecResult<Part> {
        let place = number(place)?;
        let part = self.parts.get_mut(place).and_then(Option::take);
        part.ok_or_else(|| format!("part {place} isn't there, or is part of two others"))
    }

    /// Returns the plan with its root at an index.
    pub(super) fn plan(&mut self, place: Option<&Value>) -> CodecResult<Arc<LogicalPlan>> {
        match self.take(place)? {
            Part::Plan(plan) => Ok(plan),
            Part::Expression(_) => Err("an expression stands where a plan was expected".into()),
        }
    }

    /// Returns the expression at an index.
    pub(crate) fn expression(&mut self, place: Option<&Value>) -> CodecResult<Expr> {
        match self.take(place)? {
            Part::Expression(expression) => Ok(expression),
            Part::Plan(_) => Err("a plan stands where an expression was expected".into()),
        }
    }

    pub(super) fn clock(&self, place: usize) -> CodecResult<BatchClock> {
        self.clocks.get(place).cloned().ok_or_else(|| format!("there is no clock {place}"))
    }

    pub(super) fn boxed(&mut self, place: Option<&Value>) -> CodecResult<Box<Expr>> {
        self.expression(place).map(Box::new)
    }

    pub(crate) fn expressions(&mut self, places: Option<&Value>) -> CodecResult<Vec<Expr>> {
        list(places, |place| self.expression(Some(place)))
    }

    pub(super) fn optional(&mut self, place: Option<&Value>) -> CodecResult<Option<Expr>> {
        match place {
            None | Some(Value::Null) => Ok(None),
            some => self.expression(some).map(Some),
        }
    }

    pub(super) fn field(&self, place: Option<&Value>) -> CodecResult<FieldRef> {
        let place = number(place)?;
        self.fields.fields().get(place).cloned().ok_or_else(|| format!("there is no field {place}"))
    }

    pub(super) fn value(&self, place: Option<&Value>) -> CodecResult<ScalarValue> {
        let place = number(place)?;
        let column = self.values.as_ref().and_then(|row| row.columns().get(place));
        let column = column.ok_or_else(|| format!("there is no value {place}"))?;
        ScalarValue::try_from_array(column, 0).map_err(|error| error.to_string())
    }

    pub(super) fn schema(&self, written: &Value) -> CodecResult<SchemaRef> {
        let fields = list(written.get("fields"), |place| self.field(Some(place)))?;
        Ok(Arc::new(Schema::new_with_metadata(fields, texts_by_name(written.get("metadata"))?)))
    }

    /// Returns the columns of a node.
    pub(crate) fn columns(&self, place: Option<&Value>) -> CodecResult<DFSchemaRef> {
        let place = number(place)?;
        self.schemas.get(place).cloned().ok_or_else(|| format!("there are no columns {place}"))
    }

    fn read_columns(&self, written: &Value) -> CodecResult<DFSchemaRef> {
        let failed = |error: datafusion::error::DataFusionError| error.to_string();
        let field = |of: &Value| Ok((maybe_reference(of.get(0))?, self.field(of.get(1))?));
        let fields = list(written.get("fields"), field)?;
        let dependency = |of: &Value| {
            let (from, on) = (numbers(of.get("of"))?, numbers(of.get("on"))?);
            let mode = if flag(of.get("single"))? { Dependency::Single } else { Dependency::Multi };
            Ok(FunctionalDependence::new(from, on, flag(of.get("nullable"))?).with_mode(mode))
        };
        let dependencies = FunctionalDependencies::new(list(written.get("dependencies"), dependency)?);
        let schema = DFSchema::new_with_metadata(fields, texts_by_name(written.get("metadata"))?);
        let schema = schema.and_then(|schema| schema.with_functional_dependencies(dependencies));
        schema.map(Arc::new).map_err(failed)
    }
}

fn split(bytes: &[u8]) -> CodecResult<(&[u8], &[u8], &[u8])> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (part, behind) = behind.split_at_checked(length).ok_or("a part of it is missing")?;
        parts.push(part);
        rest = behind;
    }
    let [head, fields, values] = parts[..] else { return Err("it has not three parts".into()) };
    Ok((head, fields, values))
}

/// Decodes only the head before the parts.
pub(super) fn head(bytes: &[u8]) -> CodecResult<Value> {
    let (head, _, _) = split(bytes)?;
    serde_json::from_slice(head).map_err(|error| error.to_string())
}

fn stream(bytes: &[u8]) -> CodecResult<(SchemaRef, Option<RecordBatch>)> {
    let mut reader = StreamReader::try_new(bytes, None).map_err(|error| error.to_string())?;
    let row = reader.next().transpose().map_err(|error| error.to_string())?;
    if row.as_ref().is_some_and(|row| row.num_rows() != 1) {
        return Err("its values are not one row".into());
    }
    Ok((reader.schema(), row))
}

/// Returns a required member.
pub(crate) fn member<'v>(of: &'v Value, name: &str) -> CodecResult<&'v Value> {
    of.get(name).ok_or_else(|| format!("'{name}' is missing"))
}

pub(crate) fn text<'v>(of: &'v Value, name: &str) -> CodecResult<&'v str> {
    member(of, name)?.as_str().ok_or_else(|| format!("'{name}' is no text"))
}

pub(crate) fn flag(of: Option<&Value>) -> CodecResult<bool> {
    of.and_then(Value::as_bool).ok_or_else(|| "true or false is missing".into())
}

pub(crate) fn number(of: Option<&Value>) -> CodecResult<usize> {
    let found = of.and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    found.ok_or_else(|| "a number is missing".into())
}

pub(crate) fn numbers(of: Option<&Value>) -> CodecResult<Vec<usize>> {
    list(of, |number_of| number(Some(number_of)))
}

pub(crate) fn list<'v, T>(
    of: Option<&'v Value>,
    mut read: impl FnMut(&'v Value) -> CodecResult<T>,
) -> CodecResult<Vec<T>> {
    let all = of.and_then(Value::as_array).ok_or_else(|| "a list is missing".to_string())?;
    all.iter().map(&mut read).collect()
}

fn texts_by_name(of: Option<&Value>) -> CodecResult<HashMap<String, String>> {
    let all = of.and_then(Value::as_object).ok_or_else(|| "metadata is missing".to_string())?;
    let pair = |(name, value): (&String, &Value)| {
        let value = value.as_str().ok_or_else(|| format!("the metadata '{name}' is no text"))?;
        Ok((name.clone(), value.to_string()))
    };
    all.iter().map(pair).collect()
}

/// Decodes a field's metadata.
pub(super) fn metadata(of: Option<&Value>) -> CodecResult<Option<FieldMetadata>> {
    match of {
        None | Some(Value::Null) => Ok(None),
        some => {
            let all: BTreeMap<String, String> = texts_by_name(some)?.into_iter().collect();
            Ok(Some(FieldMetadata::new(all)))
        }
    }
}

pub(super) fn reference(of: Option<&Value>) -> CodecResult<TableReference> {
    let parts = list(of, |part| part.as_str().ok_or_else(|| "a name is no text".to_string()))?;
    match parts[..] {
        [table] => Ok(TableReference::bare(table)),
        [schema, table] => Ok(TableReference::partial(schema, table)),
        [catalog, schema, table] => Ok(TableReference::full(catalog, schema, table)),
        _ => Err("a name has not one to three parts".into()),
    }
}

pub(super) fn maybe_reference(of: Option<&Value>) -> CodecResult<Option<TableReference>> {
    match of {
        None | Some(Value::Null) => Ok(None),
        some => reference(some).map(Some),
    }
}

pub(super) fn column(of: Option<&Value>) -> CodecResult<Column> {
    let of = of.ok_or("a column is missing")?;
    let name = of.get(1).and_then(Value::as_str).ok_or("a column has no name")?;
    Ok(Column::new(maybe_reference(of.get(0))?, name))
}
