//! The operation on each row, and the order in which changes are reported.

use std::collections::HashMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use millstream_delta::{Chunk, RowEncoder};

/// The operation on a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The row was inserted.
    Insert,
    /// The row was deleted.
    Delete,
    /// The old row of an update. The next row, with the same key, replaces it.
    UpdateDelete,
    /// The new row of an update. It replaces the previous row.
    UpdateInsert,
}

impl Op {
    /// Returns the value for the column `_op`.
    pub fn name(self) -> &'static str {
        match self {
            Op::Insert => "insert",
            Op::Delete => "delete",
            Op::UpdateDelete => "update_delete",
            Op::UpdateInsert => "update_insert",
        }
    }

    /// Returns true if the row exists after the operation.
    pub fn is_insert(self) -> bool {
        matches!(self, Op::Insert | Op::UpdateInsert)
    }
}

/// Returns the rows of a consolidated chunk in reporting order, n copies as n rows, each with its operation.
pub(super) fn told(chunk: &Chunk, key: Option<&[usize]>) -> Result<(RecordBatch, Vec<Op>), ArrowError> {
    let order = order(chunk, key)?;
    let (mut rows, mut ops) = (Vec::new(), Vec::new());
    for (row, op) in order {
        for _ in 0..chunk.weight(row as usize).unsigned_abs() {
            rows.push(row);
            ops.push(op);
        }
    }
    Ok((take_record_batch(&chunk.rows, &UInt32Array::from(rows))?, ops))
}

/// Returns the rows of a chunk in reporting order. Without a key, deletions come first. With a key, the two
/// rows of an update are adjacent.
fn order(chunk: &Chunk, key: Option<&[usize]>) -> Result<Vec<(u32, Op)>, ArrowError> {
    let all = 0..chunk.rows.num_rows() as u32;
    let is_gone = |row: &u32| chunk.weight(*row as usize) < 0;
    let op = |row: u32| (row, if is_gone(&row) { Op::Delete } else { Op::Insert });
    let Some(groups) = by_key(&chunk.rows, key)? else {
        let (gone, new): (Vec<u32>, Vec<u32>) = all.partition(is_gone);
        return Ok(gone.into_iter().chain(new).map(op).collect());
    };
    let mut order = Vec::with_capacity(chunk.rows.num_rows());
    for group in groups {
        let (gone, new): (Vec<u32>, Vec<u32>) = group.into_iter().partition(is_gone);
        match (gone.as_slice(), new.as_slice()) {
            ([old], [new]) => order.extend([(*old, Op::UpdateDelete), (*new, Op::UpdateInsert)]),
            _ => order.extend(gone.into_iter().chain(new).map(op)),
        }
    }
    Ok(order)
}

/// Groups the rows by key, in the order in which the keys first appear. Returns `None` if there is no usable
/// key.
fn by_key(rows: &RecordBatch, key: Option<&[usize]>) -> Result<Option<Vec<Vec<u32>>>, ArrowError> {
    let Some(key) = key else { return Ok(None) };
    if key.is_empty() {
        return Ok(Some(vec![(0..rows.num_rows() as u32).collect()]));
    }
    let keys = rows.project(key)?;
    let Ok(encoder) = RowEncoder::new(&keys.schema()) else { return Ok(None) };
    let encoded = encoder.encode(&keys)?;
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    let bytes: Vec<_> = (0..rows.num_rows()).map(|row| encoded.row(row)).collect();
    for (row, bytes) in bytes.iter().enumerate() {
        let place = *places.entry(bytes.as_ref()).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(row as u32);
    }
    Ok(Some(groups))
}
