//! Tests that several threads take in many groups with the same result as one.

use arrow::array::Float64Array;

use super::*;

const CALLS: &str = "count(*) AS a, count(f) AS b, sum(v) AS c, avg(f) AS d, sum(f) AS e, var_pop(f) AS f, \
                     corr(f, v) AS g, avg(m) AS h, sum(v) FILTER (WHERE v > 5) AS i";

fn schema() -> SchemaRef {
    let types = [("k", DataType::Int64), ("f", DataType::Float64), ("v", DataType::Int64)];
    let mut fields = types.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec();
    fields.push(Field::new("m", DataType::Decimal128(12, 2), true));
    Arc::new(Schema::new(fields))
}

fn rows(random: &mut Random, count: usize) -> RecordBatch {
    let mut numbers = |bound: u64| -> Vec<Option<i64>> {
        (0..count).map(|_| Some(random.below(bound) as i64).filter(|number| *number != 1)).collect()
    };
    let (keys, halves, values, money) = (numbers(70_000), numbers(9), numbers(1000), numbers(500));
    let floats: Float64Array = halves.into_iter().map(|n| n.map(|n| n as f64 / 3.0 + 1e9)).collect();
    let money: Decimal128Array = money.into_iter().map(|n| n.map(i128::from)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(keys)),
        Arc::new(floats),
        Arc::new(Int64Array::from(values)),
        Arc::new(money.with_data_type(DataType::Decimal128(12, 2))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Compiles a query over a table `t` with this schema, for this number of threads.
pub(super) fn compiled(
    (runtime, context): (&Runtime, &SessionContext),
    sql: &str,
    (schema, append_only): (&SchemaRef, bool),
    (threads, set): (usize, impl Fn(Driver) -> Driver),
    limits: Limits,
) -> Flow {
    let state = context.state();
    let plan = runtime.block_on(millstream_batch::plan(&state, sql)).unwrap();
    let driver = set(Driver::new(&state, runtime.handle().clone()));
    driver.set_threads(NonZeroUsize::new(threads).unwrap());
    let resolve = |_: &_| {
        Some(Relation {
            name: "t".into(),
            schema: schema.clone(),
            columns: (0..schema.fields().len()).collect(),
            append_only,
            key: None,
            about: Description::default(),
            window: None,
            times: Vec::new(),
        })
    };
    Flow::compile(&plan, &resolve, &driver, Choice::Cheapest, limits).unwrap()
}

/// Steps three epochs with enough rows to be spread; if `takes_back`, the last one deletes most of the first
/// one's rows.
fn check(sql: &str, takes_back: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let context = SessionContext::new();
    context.register_table("t", Arc::new(MemTable::try_new(schema(), vec![vec![]]).unwrap())).unwrap();
    let mut flows = [1, 3].map(|threads| {
        let relation = (&schema(), !takes_back);
        compiled((&runtime, &context), sql, relation, (threads, |driver| driver), Limits::default())
    });
    let mut random = Random(7);
    let first = rows(&mut random, 50_000);
    let weights = (0..50_000).map(|row| [1, 2, 1, 3][row % 4]).collect::<Int64Array>();
    let mut deltas =
        vec![Delta::of(Chunk::insert(first.clone())), Delta::of(Chunk::insert(rows(&mut random, 40_000)))];
    if takes_back {
        deltas[1].push(Chunk { rows: first.clone(), weights: Some(weights) });
        deltas.push(Delta::of(Chunk::delete(first.slice(0, 45_000))));
    }
    deltas.push(Delta::of(Chunk::insert(rows(&mut random, 30_000))));
    for (epoch, delta) in (1..).zip(&deltas) {
        let cut = Cut::new(Epoch(epoch), Timestamp(epoch as i64));
        let read = epoch % 2 == 1;
        let [one, several] = flows.each_mut().map(|flow| flow.step_for(&cut, &[delta], read).unwrap());
        assert_eq!(one.left_out, several.left_out, "{sql}: epoch {epoch}");
        assert!(one.rows.num_rows() > 0 || !read);
        assert_eq!(one.rows.chunks.len(), several.rows.chunks.len());
        for (one, several) in one.rows.chunks.iter().zip(&several.rows.chunks) {
            assert_eq!((&one.rows, &one.weights), (&several.rows, &several.weights), "{sql}: epoch {epoch}");
        }
        let [one, several] = flows.each_ref().map(|flow| flow.content().map(Result::unwrap));
        assert_eq!(one, several, "{sql}: epoch {epoch}");
    }
}

#[test]
fn groups_of_many_parts_are_what_one_thread_makes_of_them() {
    check(&format!("SELECT k, {CALLS} FROM t GROUP BY k"), true);
    check(&format!("SELECT k, {CALLS} FROM t GROUP BY ROLLUP (k)"), true);
    check(&format!("SELECT k, {CALLS}, min(v) AS j, max(f) AS k2 FROM t GROUP BY k"), false);
    check(&format!("SELECT {CALLS}, min(v) AS j FROM t"), false);
}
