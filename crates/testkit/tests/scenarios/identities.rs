//! Identity columns: no number is given twice, through crashes, checkpoints, deletes and sessions side by side.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("no_number_of_an_identity_is_given_twice_through_crashes", || drive::block_on(through_crashes())),
    ("sessions_side_by_side_get_different_numbers", || drive::block_on(side_by_side())),
];

async fn through_crashes() -> Result<()> {
    for seed in seeds(&[0, 1, 2], 0..20) {
        through_crashes_of(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn through_crashes_of(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::start(Engine::builder)?;
    machine.set_interval(&mut random).await?;
    run_all(
        &mut machine.session(),
        &[
            "CREATE TABLE other (id SERIAL, v INT)",
            "CREATE TABLE t (v INT, id BIGINT GENERATED ALWAYS AS IDENTITY (INCREMENT BY 3))",
            "DROP TABLE other",
            "ALTER TABLE t RENAME TO renamed",
        ],
    )
    .await?;
    let mut given = BTreeSet::new();
    for _ in 0..4 {
        for _ in 0..random.random_range(1..6) {
            let mut session = machine.session();
            let rows = random.random_range(1..4);
            let insert =
                format!("INSERT INTO renamed (v) SELECT * FROM generate_series(1, {rows}) RETURNING id");
            for id in lines(&mut session, &insert).await? {
                ensure(given.insert(id.clone()), || format!("{id} was given before: {given:?}"))?;
            }
            match random.random_range(0..3) {
                0 => drop(run(&mut session, "DELETE FROM renamed").await?),
                1 => drop(run(&mut session, "CHECKPOINT").await?),
                _ => {}
            }
        }
        machine.crash(&mut random).await?;
    }
    Ok(())
}

async fn side_by_side() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    run(&mut engine.session(), "CREATE TABLE t (id SERIAL PRIMARY KEY, v INT)").await?;
    let inserts = (0..4).map(|v| {
        let mut session = engine.session();
        tokio::spawn(async move {
            for _ in 0..50 {
                run(&mut session, &format!("INSERT INTO t (v) VALUES ({v}), ({v})")).await?;
                tokio::time::sleep(Duration::from_micros(50)).await;
            }
            Ok::<(), String>(())
        })
    });
    for insert in inserts.collect::<Vec<_>>() {
        insert.await.map_err(|error| error.to_string())??;
    }
    expect(&mut engine.session(), "SELECT count(*), max(id) FROM t", &["400|400"]).await
}
