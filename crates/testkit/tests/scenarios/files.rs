//! Files arrive while queries run.

use millstream_engine::Engine;
use millstream_seeds::Random;
use millstream_testkit::drive::{
    self, Result, ensure, expect, expect_soon, lines, run, run_all, within_a_minute,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::machine::Machine;
use super::{Scenario, folder, write};

pub const ALL: &[Scenario] = &[
    ("a_bounded_run_finishes", || drive::block_on(bounded_run())),
    ("new_files_while_running", || drive::block_on(new_files())),
    ("bad_rows_are_counted_and_the_rest_is_taken", || drive::block_on(bad_rows())),
    ("columns_are_read_as_soon_as_someone_looks_at_them", || drive::block_on(columns())),
    ("a_start_needs_no_file_that_its_columns_were_found_in", || drive::block_on(found_columns())),
    ("results_arrive_in_a_file", || drive::block_on(to_a_file())),
];

async fn bounded_run() -> Result<()> {
    let folder = folder()?;
    for number in 0..20 {
        write(folder.path(), &format!("{number}.txt"), "to be or\nnot to be\n")?;
    }
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE lines WITH (connector = 'file', path = '{}', format = 'text', bounded = true)",
        folder.path().display()
    );
    run(&mut session, "SET max_batch_rows = 7").await?;
    run(&mut session, &source).await?;
    run(
        &mut session,
        "CREATE MATERIALIZED VIEW counts AS
         SELECT word, count(*) AS n FROM lines, UNNEST(string_to_array(line, ' ')) AS u(word) GROUP BY word",
    )
    .await?;
    within_a_minute("the bounded source to end", engine.finished())
        .await?
        .map_err(|error| error.to_string())?;
    expect(&mut session, "SELECT word, n FROM counts", &["be|40", "not|20", "or|20", "to|40"]).await?;
    let progress = engine.progress();
    ensure(progress.rows == 40 && progress.sources_open == 0, || format!("{progress:?}"))?;
    ensure(!engine.follows(), || "a bounded source doesn't follow".into())?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

async fn new_files() -> Result<()> {
    let folder = folder()?;
    write(folder.path(), "1.csv", "1,one\n2,two\n")?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE s (id INT, name TEXT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    run_all(
        &mut session,
        &[&source, "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS c, sum(id) AS s FROM s"],
    )
    .await?;
    expect_soon(&mut session, "SELECT c, s FROM m", &["2|3"]).await?;
    write(folder.path(), "0.csv", "10,ten\n")?;
    expect_soon(&mut session, "SELECT c, s FROM m", &["3|13"]).await?;
    // A query created later has read the earlier files as well.
    run(&mut session, "CREATE MATERIALIZED VIEW late AS SELECT max(name) AS n FROM s").await?;
    expect(&mut session, "SELECT n FROM late", &["two"]).await?;
    write(folder.path(), "2.csv", "20,zwanzig\n")?;
    expect_soon(&mut session, "SELECT c, s, n FROM m, late", &["4|33|zwanzig"]).await?;
    ensure(engine.follows(), || "the source follows its folder".into())?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(|error| error.to_string())
}

async fn bad_rows() -> Result<()> {
    let folder = folder()?;
    write(folder.path(), "a.csv", "1,1.5\ntwo,2\n3,3\n4,x\n5,5\n")?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE s (id INT, x DOUBLE)
         WITH (connector = 'file', path = '{}', format = 'csv', header = false, bounded = true)",
        folder.path().display()
    );
    run_all(
        &mut session,
        &[&source, "CREATE MATERIALIZED VIEW m AS SELECT sum(id) AS s, count(*) AS c FROM s"],
    )
    .await?;
    within_a_minute("the bounded source to end", engine.finished())
        .await?
        .map_err(|error| error.to_string())?;
    expect(&mut session, "SELECT s, c FROM m", &["9|3"]).await?;
    ensure(engine.progress().bad_rows == 2, || format!("{:?}", engine.progress()))?;
    expect(&mut session, "SELECT count(*) FROM bad_rows('s')", &["2"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Rows of a source that reads only the columns its queries use.
const ROWS: &str = "SELECT i AS id, i % 7 AS k, CASE WHEN i % 5 > 0 THEN 'w' || i END AS w, i * 0.5 AS x \
                    FROM generate_series(1, 20000) AS g(i)";

/// Queries by name, each over other columns.
const LOOK: &[(&str, &str)] = &[
    ("counted", "SELECT count(*) AS n FROM s"),
    ("sums", "SELECT k, sum(id) AS n FROM s GROUP BY k"),
    ("words", "SELECT count(w) AS n, max(w) AS w FROM s"),
    ("chosen", "SELECT count(*) AS n FROM s WHERE w LIKE '%7' AND id % 2 = 1"),
    (
        "whole",
        "SELECT k, count(*) AS n, sum(x) AS x, min(w) AS w FROM (SELECT DISTINCT * FROM s) AS t GROUP BY k",
    ),
    (
        "beside",
        "SELECT a.k, count(*) AS n FROM s AS a JOIN s AS b ON a.id = b.id + 1 AND a.x > 9990 GROUP BY a.k",
    ),
];

async fn columns() -> Result<()> {
    let folder = folder()?;
    let path = folder.path().display();
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE made (id BIGINT, k BIGINT, w TEXT, x DOUBLE) APPEND ONLY",
            &format!(
                "CREATE SINK written FROM made WITH (connector = 'file', path = '{path}', format = 'parquet')"
            ),
            &format!("INSERT INTO made {ROWS}"),
        ],
    )
    .await?;
    engine.stop().await.map_err(|error| error.to_string())?;
    let source = format!(
        "CREATE SOURCE s WITH (connector = 'file', path = '{path}', format = 'parquet', bounded = true)"
    );
    for seed in 1..=4_u64 {
        let engine = Engine::start().map_err(|error| error.to_string())?;
        let mut session = engine.session();
        run_all(&mut session, &["SET max_batch_rows = 97", &source]).await?;
        let mut random = Random(seed);
        for round in 0..18 {
            let (name, sql) = LOOK[random.index(LOOK.len())];
            // Rows waiting while the source is paused were read for the queries that existed before.
            let pauses = random.0 >> 40 & 1 == 1;
            if pauses {
                run(&mut session, "PAUSE s").await?;
            }
            if round % 3 == 2 {
                run(&mut session, &format!("DROP MATERIALIZED VIEW IF EXISTS {name}")).await?;
            } else {
                run(&mut session, &format!("CREATE MATERIALIZED VIEW IF NOT EXISTS {name} AS {sql}")).await?;
            }
            if pauses {
                run(&mut session, "RESUME s").await?;
            }
        }
        for (name, sql) in LOOK {
            run(&mut session, &format!("CREATE MATERIALIZED VIEW IF NOT EXISTS {name} AS {sql}")).await?;
        }
        within_a_minute("the bounded source to end", engine.finished())
            .await?
            .map_err(|error| error.to_string())?;
        for (name, sql) in LOOK {
            let expected =
                lines(&mut session, &format!("WITH s AS ({ROWS}) SELECT * FROM ({sql}) AS q ORDER BY 1"))
                    .await?;
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            expect(&mut session, &format!("SELECT * FROM {name} ORDER BY 1"), &expected).await?;
            expect(&mut session, &format!("VERIFY {name}"), &[]).await?;
        }
        engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The statement keeps the columns, the format and the delimiter that it was created with.
async fn found_columns() -> Result<()> {
    let mut machine = Machine::start(Engine::builder)?;
    let mut random = SmallRng::seed_from_u64(2);
    for (file, text, bounded) in [
        ("a.json", "{\"id\": 1, \"v\": \"x\"}\n", false),
        ("a.tsv", "id\tv\n1\tx\n", false),
        ("a.csv", "id,v\n1,x\n", true),
    ] {
        let (folder, name) = (folder()?, file.split('.').next_back().unwrap_or_default());
        write(folder.path(), file, text)?;
        let glob = if bounded { "/*" } else { "" };
        let source = format!(
            "CREATE SOURCE {name} WITH (connector = 'file', path = '{}{glob}', bounded = {bounded})",
            folder.path().display()
        );
        let view = format!("CREATE MATERIALIZED VIEW of_{name} AS SELECT id, v FROM {name}");
        run_all(&mut machine.session(), &[&source, &view]).await?;
        let rows = format!("SELECT * FROM of_{name}");
        expect_soon(&mut machine.session(), &rows, &["1|x"]).await?;
        run(&mut machine.session(), "CHECKPOINT").await?;
        // The next start replays the statement of another source.
        std::fs::remove_file(folder.path().join(file)).map_err(|error| error.to_string())?;
        machine.crash(&mut random).await?;
        expect(&mut machine.session(), &rows, &["1|x"]).await?;
        let shown = lines(&mut machine.session(), &format!("SHOW CREATE {name}")).await?.join("");
        ensure(shown.contains("(\"id\" BIGINT, \"v\" TEXT) WITH (format = '"), || shown.clone())?;
    }
    // A path that is gone keeps its source waiting, and nothing else.
    let folder = folder()?;
    let (here, away) = (folder.path().join("in"), folder.path().join("out"));
    std::fs::create_dir(&here).map_err(|error| error.to_string())?;
    write(&here, "a.json", "{\"id\": 1}\n")?;
    let source = format!(
        "CREATE SOURCE gone (id INT) WITH (connector = 'file', path = '{}', format = 'json')",
        here.display()
    );
    let view = "CREATE MATERIALIZED VIEW of_gone AS SELECT id FROM gone";
    run_all(&mut machine.session(), &[&source, view]).await?;
    expect_soon(&mut machine.session(), "SELECT * FROM of_gone", &["1"]).await?;
    run(&mut machine.session(), "CHECKPOINT").await?;
    std::fs::rename(&here, &away).map_err(|error| error.to_string())?;
    machine.crash(&mut random).await?;
    expect(&mut machine.session(), "SELECT * FROM of_gone", &["1"]).await?;
    let status = "SELECT status FROM millstream.sources WHERE name = 'gone'";
    expect_soon(&mut machine.session(), status, &["restarting"]).await?;
    write(&away, "b.json", "{\"id\": 2}\n")?;
    std::fs::rename(&away, &here).map_err(|error| error.to_string())?;
    expect_soon(&mut machine.session(), "SELECT * FROM of_gone", &["1", "2"]).await?;
    // Before any checkpoint the journal has the statement.
    write(folder.path(), "c.json", "{\"id\": 1}\n")?;
    let source =
        format!("CREATE SOURCE s WITH (connector = 'file', path = '{}/c*')", folder.path().display());
    run(&mut machine.session(), &source).await?;
    std::fs::remove_file(folder.path().join("c.json")).map_err(|error| error.to_string())?;
    machine.crash(&mut random).await?;
    let shown = lines(&mut machine.session(), "SHOW CREATE s").await?.join("");
    ensure(shown.contains("(\"id\" BIGINT) WITH (format = 'json'"), || shown.clone())?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

async fn to_a_file() -> Result<()> {
    let (incoming, outgoing) = (folder()?, folder()?);
    write(incoming.path(), "a.txt", "one\ntwo\nthree\n")?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = format!(
        "CREATE SOURCE lines WITH (connector = 'file', path = '{}', format = 'text', bounded = true)",
        incoming.path().display()
    );
    let sink = format!(
        "CREATE SINK k AS SELECT upper(line) AS line FROM lines WHERE line <> 'two'
         WITH (connector = 'file', path = '{}', format = 'text')",
        outgoing.path().display()
    );
    // Nothing reads the source before the sink exists: it misses no row.
    run_all(&mut session, &[&source, &sink]).await?;
    within_a_minute("the sink to deliver", engine.finished()).await?.map_err(|error| error.to_string())?;
    let mut found = super::lines_in(outgoing.path())?;
    found.sort();
    ensure(found == ["ONE", "THREE"], || format!("{found:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())
}
