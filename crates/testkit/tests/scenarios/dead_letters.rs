//! Bad rows and late rows as relations: queries and sinks over them take each row once, also through crashes.

use std::time::Duration;

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds, until};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::machine::{Kept, Machine};
use super::{Scenario, folder, lines_in, write};

pub const ALL: &[Scenario] = &[
    ("dead_letters_come_once_through_crashes", || drive::block_on(crashes(Kept::OnDisk))),
    ("dead_letters_come_once_on_an_object_store", || drive::block_on(crashes(Kept::OnStore))),
    ("a_rate_limit_that_is_set_while_a_source_runs_is_exact", || drive::block_on(rate_limit())),
    ("a_source_that_is_slowed_down_twice_keeps_its_order", || drive::block_on(slower_and_slower())),
    ("a_row_that_is_ahead_of_the_clock_is_in_checkpoints", || drive::block_on(ahead())),
];

async fn crashes(kept: Kept) -> Result<()> {
    for seed in seeds(&[0], 0..4) {
        crashes_seed(kept, seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn crashes_seed(kept: Kept, seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (folder, out) = (folder()?, folder()?);
    let to = |name: &str| {
        let path = out.path().join(name).display().to_string();
        format!("WITH (connector = 'file', path = '{path}', format = 'csv', header = false)")
    };
    let mut machine = Machine::start_at(kept, Engine::builder)?;
    let source = format!(
        "CREATE SOURCE s (n INT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    let dead =
        format!("CREATE SINK dead AS SELECT bytes::STRING AS record FROM bad_rows('s') {}", to("dead"));
    let late = format!("CREATE SINK late AS SELECT _relation, n FROM late_rows('w') {}", to("late"));
    machine.set_interval(&mut random).await?;
    let statements = [
        source.as_str(),
        "CREATE MATERIALIZED VIEW good AS SELECT count(*) AS n FROM s",
        &dead,
        "CREATE TABLE t (n INT, at TIMESTAMP, WATERMARK FOR at AS at)",
        "CREATE MATERIALIZED VIEW w AS SELECT window_end, sum(n) AS n FROM TUMBLE(t, at, INTERVAL '1 second') \
         GROUP BY window_end",
        &late,
        "CREATE MATERIALIZED VIEW counted AS SELECT query, count(*) AS n FROM millstream.late_rows GROUP BY query",
        "INSERT INTO t VALUES (0, '2024-01-01 00:01:00')",
    ];
    run_all(&mut machine.session(), &statements).await?;
    let (mut n, mut m) = (0, 0);
    for round in 0..5 {
        for _ in 0..random.random_range(0..4) {
            let count = random.random_range(1..12);
            let text: Vec<String> = (n..n + count).map(|n| format!("{n}\nno number {n}\n")).collect();
            n += count;
            write(folder.path(), &format!("{n:05}.csv"), &text.concat())?;
            m += 1;
            run(&mut machine.session(), &format!("INSERT INTO t VALUES ({m}, '2024-01-01 00:00:01')"))
                .await?;
        }
        if round == 2 {
            let all = "CREATE MATERIALIZED VIEW bad AS SELECT source, count(*) AS n FROM millstream.bad_rows \
                       GROUP BY source";
            run(&mut machine.session(), all).await?;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        machine.crash(&mut random).await?;
    }
    let mut session = machine.session();
    run(&mut session, "FLUSH").await?;
    let counts =
        |name: &str, count: i32| if count > 0 { vec![format!("{name}|{count}")] } else { Vec::new() };
    for (sql, expected) in [
        ("SELECT n FROM good", vec![n.to_string()]),
        ("SELECT * FROM bad", counts("s", n)),
        ("SELECT * FROM counted", counts("w", m)),
    ] {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        expect(&mut session, sql, &expected).await?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())?;
    let check = |name: &str, mut expected: Vec<String>| -> Result<()> {
        let path = out.path().join(name);
        let mut found = if path.exists() { lines_in(&path)? } else { Vec::new() };
        found.sort_unstable();
        expected.sort_unstable();
        ensure(found == expected, || format!("{name} has {found:?}\n  expected {expected:?}"))
    };
    check("dead", (0..n).map(|n| format!("no number {n}")).collect())?;
    check("late", (1..=m).map(|m| format!("t,{m}")).collect())
}

/// Rows that wait, or are on their way, were read before the limit was known.
async fn rate_limit() -> Result<()> {
    let engine = millstream_cli::builder().start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE SOURCE again (n BIGINT) WITH (connector = 'datagen')",
            "CREATE SOURCE once WITH (connector = 'exec', command = 'yes')",
            "CREATE MATERIALIZED VIEW a AS SELECT count(*) AS n FROM again",
            "CREATE MATERIALIZED VIEW o AS SELECT count(*) AS n FROM once",
        ],
    )
    .await?;
    let progress = || engine.progress().rows;
    until("rows to come", || progress() > 500_000).await?;
    let rate = 200;
    run(&mut session, &format!("SET source_rate_limit = {rate}")).await?;
    let begun = std::time::Instant::now();
    let taken = async |session: &mut millstream_engine::Session| -> Result<Vec<i64>> {
        let mut taken = Vec::new();
        for name in ["again", "once"] {
            let sql = format!("SELECT rows FROM millstream.sources WHERE name = '{name}'");
            let rows = lines(session, &sql).await?.concat();
            taken.push(rows.parse().map_err(|_| format!("{rows} is no number"))?);
        }
        Ok(taken)
    };
    let before = taken(&mut session).await?;
    expect(&mut session, "SELECT name, rate_limit FROM millstream.sources", &["again|200", "once|200"])
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = taken(&mut session).await?;
    let most = (begun.elapsed().as_secs_f64() + 0.2) * f64::from(rate);
    for (before, after) in before.iter().zip(&after) {
        let count = after - before;
        ensure(count as f64 <= most, || format!("{count} rows were taken where {most} may be"))?;
        ensure(count >= i64::from(rate), || {
            format!("{count} rows were taken in two seconds at {rate} a second")
        })?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn slower_and_slower() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(3);
    let folder = folder()?;
    let numbers: Vec<String> = (1..=5000).map(|n| n.to_string()).collect();
    write(folder.path(), "numbers.csv", &(numbers.join("\n") + "\n"))?;
    let mut machine = Machine::start(Engine::builder)?;
    let source = format!(
        "CREATE SOURCE s (n BIGINT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    let view = "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, max(n) AS most FROM s";
    run_all(&mut machine.session(), &["SET source_rate_limit = 2000", &source, view]).await?;
    for limit in [100, 40, 10] {
        tokio::time::sleep(Duration::from_millis(400)).await;
        run(&mut machine.session(), &format!("SET source_rate_limit = {limit}")).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        expect(&mut machine.session(), "SELECT n = coalesce(most, 0) FROM v", &["true"]).await?;
    }
    machine.crash_at(|| {}, &mut random).await?;
    // The file comes to its end; a limit that is set then delays nobody.
    for limit in ["1000000", "1000"] {
        run(&mut machine.session(), &format!("SET source_rate_limit = {limit}")).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut session = machine.session();
        drive::within_a_minute("FLUSH", run(&mut session, "FLUSH")).await??;
        expect(&mut session, "SELECT n, most FROM v", &["5000|5000"]).await?;
    }
    Ok(())
}

async fn ahead() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(4);
    let folder = folder()?;
    write(folder.path(), "times.csv", "1,2200-01-01 00:00:00\n2,2024-01-01 00:00:00\n")?;
    let mut machine = Machine::start(Engine::builder)?;
    let source = format!(
        "CREATE SOURCE s (n BIGINT, at TIMESTAMP, WATERMARK FOR at AS at) \
         WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    let make = [&source, "CREATE MATERIALIZED VIEW v AS SELECT n FROM s", "FLUSH", "CHECKPOINT"];
    run_all(&mut machine.session(), &make).await?;
    for _ in 0..2 {
        expect(&mut machine.session(), "SELECT n FROM v", &["2"]).await?;
        machine.crash_at(|| {}, &mut random).await?;
    }
    Ok(())
}
