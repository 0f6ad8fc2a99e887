//! New columns at the end of views and materialized views that others read: the readers continue as if nothing had
//! changed, through crashes.

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, expect_like, fetch, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::crashes::difference;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("readers_of_a_longer_query_go_on_with_the_columns_they_know", || drive::block_on(longer())),
    ("a_longer_query_comes_in_its_place_among_what_is_made", || drive::block_on(places())),
    ("subscribers_of_a_longer_query_go_on_with_the_columns_they_know", || drive::block_on(subscribers())),
    ("a_transaction_reads_the_columns_it_knows_of_a_longer_query", || drive::block_on(transactions())),
];

/// Queries for `m`: their first columns and their key are the same. `{}` stands for further columns.
const QUERIES: &[&str] = &[
    "SELECT v AS g, sum(k) AS n{} FROM t GROUP BY v",
    "SELECT v AS g, sum(k) AS n{} FROM t GROUP BY v HAVING sum(k) > 10",
    "SELECT v AS g, sum(k) + 1 AS n{} FROM t WHERE k > 3 GROUP BY v",
];

/// Objects created before any query is longer, in both engines.
const OBJECTS: &[&str] = &[
    "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
    "CREATE TABLE copy (g INT, n BIGINT)",
    "CREATE MATERIALIZED VIEW m AS SELECT v AS g, sum(k) AS n FROM t GROUP BY v",
    "CREATE MATERIALIZED VIEW all_of AS SELECT * FROM m",
    "CREATE VIEW plain AS SELECT * FROM m WHERE n > 1",
    "CREATE MATERIALIZED VIEW over_plain AS SELECT count(*) AS c, sum(n) AS n FROM plain",
    "CREATE MATERIALIZED VIEW joined AS SELECT t.k, m.* FROM t JOIN m ON t.v = m.g",
    "CREATE MATERIALIZED VIEW joined_too AS SELECT t.v, m.n FROM t LEFT JOIN m ON t.v = m.g",
    "CREATE SINK copying INTO copy FROM m",
    "CREATE VIEW w AS SELECT v, k + 1 AS l FROM t WHERE k > 1",
    "CREATE VIEW ww AS SELECT * FROM w",
    "CREATE MATERIALIZED VIEW over_w AS SELECT * FROM ww",
];

/// Queries of their rows; of `m` and `w`, the first columns.
const SHOWN: &[&str] = &[
    "SELECT g, n FROM m",
    "SELECT * FROM all_of",
    "SELECT * FROM plain",
    "SELECT * FROM over_plain",
    "SELECT * FROM joined",
    "SELECT * FROM joined_too",
    "SELECT * FROM copy",
    "SELECT v, l FROM w",
    "SELECT * FROM ww",
    "SELECT * FROM over_w",
];

const MAINTAINED: &[&str] = &["m", "all_of", "over_plain", "joined", "joined_too", "over_w"];

fn change(random: &mut SmallRng) -> String {
    let (k, v) = (random.random_range(0..12), random.random_range(0..4));
    match random.random_range(0..5) {
        0 => format!("DELETE FROM t WHERE k < {v}"),
        1 => format!("UPDATE t SET v = v + 1 WHERE k > {k}"),
        _ => format!("INSERT INTO t VALUES ({k}, {v})"),
    }
}

/// Compares the readers with an in-memory engine in which no query is longer.
struct Trial {
    random: SmallRng,
    machine: Machine,
    narrow: Session,
    /// The place of the query of `m`, and its further columns.
    query: usize,
    columns: Vec<String>,
    /// The columns of `w` behind the first two.
    of_view: String,
    /// Readers of the longer `m`, each with the columns that it knows.
    made: Vec<(String, String)>,
}

impl Trial {
    fn query(&self, columns: &str) -> String {
        QUERIES[self.query].replace("{}", columns)
    }

    async fn step(&mut self) -> Result<()> {
        let number = self.columns.len();
        match self.random.random_range(0..8) {
            0 | 1 => {
                if self.random.random_range(0..2) == 0 {
                    self.query = self.random.random_range(0..QUERIES.len());
                }
                if number < 6 && self.random.random_range(0..3) > 0 {
                    let kind = self.random.random_range(0..3);
                    let column = ["max(k)", "count(*)", "array_agg(k ORDER BY k)"][kind];
                    self.columns.push(format!(", {column} AS c{number}"));
                }
                let alter = "ALTER MATERIALIZED VIEW m AS";
                let wide = format!("{alter} {}", self.query(&self.columns.concat()));
                run(&mut self.machine.session(), &wide).await?;
                let sql = format!("{alter} {}", self.query(""));
                run(&mut self.narrow, &sql).await.map(drop)
            }
            2 => {
                let column = format!(", k + {} AS d{}", self.of_view.len(), self.of_view.len());
                if self.of_view.len() < 60 {
                    self.of_view.push_str(&column);
                }
                let wide = format!(
                    "CREATE OR REPLACE VIEW w AS SELECT v, k + 1 AS l{} FROM t WHERE k > 1",
                    self.of_view
                );
                run(&mut self.machine.session(), &wide).await.map(drop)
            }
            3 if self.made.len() < 4 => {
                let name = format!("made_{}", self.made.len());
                let columns: String = (0..number).map(|number| format!(", c{number}")).collect();
                let made = format!("CREATE MATERIALIZED VIEW {name} AS SELECT * FROM m");
                run(&mut self.machine.session(), &made).await?;
                self.made.push((name, format!("g, n{columns}")));
                Ok(())
            }
            _ => {
                let sql = change(&mut self.random);
                run(&mut self.machine.session(), &sql).await?;
                run(&mut self.narrow, &sql).await.map(drop)
            }
        }
    }

    async fn compare(&mut self) -> Result<()> {
        let mut session = self.machine.session();
        if let Some(wrong) = difference(&mut session, &mut self.narrow, SHOWN).await? {
            return Err(wrong);
        }
        let batch = self.query(&self.columns.concat());
        let all = [("m".to_string(), "*".to_string())];
        for (name, columns) in all.iter().chain(&self.made) {
            let query = format!("SELECT {columns} FROM ({batch}) AS m");
            expect_like(&mut session, &format!("SELECT * FROM {name}"), &query).await?;
        }
        let made = self.made.iter().map(|(name, _)| name.as_str());
        for name in MAINTAINED.iter().copied().chain(made) {
            expect(&mut session, &format!("VERIFY {name}"), &[]).await?;
        }
        Ok(())
    }
}

async fn longer() -> Result<()> {
    for seed in seeds(&[0, 1, 4], 0..8) {
        longer_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn longer_seed(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let apart = move || if seed < 4 { Engine::builder() } else { Engine::builder().step_apart(seed % 3 + 1) };
    let machine = Machine::start(apart)?;
    machine.set_interval(&mut random).await?;
    let model = Engine::start().map_err(|error| error.to_string())?;
    let mut narrow = model.session();
    for session in [&mut machine.session(), &mut narrow] {
        run_all(session, OBJECTS).await?;
    }
    let (query, columns, of_view, made) = (0, Vec::new(), String::new(), Vec::new());
    let mut trial = Trial { random, machine, narrow, query, columns, of_view, made };
    for round in 0..6 {
        for _ in 0..trial.random.random_range(2..12) {
            trial.step().await.map_err(|error| format!("round {round}: {error}"))?;
        }
        trial.compare().await.map_err(|error| format!("round {round}: {error}"))?;
        trial.machine.crash(&mut trial.random).await?;
        trial.compare().await.map_err(|error| format!("round {round}, after a crash: {error}"))?;
    }
    Ok(())
}

/// With a checkpoint before, between or after, and with none.
async fn places() -> Result<()> {
    for checkpoint in [None, Some(0), Some(1), Some(2)] {
        let mut random = SmallRng::seed_from_u64(3);
        let mut machine = Machine::start(Engine::builder)?;
        let mut session = machine.session();
        let groups: &[&[&str]] = &[
            &[
                "SET checkpoint_interval = 'off'",
                "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
                "CREATE MATERIALIZED VIEW m AS SELECT v AS g, sum(k) AS n FROM t GROUP BY v",
                "CREATE VIEW p AS SELECT * FROM m",
                "CREATE MATERIALIZED VIEW a AS SELECT * FROM p",
                "CREATE VIEW w AS SELECT v FROM t",
                "CREATE VIEW ww AS SELECT * FROM w",
                "INSERT INTO t VALUES (1, 1), (2, 1), (3, 2)",
                "ALTER MATERIALIZED VIEW m AS SELECT v AS g, sum(k) AS n, max(k) AS highest FROM t GROUP BY v",
                "CREATE OR REPLACE VIEW w AS SELECT v, k FROM t",
            ],
            &[
                "CREATE VIEW q AS SELECT * FROM m",
                "CREATE MATERIALIZED VIEW b AS SELECT * FROM q",
                "ALTER MATERIALIZED VIEW m RENAME TO m2",
                "ALTER MATERIALIZED VIEW m2 AS \
                 SELECT v AS g, sum(k) AS n, max(k) AS highest, min(k) AS low FROM t GROUP BY v",
                "CREATE VIEW r AS SELECT * FROM m2",
                "CREATE OR REPLACE VIEW w AS SELECT v, k, k + v AS s FROM t",
            ],
            &[
                "INSERT INTO t VALUES (4, 2), (5, 3)",
                "ALTER MATERIALIZED VIEW m2 AS \
                 SELECT v AS g, sum(k) + 1 AS n, max(k) AS highest, min(k) AS low FROM t GROUP BY v",
            ],
        ];
        for (place, group) in groups.iter().enumerate() {
            run_all(&mut session, group).await?;
            if checkpoint == Some(place) {
                run(&mut session, "CHECKPOINT").await?;
            }
        }
        let shown: &[(&str, &[&str])] = &[
            ("SELECT * FROM m2", &["1|4|2|1", "2|8|4|3", "3|6|5|5"]),
            ("SELECT * FROM p", &["1|4", "2|8", "3|6"]),
            ("SELECT * FROM a", &["1|4", "2|8", "3|6"]),
            ("SELECT * FROM q", &["1|4|2", "2|8|4", "3|6|5"]),
            ("SELECT * FROM b", &["1|4|2", "2|8|4", "3|6|5"]),
            ("SELECT * FROM r", &["1|4|2|1", "2|8|4|3", "3|6|5|5"]),
            ("SELECT * FROM w", &["1|1|2", "1|2|3", "2|3|5", "2|4|6", "3|5|8"]),
            ("SELECT * FROM ww", &["1", "1", "2", "2", "3"]),
            ("VERIFY m2", &[]),
            ("VERIFY a", &[]),
            ("VERIFY b", &[]),
        ];
        for crash in [false, true, true] {
            if crash {
                machine.crash(&mut random).await?;
            }
            for (sql, expected) in shown {
                expect(&mut machine.session(), sql, expected)
                    .await
                    .map_err(|error| format!("checkpoint {checkpoint:?}, crash {crash}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// Cursors and durable subscriptions that began before, and one that begins then.
async fn subscribers() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(11);
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT v AS g, sum(k) AS n FROM t GROUP BY v",
            "INSERT INTO t VALUES (1, 1)",
            "CREATE SUBSCRIPTION r FROM m",
            "DECLARE c CURSOR FOR SUBSCRIBE m",
            "INSERT INTO t VALUES (2, 2)",
            "ALTER MATERIALIZED VIEW m AS SELECT v AS g, sum(k) AS n, max(k) AS highest FROM t GROUP BY v",
            "CREATE SUBSCRIPTION later FROM m",
            "INSERT INTO t VALUES (3, 2)",
        ],
    )
    .await?;
    let before = ["insert|1|1", "insert|2|2", "update_delete|2|2", "update_insert|2|5"];
    let after = ["insert|1|1|1", "insert|2|2|2", "update_delete|2|2|2", "update_insert|2|5|3"];
    let fetched = fetch(&mut session, "c", 4).await?;
    ensure(fetched == before, || format!("the cursor has {fetched:?}"))?;
    for crash in [false, true, true] {
        if crash {
            machine.crash(&mut random).await?;
        }
        let mut session = machine.session();
        for (name, expected) in [("r", before), ("later", after)] {
            run(&mut session, &format!("DECLARE d SUBSCRIPTION CURSOR FOR {name}")).await?;
            let mut fetched = fetch(&mut session, "d", 4).await?;
            fetched.sort();
            ensure(fetched == expected, || format!("crash {crash}: {name} has {fetched:?}"))?;
            run(&mut session, "CLOSE d").await?;
        }
    }
    Ok(())
}

/// Its snapshot is as of its beginning, also behind the longer query's first change.
async fn transactions() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let (mut session, mut reads) = (engine.session(), engine.session());
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
            "CREATE MATERIALIZED VIEW m AS SELECT v AS g, sum(k) AS n FROM t GROUP BY v",
            "CREATE MATERIALIZED VIEW over_m AS SELECT g, n + 1 AS n FROM m",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ],
    )
    .await?;
    run_all(&mut reads, &["BEGIN", "SELECT * FROM over_m"]).await?;
    run_all(
        &mut session,
        &[
            "INSERT INTO t VALUES (3, 2)",
            "ALTER MATERIALIZED VIEW m AS SELECT v AS g, sum(k) AS n, max(k) AS highest FROM t GROUP BY v",
            "DELETE FROM t WHERE k = 1",
        ],
    )
    .await?;
    expect(&mut reads, "SELECT g, n FROM m", &["1|1", "2|2"]).await?;
    expect(&mut reads, "SELECT * FROM over_m", &["1|2", "2|3"]).await?;
    run(&mut reads, "COMMIT").await?;
    expect(&mut session, "SELECT * FROM m", &["2|5|3"]).await?;
    expect(&mut session, "SELECT * FROM over_m", &["2|6"]).await
}
