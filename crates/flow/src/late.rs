//! Rows that come too late: for windows that have closed.
//!
//! They change nothing any more, but are not lost: an operator whose windows close puts them out beside its result. All
//! late rows of a query have one layout, so that they can be read as one relation: what is known of each, then the
//! columns that the operators' rows have.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use millstream_delta::{Chunk, Epoch};

use crate::Result;
use crate::flow::Node;

/// What is known of each late row: the epoch that brought it, the operator for which it was late, the window, the
/// watermark by which that had closed, and how many copies came, or went where it is negative.
const KNOWN: [&str; 5] = ["_epoch", "_operator", "_window", "_watermark", "_weight"];

/// Rows that an operator did not take since their windows had closed.
#[derive(Clone, Debug)]
pub struct Late {
    /// The place among its inputs of the one that they came from.
    pub input: usize,
    /// The rows as they came.
    pub rows: Chunk,
    /// Of each, the time by which its window is told from others.
    pub windows: ArrayRef,
    /// The watermark by which the windows had closed.
    pub watermark: ScalarValue,
}

/// How late rows are told of, by an operator whose windows close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// How many came so far, each as often as its weight says.
    pub rows: u64,
    /// The type of [`Late::windows`].
    pub window: DataType,
    /// That of [`Late::watermark`].
    pub watermark: DataType,
}

impl Late {
    /// How many there are, each as often as its weight says.
    pub(crate) fn count(&self) -> u64 {
        (0..self.rows.rows.num_rows()).map(|row| self.rows.weight(row).unsigned_abs()).sum()
    }
}

/// The layout of the late rows of a flow.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) schema: SchemaRef,
    /// By node and input, the place of each of its columns.
    places: HashMap<(usize, usize), Vec<usize>>,
    /// How many inputs a node has.
    inputs: HashMap<usize, usize>,
}

impl Layout {
    /// That of some nodes; none where no windows close. A column that several operators' rows have under one name and
    /// with one type is one; a name that is taken gets a number.
    pub(crate) fn of(nodes: &[Node]) -> Option<Layout> {
        let (mut windows, mut watermarks) = (Vec::new(), Vec::new());
        let mut columns = Columns::default();
        let (mut places, mut inputs) = (HashMap::new(), HashMap::new());
        for (place, node) in nodes.iter().enumerate() {
            let Node::Operator { operator, inputs: of } = node else { continue };
            let Some(lateness) = operator.late() else { continue };
            windows.push(lateness.window);
            watermarks.push(lateness.watermark);
            inputs.insert(place, of.len());
            for (at, input) in of.iter().enumerate() {
                places.insert((place, at), columns.add(&nodes[*input].properties().schema));
            }
        }
        let types = [
            DataType::Int64,
            DataType::Utf8View,
            one_type(&windows)?,
            one_type(&watermarks)?,
            DataType::Int64,
        ];
        // A row without a time is in no window, and may come before there is a watermark.
        let known = KNOWN.iter().zip(types).enumerate();
        let known = known.map(|(at, (name, of))| Field::new(*name, of, matches!(at, 2 | 3)));
        let fields: Vec<Field> = known.chain(columns.fields).collect();
        Some(Layout { schema: Arc::new(Schema::new(fields)), places, inputs })
    }

    /// Rows that were late for a node, in this layout.
    pub(crate) fn laid_out(
        &self,
        node: usize,
        operator: &str,
        epoch: Epoch,
        late: &Late,
    ) -> Result<RecordBatch> {
        let rows = alone(&late.rows.rows)?;
        let count = rows.num_rows();
        let operator = match self.inputs.get(&node) {
            Some(2) if late.input == 0 => format!("{operator}, left input"),
            Some(2) => format!("{operator}, right input"),
            _ => operator.to_string(),
        };
        let fields = self.schema.fields();
        let mut all: Vec<ArrayRef> = Vec::with_capacity(fields.len());
        all.push(Arc::new(Int64Array::from_value(epoch.0 as i64, count)));
        all.push(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(&operator, count))));
        all.push(cast(&late.windows, fields[2].data_type())?);
        all.push(cast(&late.watermark.to_array_of_size(count)?, fields[3].data_type())?);
        all.push(Arc::new(late.rows.weights_or_ones()));
        all.extend(fields[KNOWN.len()..].iter().map(|field| new_null_array(field.data_type(), count)));
        let places = self.places.get(&(node, late.input)).map_or(&[][..], Vec::as_slice);
        for (place, column) in places.iter().zip(rows.columns()) {
            all[KNOWN.len() + place] = column.clone();
        }
        Ok(RecordBatch::try_new(self.schema.clone(), all)?)
    }
}

/// Columns of rows of several operators.
#[derive(Default)]
struct Columns {
    fields: Vec<Field>,
    /// The name that a column had, by the place of the field.
    names: Vec<String>,
}

impl Columns {
    /// The place of each column of a schema.
    fn add(&mut self, schema: &SchemaRef) -> Vec<usize> {
        let mut taken = BTreeSet::new();
        schema.fields().iter().map(|field| self.place(field, &mut taken)).collect()
    }

    fn place(&mut self, field: &Field, taken: &mut BTreeSet<usize>) -> usize {
        let same =
            |(known, name): (&Field, &String)| name == field.name() && known.data_type() == field.data_type();
        let known = (0..self.fields.len())
            .find(|at| !taken.contains(at) && same((&self.fields[*at], &self.names[*at])));
        let place = known.unwrap_or_else(|| {
            let name = self.free(field.name());
            self.names.push(field.name().clone());
            self.fields.push(Field::new(name, field.data_type().clone(), true));
            self.fields.len() - 1
        });
        taken.insert(place);
        place
    }

    /// A name that no column has: the one that is wanted, or with a number.
    fn free(&self, name: &str) -> String {
        let is_taken =
            |name: &str| KNOWN.contains(&name) || self.fields.iter().any(|field| field.name() == name);
        let mut free = name.to_string();
        let mut number = 2;
        while is_taken(&free) {
            free = format!("{name}_{number}");
            number += 1;
        }
        free
    }
}

/// The type that all have, or text; none where there is none.
fn one_type(types: &[DataType]) -> Option<DataType> {
    let (first, rest) = types.split_first()?;
    Some(if rest.iter().all(|other| other == first) { first.clone() } else { DataType::Utf8View })
}

/// The same rows where they were taken from others, but with texts that don't hold on to the others' texts.
pub fn alone(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let column = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => column.clone(),
        }
    };
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(rows.schema(), rows.columns().iter().map(column).collect(), &options)
}
