//! A start goes on with the plans that there were, whatever the planner makes of the statements by then.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::Optimizer;
use datafusion::prelude::SessionContext;
use millstream_durable::{Checkpoints, DataDirectory, Entry};
use millstream_engine::{Engine, EngineBuilder, Session};
use millstream_testkit::drive::{Result, ensure, expect, lines, run, run_all};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::Scenario;
use super::machine::{Machine, open};

pub const ALL: &[Scenario] = &[
    ("another_planner_goes_on_from_a_checkpoint_with_the_plans_of_before", || {
        millstream_testkit::drive::block_on(another_planner(true))
    }),
    ("another_planner_goes_on_from_the_journal_with_the_plans_of_before", || {
        millstream_testkit::drive::block_on(another_planner(false))
    }),
];

/// What queries are made of, each of another kind of object.
const OBJECTS: &[&str] = &[
    "CREATE TABLE orders (id INT PRIMARY KEY, customer TEXT, amount BIGINT, made TIMESTAMP)",
    "CREATE TABLE names (customer TEXT, region TEXT)",
    "CREATE TABLE sums (region TEXT PRIMARY KEY, total BIGINT)",
    "CREATE FUNCTION twice(x BIGINT) RETURNS BIGINT RETURN x * 2",
    "CREATE VIEW large AS SELECT * FROM orders WHERE amount + 0 > 1",
    "CREATE MATERIALIZED VIEW regions (\"the region\", total) AS
     SELECT region, sum(twice(amount)) FROM (SELECT * FROM large o JOIN names n USING (customer)) j
     WHERE j.amount > 2 AND region <> 'none' GROUP BY region",
    "CREATE MATERIALIZED VIEW top2 AS SELECT customer, id, place FROM
     (SELECT *, row_number() OVER (PARTITION BY customer ORDER BY amount DESC) AS place FROM orders) r WHERE place <= 2",
    "CREATE STREAM counts AS SELECT customer, count(*) AS n FROM orders WHERE amount IN (SELECT max(amount) FROM orders GROUP BY customer) GROUP BY customer",
    "CREATE STREAM batches AS SELECT count(*) AS n FROM orders WHERE id > 0 AND amount > 0 FOR EACH BATCH",
    "CREATE SINK fill INTO sums AS SELECT region, sum(amount) FROM orders JOIN names USING (customer) WHERE amount > 1 GROUP BY region",
];

/// What is asked afterwards.
const VIEWS: &[&str] = &["regions", "top2", "counts", "sums"];

/// An engine whose optimizer lacks rules that the queries' plans come from.
fn other_planner() -> EngineBuilder {
    let lacks = ["push_down_filter", "optimize_projections", "eliminate_cross_join", "simplify_expressions"];
    let rules = Optimizer::new().rules.into_iter().filter(|rule| !lacks.contains(&rule.name()));
    let state =
        SessionStateBuilder::new().with_default_features().with_optimizer_rules(rules.collect()).build();
    Engine::builder().session_context(SessionContext::new_with_state(state))
}

async fn explained(session: &mut Session) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for view in ["regions", "top2", "counts", "batches"] {
        all.extend(lines(session, &format!("EXPLAIN {view}")).await?);
    }
    Ok(all)
}

async fn answers(session: &mut Session) -> Result<Vec<Vec<String>>> {
    let mut all = Vec::new();
    for view in VIEWS {
        all.push(lines(session, &format!("SELECT * FROM {view}")).await?);
    }
    Ok(all)
}

const ROWS: &str = "INSERT INTO orders VALUES
    (1, 'ann', 10, TIMESTAMP '2024-01-01'), (2, 'ann', 3, NULL), (3, 'bob', 5, NULL), (4, 'eve', 1, NULL), (5, 'bob', 2, NULL)";
const MORE: &str = "INSERT INTO orders VALUES (6, 'ann', 20, NULL), (7, 'cyd', 7, NULL)";
const NAMES: &str = "INSERT INTO names VALUES ('ann', 'north'), ('bob', 'south'), ('cyd', 'north')";

/// What the views hold in an engine in memory that was told all of it at once, by the planner of now.
async fn expected() -> Result<Vec<Vec<String>>> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, OBJECTS).await?;
    run_all(&mut session, &[NAMES, ROWS, "DELETE FROM orders WHERE id = 3", MORE]).await?;
    answers(&mut session).await
}

async fn another_planner(checkpoint: bool) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(7);
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    run(&mut session, "SET checkpoint_interval = 'off'").await?;
    run_all(&mut session, OBJECTS).await?;
    run_all(&mut session, &[NAMES, ROWS]).await?;
    let before = explained(&mut session).await?;
    let planned = format!("EXPLAIN {}", OBJECTS[5]).replace(" regions ", " again ");
    let plan = lines(&mut session, &planned).await?;
    if checkpoint {
        run(&mut session, "CHECKPOINT").await?;
    }
    run(&mut session, "DELETE FROM orders WHERE id = 3").await?;
    machine.crash_at(|| {}, &mut random).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())?;
    machine.engine = open(&machine.disk, other_planner())?;
    let mut session = machine.session();
    let other = lines(&mut session, &planned).await?;
    ensure(plan != other, || "the other planner makes the same plan, so nothing is shown".into())?;
    let after = explained(&mut session).await?;
    ensure(before == after, || format!("before:\n{}\nafter:\n{}", before.join("\n"), after.join("\n")))?;
    run(&mut session, MORE).await?;
    let (found, expected) = (answers(&mut session).await?, expected().await?);
    ensure(found == expected, || format!("expected {expected:?}, found {found:?}"))?;
    // Once more, after a checkpoint that the other planner's engine wrote: the plans stay those of before.
    run(&mut session, "CHECKPOINT").await?;
    machine.engine.stop().await.map_err(|error| error.to_string())?;
    all_have_plans(&machine)?;
    machine.engine = open(&machine.disk, Engine::builder())?;
    let mut session = machine.session();
    let after = explained(&mut session).await?;
    ensure(before == after, || format!("before:\n{}\nat last:\n{}", before.join("\n"), after.join("\n")))?;
    expect(&mut session, "SELECT count(*) FROM orders", &["6"]).await?;
    run(&mut session, "ALTER MATERIALIZED VIEW top2 AS SELECT customer, id, amount AS place FROM orders")
        .await?;
    expect(&mut session, "SELECT count(*) FROM top2", &["6"]).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())?;
    machine.engine = open(&machine.disk, other_planner())?;
    expect(&mut machine.session(), "SELECT count(*) FROM top2", &["6"]).await
}

/// Each query has its plan in the newest checkpoint's catalog.
fn all_have_plans(machine: &Machine) -> Result<()> {
    let directory = DataDirectory::on(Arc::new(machine.disk.clone()));
    let found = Checkpoints::of(&directory).newest().map_err(|error| error.to_string())?;
    let catalog = found.checkpoint.ok_or("there is no checkpoint")?.catalog;
    let mut kept = Vec::new();
    for entry in catalog {
        let Entry::Changed { plans, .. } = entry else { continue };
        for plan in plans {
            plan.plan.map_err(|reason| format!("{}: {reason}", plan.object))?;
            kept.push(plan.object);
        }
    }
    ensure(kept == ["regions", "top2", "counts", "batches", "fill"], || format!("plans of {kept:?}"))
}
