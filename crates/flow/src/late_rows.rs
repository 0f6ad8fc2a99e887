//! Late rows: rows that arrive after their windows have closed.
//!
//! Late rows change nothing but are not lost: an operator whose windows close emits them beside its result.
//! All late rows of a query have one layout, so that they can be read as one relation: facts about each row,
//! then the columns of the operators' rows. An internal column follows: the operator and input for which the
//! row was late. With it late rows can be left out there, since a window consists of the rows that arrived
//! without the late ones.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
    UInt32Array, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type};
use datafusion::common::ScalarValue;
use millstream_delta::{Chunk, Delta, Epoch, consolidate};
use millstream_state::compact;

use crate::dag::Node;
use crate::failure::keep;
use crate::provenance::Origins;
use crate::{Error, Result};

/// The facts about each late row: its epoch, the operator for which it was late, the window, the watermark by
/// which the window had closed, and the number of copies (negative: removed copies).
const KNOWN: [&str; 5] = ["_epoch", "_operator", "_window", "_watermark", "_weight"];

/// The origin of a late row: the relation, its event time there, and the relation's whole row as JSON.
/// Relation and time are NULL for rows that another operator made.
const ORIGIN: [&str; 3] = ["_relation", "_event_time", "_row"];

/// Rows that an operator dropped since their windows had closed.
#[derive(Clone, Debug)]
pub struct Late {
    /// The operator's input that the rows came from.
    pub input: usize,
    /// The rows as they arrived.
    pub rows: Chunk,
    /// The time that identifies the window of each row.
    pub windows: ArrayRef,
    /// The watermark by which the windows had closed.
    pub watermark: ScalarValue,
}

/// The number and types of the late rows of an operator whose windows close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// The number of late rows so far, by weight.
    pub rows: u64,
    /// The type of [`Late::windows`].
    pub window: DataType,
    /// The type of [`Late::watermark`].
    pub watermark: DataType,
}

impl Late {
    /// Returns the number of rows, by weight.
    pub(crate) fn count(&self) -> u64 {
        (0..self.rows.rows.num_rows()).map(|row| self.rows.weight(row).unsigned_abs()).sum()
    }
}

/// The last, internal column: the input for which a row was late, as a place in [`Layout::sides`].
const SIDE: &str = "_side";

/// The layout of the late rows of a flow.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The columns that users see.
    pub(crate) shown: SchemaRef,
    /// The same columns, and the place of the side.
    all: SchemaRef,
    /// The inputs of operators whose windows close.
    sides: Vec<Side>,
}

/// An input of an operator whose windows close.
#[derive(Clone, Debug)]
struct Side {
    /// The place of the operator among the nodes, and the place of the input among the operator's inputs.
    at: (usize, usize),
    /// True if the operator has another input.
    one_of_two: bool,
    /// The columns of the operator's rows, and the place of each in the layout; `None` for columns that the
    /// planner made.
    schema: SchemaRef,
    places: Vec<Option<usize>>,
}

impl Layout {
    /// Returns the layout for some nodes; `None` if no windows close. Columns of several operators with the
    /// same name and type become one column; a name that is taken gets a number.
    pub(crate) fn of(nodes: &[Node], event_columns: &[Option<usize>]) -> Option<Layout> {
        let (mut windows, mut watermarks) = (Vec::new(), Vec::new());
        let mut columns = Columns::default();
        let mut sides = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            let Node::Operator { operator, inputs } = node else { continue };
            let Some(lateness) = operator.abilities().late() else { continue };
            windows.push(lateness.window);
            watermarks.push(lateness.watermark);
            for (at, input) in inputs.iter().enumerate() {
                let schema = nodes[*input].properties().schema.clone();
                let places = columns.add(&schema).into_iter();
                let places = places.map(|place| Some(KNOWN.len() + place?)).collect();
                sides.push(Side { at: (place, at), one_of_two: inputs.len() == 2, schema, places });
            }
        }
        let types = [
            DataType::Int64,
            DataType::Utf8View,
            one_type(&windows)?,
            one_type(&watermarks)?,
            DataType::Int64,
        ];
        // A row without a time is in no window, and may arrive before there is a watermark.
        let known = KNOWN.iter().zip(types).enumerate();
        let known = known.map(|(at, (name, of))| Field::new(*name, of, matches!(at, 2 | 3)));
        let times = nodes.iter().zip(event_columns).filter_map(|(node, column)| {
            Some(node.properties().schema.field((*column)?).data_type().clone())
        });
        let time = one_type(&times.collect::<Vec<_>>()).unwrap_or(DataType::Utf8View);
        let types = [DataType::Utf8View, time, DataType::Utf8View];
        let origin = ORIGIN.iter().zip(types).map(|(name, of)| Field::new(*name, of, true));
        let mut fields: Vec<Field> = known.chain(columns.fields).chain(origin).collect();
        let shown = Arc::new(Schema::new(fields.clone()));
        fields.push(Field::new(SIDE, DataType::UInt32, false));
        Some(Layout { shown, all: Arc::new(Schema::new(fields)), sides })
    }

    /// Returns rows that were late for a node in this layout, with the place of their side behind the users'
    /// columns.
    pub(crate) fn laid_out(
        &self,
        node: usize,
        operator: &str,
        epoch: Epoch,
        late: &Late,
        origins: Origins,
    ) -> Result<RecordBatch> {
        let place = self.sides.iter().position(|side| side.at == (node, late.input));
        let place = place.ok_or_else(|| Error::Bug(format!("{operator} has late rows, but no windows")))?;
        let side = &self.sides[place];
        let rows = compact(&late.rows.rows)?;
        let count = rows.num_rows();
        let operator = match (side.one_of_two, late.input) {
            (true, 0) => format!("{operator}, left input"),
            (true, _) => format!("{operator}, right input"),
            (false, _) => operator.to_string(),
        };
        let fields = self.shown.fields();
        let mut all: Vec<ArrayRef> = Vec::with_capacity(fields.len() + 1);
        all.push(Arc::new(Int64Array::from_value(epoch.0 as i64, count)));
        all.push(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(&operator, count))));
        all.push(cast(&late.windows, fields[2].data_type())?);
        all.push(cast(&late.watermark.to_array_of_size(count)?, fields[3].data_type())?);
        all.push(Arc::new(late.rows.weights_or_ones()));
        let columns = KNOWN.len()..fields.len() - ORIGIN.len();
        all.extend(fields[columns].iter().map(|field| new_null_array(field.data_type(), count)));
        for (place, column) in side.places.iter().zip(rows.columns()) {
            if let Some(place) = place {
                all[*place] = column.clone();
            }
        }
        let Origins { relations, times, rows } = origins;
        all.push(Arc::new(StringViewArray::from_iter(relations)));
        all.push(column_of(times, fields[fields.len() - 2].data_type())?);
        all.push(Arc::new(StringViewArray::from_iter_values(rows)));
        all.push(Arc::new(UInt32Array::from_value(place as u32, count)));
        Ok(RecordBatch::try_new(self.all.clone(), all)?)
    }

    /// Returns late rows of this layout as the operators got them, by node and input, with negated weights.
    pub(crate) fn taken_back(&self, late: &[RecordBatch]) -> Result<Without> {
        let mut without = Without::new();
        for rows in late {
            let of = rows.column(rows.num_columns() - 1).as_primitive::<UInt32Type>();
            for (place, side) in self.sides.iter().enumerate() {
                let mask: BooleanArray = of.iter().map(|of| Some(of == Some(place as u32))).collect();
                if mask.true_count() == 0 {
                    continue;
                }
                let columns = side.places.iter().map(|place| Some(rows.column((*place)?).clone()));
                let columns = columns.collect::<Option<Vec<ArrayRef>>>().ok_or_else(|| {
                    Error::Bug(
                        "late rows can't be given back without the columns that the planner has made".into(),
                    )
                })?;
                let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                let weights = rows.column(KNOWN.len() - 1).as_primitive::<Int64Type>();
                let chunk = Chunk {
                    rows: RecordBatch::try_new_with_options(side.schema.clone(), columns, &options)?,
                    weights: Some(weights.unary(|weight| -weight)),
                };
                without.entry(side.at).or_default().push(keep(&chunk, &mask)?);
            }
        }
        Ok(without)
    }
}

/// The rows to leave out of the inputs of operators, by the places of node and input.
pub(crate) type Without = HashMap<(usize, usize), Delta>;

/// Subtracts rows from a delta that is an operator's whole input.
pub(crate) fn less(delta: &Delta, gone: &Delta) -> Result<Delta> {
    let Some(first) = gone.chunks.first() else { return Ok(delta.clone()) };
    let mut sum = delta.clone();
    sum.append(gone.clone());
    let mut left = Delta::default();
    for chunk in consolidate(sum, &first.rows.schema())?.chunks {
        if (0..chunk.rows.num_rows()).any(|row| chunk.weight(row) < 0) {
            return Err(Error::Limit(
                "a late row is not among the rows that the inputs hold, so that what its window took is not known".into(),
            ));
        }
        left.push(Chunk::insert(chunk.expand()?));
    }
    Ok(left)
}

/// The merged columns of the rows of several operators.
#[derive(Default)]
struct Columns {
    fields: Vec<Field>,
    /// The original name of each column, by the place of the field.
    names: Vec<String>,
}

impl Columns {
    /// Returns the place of each column of a schema; `None` for those that the planner made, whose names no
    /// query can use.
    fn add(&mut self, schema: &SchemaRef) -> Vec<Option<usize>> {
        let mut taken = BTreeSet::new();
        let mut place =
            |field: &Field| (!field.name().starts_with('!')).then(|| self.place(field, &mut taken));
        schema.fields().iter().map(|field| place(field)).collect()
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

    /// Returns a name that no column has: the wanted one, perhaps with a number.
    fn free(&self, name: &str) -> String {
        let is_taken = |name: &str| {
            KNOWN.contains(&name)
                || ORIGIN.contains(&name)
                || self.fields.iter().any(|field| field.name() == name)
        };
        let mut free = name.to_string();
        let mut number = 2;
        while is_taken(&free) {
            free = format!("{name}_{number}");
            number += 1;
        }
        free
    }
}

/// Returns a column of values cast to a type.
fn column_of(values: Vec<ScalarValue>, data_type: &DataType) -> Result<ArrayRef> {
    if values.is_empty() {
        return Ok(new_null_array(data_type, 0));
    }
    let cast = |value: ScalarValue| match value.is_null() {
        true => ScalarValue::try_from(data_type),
        false => value.cast_to(data_type),
    };
    let values = values.into_iter().map(cast).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(ScalarValue::iter_to_array(values)?)
}

/// Returns the common type of all, or text if they differ; `None` for no types.
fn one_type(types: &[DataType]) -> Option<DataType> {
    let (first, rest) = types.split_first()?;
    Some(if rest.iter().all(|other| other == first) { first.clone() } else { DataType::Utf8View })
}
