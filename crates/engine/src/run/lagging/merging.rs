//! Merging of the epochs that wait for a lagging query, if they are many.

use std::collections::BTreeSet;

use millstream_delta::{Chunk, Delta, Epoch};

use crate::run::deltas::in_sum;
use crate::run::queries::Queries;
use crate::run::transactions::Transactions;
use crate::run::waiters::Waiters;

/// The number of rows up to which small chunks are merged.
const CHUNK_ROWS: usize = 8192;

/// Returns the sum of a change, with small chunks merged.
pub(super) fn compacted(delta: Delta) -> Delta {
    let delta = in_sum(delta);
    let (mut all, mut small, mut rows) = (Delta::default(), Vec::new(), 0);
    for chunk in delta.chunks {
        rows += chunk.rows.num_rows();
        small.push(chunk);
        if rows >= CHUNK_ROWS {
            all.chunks.extend(as_one(std::mem::take(&mut small)));
            rows = 0;
        }
    }
    all.chunks.extend(as_one(small));
    all
}

/// Merges chunks into one, or returns them as they are if that fails.
fn as_one(chunks: Vec<Chunk>) -> Vec<Chunk> {
    let Some(schema) = chunks.first().map(|chunk| chunk.rows.schema()) else { return chunks };
    let one = Delta { chunks: chunks.clone() }.into_one(&schema);
    one.map_or(chunks, |one| one.into_iter().collect())
}

/// Merges epochs where many wait. No reader will stop at a past epoch that nobody holds now.
pub(super) fn merge_waiting(queries: &mut Queries, transactions: &Transactions, waiters: &Waiters) {
    if !queries.iter().filter_map(|query| query.status.lag()).any(|lag| lag.waiting.are_many()) {
        return;
    }
    let lags = queries.iter().filter_map(|query| query.status.lag());
    let mut stops: BTreeSet<Epoch> = lags
        .flat_map(|lag| [Some(lag.through), lag.step.as_ref().map(|step| step.through)])
        .flatten()
        .collect();
    let lags = queries.iter().filter_map(|query| query.status.lag());
    stops.extend(lags.flat_map(|lag| lag.lumps.iter().map(|(_, to)| *to)));
    stops.extend(transactions.values().map(|open| open.epoch));
    stops.extend(waiters.reads.iter().filter_map(|read| read.epoch()));
    let lags = queries.iter_mut().filter_map(|query| query.status.lag_mut());
    lags.filter(|lag| lag.waiting.are_many()).for_each(|lag| lag.waiting.merge(&stops));
}
