//! The rows of relations that late rows were made of.
//!
//! An operator sees what the plan has left of a row: unused columns are gone, others are computed. If a
//! relation reaches the operator only through projections, filters, unnests and unions, each row there was
//! made of one row of the relation. So the epoch's rows run through these operators once more, with row
//! numbers in place of weights. The late rows are found among them. An epoch without late rows costs nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::compute::{and, cast, concat, max, min, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use datafusion::common::ScalarValue;
use millstream_delta::{Chunk, Cut, Delta, RowEncoder};

use crate::Result;
use crate::change::Change;
use crate::dag::{Advance, Node};
use crate::failure::{self, keep, row_text};
use crate::late_rows::{Late, Layout, Without};

/// The key in the metadata of a field that `*` omits.
const HIDDEN: &str = "millstream.hidden";

/// The late rows of a flow and their origins.
#[derive(Debug)]
pub(crate) struct Provenance {
    /// The layout of the late rows, if windows close.
    layout: Option<Layout>,
    /// For each node, the column of a relation that holds its event time.
    event_columns: Vec<Option<usize>>,
}

/// The origins of late rows, by the rows' places.
pub(crate) struct Origins {
    /// The relation; `None` for rows that another operator made.
    pub(crate) relations: Vec<Option<Arc<str>>>,
    /// The relation's event time; NULL if it has none.
    pub(crate) times: Vec<ScalarValue>,
    /// The relation's row as JSON, or else the operator's row.
    pub(crate) rows: Vec<String>,
}

/// A path from a relation to an input of an operator.
struct Path {
    /// The place of the relation's node.
    input: usize,
    /// The places of the operators on the path.
    through: Vec<usize>,
}

/// A row of a relation: the number of its chunk, and its place there.
type Candidate = (usize, u32);

/// The rows of relations that may be origins of late rows.
#[derive(Default)]
struct Found {
    /// By chunk number: the place of the relation's node, and its rows.
    chunks: Vec<(usize, Chunk)>,
    /// The candidates, by the row that the operator got.
    candidates: HashMap<Box<[u8]>, Vec<Candidate>>,
}

/// Searches the rows of one epoch for the origins of late rows.
struct OriginSearch<'a> {
    nodes: &'a [Node],
    relations: &'a [Arc<str>],
    event_columns: &'a [Option<usize>],
    /// The deltas of the epoch, by relation.
    inputs: &'a [&'a Delta],
}

impl Provenance {
    /// Returns the view of the late rows of some nodes. `event_columns` has for each node the column of a relation that
    /// holds its event time.
    pub(crate) fn of(nodes: &[Node], event_columns: Vec<Option<usize>>) -> Provenance {
        Provenance { layout: Layout::of(nodes, &event_columns), event_columns }
    }

    /// Returns the columns of the late rows that users see, if windows close.
    pub(crate) fn late_schema(&self) -> Option<&SchemaRef> {
        self.layout.as_ref().map(|layout| &layout.shown)
    }

    /// Returns the rows that late rows were in the inputs of operators.
    pub(crate) fn late_rows(&self, late: &[RecordBatch]) -> Result<Without> {
        match &self.layout {
            Some(layout) => layout.taken_back(late),
            None => Ok(Without::new()),
        }
    }

    /// Returns the change of a step as the flow's caller gets it. `inputs` are the deltas of the epoch.
    pub(crate) fn change(
        &self,
        nodes: &[Node],
        relations: &[Arc<str>],
        (cut, inputs): (&Cut, &[&Delta]),
        advance: Advance,
    ) -> Result<Change> {
        let Advance { rows, failures, failing, left_out, late } = advance;
        let errors = failure::delta(failures.iter().map(|(name, failure)| (*name, failure)))?;
        let late = together(late)?;
        let search = OriginSearch { nodes, relations, event_columns: &self.event_columns, inputs };
        let laid_out = |(place, name, late): &(usize, &str, Late)| {
            let layout = self.layout.as_ref()?;
            let origins = search.origins(*place, late);
            Some(origins.and_then(|origins| layout.laid_out(*place, name, cut.epoch, late, origins)))
        };
        let late = late.iter().filter_map(laid_out).collect::<Result<_>>()?;
        Ok(Change { rows, errors, failing, left_out, late })
    }
}

impl OriginSearch<'_> {
    /// Returns the origins of rows that were late for the operator at a place.
    fn origins(&self, place: usize, late: &Late) -> Result<Origins> {
        let count = late.rows.rows.num_rows();
        let mut origins = Origins {
            relations: vec![None; count],
            times: vec![ScalarValue::Null; count],
            rows: shown(&late.rows.rows)?,
        };
        let Node::Operator { inputs: below, .. } = &self.nodes[place] else { return Ok(origins) };
        let Ok(encoder) = RowEncoder::new(&late.rows.rows.schema()) else { return Ok(origins) };
        let keys = keys(&encoder, &late.rows, |row| late.rows.weight(row))?;
        let mut found = Found::default();
        found.candidates.extend(keys.iter().map(|key| (key.clone(), Vec::new())));
        let bounds = bounds(&late.rows.rows)?;
        for path in self.paths(below[late.input]) {
            self.look(&path, &encoder, &bounds, &mut found)?;
        }
        // Of equal rows, the first late one of each window gets the first candidate, and so on.
        let mut taken: HashMap<(&[u8], ScalarValue), usize> = HashMap::new();
        let mut of_chunk: Vec<Vec<(usize, u32)>> = vec![Vec::new(); found.chunks.len()];
        for (row, key) in keys.iter().enumerate() {
            let window = ScalarValue::try_from_array(&late.windows, row)?;
            let number = taken.entry((key.as_ref(), window)).or_default();
            let candidates = &found.candidates[key];
            if let Some((chunk, at)) = candidates.get(*number % candidates.len().max(1)) {
                of_chunk[*chunk].push((row, *at));
            }
            *number += 1;
        }
        for ((input, chunk), rows) in found.chunks.iter().zip(of_chunk).filter(|(_, rows)| !rows.is_empty()) {
            self.fill(&mut origins, *input, chunk, &rows)?;
        }
        Ok(origins)
    }

    /// Returns the paths from relations to a node through operators that make each row of one row.
    fn paths(&self, place: usize) -> Vec<Path> {
        match &self.nodes[place] {
            Node::Input { .. } => vec![Path { input: place, through: Vec::new() }],
            Node::Operator { operator, inputs } if operator.abilities().row_by_row.is_some() => {
                let mut paths: Vec<Path> = inputs.iter().flat_map(|input| self.paths(*input)).collect();
                paths.iter_mut().for_each(|path| path.through.push(place));
                paths
            }
            Node::Operator { .. } => Vec::new(),
        }
    }

    /// Records the rows of a relation that become one of the late rows.
    fn look(&self, path: &Path, encoder: &RowEncoder, bounds: &[Bounds], found: &mut Found) -> Result<()> {
        let Node::Input { relation, properties, .. } = &self.nodes[path.input] else { return Ok(()) };
        let delta = self.inputs[*relation].first_columns(properties.schema.fields().len())?;
        for source in &delta.chunks {
            let numbers = Int64Array::from_iter_values(0..source.rows.num_rows() as i64);
            let mut chunks = vec![Chunk { rows: source.rows.clone(), weights: Some(numbers) }];
            for place in &path.through {
                let Node::Operator { operator, .. } = &self.nodes[*place] else { continue };
                let Some(operator) = operator.abilities().row_by_row else { continue };
                let run = chunks.iter().map(|chunk| operator.run_rows(chunk));
                chunks = run.collect::<Result<Vec<_>>>()?.concat();
            }
            let number = found.chunks.len();
            for chunk in chunks {
                let chunk = within(chunk, bounds)?;
                let weight = |row: usize| source.weight(chunk.weight(row) as usize);
                for (row, key) in keys(encoder, &chunk, weight)?.into_iter().enumerate() {
                    if let Some(candidates) = found.candidates.get_mut(&key) {
                        candidates.push((number, chunk.weight(row) as u32));
                    }
                }
            }
            found.chunks.push((path.input, source.clone()));
        }
        Ok(())
    }

    /// Sets the origins of late rows that were made of a relation's chunk.
    fn fill(&self, origins: &mut Origins, input: usize, chunk: &Chunk, found: &[(usize, u32)]) -> Result<()> {
        let Node::Input { relation, .. } = &self.nodes[input] else { return Ok(()) };
        let places = UInt32Array::from_iter_values(found.iter().map(|(_, at)| *at));
        let rows = take_record_batch(&chunk.rows, &places)?;
        let texts = shown(&rows)?;
        let time = self.event_columns[input];
        for (at, ((row, _), text)) in found.iter().zip(texts).enumerate() {
            origins.relations[*row] = Some(self.relations[*relation].clone());
            origins.rows[*row] = text;
            if let Some(time) = time {
                origins.times[*row] = ScalarValue::try_from_array(rows.column(time), at)?;
            }
        }
        Ok(())
    }
}

/// Merges the rows that were late for the same input of an operator, so that they are searched once.
fn together(late: Vec<(usize, &'static str, Late)>) -> Result<Vec<(usize, &'static str, Late)>> {
    let mut groups: Vec<Vec<(usize, &'static str, Late)>> = Vec::new();
    for one in late.into_iter().filter(|(_, _, late)| late.rows.rows.num_rows() > 0) {
        let same = |group: &&mut Vec<(usize, &str, Late)>| {
            let (place, _, late) = &group[0];
            *place == one.0 && late.input == one.2.input && late.watermark == one.2.watermark
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    let merged = |group: Vec<(usize, &'static str, Late)>| {
        let (place, name, first) = &group[0];
        let windows: Vec<&dyn Array> = group.iter().map(|(_, _, late)| late.windows.as_ref()).collect();
        let windows = concat(&windows)?;
        let schema = first.rows.rows.schema();
        let rows = Delta { chunks: group.iter().map(|(_, _, late)| late.rows.clone()).collect() };
        let rows = rows.into_one(&schema)?;
        let rows = rows.unwrap_or_else(|| first.rows.clone());
        Ok((*place, *name, Late { rows, windows, ..first.clone() }))
    };
    groups.into_iter().map(merged).collect()
}

/// Returns for each row its columns and its weight as bytes.
fn keys(encoder: &RowEncoder, chunk: &Chunk, weight: impl Fn(usize) -> i64) -> Result<Vec<Box<[u8]>>> {
    let encoded = encoder.encode(&chunk.rows)?;
    let key = |(row, bytes): (usize, &[u8])| [bytes, &weight(row).to_le_bytes()].concat().into();
    Ok((0..chunk.rows.num_rows()).map(|row| key((row, encoded.row(row).as_ref()))).collect())
}

/// The least and the greatest value of a column of the late rows.
struct Bounds {
    column: usize,
    least: Int64Array,
    greatest: Int64Array,
}

/// Returns bounds of the columns that are timestamps or BIGINT without NULLs. Bounds of times exclude most
/// rows, since late rows lie in closed windows.
fn bounds(rows: &RecordBatch) -> Result<Vec<Bounds>> {
    let mut all = Vec::new();
    for (column, values) in rows.columns().iter().enumerate() {
        if values.null_count() > 0 || !matches!(values.data_type(), DataType::Timestamp(..) | DataType::Int64)
        {
            continue;
        }
        let values = cast(values, &DataType::Int64)?;
        let values = values.as_primitive::<Int64Type>();
        if let (Some(least), Some(greatest)) = (min(values), max(values)) {
            let one = |value: i64| Int64Array::from(vec![value]);
            all.push(Bounds { column, least: one(least), greatest: one(greatest) });
        }
    }
    Ok(all)
}

/// Returns the rows within the bounds.
fn within(chunk: Chunk, bounds: &[Bounds]) -> Result<Chunk> {
    let mut mask: Option<BooleanArray> = None;
    for Bounds { column, least, greatest } in bounds {
        let values = cast(chunk.rows.column(*column), &DataType::Int64)?;
        let values: &dyn Array = &values;
        let inside = and(
            &gt_eq(&values, &arrow::array::Scalar::new(least))?,
            &lt_eq(&values, &arrow::array::Scalar::new(greatest))?,
        )?;
        mask = Some(match mask {
            Some(mask) => and(&mask, &inside)?,
            None => inside,
        });
    }
    match mask {
        Some(mask) => keep(&chunk, &mask),
        None => Ok(chunk),
    }
}

/// Formats rows as JSON, without columns that the planner made or `*` omits; as text if a column has no form
/// in JSON.
fn shown(rows: &RecordBatch) -> Result<Vec<String>> {
    let schema = rows.schema();
    let is_shown = |field: &Field| {
        !field.name().starts_with('!') && field.metadata().get(HIDDEN).is_none_or(|hidden| hidden != "true")
    };
    let places: Vec<usize> =
        (0..schema.fields().len()).filter(|place| is_shown(schema.field(*place))).collect();
    if places.is_empty() {
        return Ok(vec!["{}".into(); rows.num_rows()]);
    }
    let fields: Vec<Field> =
        places.iter().map(|place| schema.field(*place).clone().with_nullable(true)).collect();
    let columns: Vec<ArrayRef> = places.iter().map(|place| rows.column(*place).clone()).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let mut text = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut text);
    let written = writer.write(&rows).and_then(|()| writer.finish());
    match (written, String::from_utf8(text)) {
        (Ok(()), Ok(text)) => Ok(text.lines().map(str::to_string).collect()),
        _ => (0..rows.num_rows()).map(|row| row_text(&rows, row)).collect(),
    }
}
