//! A start uses the stored plans, even if the planner now plans the statements differently.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::optimizer::Optimizer;
use datafusion::prelude::SessionContext;
use millstream_durable::{Checkpoint, Checkpoints, DataDirectory, Disk, Entry, Plan};
use millstream_engine::{Engine, EngineBuilder, Session};
use millstream_testkit::drive::{self, Result, ensure, expect, lines, run, run_all};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::Scenario;
use super::crashes::run_script;
use super::machine::{Machine, open};

pub const ALL: &[Scenario] = &[
    ("another_planner_goes_on_from_a_checkpoint_with_the_plans_of_before", || {
        drive::block_on(another_planner(true))
    }),
    ("another_planner_goes_on_from_the_journal_with_the_plans_of_before", || {
        drive::block_on(another_planner(false))
    }),
    ("the_plan_kept_is_that_of_the_newest_query", || {
        drive::block_on(async {
            newest(true).await?;
            newest(false).await
        })
    }),
    ("a_plan_that_cant_be_read_is_an_error_and_no_other_plan", || drive::block_on(unreadable())),
    ("operators_that_are_others_are_refused_with_both_versions", || drive::block_on(others())),
];

/// Statements that create queries, each in another kind of object.
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

/// The views that are queried afterwards.
const VIEWS: &[&str] = &["regions", "top2", "counts", "sums"];

/// Returns an engine whose optimizer lacks rules that shaped the queries' plans.
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

/// Returns the content of the views in an in-memory engine that ran everything at once, with the present
/// planner.
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
    // Repeat after a checkpoint by the engine with the other planner: the plans stay the original ones.
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

/// Returns the newest checkpoint on a disk.
fn checkpoint(machine: &Machine) -> Result<Checkpoint> {
    let directory = DataDirectory::on(Arc::new(machine.disk.clone()));
    let found = Checkpoints::of(&directory).newest().map_err(|error| error.to_string())?;
    found.checkpoint.ok_or_else(|| "there is no checkpoint".into())
}

/// Returns the plans in a checkpoint's catalog.
fn plans(checkpoint: &mut Checkpoint) -> impl Iterator<Item = &mut Plan> {
    let plans = |entry| match entry {
        &mut Entry::Changed { ref mut plans, .. } => Some(plans),
        _ => None,
    };
    checkpoint.catalog.iter_mut().filter_map(plans).flatten()
}

/// Checks that each query has its plan in the newest checkpoint's catalog.
fn all_have_plans(machine: &Machine) -> Result<()> {
    let mut checkpoint = checkpoint(machine)?;
    let mut kept = Vec::new();
    for plan in plans(&mut checkpoint) {
        let object = plan.object.clone();
        plan.plan.as_ref().map_err(|reason| format!("{object}: {reason}"))?;
        kept.push(object);
    }
    ensure(kept == ["regions", "top2", "counts", "batches", "fill"], || format!("plans of {kept:?}"))
}

/// Statements that give a name to another query.
const CHANGES: &[&str] = &[
    "CREATE TABLE t (k INT PRIMARY KEY, g TEXT, v BIGINT)",
    "CREATE FUNCTION f(x BIGINT) RETURNS BIGINT RETURN x + 1",
    "CREATE VIEW seen AS SELECT g, v + 0 AS v FROM t WHERE v + 0 > 1",
    "CREATE MATERIALIZED VIEW dropped AS SELECT g, sum(v) AS a FROM t WHERE v > 2 GROUP BY g",
    "CREATE MATERIALIZED VIEW altered AS SELECT g, sum(f(v)) AS a FROM t WHERE v > 2 GROUP BY g",
    "CREATE STREAM replaced AS SELECT g, count(*) AS a FROM seen WHERE v > 2 GROUP BY g",
    "CREATE MATERIALIZED VIEW above AS SELECT max(a) AS a FROM replaced WHERE a > 0",
    "INSERT INTO t VALUES (1, 'a', 5), (2, 'b', 7), (3, 'a', 1), (4, 'b', 3)",
    "DROP MATERIALIZED VIEW dropped",
    "CREATE MATERIALIZED VIEW dropped AS SELECT g, min(v) AS a FROM (SELECT * FROM t WHERE v > 1) x GROUP BY g",
    "ALTER MATERIALIZED VIEW altered AS SELECT g, max(v) AS a FROM t WHERE k > 1 AND v > 2 GROUP BY g",
    // Nothing calls the function any more; queries created from here on use the new one.
    "CREATE OR REPLACE FUNCTION f(x BIGINT) RETURNS BIGINT RETURN x * 100",
    "CREATE MATERIALIZED VIEW called AS SELECT g, sum(f(v)) AS a FROM t WHERE v > 2 GROUP BY g",
    "CREATE OR REPLACE STREAM replaced AS SELECT g, count(*) * 10 AS a FROM seen WHERE v > 2 GROUP BY g",
];

/// The same in one step.
const AT_ONCE: &str = "CREATE MATERIALIZED VIEW twice AS SELECT g, sum(v) AS a FROM t WHERE v > 4 GROUP BY g;
    DROP MATERIALIZED VIEW twice;
    CREATE MATERIALIZED VIEW twice AS SELECT g, count(*) AS a FROM t WHERE v > 2 GROUP BY g;";

/// The final content.
const LAST: &[(&str, &[&str])] = &[
    ("dropped", &["a|5", "b|3", "c|9"]),
    ("altered", &["b|7", "c|9"]),
    ("replaced", &["a|10", "b|20", "c|10"]),
    ("above", &["20"]),
    ("called", &["a|500", "b|1000", "c|900"]),
    ("twice", &["a|1", "b|2", "c|1"]),
];

async fn newest(checkpoint: bool) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(8);
    let mut machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    run(&mut session, "SET checkpoint_interval = 'off'").await?;
    run_all(&mut session, CHANGES).await?;
    run_script(&mut session, AT_ONCE).await?;
    if checkpoint {
        run(&mut session, "CHECKPOINT").await?;
    }
    let explained = async |session: &mut Session| {
        let mut all = Vec::new();
        for (name, _) in LAST {
            all.extend(lines(session, &format!("EXPLAIN {name}")).await?);
        }
        Result::<_>::Ok(all)
    };
    let before = explained(&mut session).await?;
    machine.crash_at(|| {}, &mut random).await?;
    machine.engine.stop().await.map_err(|error| error.to_string())?;
    let mut names: Vec<String> =
        plans(&mut self::checkpoint(&machine)?).map(|plan| plan.object.clone()).collect();
    names.sort();
    let mut expected: Vec<&str> = LAST.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    ensure(names == expected, || format!("plans of {names:?}"))?;
    machine.engine = open(&machine.disk, other_planner())?;
    let mut session = machine.session();
    let after = explained(&mut session).await?;
    ensure(before == after, || format!("before:\n{}\nafter:\n{}", before.join("\n"), after.join("\n")))?;
    run(&mut session, "INSERT INTO t VALUES (5, 'c', 9)").await?;
    for (name, rows) in LAST {
        expect(&mut session, &format!("SELECT * FROM {name} ORDER BY 1"), rows).await?;
    }
    Ok(())
}

/// Returns an engine whose program has a function of its own.
fn with_function() -> EngineBuilder {
    let doubled = create_udf(
        "doubled",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(|columns: &[ColumnarValue]| {
            let of = &columns[0].clone().into_array(1)?;
            Ok(ColumnarValue::Array(arrow::compute::kernels::numeric::add(of, of)?))
        }),
    );
    let context = SessionContext::new();
    context.register_udf(doubled);
    Engine::builder().session_context(context)
}

async fn unreadable() -> Result<()> {
    let machine = Machine::start(with_function)?;
    let mut session = machine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (v BIGINT)",
            "CREATE MATERIALIZED VIEW m AS SELECT sum(doubled(v)) AS s FROM t",
            "INSERT INTO t VALUES (1), (2)",
        ],
    )
    .await?;
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "the plan of \"m\", which version {version} made, can't be read by version {version}: the function doubled isn't there"
    );
    // From the journal alone, and from a checkpoint.
    for checkpoint in [false, true] {
        if checkpoint {
            run(&mut machine.session(), "CHECKPOINT").await?;
        }
        let copy = machine.disk.copy();
        let found = open(&copy, Engine::builder()).err().unwrap_or_default();
        ensure(found.contains(&expected), || format!("expected '{expected}', found '{found}'"))?;
        ensure(found.contains("and drop \"m\" or change its query"), || found.clone())?;
        // The failed start has changed nothing.
        let engine = open(&copy, with_function())?;
        expect(&mut engine.session(), "SELECT s FROM m", &["6"]).await?;
        engine.stop().await.map_err(|error| error.to_string())?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// A plan as another version might read it: the operators of another query.
async fn others() -> Result<()> {
    let machine = Machine::start(Engine::builder)?;
    let mut session = machine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (k INT, v BIGINT)",
            "CREATE MATERIALIZED VIEW grouped AS SELECT k, sum(v) AS v FROM t GROUP BY k",
            "CREATE MATERIALIZED VIEW joined AS SELECT a.k, b.v FROM t a JOIN t b ON a.k = b.v",
            "INSERT INTO t VALUES (1, 2), (2, 1)",
            "CHECKPOINT",
        ],
    )
    .await?;
    machine.engine.stop().await.map_err(|error| error.to_string())?;
    let mut changed = checkpoint(&machine)?;
    changed.version = Some("0.0.7".into());
    let bytes: Vec<_> = plans(&mut changed).map(|plan| plan.plan.clone()).collect();
    plans(&mut changed).zip(bytes.into_iter().rev()).for_each(|(plan, other)| plan.plan = other);
    let disk = machine.disk.copy();
    let failed = |error: std::io::Error| error.to_string();
    for name in disk.list().map_err(failed)?.iter().filter(|name| !name.ends_with(".journal")) {
        disk.remove(name).map_err(failed)?;
    }
    let checkpoints = Checkpoints::of(&DataDirectory::on(Arc::new(disk.clone())));
    let draft = checkpoints.draft(&changed).map_err(|error| error.to_string())?;
    checkpoints.publish(draft).map_err(|error| error.to_string())?;
    let found = open(&disk, Engine::builder()).err().unwrap_or_default();
    let expected = format!("version 0.0.7 wrote it, this is version {}", env!("CARGO_PKG_VERSION"));
    ensure(found.contains(&expected) && found.contains("grouped"), || {
        format!("expected '{expected}', found '{found}'")
    })
}
