//! Invariants between the answers of several queries. They find answers that are wrong both as a batch and as
//! a view.
//!
//! - The rows for which a condition is true, false and unknown are together all rows (Rigger and Su, "Finding
//!   Bugs in Database Systems via Query Partitioning", 2020).
//! - WHERE keeps as many rows as those for which the condition, as a value, is true (the same, "Detecting
//!   Optimization Bugs in Database Engines via Non-Optimizing Reference Engine Construction", 2020).

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use millstream_engine::{Engine, Session};

use super::ast::{Aggregate, Body, Expr, Node, Query, Select};
use super::counts::Counts;
use super::draw::Draw;
use super::family::Family;
use super::reduce;
use super::round::{self, Round};
use crate::drive;
use crate::oracle::compare;

/// The time limit for shrinking one violation.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `count` queries of the round's tables in several ways; returns a message for each with two answers.
pub async fn check(round: &Round, count: usize, counts: &mut Counts) -> drive::Result<Vec<String>> {
    let tables = round.tables();
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    round::filled(&mut session, &tables, round.seed).await?;
    let readables: Vec<_> = tables.iter().map(|table| table.readable.clone()).collect();
    let mut messages = Vec::new();
    for number in 0..count {
        let seed = round::derived(round.seed, "invariants", number);
        let query = Draw::new(seed, &readables).filtered();
        // A failure for some rows proves nothing.
        let Ok(found) = violation(&mut session, &query).await else { continue };
        counts.partitioned += 1;
        if found.is_some() {
            messages.push(explained(&mut session, query, round).await);
        }
    }
    engine.stop().await.map_err(|error| error.to_string())?;
    Ok(messages)
}

/// Returns the smallest query found that still has two answers, with them.
async fn explained(session: &mut Session, query: Query, round: &Round) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut best = query;
    'smaller: loop {
        for candidate in reduce::reductions(&best).into_iter().filter(is_plain) {
            if Instant::now() > deadline {
                break 'smaller;
            }
            if matches!(violation(session, &candidate).await, Ok(Some(_))) {
                best = candidate;
                continue 'smaller;
            }
        }
        break;
    }
    let what = violation(session, &best).await.ok().flatten().unwrap_or_default();
    let tables = round::statements(&round.tables(), &best.to_string());
    format!("seed {}: one question, two answers\n{tables}{best};\n{what}", round.seed)
}

/// Returns true if the query is a SELECT whose rows are those of FROM that pass WHERE.
fn is_plain(query: &Query) -> bool {
    let Body::Select(select) = &query.body else { return false };
    let whole =
        query.with.is_empty() && query.order.is_empty() && query.limit.is_none() && query.offset.is_none();
    let single =
        select.group.is_none() && select.having.is_none() && !select.distinct && select.on.is_empty();
    whole && single && select.filter.is_some() && select.from.is_some()
}

/// Returns the difference between two answers that must be equal, if any.
async fn violation(session: &mut Session, query: &Query) -> drive::Result<Option<String>> {
    let Body::Select(select) = &query.body else { return Ok(None) };
    let Some(condition) = &select.filter else { return Ok(None) };
    let with = |filter: Option<Expr>| {
        Query::of(Body::Select(Box::new(Select { filter, ..select.as_ref().clone() })))
    };
    let all = round::asked(session, &with(None).to_string()).await?;
    let mut parts: Vec<RecordBatch> = Vec::new();
    for pieces in [["(", ")"], ["(NOT ", ")"], ["(", " IS NULL)"]] {
        let filter = Expr::form(Family::Boolean, &pieces, vec![condition.clone()]);
        parts.push(round::asked(session, &with(Some(filter)).to_string()).await?);
    }
    let passed = parts[0].num_rows() as i64;
    let parts = concat_batches(&all.schema(), &parts).map_err(|error| error.to_string())?;
    if let Some(what) = compare::difference(&parts, &all)? {
        let what = what.replace("what is maintained", "the parts").replace("the batch answer", "the whole");
        return Ok(Some(format!("WHERE true, false and unknown are not all:\n{what}")));
    }
    let mut counting = select.as_ref().clone();
    counting.filter = None;
    counting.items = vec![(counted(condition), "c0".to_string())];
    let counting = Query::of(Body::Select(Box::new(counting)));
    let Ok(counted) = round::asked(session, &counting.to_string()).await else { return Ok(None) };
    let lines = drive::text(&counted)?;
    match lines.first().and_then(|line| line.parse::<i64>().ok()) == Some(passed) {
        true => Ok(None),
        false => Ok(Some(format!("{passed} rows pass WHERE, but {counting} gives {lines:?}"))),
    }
}

/// Returns `count(CASE WHEN condition THEN 1 END)`.
fn counted(condition: &Expr) -> Expr {
    let one = Expr::form(Family::Integer, &["CASE WHEN ", " THEN 1 END"], vec![condition.clone()]);
    let call = Aggregate {
        function: "count",
        arguments: vec![one],
        distinct: false,
        order: Vec::new(),
        within: Vec::new(),
        filter: None,
    };
    Expr { family: Family::Integer, node: Node::Aggregate(Box::new(call)) }
}
