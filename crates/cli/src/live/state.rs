//! The state of a live view: rows, the newest changes, their rate.
//!
//! The state is bounded, however large the relation is and however fast it changes: it keeps a maximum
//! number of rows and of changes. Further rows are only counted.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use console::{measure_text_width, truncate_str};

use crate::cell::{self, Cells};
use crate::form::visible;
use crate::live::rows::{KeptRows, Moves};

/// Maximum number of rows kept.
pub const ROWS_MAX: usize = 10_000;
/// Maximum number of changes kept.
pub const CHANGES_MAX: usize = 2_000;
/// Maximum display width of a value.
const WIDTH_MAX: usize = 60;

/// Number of a subscription's own columns, which precede those of the relation.
const OWN_COLUMNS: usize = 2;

/// The displayed values of a row; `None` is NULL.
pub type Values = Arc<[Option<String>]>;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// True if its values are right-aligned.
    pub right: bool,
    /// Width of the widest value so far.
    pub width: usize,
}

/// A displayed row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its values.
    pub values: Values,
    /// The previous values at its place.
    pub before: Option<Values>,
    /// Time of its last change; `None` for rows of the snapshot.
    pub changed: Option<Instant>,
}

/// A change of a row.
#[derive(Clone, Debug)]
pub struct Change {
    /// The epoch of the change.
    pub epoch: u64,
    /// True for an insert, false for a delete.
    pub came: bool,
    /// The row.
    pub values: Values,
}

/// The newest changes, at most [`CHANGES_MAX`]; earlier ones are only counted.
#[derive(Debug, Default)]
pub struct RecentChanges {
    /// The newest changes, the last one last.
    pub newest: VecDeque<Change>,
    /// Number of all changes.
    pub count: u64,
}

/// The load of the engine that the view follows.
#[derive(Debug, Default)]
pub struct EngineLoad {
    /// Time that the newest epoch took and waited, in microseconds.
    pub delay_us: Option<u64>,
    /// Rows of sources that wait for an epoch.
    pub waiting: u64,
}

/// The state of the query's result.
#[derive(Debug)]
pub struct State {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: KeptRows,
    /// The changes.
    pub changes: RecentChanges,
    /// The newest epoch received.
    pub epoch: u64,
    /// The load of the engine.
    pub load: EngineLoad,
    /// Number of restarts because changes arrived faster than the view could apply them.
    pub restarts: u64,
    /// The end of the query, if it has ended.
    pub end: Option<Result<(), String>>,
    /// True after the rows of the snapshot.
    begun: bool,
}

impl State {
    /// Creates the state before the first batch of a subscription with this schema.
    pub fn new(schema: &Schema) -> State {
        let column = |field: &Arc<arrow::datatypes::Field>| {
            let name = visible(field.name());
            Column { width: measure_text_width(&name), right: cell::is_number(field.data_type()), name }
        };
        State {
            columns: schema.fields().iter().skip(OWN_COLUMNS).map(column).collect(),
            rows: KeptRows::default(),
            changes: RecentChanges::default(),
            epoch: 0,
            load: EngineLoad::default(),
            restarts: 0,
            end: None,
            begun: false,
        }
    }

    /// Drops the rows; a new subscription returns them again.
    pub fn begin_anew(&mut self) {
        self.rows.clear();
        self.begun = false;
        self.restarts += 1;
    }

    /// Applies a batch of a subscription.
    pub fn apply(&mut self, batch: &RecordBatch, now: Instant) -> Result<(), ArrowError> {
        let epochs = batch.column(0).as_primitive::<Int64Type>();
        let ops = batch.column(1).as_string_view();
        let values = &batch.columns()[OWN_COLUMNS..];
        let hashes = hashes(values, batch.num_rows())?;
        let fresh = self.begun.then_some(now);
        let mut moves = Moves::default();
        let mut freed: VecDeque<u64> = VecDeque::new();
        let mut replaced = None;
        let mut told = Vec::new();
        for (row, hash) in hashes.iter().enumerate() {
            let epoch = epochs.value(row) as u64;
            if epoch > self.epoch {
                self.epoch = epoch;
                freed.clear();
            }
            let op = ops.value(row);
            match op {
                "progress" => {
                    self.begun = true;
                    continue;
                }
                "delete" => freed.extend(self.rows.remove(*hash, &mut moves)),
                "update_delete" => replaced = self.rows.remove(*hash, &mut moves),
                "update_insert" => self.rows.add(*hash, row, replaced.take(), &mut moves),
                _ => self.rows.add(*hash, row, freed.pop_front(), &mut moves),
            }
            self.changes.count += 1;
            told.push((row, epoch, op));
        }
        let columns = values.iter().map(Cells::new).collect::<Result<Vec<_>, _>>()?;
        self.rows.settle(moves, fresh, |row| values_of(&mut self.columns, &columns, row));
        self.tell(&told, &columns);
        Ok(())
    }

    /// Records the newest changes. Rows of the snapshot are no changes.
    fn tell(&mut self, told: &[(usize, u64, &str)], columns: &[Cells<'_>]) {
        let skipped = told.len().saturating_sub(CHANGES_MAX);
        for (row, epoch, op) in &told[skipped..] {
            let values = values_of(&mut self.columns, columns, *row);
            self.changes.push(Change { epoch: *epoch, came: op.ends_with("insert"), values });
        }
    }
}

impl RecentChanges {
    fn push(&mut self, change: Change) {
        if self.newest.len() == CHANGES_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(change);
    }
}

/// Returns the displayed values of a row, and widens the columns for them.
fn values_of(columns: &mut [Column], cells: &[Cells<'_>], row: usize) -> Values {
    let text = |text: String| truncate_str(&visible(&text), WIDTH_MAX, "…").into_owned();
    let values: Values = cells.iter().map(|cells| cells.get(row).map(text)).collect();
    for (column, value) in columns.iter_mut().zip(values.iter()) {
        let width = value.as_deref().map_or("NULL".len(), measure_text_width);
        column.width = column.width.max(width);
    }
    values
}

/// Returns a hash of each row.
fn hashes(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>, ArrowError> {
    let of = |bytes: &[u8]| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        hasher.finish()
    };
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let encoded = RowConverter::new(fields).and_then(|converter| converter.convert_columns(columns));
    if let Ok(encoded) = encoded
        && !columns.is_empty()
    {
        return Ok(encoded.iter().map(|row| of(row.as_ref())).collect());
    }
    // For types without a row encoding, the hash of the texts.
    let cells = columns.iter().map(Cells::new).collect::<Result<Vec<_>, _>>()?;
    let text = |row| cells.iter().map(|cell| format!("{:?}", cell.get(row))).collect::<Vec<_>>().join(",");
    Ok((0..rows).map(|row| of(text(row).as_bytes())).collect())
}

#[cfg(test)]
pub mod tests {
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    /// Returns a batch of a subscription to a relation of a word and a number.
    pub fn batch(rows: &[(i64, &str, Option<&str>, Option<i64>)]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(StringViewArray::from_iter(rows.iter().map(|row| row.2))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.3))),
        ];
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let schema = Schema::new(vec![
            field("_batch_id", DataType::Int64),
            field("_op", DataType::Utf8View),
            field("word", DataType::Utf8View),
            field("n", DataType::Int64),
        ]);
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn shown(state: &State) -> Vec<String> {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
        state.rows.iter().map(|row| row.values.iter().map(value).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn rows_change_in_place() {
        let now = Instant::now();
        let first = batch(&[
            (1, "insert", Some("a"), Some(1)),
            (1, "insert", Some("b"), Some(2)),
            (1, "progress", None, None),
        ]);
        let mut state = State::new(&first.schema());
        state.apply(&first, now).unwrap();
        assert_eq!(
            (shown(&state), state.rows.total(), state.epoch),
            (vec!["a 1".to_owned(), "b 2".to_owned()], 2, 1)
        );
        assert!(state.rows.iter().all(|row| row.changed.is_none()));
        state
            .apply(
                &batch(&[
                    (2, "update_delete", Some("a"), Some(1)),
                    (2, "update_insert", Some("a"), Some(7)),
                    (2, "insert", Some("c"), None),
                    (2, "progress", None, None),
                ]),
                now,
            )
            .unwrap();
        assert_eq!(shown(&state), ["a 7", "b 2", "c NULL"]);
        assert_eq!((state.rows.total(), state.changes.count, state.epoch), (3, 5, 2));
        // Rows without a key: an insert takes the place of a delete in the same epoch.
        state
            .apply(&batch(&[(3, "delete", Some("b"), Some(2)), (3, "insert", Some("b"), Some(3))]), now)
            .unwrap();
        assert_eq!(shown(&state), ["a 7", "b 3", "c NULL"]);
        state.apply(&batch(&[(4, "delete", Some("a"), Some(7))]), now).unwrap();
        assert_eq!(shown(&state), ["b 3", "c NULL"]);
    }

    #[test]
    fn copies_of_a_row_are_rows() {
        let first = batch(&[(1, "insert", Some("a"), Some(1)), (1, "insert", Some("a"), Some(1))]);
        let mut state = State::new(&first.schema());
        state.apply(&first, Instant::now()).unwrap();
        assert_eq!(shown(&state), ["a 1", "a 1"]);
        state.apply(&batch(&[(2, "delete", Some("a"), Some(1))]), Instant::now()).unwrap();
        assert_eq!((shown(&state), state.rows.total()), (vec!["a 1".to_owned()], 1));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<(i64, &str, Option<&str>, Option<i64>)> =
            (0..2 * ROWS_MAX as i64).map(|n| (1, "insert", None, Some(n))).collect();
        let first = batch(&many);
        let mut state = State::new(&first.schema());
        state.apply(&first, Instant::now()).unwrap();
        assert_eq!(
            (state.rows.len(), state.changes.newest.len(), state.rows.total()),
            (ROWS_MAX, CHANGES_MAX, 2 * ROWS_MAX as i64)
        );
        // Deleting a row that isn't kept only changes the count.
        state.apply(&batch(&[(2, "delete", None, Some(2 * ROWS_MAX as i64 - 1))]), Instant::now()).unwrap();
        assert_eq!((state.rows.len(), state.rows.total()), (ROWS_MAX, 2 * ROWS_MAX as i64 - 1));
    }
}
