//! Plain DataFusion: a context that runs the statements of a suite, with files kept in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches, take_record_batch};
use datafusion::common::{Constraint, Constraints, TableReference};
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{
    CopyToSource, CopyToStatement, CreateExternalTable, DFParserBuilder, Statement,
};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use super::made_up;
use crate::drive;
use crate::oracle::convert::Case;

/// The time limit of one statement.
const PATIENCE: Duration = Duration::from_secs(20);

/// Number of row orders over which a query is repeated whose answer differs from ours.
const SHUFFLES: u64 = 8;

/// Settings that change answers, not only their computation.
const SETTINGS: &[&str] = &[
    "datafusion.execution.time_zone",
    "datafusion.execution.enable_ansi_mode",
    "datafusion.sql_parser.parse_float_as_decimal",
    "datafusion.sql_parser.default_null_ordering",
    "datafusion.sql_parser.map_string_types_to_utf8view",
    "datafusion.sql_parser.support_varchar_with_length",
    "datafusion.sql_parser.enable_ident_normalization",
];

/// Plain DataFusion with the objects that a file's statements created.
pub struct Plain {
    /// The context itself.
    pub context: SessionContext,
    files: BTreeMap<String, RecordBatch>,
    /// The words for made-up texts.
    words: Vec<String>,
    seed: u64,
}

/// The effect of a statement on a suite.
pub enum Done {
    /// The statement ran.
    Run,
    /// It created a table with made-up rows, because the table's file is missing.
    MadeUp,
    /// It created a view: its name and a statement that creates it elsewhere.
    View(String, String),
}

/// Returns the settings of our engines, as far as they change answers.
pub fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().execution.time_zone = Some("+00:00".into());
    config
}

impl Plain {
    /// Returns a fresh context. Tables whose files are missing draw texts from `words` and numbers from
    /// `seed`.
    pub fn new(words: Vec<String>, seed: u64) -> Plain {
        Plain { context: SessionContext::new_with_config(config()), files: BTreeMap::new(), words, seed }
    }

    /// Returns changed settings that affect answers, as SET statements.
    pub fn settings(&self) -> Vec<String> {
        let at_first: BTreeMap<String, Option<String>> = entries(&SessionContext::new_with_config(config()));
        let changed = |(name, value): (String, Option<String>)| {
            let counts = SETTINGS.contains(&name.as_str()) && at_first.get(&name) != Some(&value);
            counts.then(|| format!("SET {name} = '{}'", value.unwrap_or_default()))
        };
        entries(&self.context).into_iter().filter_map(changed).collect()
    }

    /// Runs a statement.
    pub async fn statement(&mut self, sql: &str) -> drive::Result<Done> {
        let Ok(statement) = parse(sql) else {
            return self.query(sql).await.map(|_| Done::Run);
        };
        match statement {
            Statement::CopyTo(copy) => self.copy(&copy).await,
            Statement::CreateExternalTable(table) => self.external(&table).await,
            Statement::Reset(_) => {
                self.query(sql).await?;
                self.settle().await.map(|_| Done::Run)
            }
            Statement::Statement(statement) => {
                self.query(sql).await?;
                self.settle().await?;
                match *statement {
                    SqlStatement::CreateView(view) => {
                        let columns: Vec<String> = view.columns.iter().map(ToString::to_string).collect();
                        let columns = match columns.is_empty() {
                            true => String::new(),
                            false => format!(" ({})", columns.join(", ")),
                        };
                        let name = plain_name(&view.name.to_string());
                        let ddl = format!("CREATE VIEW \"{name}\"{columns} AS {}", view.query);
                        Ok(Done::View(name, ddl))
                    }
                    _ => Ok(Done::Run),
                }
            }
            _ => self.query(sql).await.map(|_| Done::Run),
        }
    }

    /// Returns the SQL dialect, if it is one that our engines don't read.
    pub fn foreign_dialect(&self) -> Option<String> {
        let config = self.context.copied_config();
        let dialect = config.options().sql_parser.dialect.to_string();
        (!dialect.eq_ignore_ascii_case("generic")).then_some(dialect)
    }

    /// Applies the settings that our engines always have.
    async fn settle(&self) -> drive::Result<()> {
        if self.context.copied_config().options().execution.time_zone.is_some() {
            return Ok(());
        }
        self.query("SET datafusion.execution.time_zone = '+00:00'").await.map(|_| ())
    }

    /// Returns the rows of a statement as one batch.
    pub async fn query(&self, sql: &str) -> drive::Result<RecordBatch> {
        rows(&self.context, sql).await
    }

    async fn copy(&mut self, copy: &CopyToStatement) -> drive::Result<Done> {
        let rows = match &copy.source {
            CopyToSource::Relation(name) => self.query(&format!("SELECT * FROM {name}")).await?,
            CopyToSource::Query(query) => self.query(&query.to_string()).await?,
        };
        if !copy.partitioned_by.is_empty() {
            return Err("COPY into one file a partition".into());
        }
        let file = match copy.target.ends_with('/') {
            true => format!("{}{}", copy.target, self.files.len()),
            false => copy.target.clone(),
        };
        self.files.insert(file, rows);
        Ok(Done::Run)
    }

    /// Creates a table over files: over copied files, or with made-up rows for files that the package lacks.
    async fn external(&mut self, table: &CreateExternalTable) -> drive::Result<Done> {
        let name = TableReference::from(table.name.to_string());
        if self.context.table_exist(name.clone()).unwrap_or(false) {
            if table.if_not_exists {
                return Ok(Done::Run);
            }
            if !table.or_replace {
                return Err(format!("{name} exists already"));
            }
        }
        if !table.table_partition_cols.is_empty() || table.unbounded {
            return Err("a table over partitioned or endless files".into());
        }
        let declared = if table.columns.is_empty() { None } else { Some(self.declared(table).await?) };
        let files: Vec<&RecordBatch> = table.locations.iter().flat_map(|place| self.at(place)).collect();
        let written = !files.is_empty();
        let provider = match (declared, written) {
            (Some(declared), true) => declared.with_rows(&under(&files, &declared)?)?,
            (Some(declared), false) => {
                let rows =
                    made_up::rows(&declared.schema(), &declared.key(), name.table(), &self.words, self.seed);
                declared.with_rows(&rows.map_err(|error| error.to_string())?)?
            }
            (None, true) => {
                let rows = concat_batches(&files[0].schema(), files).map_err(|error| error.to_string())?;
                MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(|error| error.to_string())?
            }
            (None, false) => return Err(format!("the package lacks {}", table.locations.join(", "))),
        };
        let _ = self.context.deregister_table(name.clone());
        let registered = self.context.register_table(name, Arc::new(provider));
        registered.map_err(|error| error.to_string())?;
        Ok(if written { Done::Run } else { Done::MadeUp })
    }

    /// Returns the files at or below a path.
    fn at(&self, place: &str) -> Vec<&RecordBatch> {
        let below = format!("{}/", place.trim_end_matches('/'));
        let there = |file: &&String| *file == place || file.starts_with(&below);
        self.files.iter().filter(|(file, _)| there(file)).map(|(_, rows)| rows).collect()
    }

    /// Returns the declared columns and keys of a table over files.
    async fn declared(&self, table: &CreateExternalTable) -> drive::Result<Declared> {
        let name = "columns_of_an_external_table";
        let columns = table.columns.iter().map(ToString::to_string);
        let parts: Vec<String> = columns.chain(table.constraints.iter().map(ToString::to_string)).collect();
        self.query(&format!("CREATE TABLE {name} ({})", parts.join(", "))).await?;
        let provider = self.context.deregister_table(name).map_err(|error| error.to_string())?;
        provider.map(Declared).ok_or_else(|| format!("the columns of {} can't be made", table.name))
    }
}

/// A table without rows.
#[derive(Clone)]
struct Declared(Arc<dyn TableProvider>);

impl Declared {
    fn schema(&self) -> arrow::datatypes::SchemaRef {
        self.0.schema()
    }

    fn key(&self) -> Vec<usize> {
        key(self.0.as_ref())
    }

    fn with_rows(&self, rows: &RecordBatch) -> drive::Result<MemTable> {
        let constraints = self.0.constraints().cloned().unwrap_or_default();
        let table = MemTable::try_new(self.schema(), vec![vec![rows.clone()]]);
        Ok(table.map_err(|error| error.to_string())?.with_constraints(constraints))
    }
}

/// Returns the columns of a table's primary key; empty without one.
pub fn key(table: &dyn TableProvider) -> Vec<usize> {
    let constraints = table.constraints().into_iter().flat_map(|constraints| constraints.iter());
    let keys = constraints.filter_map(|constraint| match constraint {
        Constraint::PrimaryKey(columns) => Some(columns.clone()),
        Constraint::Unique(_) => None,
    });
    keys.fold(Vec::new(), |_, columns| columns)
}

/// Casts the rows of files to declared columns, column by column.
fn under(files: &[&RecordBatch], declared: &Declared) -> drive::Result<RecordBatch> {
    let schema = declared.schema();
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut batches = Vec::new();
    for file in files {
        if file.num_columns() != schema.fields().len() {
            return Err("the files have other columns than the table declares".into());
        }
        let columns: Result<Vec<ArrayRef>, _> = file
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| cast_with_options(column, field.data_type(), &options))
            .collect();
        let columns = columns.map_err(|error| error.to_string())?;
        let batch = RecordBatch::try_new(schema.clone(), columns);
        batches.push(batch.map_err(|error| error.to_string())?);
    }
    concat_batches(&schema, &batches).map_err(|error| error.to_string())
}

fn entries(context: &SessionContext) -> BTreeMap<String, Option<String>> {
    let options = context.copied_config().options().entries();
    options.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

/// Parses one statement as DataFusion does.
pub fn parse(sql: &str) -> drive::Result<Statement> {
    DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .build()
        .and_then(|mut parser| parser.parse_statement())
        .map_err(|error| error.to_string())
}

/// Returns the last part of a name as the catalog spells it.
pub fn plain_name(name: &str) -> String {
    TableReference::from(name).table().to_string()
}

/// Returns the rows of a statement as one batch, within a time limit.
pub async fn rows(context: &SessionContext, sql: &str) -> drive::Result<RecordBatch> {
    let (context, text) = (context.clone(), sql.to_string());
    // A task of its own, so that a panic becomes an error.
    let mut task = tokio::spawn(async move {
        let frame = millstream_batch::frame(&context, &text).await?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await?;
        let schema = batches.first().map_or(schema, RecordBatch::schema);
        if schema.fields().is_empty() {
            let rows = batches.iter().map(RecordBatch::num_rows).sum();
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            return Ok(RecordBatch::try_new_with_options(schema, vec![], &options)?);
        }
        Ok::<_, datafusion::error::DataFusionError>(concat_batches(&schema, &batches)?)
    });
    match tokio::time::timeout(PATIENCE, &mut task).await {
        Ok(Ok(rows)) => rows.map_err(|error| error.to_string()),
        Ok(Err(panic)) => Err(format!("panics: {panic}")),
        Err(_) => {
            task.abort();
            Err("takes too long".into())
        }
    }
}

/// Another order of a table's rows.
#[derive(Clone, Copy)]
enum Layout {
    Reversed,
    Shuffled(u64),
}

/// Returns true if plain DataFusion's answer to a query depends on the order of its tables' rows. Also
/// returns true if `ours` is another valid choice of rows under a LIMIT.
pub async fn is_open(
    case: &Case,
    sql: &str,
    answer: &RecordBatch,
    ours: Option<&RecordBatch>,
) -> drive::Result<bool> {
    if depends_on_order(case, sql, answer).await? {
        return Ok(true);
    }
    let (Some(ours), Some(unlimited)) = (ours, without_limit(sql)) else { return Ok(false) };
    let all = rows(&over(case, Layout::Reversed).await?, &unlimited).await?;
    if ours.num_rows() != answer.num_rows() {
        return Ok(false);
    }
    Ok(super::agree::is_part(ours, &all)? || depends_on_order(case, &unlimited, &all).await?)
}

async fn depends_on_order(case: &Case, sql: &str, answer: &RecordBatch) -> drive::Result<bool> {
    let layouts = std::iter::once(Layout::Reversed).chain((0..SHUFFLES).map(Layout::Shuffled));
    for layout in layouts {
        let context = over(case, layout).await?;
        match rows(&context, sql).await {
            Ok(again) if matches!(super::agree::disagreement(&again, answer), Ok(None)) => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// Returns the query without the LIMIT and OFFSET at its end; `None` if it has none.
fn without_limit(sql: &str) -> Option<String> {
    let Ok(Statement::Statement(mut statement)) = parse(sql) else { return None };
    let SqlStatement::Query(query) = statement.as_mut() else { return None };
    let limit = query.limit_clause.take();
    let fetch = query.fetch.take();
    (limit.is_some() || fetch.is_some()).then(|| statement.to_string())
}

/// Returns a context with the objects of a case, their rows in another order.
async fn over(case: &Case, layout: Layout) -> drive::Result<SessionContext> {
    let context = SessionContext::new_with_config(config());
    for sql in &case.settings {
        rows(&context, sql).await?;
    }
    for object in &case.objects {
        let Some(table) = &object.table else {
            rows(&context, &object.ddl).await?;
            continue;
        };
        let count = table.rows.num_rows() as u32;
        let mut order: Vec<u32> = (0..count).rev().collect();
        if let Layout::Shuffled(seed) = layout {
            order.shuffle(&mut SmallRng::seed_from_u64(seed));
        }
        let shuffled =
            take_record_batch(&table.rows, &UInt32Array::from(order)).map_err(|error| error.to_string())?;
        let constraints = match table.key.is_empty() {
            true => Constraints::default(),
            false => Constraints::new_unverified(vec![Constraint::PrimaryKey(table.key.clone())]),
        };
        let provider = MemTable::try_new(shuffled.schema(), vec![vec![shuffled]]);
        let provider = provider.map_err(|error| error.to_string())?.with_constraints(constraints);
        let registered =
            context.register_table(TableReference::bare(object.name.as_str()), Arc::new(provider));
        registered.map_err(|error| error.to_string())?;
    }
    Ok(context)
}
