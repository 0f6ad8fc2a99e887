//! Tables with rows for tests. Plans a statement, binds it and runs it.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use millstream_seeds::Random;

use crate::error::{Error, Result};
use crate::{Planner, Relation, Relations, TokenReader, bind};

/// A catalog with rows.
pub(crate) struct Tables {
    pub(crate) planner: Planner,
    tables: Vec<Table>,
    views: Vec<(String, LogicalPlan)>,
}

struct Table {
    name: String,
    schema: SchemaRef,
    key: Option<Vec<usize>>,
    rows: RecordBatch,
}

impl Relations for Tables {
    fn get(&self, name: &str) -> Option<Relation> {
        let table = self.tables.iter().find(|table| table.name == name);
        let view = self.views.iter().find(|(view, _)| view == name);
        table
            .map(|table| Relation::Rows { schema: Arc::clone(&table.schema), key: table.key.clone() })
            .or_else(|| view.map(|(_, plan)| Relation::View(plan.clone())))
    }

    fn names(&self, _schema: Option<&str>) -> Vec<String> {
        let views = self.views.iter().map(|(name, _)| name.clone());
        self.tables.iter().map(|table| table.name.clone()).chain(views).collect()
    }

    fn function(&self, name: &str, arguments: &[String]) -> Result<Option<Relation>> {
        match (name, arguments) {
            ("bad_rows", [source]) => match self.get(source) {
                Some(found) => Ok(Some(found)),
                None => Err(Error::invalid(format!("source \"{source}\" not found"))),
            },
            _ => Ok(None),
        }
    }
}

impl Tables {
    pub(crate) fn new() -> Tables {
        Tables { planner: Planner::new(), tables: Vec::new(), views: Vec::new() }
    }

    /// Adds a table of these columns with the rows of a query.
    pub(crate) fn table(mut self, name: &str, columns: &str, rows: &str) -> Tables {
        let columns = self.planner.columns(&mut TokenReader::new(columns).unwrap()).unwrap();
        let key = (!columns.primary_key.is_empty()).then_some(columns.primary_key);
        let schema = columns.schema;
        let rows_of = RecordBatch::new_empty(Arc::clone(&schema));
        self.tables.push(Table { name: name.into(), schema: Arc::clone(&schema), key, rows: rows_of });
        if !rows.is_empty() {
            let dml = self.planner.dml(&format!("INSERT INTO {name} {rows}"), &self).unwrap();
            let rows = self.execute(&dml.query.plan, &|batch| vec![batch]).unwrap();
            let rows: Vec<RecordBatch> = rows
                .iter()
                .map(|b| RecordBatch::try_new(Arc::clone(&schema), b.columns().to_vec()).unwrap())
                .collect();
            self.tables.last_mut().unwrap().rows = concat_batches(&schema, &rows).unwrap();
        }
        self
    }

    /// Adds a relation with this batch.
    pub(crate) fn rows(mut self, name: &str, rows: RecordBatch) -> Tables {
        self.tables.push(Table { name: name.into(), schema: rows.schema(), key: None, rows });
        self
    }

    pub(crate) fn view(mut self, name: &str, sql: &str) -> Tables {
        let raw = self.planner.query(sql, &self).unwrap().raw;
        self.views.push((name.into(), raw));
        self
    }

    /// Runs a plan over the tables. `split` cuts each table into batches.
    pub(crate) fn execute(
        &self,
        plan: &LogicalPlan,
        split: &dyn Fn(RecordBatch) -> Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        let bound = bind(plan.clone(), &mut |name, schema| {
            let name = name.strip_prefix("bad_rows('").map_or(name, |rest| rest.trim_end_matches("')"));
            let table = self.tables.iter().find(|table| table.name == name).unwrap();
            let indices: Vec<usize> =
                schema.fields().iter().map(|field| table.schema.index_of(field.name()).unwrap()).collect();
            let rows = table.rows.project(&indices).unwrap();
            let rows = RecordBatch::try_new(Arc::clone(schema), rows.columns().to_vec()).unwrap();
            Ok(Arc::new(MemTable::try_new(Arc::clone(schema), vec![split(rows)])?) as Arc<dyn TableProvider>)
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let physical = self.planner.physical(&bound).await?;
            Ok(collect(physical, self.planner.state().task_ctx()).await?)
        })
    }

    /// Returns the rows of a query as sorted text: `1|a`.
    pub(crate) fn run(&self, sql: &str) -> Vec<String> {
        let query = self.planner.query(sql, self).unwrap_or_else(|error| panic!("{}", error.render(sql)));
        lines(&self.execute(&query.plan, &|batch| vec![batch]).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Fails unless the query returns these rows for any order and split of its input.
    pub(crate) fn check(&self, sql: &str, expected: &[&str]) {
        assert_eq!(self.run(sql), expected, "{sql}");
        let query = self.planner.query(sql, self).unwrap();
        for seed in 1..6 {
            let found = self.execute(&query.plan, &|batch| shuffle(&batch, seed)).unwrap();
            assert_eq!(lines(&found), expected, "{sql} with seed {seed}");
        }
    }

    /// Fails unless planning or running the query fails with this text.
    pub(crate) fn fails(&self, sql: &str, expected: &str) {
        let error = match self.planner.query(sql, self) {
            Ok(query) => self.execute(&query.plan, &|batch| vec![batch]).unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.render(sql), expected);
    }

    pub(crate) fn plan(&self, sql: &str) -> String {
        self.planner.query(sql, self).unwrap().plan.display_indent().to_string()
    }
}

/// Returns the same rows in another order, in two batches.
fn shuffle(batch: &RecordBatch, seed: usize) -> Vec<RecordBatch> {
    let count = batch.num_rows();
    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut random = Random((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    random.shuffle(&mut order);
    let shuffled = take_record_batch(batch, &UInt32Array::from(order)).unwrap();
    let cut = count * seed / 7;
    vec![shuffled.slice(0, cut), shuffled.slice(cut, count - cut)]
}

/// Returns the rows as sorted text.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            lines.push(cells.join("|"));
        }
    }
    lines.sort();
    lines
}
