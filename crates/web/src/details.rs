//! What one part of the page shows: read of the engine on demand, and shared by all who ask within a moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::{Engine, Session};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::health::literal;
use crate::reading::{READING_MAX, Row, Unread, rows, session};

/// The shortest time for which a detail is shared.
const FRESH_MIN: Duration = Duration::from_millis(900);

/// A detail is shared for this many times as long as it took to read, so that reading takes a small part of the
/// engine's time, however many pages are open.
const FRESH_TIMES: u32 = 20;

/// The longest time for which a detail is shared.
const FRESH_MAX: Duration = Duration::from_secs(5);

const DEPENDENCIES: &str =
    "SELECT name, kind, depends_on FROM millstream.dependencies ORDER BY name, depends_on";

/// Operators summed up by query.
const LOADS: &str = "SELECT query, count(*) AS operators, CAST(sum(time_us) AS BIGINT) AS time_us, \
     CAST(sum(CASE WHEN operator = 'Input' THEN rows_out ELSE 0 END) AS BIGINT) AS rows_in, \
     CAST(first_value(rows_out ORDER BY node DESC) AS BIGINT) AS rows_out, \
     CAST(sum(state_bytes) AS BIGINT) AS state_bytes, CAST(sum(errors) AS BIGINT) AS errors, \
     CAST(sum(late_rows) AS BIGINT) AS late_rows FROM millstream.operators GROUP BY query ORDER BY query";

const PARTITIONS: &str = "SELECT * FROM millstream.source_partitions ORDER BY source, partition LIMIT 2000";

const STATES: &str = "SELECT query, node, operator, detail, state_key, state_rows, state_bytes, spilled_bytes, shared_by \
     FROM millstream.operators WHERE state_bytes > 0 OR spilled_bytes > 0 \
     ORDER BY state_bytes + spilled_bytes DESC, query, node LIMIT 500";

const STATE_OF_QUERIES: &str = "SELECT query, CAST(sum(state_rows) AS BIGINT) AS state_rows, \
     CAST(sum(state_bytes) AS BIGINT) AS state_bytes, CAST(sum(spilled_bytes) AS BIGINT) AS spilled_bytes \
     FROM millstream.operators GROUP BY query ORDER BY 3 DESC, 4 DESC, query LIMIT 500";

const CHECKPOINTS: &str = "SELECT * FROM millstream.checkpoints ORDER BY at DESC";

/// A part of the page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detail {
    /// All objects, how they depend on each other, and what each query has done.
    Graph,
    /// The operators of a query.
    Query(String),
    /// An epoch, with its slowest operators.
    Batch(u64),
    /// The partitions of the sources.
    Partitions,
    /// The state of the operators, and the checkpoints.
    State,
}

/// A detail that was read, and until when it is shared.
#[derive(Debug)]
struct Kept {
    until: Instant,
    outcome: Result<Arc<str>, Unread>,
}

/// The details that were read within the last moment.
#[derive(Debug, Default)]
pub(crate) struct Details {
    kept: Mutex<BTreeMap<Detail, Kept>>,
}

impl Details {
    /// Returns a detail as JSON text. Readings follow each other, so that many pages don't crowd the engine.
    pub(crate) async fn read(&self, engine: &Engine, detail: Detail) -> Result<Arc<str>, Unread> {
        let mut kept = self.kept.lock().await;
        let began = Instant::now();
        kept.retain(|_, kept| kept.until > began);
        if let Some(kept) = kept.get(&detail) {
            return kept.outcome.clone();
        }
        let read = tokio::time::timeout(READING_MAX, detail.read(engine)).await;
        let outcome = read.unwrap_or(Err(Unread::Busy)).map(|value| Arc::from(value.to_string()));
        let now = Instant::now();
        let until = now + ((now - began) * FRESH_TIMES).clamp(FRESH_MIN, FRESH_MAX);
        kept.insert(detail, Kept { until, outcome: outcome.clone() });
        outcome
    }
}

impl Detail {
    async fn read(&self, engine: &Engine) -> Result<Value, Unread> {
        let mut session = session(engine);
        match self {
            Detail::Graph => graph(&mut session).await,
            Detail::Query(name) => query(&mut session, name).await,
            Detail::Batch(epoch) => batch(&mut session, *epoch).await,
            Detail::Partitions => Ok(json!({ "partitions": rows(&mut session, PARTITIONS).await? })),
            Detail::State => Ok(json!({
                "queries": rows(&mut session, STATE_OF_QUERIES).await?,
                "operators": rows(&mut session, STATES).await?,
                "checkpoints": rows(&mut session, CHECKPOINTS).await?,
            })),
        }
    }
}

/// Returns the microseconds since an arbitrary time. Times of operators are compared with them.
fn clock_us() -> u64 {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_micros() as u64
}

async fn graph(session: &mut Session) -> Result<Value, Unread> {
    let objects = rows(session, DEPENDENCIES).await?;
    let loads = rows(session, LOADS).await?;
    Ok(json!({ "at_us": clock_us(), "objects": objects, "loads": loads }))
}

async fn query(session: &mut Session, name: &str) -> Result<Value, Unread> {
    let text = format!("SELECT * FROM millstream.operators WHERE query = {} ORDER BY node", literal(name));
    let operators = rows(session, &text).await?;
    Ok(json!({ "at_us": clock_us(), "query": name, "operators": operators }))
}

async fn batch(session: &mut Session, epoch: u64) -> Result<Value, Unread> {
    let text = format!("SELECT * FROM millstream.epochs WHERE epoch = {epoch}");
    let found: Option<Row> = rows(session, &text).await?.into_iter().next();
    let text = format!(
        "SELECT * FROM millstream.epoch_operators WHERE epoch = {epoch} ORDER BY time_us DESC, query, node"
    );
    Ok(json!({ "epoch": epoch, "batch": found, "operators": rows(session, &text).await? }))
}
