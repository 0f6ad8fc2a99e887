//! Shrinks a failing query and its feed as far as the time allows.

use std::time::{Duration, Instant};

use super::ast::Query;
use super::reduce;
use super::round::text;
use crate::oracle::convert::Case;
use crate::oracle::feed::Feed;
use crate::oracle::run::{self, Failure, Mode};
use crate::oracle::shrink;

/// Number of queries tried in one run.
const TRIED_AT_ONCE: usize = 10;

/// The smallest failing query and feed found.
#[derive(Clone, Debug)]
pub struct Small {
    /// The query.
    pub query: Query,
    /// The feed.
    pub feed: Feed,
    /// The failure.
    pub failure: Failure,
}

/// Returns the kind of a failure: a smaller failure must be of the same kind.
fn kind(failure: &Failure) -> &'static str {
    const KINDS: &[&str] =
        &["can't be maintained", "the view fails", "columns maintained", "can't be compared"];
    KINDS.iter().find(|kind| failure.what.starts_with(**kind)).copied().unwrap_or("difference")
}

/// Shrinks for as long as `patience` allows.
pub async fn shrink(case: &Case, first: Small, mode: Mode, patience: Duration) -> Small {
    let deadline = Instant::now() + patience;
    let mut best = first;
    if kind(&best.failure) == "can't be maintained" {
        return best;
    }
    best = fewer_rows(case, best, mode).await;
    best = smaller_query(case, best, mode, deadline).await;
    if Instant::now() < deadline {
        best = fewer_rows(case, best, mode).await;
    }
    best
}

async fn fewer_rows(case: &Case, best: Small, mode: Mode) -> Small {
    let query = text(&best.query);
    let (feed, failure) = shrink::shrink(case, &query, &best.feed, mode, best.failure.clone()).await;
    match kind(&failure) == kind(&best.failure) {
        true => Small { feed, failure, ..best },
        false => best,
    }
}

async fn smaller_query(case: &Case, first: Small, mode: Mode, deadline: Instant) -> Small {
    let mut best = first;
    'smaller: loop {
        let candidates = reduce::reductions(&best.query);
        for some in candidates.chunks(TRIED_AT_ONCE) {
            if Instant::now() > deadline {
                return best;
            }
            let texts: Vec<_> = some.iter().map(text).collect();
            let outcome = run::run(case, &texts, &best.feed, mode).await;
            let same = |failure: &&Failure| failure.query.is_some() && kind(failure) == kind(&best.failure);
            let found = outcome.failures.iter().filter(same).min_by_key(|failure| failure.query);
            if let Some(failure) = found
                && let Some(query) = failure.query.and_then(|at| some.get(at))
            {
                let failure = Failure { query: Some(0), ..failure.clone() };
                best = Small { query: query.clone(), failure, ..best };
                continue 'smaller;
            }
        }
        return best;
    }
}
