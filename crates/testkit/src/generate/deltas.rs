//! Draws the epochs in which rows are inserted and deleted, and in which tables are empty.

use arrow::error::ArrowError;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::oracle::convert::Case;
use crate::oracle::feed::{self, Content, Feed, Op, Wishes};

/// Returns a feed whose tables finally hold the rows of `case`, unless they are emptied last.
pub fn feed(case: &Case, seed: u64, epochs: usize) -> Result<Feed, ArrowError> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let extra_rows = rng.random_range(0..100) < 85;
    let mut feed = feed::feed(case, &Wishes { seed, epochs_max: epochs, extra_rows })?;
    for table in 0..feed.pools.len() {
        if rng.random_range(0..100) < 30 {
            let epoch = rng.random_range(0..feed.epochs);
            feed = emptied(feed, table, epoch);
        }
    }
    Ok(feed)
}

/// Returns a feed that only inserts the rows of `case`, each once.
pub fn appended(case: &Case, seed: u64, epochs: usize) -> Result<Feed, ArrowError> {
    feed::feed(case, &Wishes { seed, epochs_max: epochs, extra_rows: false })
}

/// Returns the feed with `table` empty at the end of `epoch`; the next epoch inserts its rows again.
fn emptied(feed: Feed, table: usize, epoch: usize) -> Feed {
    let mut content = Content::new(&feed);
    let mut ops = Vec::new();
    let cut = feed.ops.iter().position(|op| op.epoch > epoch).unwrap_or(feed.ops.len());
    for op in &feed.ops[..cut] {
        content.apply(&feed, op);
        ops.push(*op);
    }
    let rows = content.rows(table);
    ops.extend(rows.iter().map(|row| Op { epoch, table, row: *row, insert: false }));
    if epoch + 1 < feed.epochs {
        ops.extend(rows.iter().map(|row| Op { epoch: epoch + 1, table, row: *row, insert: true }));
    }
    ops.extend_from_slice(&feed.ops[cut..]);
    Feed { ops, ..feed }
}
