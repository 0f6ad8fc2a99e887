//! Sort keys: bytes that order rows as ORDER BY does, partition by partition.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{SortOptions, concat};
use arrow::datatypes::{Field, Schema};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Delta, canonical};
use millstream_state::{Moved, Ordered, Tables};

use crate::driver::evaluate;
use crate::failure::{Failure, surviving};
use crate::parallelism::Threads;
use crate::persistence::{check_columns, incomplete};
use crate::{Error, Result};

/// The number of bytes at a key's end that hold the length of its tie break.
const TAIL: usize = 4;

/// The order of rows, as a plan specifies it.
#[derive(Debug, Default)]
pub struct Ordering {
    /// The partition: rows with different values are in different partitions.
    pub partition: Vec<Arc<dyn PhysicalExpr>>,
    /// The sort expressions, with their directions.
    pub order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// Columns that break ties between rows equal in all that; empty if no different rows are equal.
    pub ties: Vec<usize>,
    /// True if callers ask for peers.
    pub peers: bool,
    /// Further expressions: rows for which one fails are failures, too.
    pub checked: Vec<Arc<dyn PhysicalExpr>>,
}

/// Computes sort keys of rows: the values of the partition, of the order, and of the columns that break ties.
#[derive(Debug)]
pub(crate) struct Sorter {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    partition: RowConverter,
    /// The number of expressions of the partition.
    partitions: usize,
    order: RowConverter,
    options: Vec<SortOptions>,
    ties: Vec<usize>,
    tie: RowConverter,
    peers: bool,
    checked: Vec<Arc<dyn PhysicalExpr>>,
    /// The threads for encoding and sorting many rows.
    threads: Threads,
}

/// Rows of a delta with their sort keys.
pub(crate) struct Sorted {
    pub(crate) rows: RecordBatch,
    keys: Keys,
    /// The places of the rows in key order, each key once, with the sum of its weights.
    net: Vec<(u32, i64)>,
}

/// Concatenated keys.
#[derive(Default)]
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// For each row, the length of the partition's part of its key, and of the partition's and order's parts
    /// together.
    parts: Vec<(u32, u32)>,
}

/// A row that changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a [u8],
    /// The common prefix of all keys of the row's partition.
    pub(crate) partition: &'a [u8],
    /// The common prefix of all keys of the row's peers.
    pub(crate) peers: &'a [u8],
    /// The place among the rows of the delta.
    pub(crate) row: u32,
    pub(crate) weight: i64,
}

/// Rows and the values that they are sorted by.
type Piece = (Chunk, Vec<ArrayRef>);

impl Sorter {
    /// Returns a sorter for rows of `schema`; `None` if values of some type have no order in bytes.
    pub(crate) fn new(ordering: Ordering, schema: &Schema, threads: Threads) -> Result<Option<Sorter>> {
        let Ordering { partition, order, ties, peers, checked } = ordering;
        let mut fields = Vec::with_capacity(partition.len());
        for expr in &partition {
            fields.push(SortField::new(expr.data_type(schema)?));
        }
        let sorted: Vec<SortOptions> = order.iter().map(|(_, options)| *options).collect();
        let mut sorts = Vec::with_capacity(order.len());
        for (expr, options) in &order {
            sorts.push(SortField::new_with_options(expr.data_type(schema)?, *options));
        }
        let rest: Vec<SortField> =
            ties.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
        if ![&fields, &sorts, &rest].into_iter().all(|fields| RowConverter::supports_fields(fields)) {
            return Ok(None);
        }
        Ok(Some(Sorter {
            partitions: partition.len(),
            exprs: partition.into_iter().chain(order.into_iter().map(|(expr, _)| expr)).collect(),
            partition: RowConverter::new(fields)?,
            order: RowConverter::new(sorts)?,
            options: sorted,
            ties,
            tie: RowConverter::new(rest)?,
            peers,
            checked,
            threads,
        }))
    }

    /// Sorts the rows of a delta. Rows whose values can't be computed become failures. A small delta of
    /// inserts alone stays in its original pieces.
    pub(crate) fn sort(&self, delta: &Delta, failures: &mut Vec<Failure>) -> Result<Vec<Sorted>> {
        let mut pieces = self.pieces(delta, failures)?;
        if pieces.len() > 1 && (!delta.is_append_only() || self.threads.cuts(delta.num_rows())) {
            pieces = vec![together(pieces)?];
        }
        pieces.into_iter().map(|(chunk, values)| self.keyed(chunk, &values)).collect()
    }

    /// Does the same in one piece; returns `None` if there are no rows.
    pub(crate) fn sort_together(&self, delta: &Delta, failures: &mut Vec<Failure>) -> Result<Option<Sorted>> {
        let mut pieces = self.pieces(delta, failures)?;
        if pieces.len() > 1 {
            pieces = vec![together(pieces)?];
        }
        pieces.pop().map(|(chunk, values)| self.keyed(chunk, &values)).transpose()
    }

    /// Loads saved rows into an empty `rows` and shows each. The keys are recomputed.
    pub(crate) fn load(
        &self,
        kept: &mut Tables,
        rows: &mut Ordered,
        mut show: impl FnMut(&Change<'_>),
    ) -> Result<()> {
        let all = kept.take_delta("rows")?;
        check_columns(&all, rows.schema())?;
        for chunk in all.chunks {
            let mut failures = Vec::new();
            for sorted in self.sort(&Delta::of(chunk), &mut failures)? {
                let changes = sorted.changes();
                let moved: Vec<Moved<'_>> = changes
                    .iter()
                    .map(|change| Moved { key: change.key, row: change.row, weight: change.weight })
                    .collect();
                rows.apply(&sorted.rows, &moved)?;
                changes.iter().for_each(&mut show);
            }
            if let Some(Failure { message, .. }) = failures.first() {
                return Err(incomplete(format!("a row has no place in its order: {message}")));
            }
        }
        Ok(())
    }

    fn pieces(&self, delta: &Delta, failures: &mut Vec<Failure>) -> Result<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(delta.chunks.len());
        let values = |chunk: Chunk, failures: &mut Vec<Failure>| {
            surviving(chunk, failures, |chunk| {
                evaluate(&self.checked, &chunk.rows)?;
                evaluate(&self.exprs, &chunk.rows)
            })
        };
        let chunks = delta.chunks.iter().filter(|chunk| chunk.rows.num_rows() > 0);
        if self.threads.share(delta.num_rows()) {
            let done = self.threads.spread(chunks.collect(), |chunk| {
                let mut failures = Vec::new();
                Ok::<_, Error>((values(chunk.clone(), &mut failures)?, failures))
            });
            for done in done {
                let (some, mut failed) = done?;
                pieces.extend(some);
                failures.append(&mut failed);
            }
        } else {
            for chunk in chunks {
                pieces.extend(values(chunk.clone(), failures)?);
            }
        }
        pieces.retain(|(chunk, _)| chunk.rows.num_rows() > 0);
        Ok(pieces)
    }

    /// Returns the values that rows are partitioned by.
    pub(crate) fn partition_of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let values = evaluate(&self.exprs[..self.partitions], rows)?;
        let field = |column: &ArrayRef| Field::new("key", column.data_type().clone(), true);
        let schema = Arc::new(Schema::new(values.iter().map(field).collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema, values, &options)?)
    }

    /// Returns the expressions of the partition.
    pub(crate) fn partition(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.exprs[..self.partitions]
    }

    /// Returns the common prefix of all keys of each partition, given the partitions' values.
    pub(crate) fn prefixes(&self, values: &[ArrayRef]) -> Result<Vec<Vec<u8>>> {
        let values = values.iter().map(canonical).collect::<std::result::Result<Vec<_>, _>>()?;
        let rows = self.partition.convert_columns(&values)?;
        Ok(rows.iter().map(|row| row.data().to_vec()).collect())
    }

    /// Returns the common prefix of all keys of a key's peers.
    pub(crate) fn peers<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        let (rest, tail) = key.split_at(key.len() - TAIL);
        let tie = u32::from_be_bytes(tail.try_into().expect("a tail has four bytes"));
        &rest[..rest.len() - tie as usize]
    }

    /// Returns the sort options of each expression of the order.
    pub(crate) fn options(&self) -> &[SortOptions] {
        &self.options
    }

    /// Decodes the order's values from these bytes of a key, one column each.
    pub(crate) fn order_values(&self, bytes: &[u8]) -> Result<Vec<ArrayRef>> {
        let parser = self.order.parser();
        Ok(self.order.convert_rows([parser.parse(bytes)])?)
    }

    /// Does the same for several keys.
    pub(crate) fn order_values_of<'a>(&self, bytes: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.order.parser();
        Ok(self.order.convert_rows(bytes.map(|bytes| parser.parse(bytes)))?)
    }

    /// Encodes values of the order as the bytes of a key.
    pub(crate) fn order_bytes(&self, values: &[ArrayRef]) -> Result<Vec<u8>> {
        Ok(self.order_rows(values)?.row(0).data().to_vec())
    }

    /// Does the same for each of some rows.
    pub(crate) fn order_rows(&self, values: &[ArrayRef]) -> Result<Rows> {
        Ok(self.order.convert_columns(values)?)
    }

    fn keyed(&self, chunk: Chunk, values: &[ArrayRef]) -> Result<Sorted> {
        let count = chunk.rows.num_rows();
        let keys = match self.threads.cuts(count) {
            false => self.keys(&chunk.rows, values)?,
            true => {
                let some = |range: Range<usize>| {
                    let (from, count) = (range.start, range.len());
                    let values: Vec<ArrayRef> =
                        values.iter().map(|column| column.slice(from, count)).collect();
                    self.keys(&chunk.rows.slice(from, count), &values)
                };
                let mut keys = Keys::default();
                for some in self.threads.spread(self.threads.ranges(count), some) {
                    keys.append(some?);
                }
                keys
            }
        };
        let mut sorted = Sorted { rows: chunk.rows.clone(), keys, net: Vec::new() };
        let mut net: Vec<(u32, i64)> = Vec::with_capacity(count);
        for place in sorted.places(&self.threads) {
            let weight = chunk.weight(place as usize);
            match net.last_mut().filter(|(last, _)| sorted.key(*last) == sorted.key(place)) {
                Some((_, sum)) => *sum += weight,
                None => net.push((place, weight)),
            }
        }
        net.retain(|(_, weight)| *weight != 0);
        sorted.net = net;
        Ok(sorted)
    }

    /// Returns the keys of some rows.
    fn keys(&self, rows: &RecordBatch, values: &[ArrayRef]) -> Result<Keys> {
        let count = rows.num_rows();
        let (partition, order) = values.split_at(self.partitions);
        let partition = partition.iter().map(canonical).collect::<std::result::Result<Vec<_>, _>>()?;
        let partition = encoded(&self.partition, &partition)?;
        let order = encoded(&self.order, order)?;
        let ties: Vec<ArrayRef> = self.ties.iter().map(|at| rows.column(*at).clone()).collect();
        let ties = encoded(&self.tie, &ties)?;
        let (mut bytes, mut ends, mut parts) =
            (Vec::new(), Vec::with_capacity(count), Vec::with_capacity(count));
        for row in 0..count {
            let start = bytes.len();
            partition.iter().for_each(|rows| bytes.extend_from_slice(rows.row(row).data()));
            let partition = (bytes.len() - start) as u32;
            order.iter().for_each(|rows| bytes.extend_from_slice(rows.row(row).data()));
            let peers = (bytes.len() - start) as u32;
            ties.iter().for_each(|rows| bytes.extend_from_slice(rows.row(row).data()));
            let tie = (bytes.len() - start) as u32 - peers;
            if self.peers {
                bytes.extend_from_slice(&tie.to_be_bytes());
            }
            ends.push(bytes.len());
            parts.push((partition, peers));
        }
        Ok(Keys { bytes, ends, parts })
    }
}

impl Keys {
    fn append(&mut self, other: Keys) {
        let before = self.bytes.len();
        self.bytes.extend(other.bytes);
        self.ends.extend(other.ends.into_iter().map(|end| before + end));
        self.parts.extend(other.parts);
    }
}

impl Sorted {
    /// Returns the changes in key order.
    pub(crate) fn changes(&self) -> Vec<Change<'_>> {
        let change = |(row, weight): &(u32, i64)| {
            let (key, (partition, peers)) = (self.key(*row), self.keys.parts[*row as usize]);
            let (partition, peers) = (&key[..partition as usize], &key[..peers as usize]);
            Change { key, partition, peers, row: *row, weight: *weight }
        };
        self.net.iter().map(change).collect()
    }

    /// Returns the places of all rows in key order: sorts ranges, then merges two neighbours at a time.
    fn places(&self, threads: &Threads) -> Vec<u32> {
        let sort = |mut places: Vec<u32>| {
            places.sort_by(|left, right| self.key(*left).cmp(self.key(*right)));
            places
        };
        let count = self.rows.num_rows();
        if !threads.share(count) {
            return sort((0..count as u32).collect());
        }
        let mut sorted = threads
            .spread(threads.ranges(count), |range| sort((range.start as u32..range.end as u32).collect()));
        while sorted.len() > 1 {
            let mut rest = sorted.into_iter();
            let mut pairs = Vec::with_capacity(rest.len().div_ceil(2));
            while let Some(first) = rest.next() {
                pairs.push((first, rest.next()));
            }
            sorted = threads.spread(pairs, |(mut first, second)| match second {
                // The sort algorithm merges two sorted runs.
                Some(second) => {
                    first.extend(second);
                    sort(first)
                }
                None => first,
            });
        }
        sorted.pop().unwrap_or_default()
    }

    fn key(&self, row: u32) -> &[u8] {
        let (row, Keys { bytes, ends, .. }) = (row as usize, &self.keys);
        &bytes[row.checked_sub(1).map_or(0, |before| ends[before])..ends[row]]
    }
}

/// Returns the encoded columns; `None` if there are no columns.
fn encoded(converter: &RowConverter, columns: &[ArrayRef]) -> Result<Option<Rows>> {
    Ok(if columns.is_empty() { None } else { Some(converter.convert_columns(columns)?) })
}

fn together(pieces: Vec<Piece>) -> Result<Piece> {
    let width = pieces.first().map_or(0, |(_, values)| values.len());
    let mut values = Vec::with_capacity(width);
    for at in 0..width {
        let parts: Vec<_> = pieces.iter().map(|(_, values)| values[at].as_ref()).collect();
        values.push(concat(&parts)?);
    }
    let schema = pieces.first().expect("there are several").0.rows.schema();
    let mut delta = Delta::default();
    pieces.into_iter().for_each(|(chunk, _)| delta.push(chunk));
    Ok((delta.into_one(&schema)?.expect("pieces have rows"), values))
}
