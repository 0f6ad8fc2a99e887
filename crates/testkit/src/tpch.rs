//! TPC-H under the replay oracle: its 22 queries over its tables, whose rows are inserted, replaced and
//! deleted.
//!
//! The queries are in `sql-tests/tpch/`, with constants that match some of so few rows. The rows are
//! tpchgen's at the smallest scale, with a part of the orders and their lines. The oracle compares the views
//! with Millstream's batch answers after each epoch, and the answers over the final rows with plain
//! DataFusion's.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int64Type, Schema};
use arrow::error::ArrowError;
use datafusion::prelude::SessionContext;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};

use crate::drive;
use crate::oracle::convert::{Case, Object, Query, Table};
use crate::oracle::{self, Counts, Setup, compare};

/// The scale: 10 suppliers, 150 customers, 200 parts.
const SCALE: f64 = 0.001;

/// The largest key of the orders kept, 450 of 1,500.
const ORDER_KEY_MAX: i64 = 1_800;

/// Maximum number of seeds, to bound the time.
const SEEDS_MAX: usize = 2;

/// Returns the files of the queries, with their names.
pub fn files() -> drive::Result<Vec<(PathBuf, String)>> {
    let folder = Path::new("sql-tests/tpch");
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("can't list {}: {error}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("can't list {}: {error}", folder.display()))?.path();
        if let Some(name) = path.file_stem().filter(|_| path.extension().is_some_and(|kind| kind == "sql")) {
            found.push((path.clone(), name.to_string_lossy().into_owned()));
        }
    }
    found.sort();
    Ok(found)
}

/// Replays one query and compares its final answer with plain DataFusion's.
pub async fn check(path: &Path, name: &str, setup: &Setup) -> (Counts, drive::Result<()>) {
    let mut counts = Counts::default();
    let result = replay(path, name, setup, &mut counts).await;
    (counts, result)
}

async fn replay(path: &Path, name: &str, setup: &Setup, counts: &mut Counts) -> drive::Result<()> {
    let sql =
        std::fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
    let objects = tables().map_err(|error| format!("TPC-H's tables can't be made: {error}"))?;
    let query = Query { line: 1, sql: sql.trim().to_string() };
    let case = Case {
        file: format!("tpch/{name}.sql"),
        settings: Vec::new(),
        objects: objects.clone(),
        queries: vec![query.clone()],
    };
    let expected = plain(&objects, &query.sql).await?;
    if expected.num_rows() == 0 {
        return Err(format!("{} has no rows in its answer, so that it would prove little", path.display()));
    }
    for seed in setup.seeds.iter().take(SEEDS_MAX) {
        let examined = oracle::examine(&case, 0, *seed, setup, counts).await;
        if !examined.findings.is_empty() {
            let texts: Vec<String> = examined.findings.into_iter().map(|finding| finding.text).collect();
            return Err(texts.join("\n\n"));
        }
        let answer = examined.answers.get(&0).ok_or_else(|| format!("{} has no answer", path.display()))?;
        if let Some(difference) = compare::difference(answer, &expected)? {
            return Err(format!("{} differs from plain DataFusion:\n{difference}", path.display()));
        }
    }
    Ok(())
}

/// Returns the answer of plain DataFusion.
async fn plain(objects: &[Object], sql: &str) -> drive::Result<RecordBatch> {
    let answer = async {
        let context = SessionContext::new();
        for object in objects {
            if let Some(table) = &object.table {
                context.register_batch(&object.name, table.rows.clone())?;
            }
        }
        let frame = millstream_batch::frame(&context, sql).await?;
        let schema = frame.schema().inner().clone();
        let batches = frame.collect().await?;
        Ok::<_, datafusion::error::DataFusionError>(concat_batches(&schema, &batches)?)
    };
    answer.await.map_err(|error| format!("plain DataFusion fails: {error}"))
}

/// Returns the eight tables with their keys.
fn tables() -> Result<Vec<Object>, ArrowError> {
    let orders = OrderArrow::new(OrderGenerator::new(SCALE, 1, 1));
    let lines = LineItemArrow::new(LineItemGenerator::new(SCALE, 1, 1));
    Ok(vec![
        table("region", &[0], RegionArrow::new(RegionGenerator::new(SCALE, 1, 1)))?,
        table("nation", &[0], NationArrow::new(NationGenerator::new(SCALE, 1, 1)))?,
        table("supplier", &[0], SupplierArrow::new(SupplierGenerator::new(SCALE, 1, 1)))?,
        table("customer", &[0], CustomerArrow::new(CustomerGenerator::new(SCALE, 1, 1)))?,
        table("part", &[0], PartArrow::new(PartGenerator::new(SCALE, 1, 1)))?,
        table("partsupp", &[0, 1], PartSuppArrow::new(PartSuppGenerator::new(SCALE, 1, 1)))?,
        table("orders", &[0], orders.map(|rows| first_orders(rows?)))?,
        table("lineitem", &[0, 3], lines.map(|rows| first_orders(rows?)))?,
    ])
}

/// Returns the rows of the first orders, whose key is the first column.
fn first_orders(rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let keys = rows.column(0).as_primitive::<Int64Type>().values();
    let kept: BooleanArray = keys.iter().map(|key| Some(*key <= ORDER_KEY_MAX)).collect();
    filter_record_batch(&rows, &kept)
}

/// Returns a table with the first row of each key: with so few suppliers, tpchgen offers some parts twice by
/// the same one.
fn table(
    name: &str,
    key: &[usize],
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<Object, ArrowError> {
    let batches: Vec<RecordBatch> = batches.collect::<Result<_, _>>()?;
    let schema = batches.first().map_or_else(|| Schema::empty().into(), RecordBatch::schema);
    let rows = concat_batches(&schema, &batches)?;
    let keys = compare::classes(&[&rows.project(key)?])?.pop().unwrap_or_default();
    let mut seen = HashSet::new();
    let first: BooleanArray = keys.into_iter().map(|key| Some(seen.insert(key))).collect();
    let table = Table { rows: filter_record_batch(&rows, &first)?, key: key.to_vec(), append_only: false };
    Ok(Object { name: name.into(), ddl: String::new(), table: Some(table) })
}
