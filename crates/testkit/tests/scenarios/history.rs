//! The history of relations, over random changes, restarts and crashes, equals what readers saw in each
//! epoch.

use std::collections::BTreeMap;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, lines, run, run_all};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[("each_epoch_is_read_as_it_was_then", || drive::block_on(as_it_was()))];

/// Relations that keep rows, with the statements that create them.
const RELATIONS: &[(&str, &str)] = &[
    ("t", "CREATE TABLE t (k INT PRIMARY KEY, v INT)"),
    ("u", "CREATE TABLE u (v INT, f DOUBLE)"),
    ("sums", "CREATE MATERIALIZED VIEW sums AS SELECT v, count(*) AS n, sum(k) AS s FROM t GROUP BY v"),
    ("pairs", "CREATE MATERIALIZED VIEW pairs AS SELECT k, t.v, f FROM t LEFT JOIN u ON t.v = u.v"),
    (
        "ranks",
        "CREATE MATERIALIZED VIEW ranks AS SELECT k, row_number() OVER (PARTITION BY v ORDER BY k) AS r FROM t",
    ),
    ("top", "CREATE STREAM top AS SELECT v, f FROM u ORDER BY f DESC, v LIMIT 3"),
    (
        "copy",
        "CREATE TABLE copy (v INT PRIMARY KEY, n BIGINT); CREATE SINK copying INTO copy AS SELECT v, n FROM sums \
         WHERE v IS NOT NULL",
    ),
    ("over_copy", "CREATE MATERIALIZED VIEW over_copy AS SELECT count(*) AS c, sum(n) AS n FROM copy"),
    ("over_views", "CREATE MATERIALIZED VIEW over_views AS SELECT n, count(*) AS c FROM sums GROUP BY n"),
];

/// The content of each relation, by epoch.
#[derive(Default)]
struct Recorded(BTreeMap<u64, BTreeMap<&'static str, Vec<String>>>);

impl Recorded {
    /// Records the present content of all relations.
    async fn record(&mut self, session: &mut Session, there: &[&'static str]) -> Result<()> {
        // The changes of a lagging sink come in an epoch of their own.
        run(session, "FLUSH").await?;
        let epoch = epoch(session).await?;
        for relation in there {
            let rows = lines(session, &format!("SELECT * FROM {relation}")).await?;
            self.0.entry(epoch).or_default().insert(relation, rows);
        }
        Ok(())
    }

    /// Checks the content of all relations as of each retained epoch; returns the number of answers.
    async fn check(&self, session: &mut Session) -> Result<usize> {
        let mut since = BTreeMap::new();
        for line in lines(session, "SELECT relation, since FROM millstream.history").await? {
            let (name, epoch) = line.split_once('|').ok_or("no history")?;
            since.insert(name.to_string(), epoch.parse::<u64>().map_err(|error| error.to_string())?);
        }
        let mut answers = 0;
        for (epoch, relations) in &self.0 {
            for (relation, expected) in relations {
                let kept = since.get(*relation).is_some_and(|since| epoch >= since);
                let sql = format!("SELECT * FROM {relation} FOR SYSTEM_TIME AS OF {epoch}");
                match lines(session, &sql).await {
                    Ok(found) => {
                        ensure(found == *expected, || {
                            format!("{sql}\n  gives    {found:?}\n  expected {expected:?}")
                        })?;
                        answers += usize::from(kept);
                    }
                    Err(error) => ensure(!kept && error.contains("can't be read as of epoch"), || error)?,
                }
            }
        }
        Ok(answers)
    }
}

async fn epoch(session: &mut Session) -> Result<u64> {
    let newest = lines(session, "SELECT max(epoch) FROM millstream.epochs").await?;
    newest.first().and_then(|epoch| epoch.parse().ok()).ok_or_else(|| format!("no epoch: {newest:?}"))
}

async fn as_it_was() -> Result<()> {
    for apart in [false, true] {
        let mut answers = 0;
        for seed in 0..3 {
            let found = as_it_was_seed(seed, apart).await;
            answers += found.map_err(|error| format!("seed {seed}, apart {apart}: {error}"))?;
        }
        ensure(answers > 200, || format!("only {answers} answers were compared, apart {apart}"))?;
    }
    Ok(())
}

/// `apart`: all queries lag.
async fn as_it_was_seed(seed: u64, apart: bool) -> Result<usize> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::start(move || match apart {
        true => Engine::builder().step_apart(1 + seed),
        false => Engine::builder(),
    })?;
    machine.set_interval(&mut random).await?;
    // A long retention keeps everything; a short one what the clock allows.
    let retention = ["1 hour", "1 hour", "30 ms"][random.random_range(0..3)];
    let mut session = machine.session();
    run_all(&mut session, &[RELATIONS[0].1, RELATIONS[1].1]).await?;
    run(&mut session, &format!("SET history_retention = '{retention}'")).await?;
    let (mut there, mut recorded, mut answers) = (vec!["t", "u"], Recorded::default(), 0);
    for _ in 0..3 {
        let mut session = machine.session();
        for _ in 0..random.random_range(3..10) {
            if there.len() < RELATIONS.len() && random.random_range(0..3) == 0 {
                let (name, statement) = RELATIONS[there.len()];
                run_all(&mut session, &statement.split("; ").collect::<Vec<_>>()).await?;
                there.push(name);
            }
            let (k, v) = (random.random_range(0..12), random.random_range(0..4));
            let sql = match random.random_range(0..6) {
                0 => format!("DELETE FROM t WHERE k < {v}"),
                1 => format!("UPDATE t SET v = v + 1 WHERE k > {k}"),
                2 => format!("DELETE FROM u WHERE v = {v}"),
                3 => format!("INSERT INTO u VALUES ({v}, {k}.5), ({v}, 0.1), ({v}, 0.1), (NULL, {k})"),
                _ => format!("INSERT INTO t VALUES ({k}, {v})"),
            };
            run(&mut session, &sql).await?;
            if apart && random.random() {
                // Several epochs wait.
                continue;
            }
            recorded.record(&mut session, &there).await?;
        }
        answers += recorded.check(&mut session).await?;
        if random.random() {
            // A start that replays no epoch.
            run(&mut session, "CHECKPOINT").await?;
        }
        machine.crash(&mut random).await?;
        answers += recorded.check(&mut machine.session()).await?;
    }
    Ok(answers)
}
