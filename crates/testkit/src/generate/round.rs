//! A round: some tables, a feed for them, and queries over them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use futures::FutureExt;
use millstream_engine::{Engine, Session};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::ast::Query;
use super::counts::{Counts, class};
use super::draw::{Draw, Readable};
use super::tables::{self, Table};
use super::{Setup, deltas, reduce};
use crate::drive;
use crate::oracle::compare;
use crate::oracle::convert::{self, Case, Object};
use crate::oracle::feed::{Content, Feed};

/// Maximum number of attempts to draw a query that the planner accepts.
const DRAWS_MAX: usize = 12;

/// The time limit of one query.
const PATIENCE: Duration = Duration::from_secs(30);

/// Queries with more rows are drawn again, to bound the time.
const ROWS_MAX: usize = 3000;

/// Everything that a seed determines.
#[derive(Clone, Debug)]
pub struct Round {
    /// The seed.
    pub seed: u64,
    /// The tables with their content.
    pub case: Case,
    /// The feed that produces the content.
    pub feed: Feed,
    /// The queries.
    pub queries: Vec<Query>,
}

/// Returns a seed for one purpose.
pub fn derived(seed: u64, purpose: &str, number: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, purpose, number).hash(&mut hasher);
    hasher.finish()
}

impl Round {
    /// Returns the round of a seed; `counts` records rejected queries.
    pub async fn make(seed: u64, setup: &Setup, counts: &mut Counts) -> drive::Result<Round> {
        let tables = tables::tables(derived(seed, "tables", 0));
        let engine = Engine::start().map_err(|error| error.to_string())?;
        let mut session = engine.session();
        let case = filled(&mut session, &tables, seed).await?;
        let feed = deltas::feed(&case, derived(seed, "feed", 0), setup.epochs)
            .map_err(|error| format!("no feed can be made: {error}"))?;
        let readables: Vec<Readable> = tables.iter().map(|table| table.readable.clone()).collect();
        let mut queries = Vec::new();
        for number in 0..setup.queries {
            for attempt in 0..DRAWS_MAX {
                let drawn = derived(seed, "query", number * DRAWS_MAX + attempt);
                let query = Draw::new(drawn, &readables).statement();
                if is_taken(&mut session, &query, seed, counts).await {
                    queries.push(query);
                    break;
                }
            }
        }
        counts.queries += queries.len();
        engine.stop().await.map_err(|error| error.to_string())?;
        Ok(Round { seed, case, feed, queries })
    }

    /// Returns the same queries over append-only tables.
    pub fn over_append_only_tables(&self, epochs: usize) -> Result<Round, ArrowError> {
        let feed = deltas::appended(&self.case, derived(self.seed, "appended", 0), epochs)?;
        Ok(Round { feed, ..self.clone() })
    }

    /// Returns the tables as they were drawn.
    pub fn tables(&self) -> Vec<Table> {
        tables::tables(derived(self.seed, "tables", 0))
    }

    /// Returns the queries as text, as the oracle takes them.
    pub fn texts(&self) -> Vec<convert::Query> {
        self.queries.iter().map(text).collect()
    }

    /// Repeats all queries over the rows in another order; returns a message for each with another answer
    /// than before.
    pub async fn reorder(
        &self,
        answers: &[Option<RecordBatch>],
        counts: &mut Counts,
    ) -> drive::Result<Vec<String>> {
        let engine = Engine::start().map_err(|error| error.to_string())?;
        let mut session = engine.session();
        for sql in self.case.settings.iter().chain(self.case.objects.iter().map(|object| &object.ddl)) {
            drive::run(&mut session, sql).await?;
        }
        self.insert_shuffled(&mut session).await?;
        let mut messages = Vec::new();
        for (query, answer) in self.queries.iter().zip(answers) {
            let Some(answer) = answer else { continue };
            counts.reordered += 1;
            let sql = query.to_string();
            let what = match drive::rows(&mut session, &sql).await {
                Ok(found) => compare::difference(&found, answer)?,
                Err(error) => Some(error),
            };
            if let Some(what) = what {
                let what = what
                    .replace("what is maintained", "the answer over shuffled rows")
                    .replace("the batch answer", "the answer before");
                messages.push(format!("seed {}: the order of rows matters\n{sql}\n{what}", self.seed));
            }
        }
        engine.stop().await.map_err(|error| error.to_string())?;
        Ok(messages)
    }

    /// Inserts the content after the last epoch, in random order and pieces.
    async fn insert_shuffled(&self, session: &mut Session) -> drive::Result<()> {
        let mut rng = SmallRng::seed_from_u64(derived(self.seed, "order", 0));
        let mut content = Content::new(&self.feed);
        for op in &self.feed.ops {
            content.apply(&self.feed, op);
        }
        for (table, pool) in self.feed.pools.iter().enumerate() {
            let rows = content.batch(&self.feed, table).map_err(|error| error.to_string())?;
            let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
            order.shuffle(&mut rng);
            let mut rest = order.as_slice();
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(rng.random_range(1..=rest.len()));
                let picked = UInt32Array::from_iter_values(piece.iter().copied());
                let piece = take_record_batch(&rows, &picked).map_err(|error| error.to_string())?;
                session.insert(&pool.table, piece).await.map_err(|error| error.to_string())?;
                rest = others;
            }
        }
        Ok(())
    }
}

/// Returns the query as the oracle takes it.
pub fn text(query: &Query) -> convert::Query {
    convert::Query { line: 0, sql: query.to_string() }
}

/// Creates the tables, fills them, and reads their content.
pub async fn filled(session: &mut Session, tables: &[Table], seed: u64) -> drive::Result<Case> {
    let mut objects = Vec::new();
    for table in tables {
        let name = &table.readable.name;
        drive::run(session, &table.ddl).await?;
        for row in &table.rows {
            drive::run(session, &format!("INSERT INTO {name} VALUES {row}")).await?;
        }
        let rows = drive::rows(session, &format!("SELECT * FROM {name}")).await?;
        let content = convert::Table { rows, key: table.key.clone(), append_only: false };
        objects.push(Object { name: name.clone(), ddl: table.ddl.clone(), table: Some(content) });
    }
    Ok(Case { file: format!("seed {seed}"), settings: Vec::new(), objects, queries: Vec::new() })
}

/// Returns true if a query is worth a view: the planner accepts it, and its answer is not too large. Also
/// accepts a few queries that fail over the rows.
async fn is_taken(session: &mut Session, query: &Query, seed: u64, counts: &mut Counts) -> bool {
    counts.drawn += 1;
    let sql = query.to_string();
    match asked(session, &sql).await {
        Ok(rows) if rows.num_rows() > ROWS_MAX => {
            counts.too_large += 1;
            false
        }
        Ok(rows) => {
            counts.empty += usize::from(rows.num_rows() == 0);
            true
        }
        Err(error) => match drive::run(session, &format!("EXPLAIN {sql}")).await {
            Ok(_) => {
                counts.failing(&error, seed, query);
                // A panic would end the run.
                !["panics", "hangs"].contains(&error.as_str()) && counts.drawn.is_multiple_of(5)
            }
            Err(_) => {
                counts.refused(&error, seed, query);
                false
            }
        },
    }
}

/// Returns the rows of a query; a panic becomes an error.
pub async fn asked(session: &mut Session, sql: &str) -> drive::Result<RecordBatch> {
    let asked = AssertUnwindSafe(drive::rows(session, sql)).catch_unwind();
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(done) => done.unwrap_or_else(|_| Err("panics".into())),
        Err(_) => Err("hangs".into()),
    }
}

/// Returns the smallest query found that fails like `query` over the tables of `seed`, with a script to
/// reproduce it.
pub async fn smallest(seed: u64, query: &Query, patience: Duration) -> drive::Result<String> {
    let tables = tables::tables(derived(seed, "tables", 0));
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    filled(&mut session, &tables, seed).await?;
    let deadline = Instant::now() + patience;
    let fails = async |session: &mut Session, query: &Query| match asked(session, &query.to_string()).await {
        Ok(_) => None,
        Err(error) => Some(class(&error)),
    };
    let wanted = fails(&mut session, query).await;
    let mut best = query.clone();
    'smaller: while wanted.is_some() {
        for candidate in reduce::reductions(&best) {
            if Instant::now() > deadline {
                break 'smaller;
            }
            if fails(&mut session, &candidate).await == wanted {
                best = candidate;
                continue 'smaller;
            }
        }
        break;
    }
    let error = asked(&mut session, &best.to_string()).await.err().unwrap_or_default();
    engine.stop().await.map_err(|error| error.to_string())?;
    let text = statements(&tables, &best.to_string());
    Ok(format!("{text}{best};\n-- {}", error.lines().next().unwrap_or_default()))
}

/// Returns statements that create and fill the tables that `sql` names.
pub fn statements(tables: &[Table], sql: &str) -> String {
    let mut text = String::new();
    for table in tables.iter().filter(|table| sql.contains(&table.readable.name)) {
        text.push_str(&format!("{};\n", table.ddl));
        if !table.rows.is_empty() {
            let name = &table.readable.name;
            text.push_str(&format!("INSERT INTO {name} VALUES {};\n", table.rows.join(", ")));
        }
    }
    text
}
