//! Tests that every operator can be saved, whatever surrounds it: a checkpoint works for every query.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, Schema, SchemaRef, TimeUnit};
use datafusion::common::{Result as Planned, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::function::{AccumulatorArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Accumulator, ColumnarValue, PartitionEvaluator, ScalarFunctionImplementation, Signature, TableScan,
    Volatility, WindowUDF, WindowUDFImpl, create_udaf, create_udf,
};
use datafusion::prelude::SessionContext;
use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use tokio::runtime::Runtime;

mod changes;

use crate::event_time::Edge;
use crate::{BatchWindow, Choice, Description, Driver, EventTime, Flow, Limits, Relation};

/// Tables with inserts and deletes, except `e`, which is append-only with times in `ts`, and `w`, a window of
/// batches.
const TABLES: [&str; 4] = ["t", "u", "e", "w"];

/// The setting under which a query is compiled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Under {
    /// Defaults.
    Nothing,
    /// Idle keys are forgotten.
    Ttl,
    /// Closed windows are forgotten.
    Changes,
    /// Windows are emitted when they close.
    Close,
}

use Under::{Changes, Close, Nothing, Ttl};

/// Queries of all kinds, each with a text that EXPLAIN must contain.
const QUERIES: &[(Under, &str, &str)] = &[
    (Nothing, "Stateless", "SELECT k + 1, unnest([v, k]) FROM t WHERE v > 3"),
    (Nothing, "Constant", "SELECT 1 AS one UNION ALL SELECT v FROM t"),
    (Nothing, "Union", "SELECT k FROM t UNION ALL SELECT v FROM u"),
    (Nothing, "Whole", "SELECT k FROM t UNION ALL SELECT k FROM t ORDER BY random() LIMIT 2"),
    (
        Nothing,
        "Aggregate",
        "SELECT k, count(*), sum(v), min(s), avg(f), bool_or(v > 2), bit_xor(v) FROM t GROUP BY k",
    ),
    (
        Nothing,
        "Aggregate",
        "SELECT count(DISTINCT v), median(v), array_agg(v ORDER BY s), first_value(v ORDER BY f) FROM t",
    ),
    (Nothing, "Aggregate", "SELECT k, stddev(f), corr(f, v), max(v), string_agg(s, ',') FROM t GROUP BY k"),
    (Nothing, "Aggregate", "SELECT k, s, count(*), grouping(k) FROM t GROUP BY ROLLUP (k, s)"),
    (Nothing, "PerKey", "SELECT k, approx_distinct(v) FROM t GROUP BY k"),
    (Nothing, "Aggregate", "SELECT DISTINCT k, s FROM t"),
    (Nothing, "SlidingAggregate", "SELECT k, count(*), max(v) FROM w GROUP BY k"),
    (Nothing, "UpdateState", "SELECT k, keeps(v, false, NULL) FROM e GROUP BY k"),
    (Nothing, "Join", "SELECT t.k, u.v FROM t FULL JOIN u ON t.k = u.k AND t.v < u.v"),
    (Nothing, "Join", "SELECT a.k FROM t AS a JOIN t AS b ON a.k = b.v WHERE a.k NOT IN (SELECT k FROM u)"),
    (Nothing, "Join", "SELECT k FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.v > t.v)"),
    (
        Nothing,
        "Join",
        "SELECT a.k, b.v FROM e AS a LEFT JOIN e AS b ON a.k = b.k AND a.ts <= b.ts \
        AND b.ts <= a.ts + INTERVAL '3 seconds'",
    ),
    (Nothing, "LookUp", "SELECT e.k, u.v FROM e LEFT JOIN u ON e.k = u.k AND looked_up(e.k, u.k)"),
    (Nothing, "Broadcast", "SELECT t.k FROM t JOIN (VALUES (1), (3)) AS c(x) ON t.v > c.x - 2"),
    (Nothing, "TopN", "SELECT k, v FROM t ORDER BY v, k LIMIT 4 OFFSET 1"),
    (
        Nothing,
        "TopN",
        "SELECT * FROM (SELECT k, rank() OVER (PARTITION BY s ORDER BY v) AS r FROM t) WHERE r < 3",
    ),
    (
        Nothing,
        "Over",
        "SELECT k, sum(v) OVER (PARTITION BY k ORDER BY v ROWS 2 PRECEDING), lag(s) OVER (PARTITION BY k ORDER BY v) FROM t",
    ),
    (Nothing, "PerKey", "SELECT k, max(v) OVER (PARTITION BY k) FROM t"),
    (
        Nothing,
        "Recursion",
        "WITH RECURSIVE r(x) AS (SELECT k FROM u UNION SELECT t.v FROM t JOIN r ON t.k = x) SELECT x FROM r",
    ),
    (
        Nothing,
        "TemporalFilter",
        "SELECT k FROM t WHERE ts > arrow_cast(epoch_time(), 'Timestamp(Microsecond, None)')",
    ),
    (Nothing, "Session", "SELECT k, session_start(ts, INTERVAL '4 seconds') OVER (PARTITION BY k) FROM t"),
    (Nothing, "AsOf", NEAREST),
    (Ttl, "state_ttl", "SELECT k, sum(v), median(v) FROM t GROUP BY k"),
    (Ttl, "state_ttl", "SELECT t.k, u.v FROM t LEFT JOIN u ON t.k = u.k"),
    (
        Ttl,
        "state_ttl",
        "SELECT * FROM (SELECT k, row_number() OVER (PARTITION BY k ORDER BY v, ts, s, f) AS r FROM t) WHERE r < 3",
    ),
    (Ttl, "state_ttl", "SELECT k, lag(v) OVER (PARTITION BY k ORDER BY v, ts, s, f) FROM t"),
    (Changes, "dropped when windows close", "SELECT ts, k, count(*) FROM e GROUP BY ts, k"),
    (Changes, "dropped when windows close", "SELECT ts, v, rank() OVER (PARTITION BY ts ORDER BY v) FROM e"),
    (Changes, "only open windows", "SELECT e.ts, sum(u.v) FROM e JOIN u ON e.k = u.k GROUP BY e.ts"),
    (Changes, "Session", "SELECT k, session_end(ts, INTERVAL '4 seconds') OVER (PARTITION BY k) FROM e"),
    (Changes, "AsOf", NEAREST),
    (Close, "emitted when windows close", "SELECT ts, k, count(*) FROM e GROUP BY ts, k"),
    (Close, "its input until windows close", "SELECT ts, v, rank() OVER (PARTITION BY ts ORDER BY v) FROM e"),
    (Close, "its input until windows close", "SELECT a.ts, a.k, b.v FROM e AS a JOIN e AS b ON a.ts = b.ts"),
    (
        Close,
        "HoppingAggregate",
        "SELECT w, k, count(*), max(v) FROM (SELECT unnest(hop_starts(ts, \
        INTERVAL '1 second', INTERVAL '3 seconds', INTERVAL '0 seconds')) AS w, k, v FROM e) GROUP BY w, k",
    ),
    (Close, "Session", "SELECT k, session_end(ts, INTERVAL '4 seconds') OVER (PARTITION BY k) FROM e"),
];

/// An ASOF JOIN as the SQL planner rewrites it.
const NEAREST: &str = "SELECT \"!time\", k, last_value(CASE WHEN \"!side\" = arrow_cast(0, 'Int8') THEN named_struct('v', v) END) \
    IGNORE NULLS OVER (PARTITION BY k ORDER BY \"!time\", \"!side\", v) AS nearest \
    FROM (SELECT ts AS \"!time\", arrow_cast(1, 'Int8') AS \"!side\", k, v FROM e \
          UNION ALL SELECT ts, arrow_cast(0, 'Int8'), k, v FROM e)";

/// All operators, by their names in EXPLAIN.
const OPERATORS: [&str; 18] = [
    "Aggregate",
    "AsOf",
    "Broadcast",
    "Constant",
    "HoppingAggregate",
    "Join",
    "LookUp",
    "Over",
    "PerKey",
    "Recursion",
    "Session",
    "SlidingAggregate",
    "Stateless",
    "TemporalFilter",
    "TopN",
    "Union",
    "UpdateState",
    "Whole",
];

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", time(), true),
        Field::new("s", DataType::Utf8, true),
        Field::new("f", DataType::Float64, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn rows(from: i64) -> RecordBatch {
    let some = || (from..from + 6).map(|n| (n % 4 != 1).then_some(n % 5));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(some().collect::<Int64Array>()),
        Arc::new((from..from + 6).map(|n| Some(n * 1_000_000)).collect::<TimestampMicrosecondArray>()),
        Arc::new(some().map(|n| n.map(|n| format!("s{n}"))).collect::<StringArray>()),
        new_null_array(&DataType::Float64, 6),
        Arc::new(some().collect::<Int64Array>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// A function over sessions, which is never called: lowering replaces it by the operator.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Side(&'static str, Signature);

impl WindowUDFImpl for Side {
    fn name(&self) -> &str {
        self.0
    }

    fn signature(&self) -> &Signature {
        &self.1
    }

    fn partition_evaluator(&self, _args: PartitionEvaluatorArgs<'_>) -> Planned<Box<dyn PartitionEvaluator>> {
        unreachable!("it is planned alone")
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Planned<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), time(), true)))
    }
}

/// UPDATE_STATE, which is never called either.
#[derive(Debug)]
struct Keeps;

impl Accumulator for Keeps {
    fn update_batch(&mut self, _values: &[ArrayRef]) -> Planned<()> {
        unreachable!("it is planned alone")
    }

    fn evaluate(&mut self) -> Planned<ScalarValue> {
        unreachable!("it is planned alone")
    }

    fn size(&self) -> usize {
        0
    }

    fn state(&mut self) -> Planned<Vec<ScalarValue>> {
        unreachable!("it is planned alone")
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Planned<()> {
        unreachable!("it is planned alone")
    }
}

struct World {
    runtime: Runtime,
    context: SessionContext,
}

impl World {
    fn new() -> World {
        let context = SessionContext::new();
        for name in TABLES {
            let table = MemTable::try_new(schema(), vec![Vec::new()]).unwrap();
            context.register_table(name, Arc::new(table)).unwrap();
        }
        let none = || -> ScalarFunctionImplementation {
            Arc::new(|_: &[ColumnarValue]| unreachable!("it is planned alone"))
        };
        let (stable, interval) = (Volatility::Stable, DataType::Interval(IntervalUnit::MonthDayNano));
        let of = vec![time(), interval.clone(), interval.clone(), interval];
        let list = DataType::new_list(time(), true);
        context.register_udf(create_udf("hop_starts", of, list, Volatility::Immutable, none()));
        let ids = vec![DataType::Int64; 2];
        context.register_udf(create_udf("looked_up", ids, DataType::Boolean, stable, none()));
        let now = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
        context.register_udf(create_udf("epoch_time", Vec::new(), now, Volatility::Volatile, none()));
        for name in ["session_start", "session_end"] {
            let side = Side(name, Signature::any(2, Volatility::Immutable));
            context.register_udwf(WindowUDF::new_from_impl(side));
        }
        let takes = vec![DataType::Int64, DataType::Boolean, DataType::Null];
        let state =
            vec![DataType::new_list(DataType::Int64, true), DataType::new_list(DataType::Int64, true)];
        let call = |_: AccumulatorArgs<'_>| -> Planned<Box<dyn Accumulator>> { Ok(Box::new(Keeps)) };
        let keeps = create_udaf(
            "keeps",
            takes,
            Arc::new(DataType::Int64),
            Volatility::Volatile,
            Arc::new(call),
            Arc::new(state),
        );
        context.register_udaf(keeps.with_aliases(["millstream.update_state"]));
        World {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap(),
            context,
        }
    }

    fn compile(&self, sql: &str, under: Under) -> Flow {
        let state = self.context.state();
        let plan = self.runtime.block_on(millstream_batch::plan(&state, sql)).unwrap();
        let driver = Driver::new(&state, self.runtime.handle().clone());
        driver.set_threads(NonZeroUsize::new(1).unwrap());
        let closes = matches!(under, Changes | Close);
        let ends = |name: &Arc<str>| {
            let mut time = EventTime::watermark(crate::Called::new(name.clone()), time());
            time.edge = Some(Edge::End);
            time
        };
        let resolve = |scan: &TableScan| {
            let name: Arc<str> = scan.table_name.table().into();
            let timed = closes && name.as_ref() == "e";
            Some(Relation {
                schema: schema(),
                columns: (0..schema().fields().len()).collect(),
                append_only: name.as_ref() == "e",
                key: None,
                about: Description::default(),
                window: (name.as_ref() == "w").then_some(BatchWindow { length: 10, slide: None }),
                times: if timed { vec![(1, ends(&name))] } else { Vec::new() },
                name,
            })
        };
        let limits = Limits {
            on_close: under == Close,
            state_ttl_us: (under == Ttl).then_some(80),
            ..Limits::default()
        };
        Flow::compile(&plan, &resolve, &driver, Choice::Cheapest, limits).unwrap()
    }
}

/// Saves a flow and loads the new one from it; returns the reason if it can't be saved.
fn again(flow: &mut Flow, mut new: Flow) -> Option<String> {
    match flow.save() {
        Ok(kept) => {
            new.load(kept, &[]).unwrap();
            *flow = new;
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn every_operator_can_be_saved() {
    let (world, mut seen, mut unsaved) = (World::new(), BTreeSet::new(), Vec::new());
    for (under, says, sql) in QUERIES {
        let mut flow = world.compile(sql, *under);
        let text = flow.explain().join("\n");
        if !text.contains(says) {
            unsaved.push(format!("{sql}: it has no '{says}', but is {text}"));
            continue;
        }
        seen.extend(flow.dag.nodes.iter().filter_map(|node| match node {
            crate::dag::Node::Operator { operator, .. } => Some(operator.describe().name),
            crate::dag::Node::Input { .. } => None,
        }));
        let mut missing = again(&mut flow, world.compile(sql, *under));
        let calls = ["keeps", "looked_up", "epoch_time"].iter().any(|name| sql.contains(name));
        for epoch in 1..4 {
            let delta = Delta::insert(rows(epoch));
            let given: Vec<&Delta> = flow.relations().iter().map(|_| &delta).collect();
            if missing.is_none() && !calls {
                flow.step(&Cut::new(Epoch(epoch as u64), Timestamp(epoch * 50)), &given).unwrap();
                missing = again(&mut flow, world.compile(sql, *under));
            }
        }
        unsaved.extend(missing.map(|missing| format!("{sql}: {missing}")));
    }
    assert!(unsaved.is_empty(), "{unsaved:#?}");
    assert_eq!(seen, BTreeSet::from(OPERATORS));
}
