//! Late rows of a query: rows for closed windows, or below the watermark of an interval or ASOF join.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch, not, take_record_batch};
use arrow::datatypes::{FieldRef, Int64Type, Schema, SchemaRef};
use millstream_delta::RowEncoder;
use millstream_sql::{Error, Result};
use millstream_state::{Tables, compact};

use crate::error;

/// Most bytes that are kept for a query. Older rows are only counted.
const LATE_BYTES_MAX: usize = 16 << 20;

/// The number of rows that are kept, and dropped, together.
const PIECE_ROWS: usize = 1024;

/// The column with the number of copies that were added or removed.
const WEIGHT: &str = "_weight";

/// The newest late rows of a query, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct LateRows {
    /// The visible columns. One more column in `pieces` tells the flow where each row was late.
    schema: SchemaRef,
    pieces: VecDeque<RecordBatch>,
    bytes: usize,
    /// The number of dropped rows.
    given_up: u64,
    /// The number of copies put into their windows later, and of the statements that did so.
    put: u64,
    times_put: u64,
    /// Rows that queries over the late rows have not received yet.
    fresh: Vec<RecordBatch>,
}

/// Late rows of which some are to be put into their windows, as the flow has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parted {
    /// The rows to put in.
    pub(crate) put: Vec<RecordBatch>,
    /// The other rows.
    pub(crate) rest: Vec<RecordBatch>,
}

impl LateRows {
    /// Returns an empty store with these visible columns.
    pub(crate) fn new(schema: SchemaRef) -> LateRows {
        LateRows {
            schema,
            pieces: VecDeque::new(),
            bytes: 0,
            given_up: 0,
            put: 0,
            times_put: 0,
            fresh: Vec::new(),
        }
    }

    /// Returns the visible columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Keeps more rows, and drops the oldest beyond the bound.
    pub(crate) fn add(&mut self, late: Vec<RecordBatch>) -> Result<()> {
        for rows in late.into_iter().filter(|rows| rows.num_rows() > 0) {
            let small = self.pieces.pop_back_if(|last| last.num_rows() + rows.num_rows() <= PIECE_ROWS);
            let rows = match small {
                Some(last) => {
                    self.bytes -= last.get_array_memory_size();
                    concat_batches(&rows.schema(), [&last, &rows]).map_err(error::arrow)?
                }
                None => rows,
            };
            for from in (0..rows.num_rows()).step_by(PIECE_ROWS) {
                let places = from as u32..rows.num_rows().min(from + PIECE_ROWS) as u32;
                let piece = take_record_batch(&rows, &UInt32Array::from_iter_values(places));
                let piece = piece.and_then(|piece| compact(&piece)).map_err(error::arrow)?;
                self.bytes += piece.get_array_memory_size();
                self.pieces.push_back(piece);
            }
        }
        while self.bytes > LATE_BYTES_MAX
            && let Some(oldest) = self.pieces.pop_front()
        {
            self.bytes -= oldest.get_array_memory_size();
            self.given_up += oldest.num_rows() as u64;
        }
        Ok(())
    }

    /// Adds rows that have just arrived.
    pub(crate) fn receive(&mut self, late: Vec<RecordBatch>) -> Result<()> {
        for rows in &late {
            self.fresh.push(self.shown(rows)?);
        }
        self.add(late)
    }

    /// Takes the rows that have arrived since the last call, with the visible columns.
    pub(crate) fn take_fresh(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.fresh)
    }

    /// Saves the kept rows and the counts.
    pub(crate) fn save(&self) -> Tables {
        let mut all = Tables::default();
        all.put("rows", self.pieces.iter().cloned().collect());
        all.put_number("given_up", self.given_up as i64);
        all.put_number("put", self.put as i64);
        all.put_number("times_put", self.times_put as i64);
        all
    }

    /// Loads the saved rows and counts.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        let rows = all.take("rows").map_err(error::state)?;
        let rows = rows.iter().map(|rows| self.widened(rows)).collect::<Result<_>>()?;
        self.add(rows)?;
        let mut number = |name: &str| all.take_number(name).map(|number| number as u64).map_err(error::state);
        self.given_up = number("given_up")?;
        self.put = number("put")?;
        self.times_put = number("times_put")?;
        Ok(())
    }

    /// Adds missing visible columns, as NULL, to rows of a checkpoint by a version that had fewer.
    fn widened(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let Some((side, shown)) = rows.columns().split_last() else { return Ok(rows.clone()) };
        let fields = self.schema.fields();
        let mut columns = shown.to_vec();
        let missing = fields.iter().skip(columns.len());
        columns.extend(missing.map(|field| new_null_array(field.data_type(), rows.num_rows())));
        columns.push(side.clone());
        let mut all: Vec<FieldRef> = fields.iter().cloned().collect();
        all.extend(rows.schema().fields().last().cloned());
        RecordBatch::try_new(Arc::new(Schema::new(all)), columns).map_err(error::arrow)
    }

    /// Returns the kept rows, with the visible columns.
    pub(crate) fn batches(&self) -> Result<Vec<RecordBatch>> {
        self.pieces.iter().map(|piece| self.shown(piece)).collect()
    }

    fn shown(&self, piece: &RecordBatch) -> Result<RecordBatch> {
        let columns: Vec<usize> = (0..self.schema.fields().len()).collect();
        piece.project(&columns).map_err(error::arrow)
    }

    /// Separates the wanted rows, which have the visible columns, from the kept ones. Of equal rows it takes the first,
    /// each once. Returns an error if one is missing.
    pub(crate) fn parted(&self, wanted: &[RecordBatch]) -> Result<Parted> {
        // A journal of an earlier version names fewer columns.
        let columns: Vec<usize> =
            (0..wanted.first().map_or(self.schema.fields().len(), RecordBatch::num_columns)).collect();
        let known = self.schema.project(&columns).map_err(error::arrow)?;
        let encoder = RowEncoder::new(&Arc::new(known)).map_err(|error| {
            Error::invalid(format!("late rows of these columns can't be compared: {error}"))
        })?;
        let mut left: HashMap<Box<[u8]>, u64> = HashMap::new();
        for rows in wanted {
            let encoded = encoder.encode(rows).map_err(error::arrow)?;
            for row in encoded.iter() {
                *left.entry(row.as_ref().into()).or_default() += 1;
            }
        }
        let mut parted = Parted::default();
        for piece in &self.pieces {
            let encoded =
                piece.project(&columns).and_then(|rows| encoder.encode(&rows)).map_err(error::arrow)?;
            let mut take = |row: &[u8]| {
                let wanted = left.get_mut(row).filter(|wanted| **wanted > 0);
                wanted.map(|wanted| *wanted -= 1).is_some()
            };
            let is_put: BooleanArray = encoded.iter().map(|row| Some(take(row.as_ref()))).collect();
            let some = |mask: &BooleanArray| filter_record_batch(piece, mask).map_err(error::arrow);
            parted.put.push(some(&is_put)?);
            parted.rest.push(some(&not(&is_put).map_err(error::arrow)?)?);
        }
        let missing: u64 = left.values().sum();
        if missing > 0 {
            let rows = if missing == 1 { "row is" } else { "rows are" };
            return Err(Error::invalid(format!("{missing} {rows} not among the late rows that are kept"))
                .hint(
                    "Put in rows as late_rows shows them, each once: SELECT * FROM late_rows('…') WHERE …",
                ));
        }
        Ok(parted)
    }

    /// Removes rows that were put into their windows.
    pub(crate) fn put(&mut self, rows: &[RecordBatch]) -> Result<()> {
        let Parted { put, rest } = self.parted(rows)?;
        self.put += put.iter().map(copies).sum::<u64>();
        self.times_put += 1;
        (self.pieces, self.bytes) = (VecDeque::new(), 0);
        self.add(rest)
    }

    /// Returns the number of copies that were put into their windows later.
    pub(crate) fn count_put(&self) -> u64 {
        self.put
    }

    /// Returns the number of statements that did so.
    pub(crate) fn times_put(&self) -> u64 {
        self.times_put
    }

    /// Returns true if some rows are no longer kept: they were dropped, or put into their windows.
    pub(crate) fn has_lost(&self) -> bool {
        self.given_up > 0 || self.put > 0
    }

    /// Returns the number of rows dropped for lack of room.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Returns their approximate size in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

/// Returns the number of copies that rows stand for.
fn copies(rows: &RecordBatch) -> u64 {
    let weights = rows.column_by_name(WEIGHT).and_then(|weights| weights.as_primitive_opt::<Int64Type>());
    weights.map_or(0, |weights| weights.values().iter().map(|weight| weight.unsigned_abs()).sum())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn the_newest_are_kept_in_their_order() {
        let rows = |from: i64, count: i64| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + count));
            let texts = (0..count).map(|n| format!("{n:_>100}"));
            let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
            RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap()
        };
        let mut late = LateRows::new(rows(0, 0).schema());
        let mut next = 0;
        for count in (1..2000).chain([5000; 60]) {
            late.add(vec![rows(next, count)]).unwrap();
            next += count;
        }
        assert!(late.memory_bytes() <= LATE_BYTES_MAX && late.memory_bytes() > LATE_BYTES_MAX / 2);
        let kept: Vec<i64> = late
            .batches()
            .unwrap()
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert!(kept.iter().copied().eq(next - kept.len() as i64..next));
    }

    #[test]
    fn equal_rows_are_put_in_one_by_one() {
        let rows = |numbers: Vec<i64>, sides: Option<Vec<i64>>| {
            let column = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
            let ones = column(vec![1; numbers.len()]);
            let mut columns = vec![(WEIGHT, ones), ("n", column(numbers))];
            columns.extend(sides.map(|sides| ("side", column(sides))));
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let mut late = LateRows::new(rows(vec![], None).schema());
        late.add(vec![rows(vec![5, 7, 5], Some(vec![0, 0, 1])), rows(vec![5], Some(vec![0]))]).unwrap();
        let sides = |pieces: &[RecordBatch]| -> Vec<i64> {
            let of = |piece: &RecordBatch| piece.column(2).as_primitive::<Int64Type>().values().to_vec();
            pieces.iter().flat_map(of).collect()
        };
        let Parted { put, rest } = late.parted(&[rows(vec![5, 5], None)]).unwrap();
        assert_eq!((sides(&put), sides(&rest)), (vec![0, 1], vec![0, 0]));
        let error = late.parted(&[rows(vec![7, 7, 8], None)]).unwrap_err().message;
        assert_eq!(error, "2 rows are not among the late rows that are kept");
        late.put(&[rows(vec![5, 7], None)]).unwrap();
        assert_eq!((sides(late.pieces.make_contiguous()), late.count_put()), (vec![1, 0], 2));
    }
}
