//! A clause as an aggregate function: it returns a partition's output rows as a list.
//!
//! The operator that maintains it recognizes it by the alias [`MATCH_ROWS`]. The operator passes all rows of
//! a partition together and retracts none.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::clause::{Clause, Planned};
use super::partition::batch;
use crate::error::Error;

/// The alias of the function.
pub const MATCH_ROWS: &str = "millstream.match_rows";

static ALIASES: LazyLock<[String; 1]> = LazyLock::new(|| [MATCH_ROWS.to_string()]);

/// The function.
#[derive(Debug)]
struct MatchRows {
    clause: Arc<Clause>,
    signature: Signature,
}

impl MatchRows {
    fn new(clause: Clause) -> MatchRows {
        MatchRows { clause: Arc::new(clause), signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

/// Creates the function of a clause.
pub(super) fn function(clause: Clause) -> AggregateUDF {
    AggregateUDF::from(MatchRows::new(clause))
}

/// Returns the clause of such a function.
pub(crate) fn planned_in(function: &AggregateUDF) -> Option<&Planned> {
    Some(&function.inner().downcast_ref::<MatchRows>()?.clause.planned)
}

impl PartialEq for MatchRows {
    fn eq(&self, other: &MatchRows) -> bool {
        self.clause.planned == other.clause.planned
    }
}

impl Eq for MatchRows {}

impl Hash for MatchRows {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.clause.planned.text.hash(state);
    }
}

fn item(clause: &Clause) -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Struct(clause.fields.clone()), true))
}

impl AggregateUDFImpl for MatchRows {
    fn name(&self) -> &str {
        "match_rows"
    }

    fn aliases(&self) -> &[String] {
        &*ALIASES
    }

    fn schema_name(&self, _params: &AggregateFunctionParams) -> Result<String> {
        Ok(format!("match_rows({})", self.clause.planned.text))
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.schema_name(params)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.schema_name(params)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(item(&self.clause)))
    }

    fn is_nullable(&self) -> bool {
        true
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Collected { clause: self.clause.clone(), chunks: Vec::new() }))
    }

    /// The rows, as one list per column.
    fn state_fields(&self, _arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let fields = self.clause.schema.fields().iter().enumerate();
        let list = |(at, field): (usize, &FieldRef)| {
            Arc::new(Field::new(at.to_string(), list_type(field.data_type()), true))
        };
        Ok(fields.map(list).collect())
    }
}

fn list_type(of: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(of.clone(), true)))
}

fn one_list(item: FieldRef, values: ArrayRef) -> Result<ListArray> {
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Ok(ListArray::try_new(item, offsets, values, None)?)
}

/// The rows of one partition so far.
#[derive(Debug)]
struct Collected {
    clause: Arc<Clause>,
    chunks: Vec<Vec<ArrayRef>>,
}

impl Collected {
    fn columns(&self) -> Result<Vec<ArrayRef>> {
        let fields = self.clause.schema.fields().iter().enumerate();
        fields
            .map(|(at, field)| {
                let chunks: Vec<&dyn Array> = self.chunks.iter().map(|chunk| chunk[at].as_ref()).collect();
                if chunks.is_empty() {
                    return Ok(new_empty_array(field.data_type()));
                }
                Ok(concat(&chunks)?)
            })
            .collect()
    }
}

impl Accumulator for Collected {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if values.len() != self.clause.schema.fields().len() {
            return Err(Error::bug("MATCH_RECOGNIZE was given other columns than it takes").into());
        }
        if values.first().is_some_and(|column| !column.is_empty()) {
            self.chunks.push(values.to_vec());
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let columns = self.columns()?;
        let count = columns.first().map_or(0, |column| column.len());
        let found = self.clause.run(&batch(&self.clause.schema, columns, count)?)?;
        Ok(ScalarValue::List(Arc::new(one_list(item(&self.clause), Arc::new(found))?)))
    }

    fn size(&self) -> usize {
        let chunk =
            |chunk: &Vec<ArrayRef>| chunk.iter().map(|column| column.get_array_memory_size()).sum::<usize>();
        size_of_val(self) + self.chunks.iter().map(chunk).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |column: ArrayRef| {
            let item = Arc::new(Field::new_list_field(column.data_type().clone(), true));
            Ok(ScalarValue::List(Arc::new(one_list(item, column)?)))
        };
        self.columns()?.into_iter().map(list).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let count = states.first().map_or(0, |column| column.len());
        for row in 0..count {
            let lists = states.iter().map(|column| column.as_list::<i32>().value(row));
            self.update_batch(&lists.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}
