//! Random feeds that produce a given content of tables. Every row has a life of its own: it is inserted, and
//! perhaps deleted and inserted again, perhaps beside rows that don't stay. All lives are cut into epochs at
//! random.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, max, take, take_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use millstream_delta::RowEncoder;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::compare::classes;
use super::convert::{Case, Table};

/// Maximum number of extra rows of a table.
const EXTRA_ROWS_MAX: usize = 40;

/// The insert or delete of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// The epoch, as an index.
    pub epoch: usize,
    /// The table, as an index of [`Feed::pools`].
    pub table: usize,
    /// The row, as an index of the table's pool.
    pub row: usize,
    /// True for an insert, which replaces a row of the same key; false for a delete.
    pub insert: bool,
}

/// The rows that a table may hold in some epoch.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The table's name.
    pub table: String,
    /// All possible rows; the rows of the final content come first.
    pub rows: RecordBatch,
    /// The identity of each row: equal numbers for equal rows or, in a table with a key, for equal keys.
    pub identity: Vec<usize>,
    /// Equal numbers for rows that are equal bit for bit, with or without a key.
    pub class: Vec<u32>,
    /// True if the table has a primary key.
    pub keyed: bool,
}

/// A feed for the tables of a case.
#[derive(Clone, Debug)]
pub struct Feed {
    /// One pool per table, in the order of the case's tables.
    pub pools: Vec<Pool>,
    /// The operations in order.
    pub ops: Vec<Op>,
    /// The number of epochs.
    pub epochs: usize,
    /// The epoch before which the late views are created.
    pub late: usize,
}

/// The parameters of a feed.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// The seed of all random choices.
    pub seed: u64,
    /// The maximum number of epochs.
    pub epochs_max: usize,
    /// True if the feed may also insert and delete rows that are not in the final content.
    pub extra_rows: bool,
}

/// Returns a random feed whose last epoch leaves the tables of `case` with their content.
pub fn feed(case: &Case, wishes: &Wishes) -> Result<Feed, ArrowError> {
    let mut rng = SmallRng::seed_from_u64(wishes.seed);
    let mut pools = Vec::new();
    // Operations, each with its time in 0..1.
    let mut timed: Vec<(f64, Op)> = Vec::new();
    let tables =
        case.objects.iter().filter_map(|object| object.table.as_ref().map(|table| (&object.name, table)));
    for (index, (name, table)) in tables.enumerate() {
        let pool = pool(name, table, wishes.extra_rows, &mut rng)?;
        let mut lives = Lives { rng: &mut rng, table: index, ops: &mut timed, quiet: !wishes.extra_rows };
        if table.append_only {
            lives.once(table.rows.num_rows());
        } else if pool.keyed {
            lives.of_keys(&pool, table.rows.num_rows());
        } else {
            lives.of_rows(&pool, table.rows.num_rows());
        }
        pools.push(pool);
    }
    timed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let epochs = if pools.is_empty() { 1 } else { wishes.epochs_max.max(1) };
    let bounds = bounds(epochs, &mut rng);
    let ops = timed
        .into_iter()
        .map(|(time, op)| Op { epoch: bounds.iter().filter(|bound| **bound <= time).count(), ..op })
        .collect();
    Ok(Feed { pools, ops, epochs, late: rng.random_range(0..epochs) })
}

/// Returns the boundaries between epochs; two equal boundaries leave an epoch empty.
fn bounds(epochs: usize, rng: &mut SmallRng) -> Vec<f64> {
    let mut bounds: Vec<f64> = Vec::new();
    while bounds.len() + 1 < epochs {
        match bounds.last() {
            Some(last) if rng.random_bool(0.15) => bounds.push(*last),
            _ => bounds.push(rng.random()),
        }
    }
    bounds.sort_by(f64::total_cmp);
    bounds
}

/// Generates operations: each life is a sequence of inserts and deletes at increasing times.
struct Lives<'a> {
    rng: &'a mut SmallRng,
    table: usize,
    ops: &'a mut Vec<(f64, Op)>,
    /// True if only the rows of the final content are inserted, each once.
    quiet: bool,
}

impl Lives<'_> {
    fn live(&mut self, steps: &[(usize, bool)]) {
        let mut times: Vec<f64> = steps.iter().map(|_| self.rng.random()).collect();
        times.sort_by(f64::total_cmp);
        for (time, (row, insert)) in times.into_iter().zip(steps) {
            self.ops.push((time, Op { epoch: 0, table: self.table, row: *row, insert: *insert }));
        }
    }

    /// Inserts every row once.
    fn once(&mut self, own: usize) {
        (0..own).for_each(|row| self.live(&[(row, true)]));
    }

    /// Generates lives in a table without a key: rows are copies, inserted and deleted independently.
    fn of_rows(&mut self, pool: &Pool, own: usize) {
        for row in 0..own {
            match self.rng.random_range(0..10) {
                0 if !self.quiet => self.live(&[(row, true), (row, false), (row, true)]),
                1 if !self.quiet => self.live(&[(row, true), (row, true), (row, false)]),
                _ => self.live(&[(row, true)]),
            }
        }
        for row in own..pool.rows.num_rows() {
            self.live(&[(row, true), (row, false)]);
        }
    }

    /// Generates lives in a table with a key: one life per key, whose versions replace each other.
    fn of_keys(&mut self, pool: &Pool, own: usize) {
        let mut versions: BTreeMap<usize, (Option<usize>, Vec<usize>)> = BTreeMap::new();
        for row in 0..pool.rows.num_rows() {
            let (last, others) = versions.entry(pool.identity[row]).or_default();
            if row < own { *last = Some(row) } else { others.push(row) }
        }
        for (_, (last, others)) in versions {
            let mut steps = Vec::new();
            for row in others {
                steps.push((row, true));
                if self.rng.random_bool(0.3) {
                    steps.push((row, false));
                }
            }
            match last {
                Some(row) => {
                    if !self.quiet && self.rng.random_bool(0.1) {
                        steps.extend([(row, true), (row, false)]);
                    }
                    steps.push((row, true));
                }
                None => {
                    if let Some((row, true)) = steps.last().copied() {
                        steps.push((row, false));
                    }
                }
            }
            self.live(&steps);
        }
    }
}

/// Returns the rows of `table` and, if wanted, extra rows that combine their values.
fn pool(name: &str, table: &Table, extra_rows: bool, rng: &mut SmallRng) -> Result<Pool, ArrowError> {
    let mut rows = table.rows.clone();
    if extra_rows && !table.append_only && rows.num_rows() > 0 {
        let extra = mixed(&rows, &table.key, (rows.num_rows() / 2 + 2).min(EXTRA_ROWS_MAX), rng)?;
        rows = concat_batches(&rows.schema(), [&rows, &extra])?;
    }
    let class = exact_classes(&rows)?;
    let keyed = !table.key.is_empty();
    let identity =
        if keyed { classes(&[&rows.project(&table.key)?])?.pop().unwrap_or_default() } else { class.clone() };
    let identity = identity.into_iter().map(|number| number as usize).collect();
    Ok(Pool { table: name.to_string(), rows, identity, class, keyed })
}

/// Returns a number for each row; two rows have the same number exactly if they are equal bit for bit, so
/// that a table may return one for the other. 0.0 and -0.0 are equal, but differ in bits.
fn exact_classes(rows: &RecordBatch) -> Result<Vec<u32>, ArrowError> {
    let encoded = RowEncoder::new(&rows.schema())?.encode(rows)?;
    let mut known: HashMap<Vec<u8>, u32> = HashMap::new();
    let class = |row: usize, known: &mut HashMap<Vec<u8>, u32>| {
        let next = known.len() as u32;
        *known.entry(encoded.row(row).data().to_vec()).or_insert(next)
    };
    Ok((0..rows.num_rows()).map(|row| class(row, &mut known)).collect())
}

/// Returns `count` rows with values from random rows, column by column. A key is an existing one (another
/// version of that row) or a new one.
fn mixed(
    rows: &RecordBatch,
    key: &[usize],
    count: usize,
    rng: &mut SmallRng,
) -> Result<RecordBatch, ArrowError> {
    let own = rows.num_rows();
    let mut random =
        |count: usize| -> UInt32Array { (0..count).map(|_| rng.random_range(0..own) as u32).collect() };
    let one_row_keys = random(count);
    let mut columns = Vec::new();
    for (at, column) in rows.columns().iter().enumerate() {
        let picked = if key.contains(&at) { one_row_keys.clone() } else { random(count) };
        columns.push(take(column, &picked, None)?);
    }
    // In a keyed table half of the rows get a new key, as far as possible.
    if let Some(first) = key.first() {
        let fresh = fresh_keys(rows.column(*first), &columns[*first], count / 2)?;
        columns[*first] = fresh;
    }
    RecordBatch::try_new(rows.schema(), columns)
}

/// Returns `picked` with its first `count` values replaced by values that are absent from `column`, if its
/// type allows.
fn fresh_keys(column: &ArrayRef, picked: &ArrayRef, count: usize) -> Result<ArrayRef, ArrowError> {
    let fresh: ArrayRef = match column.data_type() {
        kind if kind.is_integer() || kind.is_temporal() || kind.is_decimal() => {
            let Some(values) = numbers(column) else { return Ok(picked.clone()) };
            let start = max(values.as_primitive::<Int64Type>()).unwrap_or(0);
            let Some(_) = start.checked_add(count as i64) else { return Ok(picked.clone()) };
            Arc::new(Int64Array::from_iter_values((1..=count as i64).map(|step| start + step)))
        }
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
            let values = cast(column, &DataType::Utf8)?;
            let known: HashSet<&str> = values.as_string::<i32>().iter().flatten().collect();
            let is_uuid = |text: &&str| text.len() == 36 && text.matches('-').count() == 4;
            let is_address = |text: &&str| text.parse::<std::net::IpAddr>().is_ok();
            let name: fn(u64) -> String = match () {
                _ if known.is_empty() => |number| format!("fresh-{number}"),
                _ if known.iter().all(is_uuid) => |number| format!("00000000-0000-4000-8000-{number:012x}"),
                _ if known.iter().all(is_address) => |number| format!("ff00::1:{number:x}"),
                _ => |number| format!("fresh-{number}"),
            };
            let fresh = (0..).map(name).filter(|name| !known.contains(name.as_str()));
            Arc::new(StringArray::from_iter_values(fresh.take(count)))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            Arc::new(StringArray::from_iter_values((0..count).map(|number| format!("fresh-{number}"))))
        }
        _ => return Ok(picked.clone()),
    };
    let narrow = matches!(column.data_type(), DataType::Date32 | DataType::Time32(_));
    let fresh = if narrow { cast(&fresh, &DataType::Int32)? } else { fresh };
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    let Ok(fresh) = arrow::compute::cast_with_options(&fresh, column.data_type(), &options) else {
        return Ok(picked.clone());
    };
    let rest = picked.slice(count, picked.len() - count);
    arrow::compute::concat(&[&fresh, &rest])
}

/// Returns integers, decimals and times as 64-bit integers, if they fit.
fn numbers(column: &ArrayRef) -> Option<ArrayRef> {
    let narrow = matches!(column.data_type(), DataType::Date32 | DataType::Time32(_));
    let values = if narrow { cast(column, &DataType::Int32).ok()? } else { column.clone() };
    cast(&values, &DataType::Int64).ok()
}

/// One call of the engine: rows of one table, all inserted or all deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The table, as an index of [`Feed::pools`].
    pub table: usize,
    /// True for inserts, false for deletes.
    pub insert: bool,
    /// Rows of the pool, as indices.
    pub rows: Vec<usize>,
}

impl Call {
    /// Returns the rows.
    pub fn batch(&self, feed: &Feed) -> Result<RecordBatch, ArrowError> {
        let rows = UInt32Array::from_iter_values(self.rows.iter().map(|row| *row as u32));
        take_record_batch(&feed.pools[self.table].rows, &rows)
    }
}

impl Feed {
    /// Returns the calls of one epoch. Groups the operations of each table into few calls, but preserves the
    /// order of those on the same row or key. The calls of different tables alternate.
    pub fn calls(&self, epoch: usize) -> Vec<Call> {
        let mut by_table: Vec<Vec<Call>> = vec![Vec::new(); self.pools.len()];
        let mut earliest: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for op in self.ops.iter().filter(|op| op.epoch == epoch) {
            let pool = &self.pools[op.table];
            let calls = &mut by_table[op.table];
            let from = earliest.entry((op.table, pool.identity[op.row])).or_default();
            let fits = (*from..calls.len()).find(|at| calls[*at].insert == op.insert);
            let at = fits.unwrap_or(calls.len());
            if at == calls.len() {
                calls.push(Call { table: op.table, insert: op.insert, rows: Vec::new() });
            }
            calls[at].rows.push(op.row);
            // With two versions of one key in one call, it would be undefined which one stays.
            *from = if pool.keyed { at + 1 } else { at };
        }
        let longest = by_table.iter().map(Vec::len).max().unwrap_or(0);
        (0..longest)
            .flat_map(|turn| by_table.iter().filter_map(move |calls| calls.get(turn).cloned()))
            .collect()
    }

    /// Returns the feed with only the possible operations among `ops`: omits deletes of absent rows.
    pub fn with_ops(&self, ops: Vec<Op>) -> Feed {
        let mut content = Content::new(self);
        let ops = ops.into_iter().filter(|op| content.apply(self, op)).collect();
        Feed { ops, ..self.clone() }
    }
}

/// The content of tables.
#[derive(Clone, Debug)]
pub struct Content {
    /// The present rows by table and identity; a row is repeated for each copy.
    rows: Vec<BTreeMap<usize, Vec<usize>>>,
}

impl Content {
    /// Returns empty tables.
    pub fn new(feed: &Feed) -> Content {
        Content { rows: vec![BTreeMap::new(); feed.pools.len()] }
    }

    /// Applies `op`; returns false if it deletes an absent row.
    pub fn apply(&mut self, feed: &Feed, op: &Op) -> bool {
        let pool = &feed.pools[op.table];
        let there = self.rows[op.table].entry(pool.identity[op.row]).or_default();
        if op.insert {
            if pool.keyed {
                there.clear();
            }
            there.push(op.row);
            return true;
        }
        let found = there.iter().position(|row| pool.class[*row] == pool.class[op.row]);
        found.map(|at| there.swap_remove(at)).is_some()
    }

    /// Returns the present rows of a table's pool, repeated for each copy.
    pub fn rows(&self, table: usize) -> Vec<usize> {
        self.rows[table].values().flatten().copied().collect()
    }

    /// Returns the rows of a table.
    pub fn batch(&self, feed: &Feed, table: usize) -> Result<RecordBatch, ArrowError> {
        let rows = UInt32Array::from_iter_values(self.rows(table).into_iter().map(|row| row as u32));
        take_record_batch(&feed.pools[table].rows, &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::compare::difference;
    use crate::oracle::convert::Object;

    fn case(key: Vec<usize>) -> Case {
        let ids: ArrayRef = Arc::new(Int64Array::from((0..30).collect::<Vec<i64>>()));
        let names: ArrayRef =
            Arc::new(StringArray::from_iter((0..30).map(|n| (n % 7 != 0).then(|| format!("n{}", n % 5)))));
        let rows =
            RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("name", names, true)]).unwrap();
        let table = Table { rows, key, append_only: false };
        let object = Object { name: "t".into(), ddl: String::new(), table: Some(table) };
        Case { file: "f".into(), settings: vec![], objects: vec![object], queries: vec![] }
    }

    #[test]
    fn every_feed_ends_with_the_content_and_takes_out_only_what_is_there() {
        for key in [vec![], vec![0]] {
            let case = case(key);
            let mut deletes = 0;
            for seed in 0..200 {
                let feed = feed(&case, &Wishes { seed, epochs_max: 6, extra_rows: true }).unwrap();
                let mut content = Content::new(&feed);
                for epoch in 0..feed.epochs {
                    for call in feed.calls(epoch) {
                        for row in &call.rows {
                            let op = Op { epoch, table: call.table, row: *row, insert: call.insert };
                            assert!(content.apply(&feed, &op), "seed {seed}: {op:?}");
                            deletes += usize::from(!op.insert);
                        }
                    }
                }
                let own = &case.objects[0].table.as_ref().unwrap().rows;
                assert_eq!(difference(&content.batch(&feed, 0).unwrap(), own).unwrap(), None, "seed {seed}");
            }
            assert!(deletes > 200);
        }
    }

    #[test]
    fn without_extra_rows_every_row_is_put_in_once() {
        let case = case(vec![0]);
        let feed = feed(&case, &Wishes { seed: 1, epochs_max: 4, extra_rows: false }).unwrap();
        assert_eq!(feed.ops.len(), 30);
        assert!(feed.ops.iter().all(|op| op.insert && op.epoch < 4));
    }

    #[test]
    fn a_key_has_one_row_a_call() {
        let case = case(vec![0]);
        let feed = feed(&case, &Wishes { seed: 3, epochs_max: 1, extra_rows: true }).unwrap();
        for call in feed.calls(0) {
            let keys: HashSet<usize> = call.rows.iter().map(|row| feed.pools[0].identity[*row]).collect();
            assert_eq!(keys.len(), call.rows.len());
        }
    }
}
