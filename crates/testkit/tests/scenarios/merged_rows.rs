//! Tables with ON CONFLICT DO UPDATE IF NOT NULL: rows keep the values that they were given in parts, through crashes.

use std::collections::BTreeMap;

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, expect, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] =
    &[("rows_in_parts_keep_their_values_through_crashes", || drive::block_on(through_crashes()))];

/// The values of each key.
type Model = BTreeMap<i32, [Option<i32>; 2]>;

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
            "CREATE TABLE t (k INT PRIMARY KEY, a INT, b INT) ON CONFLICT DO UPDATE IF NOT NULL",
            "CREATE MATERIALIZED VIEW m AS SELECT k, a, b FROM t WHERE k >= 0",
        ],
    )
    .await?;
    let mut model = Model::new();
    for _ in 0..4 {
        for _ in 0..random.random_range(1..8) {
            let mut session = machine.session();
            if random.random_range(0..6) == 0 {
                run(&mut session, "CHECKPOINT").await?;
            }
            if random.random_range(0..6) == 0 {
                let k = random.random_range(0..5);
                run(&mut session, &format!("DELETE FROM t WHERE k = {k}")).await?;
                model.remove(&k);
            }
            let is_transaction = random.random_range(0..3) == 0;
            if is_transaction {
                run(&mut session, "BEGIN").await?;
            }
            for _ in 0..random.random_range(1..3) {
                run(&mut session, &insert(&mut random, &mut model)).await?;
            }
            if is_transaction {
                run(&mut session, "COMMIT").await?;
            }
        }
        machine.crash(&mut random).await?;
        let text = |value: &Option<i32>| value.map_or_else(|| "NULL".to_string(), |value| value.to_string());
        let line = |(k, [a, b]): (&i32, &[Option<i32>; 2])| format!("{k}|{}|{}", text(a), text(b));
        let lines: Vec<String> = model.iter().map(line).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        for relation in ["t", "m"] {
            expect(&mut machine.session(), &format!("SELECT k, a, b FROM {relation}"), &lines).await?;
        }
    }
    Ok(())
}

/// Returns an INSERT of a few rows, and adds these to the model.
fn insert(random: &mut SmallRng, model: &mut Model) -> String {
    let mut rows = Vec::new();
    for _ in 0..random.random_range(1..4) {
        let k = random.random_range(0..5);
        let known = model.entry(k).or_default();
        let mut row = vec![k.to_string()];
        for known in known {
            let value = (random.random_range(0..2) == 0).then(|| random.random_range(0..100));
            *known = value.or(*known);
            row.push(value.map_or_else(|| "NULL".to_string(), |value| value.to_string()));
        }
        rows.push(format!("({})", row.join(", ")));
    }
    format!("INSERT INTO t VALUES {}", rows.join(", "))
}
