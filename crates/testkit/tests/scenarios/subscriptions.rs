//! Durable subscriptions: the changes that a reader gets add up to the content of the relation, through
//! crashes of the engine and of the reader.

use std::collections::BTreeMap;
use std::path::Path;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, rows, run, run_all, seeds, text};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::crashes::run_script;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("readers_have_everything_once_through_crashes", || drive::block_on(through_crashes(None))),
    ("readers_of_what_is_behind_have_everything_once", || drive::block_on(through_crashes(Some(3)))),
    ("a_subscription_to_what_still_reads_the_past", || drive::block_on(starting())),
];

/// Relations of every kind that supports subscriptions.
const RELATIONS: &[&str] = &["t", "sums", "pairs", "doubled"];

/// A reader that stores the changes of a subscription, and its position.
struct Reader {
    name: String,
    relation: &'static str,
    /// The number of copies of each row.
    has: BTreeMap<String, i64>,
    /// The epoch up to which the reader has everything.
    through: i64,
    /// The epoch up to which the reader has confirmed.
    said: i64,
    /// True if the relation lags: one step takes several epochs, whose changes may cancel out. After a crash
    /// the epochs may arrive one by one.
    is_behind: bool,
}

impl Reader {
    async fn make(
        machine: &Machine,
        number: usize,
        is_behind: bool,
        random: &mut SmallRng,
    ) -> Result<Reader> {
        let relation = RELATIONS[random.random_range(0..RELATIONS.len())];
        let name = format!("reader_{number}");
        run(&mut machine.session(), &format!("CREATE SUBSCRIPTION {name} FROM {relation}")).await?;
        Ok(Reader { name, relation, has: BTreeMap::new(), through: -1, said: -1, is_behind })
    }

    /// Reads some of the changes, and confirms them or not.
    async fn read(&mut self, machine: &Machine, random: &mut SmallRng) -> Result<()> {
        let mut session = machine.session();
        let declare = format!("DECLARE c SUBSCRIPTION CURSOR FOR {} WITH (PROGRESS = true)", self.name);
        run(&mut session, &declare).await?;
        // The cursor continues at its place, even if the position moves meanwhile.
        let (said, mut of_epoch) = (self.said, Vec::<(String, i64)>::new());
        for _ in 0..random.random_range(1..20) {
            let count = random.random_range(1..30);
            let fetch = format!("FETCH {count} FROM c WITH (timeout = '5 ms')");
            let lines = text(&rows(&mut session, &fetch).await?)?;
            for line in &lines {
                let mut parts = line.splitn(3, '|');
                let (epoch, op) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let epoch: i64 = epoch.parse().map_err(|_| format!("{line}: no epoch"))?;
                // The end of an epoch without changes may be reported again.
                ensure(epoch > said || op == "progress" || self.is_behind, || {
                    format!("{}: {line} after {said} was confirmed", self.name)
                })?;
                let row = parts.next().unwrap_or_default().to_string();
                match op {
                    "progress" => self.take(epoch, &mut of_epoch),
                    "insert" | "update_insert" => of_epoch.push((row, 1)),
                    _ => of_epoch.push((row, -1)),
                }
            }
            if lines.is_empty() {
                break;
            }
            if self.through > self.said && random.random_range(0..6) == 0 {
                let advance = format!("ADVANCE SUBSCRIPTION {} TO {}", self.name, self.through);
                run(&mut session, &advance).await?;
                self.said = self.through;
            }
        }
        Ok(())
    }

    /// Applies all rows of an epoch and of earlier ones. Rows that the reader has already are delivered again
    /// and skipped.
    fn take(&mut self, epoch: i64, rows: &mut Vec<(String, i64)>) {
        let rows = std::mem::take(rows);
        if epoch <= self.through {
            return;
        }
        for (row, count) in rows {
            *self.has.entry(row).or_default() += count;
        }
        self.has.retain(|_, count| *count != 0);
        self.through = epoch;
    }

    /// Reads everything; then the reader has the content of the relation.
    async fn check(&mut self, machine: &Machine, random: &mut SmallRng) -> Result<()> {
        let mut found = Vec::new();
        let expected = lines(&mut machine.session(), &format!("SELECT * FROM {}", self.relation)).await?;
        for _ in 0..2000 {
            self.read(machine, random).await?;
            let copies =
                self.has.iter().map(|(row, count)| vec![row.clone(); usize::try_from(*count).unwrap_or(0)]);
            found = copies.flatten().collect();
            if found == expected && self.has.values().all(|count| *count > 0) {
                return Ok(());
            }
        }
        Err(format!("{} of {} has {found:?}\n  expected {expected:?}", self.name, self.relation))
    }
}

async fn through_crashes(apart: Option<u64>) -> Result<()> {
    for seed in seeds(&[0, 1], 0..6) {
        through_crashes_seed(seed, apart).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn through_crashes_seed(seed: u64, apart: Option<u64>) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let builder = move || match apart {
        Some(epochs) => Engine::builder().step_apart(epochs),
        None => Engine::builder(),
    };
    let mut machine = Machine::start(builder)?;
    machine.set_interval(&mut random).await?;
    run_all(
        &mut machine.session(),
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
            "CREATE MATERIALIZED VIEW sums AS SELECT v, count(*) AS n, sum(k) AS s FROM t GROUP BY v",
            "CREATE MATERIALIZED VIEW pairs AS SELECT a.k, b.k AS other FROM t a LEFT JOIN t b ON a.v = b.k",
            "CREATE STREAM doubled AS SELECT k, v * 2 AS d FROM t WHERE v > 0",
        ],
    )
    .await?;
    let (mut readers, mut made) = (Vec::new(), 0);
    for round in 0..5 {
        for _ in 0..random.random_range(1..12) {
            let (k, v) = (random.random_range(0..12), random.random_range(0..4));
            let sql = match random.random_range(0..4) {
                0 => format!("DELETE FROM t WHERE k < {v}"),
                1 => format!("UPDATE t SET v = v + 1 WHERE k > {k}"),
                _ => format!("INSERT INTO t VALUES ({k}, {v})"),
            };
            run(&mut machine.session(), &sql).await?;
            if readers.len() < 5 && random.random_range(0..3) == 0 {
                made += 1;
                readers.push(Reader::make(&machine, made, apart.is_some(), &mut random).await?);
            }
            let count = readers.len();
            if count > 0 && random.random_range(0..3) == 0 {
                readers[random.random_range(0..count)].read(&machine, &mut random).await?;
            }
        }
        if round == 2 && !readers.is_empty() {
            let gone = readers.remove(0);
            run(&mut machine.session(), &format!("DROP SUBSCRIPTION {}", gone.name)).await?;
        }
        match apart {
            None => machine.crash(&mut random).await?,
            // A lagging query prevents a checkpoint.
            Some(_) => machine.crash_at(|| {}, &mut random).await?,
        }
    }
    for reader in &mut readers {
        reader.check(&machine, &mut random).await?;
    }
    ensure(!readers.is_empty(), || "nobody read".into())
}

/// During a query's backfill, a subscription gets the content first, or not at all; both also after a crash.
async fn starting() -> Result<()> {
    for query in ["SELECT n % 3 AS g, count(*) AS c FROM s GROUP BY n % 3", "SELECT n FROM s"] {
        let mut random = SmallRng::seed_from_u64(1);
        let folder = super::folder()?;
        super::write(folder.path(), "a.csv", "1\n2\n3\n4\n")?;
        let memory = Engine::start().map_err(|error| error.to_string())?;
        make_late(&mut memory.session(), folder.path(), query).await?;
        check_late(&mut memory.session(), query).await?;
        let mut machine = Machine::start(Engine::builder)?;
        make_late(&mut machine.session(), folder.path(), query).await?;
        for _ in 0..2 {
            check_late(&mut machine.session(), query).await?;
            machine.crash(&mut random).await?;
        }
    }
    Ok(())
}

/// Creates a query over a source that was read before, and subscriptions to it during its backfill.
async fn make_late(session: &mut Session, folder: &Path, query: &str) -> Result<()> {
    let source = format!(
        "CREATE SOURCE s (n INT) WITH (connector = 'file', path = '{}/', format = 'csv', header = false)",
        folder.display()
    );
    run_all(session, &[&source, "CREATE MATERIALIZED VIEW first AS SELECT n FROM s"]).await?;
    drive::expect_soon(session, "SELECT count(*) FROM first", &["4"]).await?;
    let together = format!(
        "CREATE MATERIALIZED VIEW late AS {query}; CREATE SUBSCRIPTION whole FROM late; \
         CREATE SUBSCRIPTION changes FROM late WITH (snapshot = false)"
    );
    run_script(session, &together).await.map(drop)
}

/// Checks that one subscription has the whole content, and the other nothing.
async fn check_late(session: &mut Session, query: &str) -> Result<()> {
    let expected = lines(session, "SELECT * FROM late").await?;
    ensure(!expected.is_empty(), || "nothing was read".into())?;
    run(session, "DECLARE w SUBSCRIPTION CURSOR FOR whole").await?;
    run(session, "DECLARE c SUBSCRIPTION CURSOR FOR changes").await?;
    let mut found = text(&rows(session, "FETCH ALL FROM w").await?)?;
    found.iter_mut().for_each(|line| *line = line.splitn(3, '|').last().unwrap_or_default().to_string());
    found.sort();
    ensure(found == expected, || format!("{query}: {found:?}, expected {expected:?}"))?;
    expect(session, "FETCH ALL FROM c WITH (timeout = '50 ms')", &[]).await
}
