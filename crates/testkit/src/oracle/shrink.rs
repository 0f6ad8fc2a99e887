//! Shrinks a failing feed for as long as it fails (delta debugging: Zeller and Hildebrandt, "Simplifying and
//! isolating failure-inducing input", 2002, section 3).

use std::time::{Duration, Instant};

use super::convert::{Case, Query};
use super::feed::{Feed, Op};
use super::run::{self, Failure, Mode};

/// The time limit for shrinking one failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the smallest failing feed found, with its failure.
pub async fn shrink(
    case: &Case,
    query: &Query,
    feed: &Feed,
    mode: Mode,
    failure: Failure,
) -> (Feed, Failure) {
    let deadline = Instant::now() + PATIENCE;
    let mut search = Search { case, query, mode, deadline, best: feed.clone(), failure };
    // If the failure needs the other queries beside it, nothing can be removed.
    if !search.fails(feed.clone()).await {
        return (search.best, search.failure);
    }
    let after = search.failure.epoch;
    search.fails(truncated(&search.best, after)).await;
    search.drop_ops().await;
    search.join_epochs().await;
    search.drop_ops().await;
    (search.best, search.failure)
}

/// Returns the feed without the operations after `epoch`.
fn truncated(feed: &Feed, epoch: usize) -> Feed {
    let ops = feed.ops.iter().filter(|op| op.epoch <= epoch).copied().collect();
    Feed { ops, epochs: epoch + 1, ..feed.clone() }
}

struct Search<'a> {
    case: &'a Case,
    query: &'a Query,
    mode: Mode,
    deadline: Instant,
    best: Feed,
    failure: Failure,
}

impl Search<'_> {
    /// Returns true if the query alone fails with `feed`, which then becomes the best one.
    async fn fails(&mut self, feed: Feed) -> bool {
        if Instant::now() > self.deadline {
            return false;
        }
        let outcome = run::run(self.case, std::slice::from_ref(self.query), &feed, self.mode).await;
        let Some(failure) = outcome.failures.into_iter().find(|failure| failure.query.is_some()) else {
            return false;
        };
        self.best = feed;
        self.failure = failure;
        true
    }

    /// Removes operations, in ever smaller pieces.
    async fn drop_ops(&mut self) {
        let mut pieces = 2;
        while self.best.ops.len() >= 2 && Instant::now() < self.deadline {
            let size = self.best.ops.len().div_ceil(pieces);
            let mut smaller = false;
            let mut start = 0;
            while start < self.best.ops.len() {
                let end = (start + size).min(self.best.ops.len());
                let ops: Vec<Op> = [&self.best.ops[..start], &self.best.ops[end..]].concat();
                let before = self.best.ops.len();
                if self.fails(self.best.with_ops(ops)).await && self.best.ops.len() < before {
                    smaller = true;
                } else {
                    start = end;
                }
            }
            if smaller {
                pieces = 2.max(pieces - 1);
            } else if size <= 1 {
                break;
            } else {
                pieces = (pieces * 2).min(self.best.ops.len());
            }
        }
    }

    /// Joins neighbouring epochs wherever the query still fails.
    async fn join_epochs(&mut self) {
        let mut epoch = 0;
        while epoch + 1 < self.best.epochs && Instant::now() < self.deadline {
            if !self.fails(joined(&self.best, epoch)).await {
                epoch += 1;
            }
        }
    }
}

/// Returns the feed with `epoch` + 1 joined to `epoch`.
fn joined(feed: &Feed, epoch: usize) -> Feed {
    let earlier = |at: usize| if at > epoch { at - 1 } else { at };
    let ops = feed.ops.iter().map(|op| Op { epoch: earlier(op.epoch), ..*op }).collect();
    Feed { ops, epochs: feed.epochs - 1, late: earlier(feed.late), ..feed.clone() }
}
