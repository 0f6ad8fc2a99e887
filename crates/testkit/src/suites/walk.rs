//! Runs one of DataFusion's files in plain DataFusion and converts its queries to cases.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::datasource::MemTable;
use datafusion::sql::sqlparser::tokenizer::Token;
use sqllogictest::{Condition, DefaultColumnType, QueryExpect, Record};

use super::hoist;
use super::known::Known;
use super::plain::{self, Done, Plain};
use crate::drive;
use crate::oracle::compare::{self, classes};
use crate::oracle::convert::{self, Case, Object, Query, Table};
use crate::oracle::statement;

/// Tables with more rows are skipped.
const ROWS_MAX: usize = 20_000;

/// Maximum number of queries that share an engine.
const QUERIES_MAX: usize = 30;

/// DataFusion's name in its files.
const LABEL: &str = "DataFusion";

/// The result for a file.
#[derive(Default)]
pub struct Walked {
    /// Number of queries in the file.
    pub queries: usize,
    /// The cases, each with its plain answers, one per query.
    pub cases: Vec<(Case, Vec<Asked>)>,
    /// Number of skipped queries, by reason.
    pub left_out: BTreeMap<String, usize>,
}

/// The place and the plain answer of a converted query.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its place, such as `window.slt:15`.
    pub place: String,
    /// Plain DataFusion's answer over the same rows.
    pub answer: RecordBatch,
}

/// The sample of a file's queries.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The seed of the sample and of made-up rows.
    pub seed: u64,
    /// The share of all queries to take, up to 1.
    pub share: f64,
}

/// Runs the file at `path` and collects its cases.
pub async fn walk(path: &Path, name: &str, known: &Known, sample: Sample) -> drive::Result<Walked> {
    let records = sqllogictest::parse_file::<DefaultColumnType>(path).map_err(|error| error.to_string())?;
    let plain = Plain::new(words(&records), 1);
    let mut walk = Walk {
        plain,
        known,
        sample,
        made: Vec::new(),
        lacking: BTreeSet::new(),
        made_up: BTreeSet::new(),
        objects: BTreeMap::new(),
        fresh: BTreeSet::new(),
        hoisted: 0,
        walked: Walked::default(),
    };
    for record in &records {
        match record {
            Record::Halt { .. } => break,
            Record::Statement { sql, conditions, .. } if runs(conditions) => walk.statement(sql).await,
            Record::Query { sql, expected, conditions, loc, .. } if runs(conditions) => {
                let inner = Path::new(loc.file()).file_name().unwrap_or_default().to_string_lossy();
                let place = match path.file_name().is_some_and(|own| own.to_string_lossy() == inner) {
                    true => name.to_string(),
                    false => format!("{name}({inner})"),
                };
                walk.query(sql, &place, loc.line(), expected).await;
            }
            _ => {}
        }
    }
    Ok(walk.walked)
}

/// Returns a statement without its semicolon and comments after that.
fn without_end(sql: &str) -> &str {
    let is_comment = |line: &str| line.trim().is_empty() || line.trim().starts_with("--");
    match sql.rsplit_once(';') {
        Some((before, after)) if after.lines().all(is_comment) => before.trim(),
        _ => sql.trim(),
    }
}

/// Returns true if a record with these conditions applies to DataFusion.
fn runs(conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| match condition {
        Condition::OnlyIf { label } => label.eq_ignore_ascii_case(LABEL),
        Condition::SkipIf { label } => !label.eq_ignore_ascii_case(LABEL),
    })
}

/// Returns short texts from the statements of a file, for made-up rows.
fn words(records: &[Record<DefaultColumnType>]) -> Vec<String> {
    let mut words = BTreeSet::new();
    for record in records {
        if let Record::Query { sql, .. } = record {
            for token in statement::tokens(sql) {
                if let Token::SingleQuotedString(word) = token
                    && word.len() <= 25
                    && !word.contains(['/', '%', '='])
                {
                    words.insert(word);
                }
            }
        }
    }
    words.into_iter().collect()
}

struct Walk<'a> {
    plain: Plain,
    known: &'a Known,
    sample: Sample,
    /// The existing views: names and DDL.
    made: Vec<(String, String)>,
    /// The names of objects that statements failed to create.
    lacking: BTreeSet<String>,
    /// Tables with made-up rows.
    made_up: BTreeSet<String>,
    /// Objects in the state in which they were read.
    objects: BTreeMap<String, Object>,
    /// The names of those that are up to date.
    fresh: BTreeSet<String>,
    hoisted: usize,
    walked: Walked,
}

impl Walk<'_> {
    async fn statement(&mut self, sql: &str) {
        for piece in statement::pieces(sql) {
            self.fresh.clear();
            let made = match statement::effect(&piece) {
                statement::Effect::Create { name, .. } => Some(name),
                _ => created(&piece),
            };
            match self.plain.statement(&piece).await {
                Ok(done) => {
                    if let Some(name) = made {
                        self.lacking.remove(&name);
                        self.made_up.remove(&name);
                        self.made.retain(|(known, _)| *known != name);
                        if matches!(done, Done::MadeUp) {
                            self.made_up.insert(name);
                        }
                    }
                    if let Done::View(name, ddl) = done {
                        self.made.retain(|(known, _)| *known != name);
                        self.made.push((name, ddl));
                    }
                }
                Err(_) => {
                    if let Some(name) = made.filter(|name| !self.exists(name)) {
                        self.lacking.insert(name);
                    }
                }
            }
        }
    }

    fn exists(&self, name: &str) -> bool {
        self.plain.context.table_exist(reference(name)).unwrap_or(false)
    }

    async fn query(&mut self, sql: &str, file: &str, line: u32, expected: &QueryExpect<DefaultColumnType>) {
        self.walked.queries += 1;
        let sql = without_end(sql);
        if !statement::is_query(sql) || statement::pieces(sql).len() != 1 {
            let first = statement::first_words(sql).into_iter().next().unwrap_or_default();
            self.leave_out(format!("not a SELECT: {first}"));
            if !matches!(first.as_str(), "EXPLAIN" | "SHOW" | "DESCRIBE") {
                self.statement(sql).await;
            }
            return;
        }
        if matches!(expected, QueryExpect::Error(_)) {
            return self.leave_out("an error is expected");
        }
        let mut hasher = DefaultHasher::new();
        (self.sample.seed, file, line).hash(&mut hasher);
        if (hasher.finish() % 10_000) as f64 >= self.sample.share * 10_000.0 {
            return self.leave_out("not in the sample");
        }
        if self.known.get(&format!("{file}:{line}")).is_some_and(|entry| entry.endless) {
            return self.leave_out("known to fail without an end");
        }
        match self.in_our_dialect(sql, file, line).await {
            Ok(()) => {}
            Err(reason) => self.leave_out(reason),
        }
    }

    fn leave_out(&mut self, reason: impl Into<String>) {
        *self.walked.left_out.entry(reason.into()).or_default() += 1;
    }

    /// Adds a query to a case, if it means the same in the dialect that our engines read. The error is the
    /// reason if it can't be added.
    async fn in_our_dialect(&mut self, sql: &str, file: &str, line: u32) -> drive::Result<()> {
        let Some(dialect) = self.plain.foreign_dialect() else {
            return self.convert(sql, file, line).await;
        };
        let foreign = self.plain.query(sql).await;
        self.plain.query("SET datafusion.sql_parser.dialect = 'generic'").await?;
        let ours = self.plain.query(sql).await;
        let done = match (foreign, ours) {
            (Ok(foreign), Ok(ours)) if same_but_names(&foreign, &ours) => self.convert(sql, file, line).await,
            _ => Err(format!("needs another SQL dialect: {dialect}")),
        };
        self.plain.query(&format!("SET datafusion.sql_parser.dialect = '{dialect}'")).await?;
        done
    }

    /// Adds a query to a case. The error is the reason if it can't be added.
    async fn convert(&mut self, sql: &str, file: &str, line: u32) -> drive::Result<()> {
        if let Some(reason) = convert::exempt(sql) {
            return Err(reason.into());
        }
        let (mut text, mut needed) = (sql.to_string(), self.reads(sql)?);
        let mut hoisted = Vec::new();
        if let Some(found) = hoist::hoist(sql, self.hoisted)
            && let Ok(contents) = hoist::contents(&self.plain, &found).await
            && let Some(tables) = self.register(contents)
        {
            self.hoisted += tables.len();
            text = found.sql;
            hoisted = tables;
        }
        if needed.is_empty() && hoisted.is_empty() {
            return Err("reads no table".into());
        }
        let mut answer = self.plain.query(sql).await.map_err(|error| {
            let first = error.lines().next().unwrap_or_default();
            let short: String = first.split([':', '\'', '"', '(']).next().unwrap_or_default().into();
            format!("fails in plain DataFusion: {short}")
        })?;
        if !hoisted.is_empty() {
            // If a query names a column by its relation, or leaves the order open, the converted query may
            // answer otherwise.
            let again = self.plain.query(&text).await;
            let same = again.as_ref().is_ok_and(|again| same_but_names(again, &answer));
            match again {
                Ok(again) if same => {
                    answer = again;
                    needed.extend(hoisted);
                }
                _ if needed.is_empty() => {
                    return Err("its constant relations can't be told apart from it".into());
                }
                _ => text = sql.to_string(),
            }
        }
        let mut objects = Vec::new();
        for name in &needed {
            objects.push(self.object(name).await?);
        }
        let query = Query { line, sql: text };
        let asked = Asked { place: format!("{file}:{line}"), answer };
        self.put(file, objects, query, asked);
        Ok(())
    }

    /// Creates the tables of constant relations; `None` if one can't be created.
    fn register(&mut self, contents: Vec<(String, RecordBatch)>) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for (name, rows) in contents {
            // Constants are never NULL; the rows of a table may be.
            let rows = nullable(&rows)?;
            let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).ok()?;
            self.plain.context.register_table(reference(&name), Arc::new(table)).ok()?;
            names.push(name);
        }
        Some(names)
    }

    /// Returns the tables and views that `sql` reads.
    fn reads(&self, sql: &str) -> drive::Result<BTreeSet<String>> {
        let (mut needed, mut texts) = (BTreeSet::new(), vec![sql.to_string()]);
        while let Some(text) = texts.pop() {
            for relation in statement::relations(&text) {
                if let Some(reason) = convert::exempt(&text) {
                    return Err(reason.into());
                }
                if relation.starts_with("information_schema.") {
                    return Err("reads the information schema".into());
                }
                if self.lacking.contains(&relation) {
                    return Err(
                        "reads what can't be made: data files that the package lacks, or partitioned ones"
                            .into(),
                    );
                }
                if !self.exists(&relation) {
                    continue;
                }
                if relation.contains('.') {
                    return Err("reads a schema other than public".into());
                }
                if needed.insert(relation.clone())
                    && let Some((_, ddl)) = self.made.iter().find(|(name, _)| *name == relation)
                {
                    texts.push(ddl.clone());
                }
            }
        }
        Ok(needed)
    }

    /// Returns the present state of the object with this name.
    async fn object(&mut self, name: &str) -> drive::Result<Object> {
        if self.fresh.contains(name)
            && let Some(object) = self.objects.get(name)
        {
            return Ok(object.clone());
        }
        let mut object = match self.made.iter().find(|(known, _)| known == name) {
            Some((_, ddl)) => Object { name: name.into(), ddl: ddl.clone(), table: None },
            None => {
                let table = self.table(name).await?;
                Object { name: name.into(), ddl: String::new(), table: Some(table) }
            }
        };
        // An unchanged object keeps its memory, so that comparisons are fast.
        if let Some(last) = self.objects.get(name).filter(|last| are_same(last, &object)) {
            object = last.clone();
        }
        self.objects.insert(name.to_string(), object.clone());
        self.fresh.insert(name.to_string());
        Ok(object)
    }

    async fn table(&self, name: &str) -> drive::Result<Table> {
        let rows = self.plain.query(&format!("SELECT * FROM \"{name}\"")).await?;
        if rows.num_rows() > ROWS_MAX {
            return Err(format!("a table has more than {ROWS_MAX} rows"));
        }
        if rows.num_columns() == 0 {
            return Err("a table without columns".into());
        }
        let provider = self.plain.context.table_provider(reference(name)).await;
        let provider = provider.map_err(|error| error.to_string())?;
        let mut key = plain::key(provider.as_ref());
        let canonical =
            compare::canonical_rows(&rows).map_err(|error| format!("a type without an order: {error}"))?;
        let fields: Vec<SortField> = canonical
            .schema()
            .fields()
            .iter()
            .map(|field| SortField::new(field.data_type().clone()))
            .collect();
        if !RowConverter::supports_fields(&fields) {
            return Err("a type without an order: rows can't be told apart".into());
        }
        // DataFusion declares keys and doesn't enforce them.
        let columns = rows.project(&key).map_err(|error| error.to_string())?;
        if !key.is_empty() {
            let mut seen = classes(&[&columns]).map_err(|error| error.to_string())?.pop().unwrap_or_default();
            seen.sort_unstable();
            if seen.windows(2).any(|pair| pair[0] == pair[1])
                || columns.columns().iter().any(|c| c.null_count() > 0)
            {
                key.clear();
            }
        }
        let rows = with_key_not_null(&rows, provider.schema().as_ref(), &key)?;
        Ok(Table { rows, key, append_only: false })
    }

    /// Puts a query into a case of the file whose objects have the required state.
    fn put(&mut self, file: &str, objects: Vec<Object>, query: Query, asked: Asked) {
        let settings = self.plain.settings();
        let fits = |case: &Case| {
            case.file == file
                && case.settings == settings
                && case.queries.len() < QUERIES_MAX
                && objects.iter().all(|needed| {
                    let known = case.objects.iter().find(|known| known.name == needed.name);
                    known.is_none_or(|known| are_same(known, needed))
                })
        };
        let cases = &mut self.walked.cases;
        let at = cases.iter().rposition(|(case, _)| fits(case)).unwrap_or_else(|| {
            let case = Case { file: file.to_string(), settings, objects: Vec::new(), queries: Vec::new() };
            cases.push((case, Vec::new()));
            cases.len() - 1
        });
        let (case, answers) = &mut cases[at];
        for object in objects {
            if !case.objects.iter().any(|known| known.name == object.name) {
                case.objects.push(object);
            }
        }
        // Tables come first, then views, each after those that it reads.
        let known = case.objects.clone();
        case.objects.sort_by_key(|object| depth(object, &known));
        case.queries.push(query);
        answers.push(asked);
    }
}

/// Returns the number of views between an object and tables.
fn depth(object: &Object, objects: &[Object]) -> usize {
    if object.table.is_some() {
        return 0;
    }
    let read = statement::relations(&object.ddl);
    let below = objects.iter().filter(|other| other.name != object.name && read.contains(&other.name));
    1 + below.map(|other| depth(other, objects)).max().unwrap_or(0)
}

fn reference(name: &str) -> datafusion::common::TableReference {
    match name.split_once('.') {
        Some((schema, table)) => datafusion::common::TableReference::partial(schema, table),
        None => datafusion::common::TableReference::bare(name),
    }
}

/// Returns the name in CREATE [UNBOUNDED] EXTERNAL TABLE [IF NOT EXISTS].
fn created(sql: &str) -> Option<String> {
    match plain::parse(sql) {
        Ok(datafusion::sql::parser::Statement::CreateExternalTable(table)) => {
            Some(plain::plain_name(&table.name.to_string()))
        }
        _ => None,
    }
}

fn are_same(first: &Object, second: &Object) -> bool {
    first.ddl == second.ddl
        && match (&first.table, &second.table) {
            (Some(a), Some(b)) if Arc::ptr_eq(a.rows.column(0), b.rows.column(0)) => true,
            (Some(a), Some(b)) => {
                a.key == b.key
                    && a.rows.schema() == b.rows.schema()
                    && matches!(compare::difference(&a.rows, &b.rows), Ok(None))
            }
            (None, None) => true,
            _ => false,
        }
}

/// Returns the same rows with all columns nullable; a column of NULLs alone gets a type.
fn nullable(rows: &RecordBatch) -> Option<RecordBatch> {
    let columns: Vec<_> = rows
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Null => cast(column, &DataType::Null),
            _ => Ok(column.clone()),
        })
        .collect::<Result<_, _>>()
        .ok()?;
    let schema = rows.schema();
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| {
            field.as_ref().clone().with_data_type(column.data_type().clone()).with_nullable(true)
        })
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).ok()
}

/// Returns the rows under the schema that the table declares, in which key columns are NOT NULL.
fn with_key_not_null(rows: &RecordBatch, declared: &Schema, key: &[usize]) -> drive::Result<RecordBatch> {
    let schema = rows.schema();
    let field = |(at, field): (usize, &Arc<Field>)| {
        let nullable = declared.fields().get(at).is_none_or(|declared| declared.is_nullable());
        field.as_ref().clone().with_nullable(nullable && !key.contains(&at))
    };
    let fields: Vec<Field> = schema.fields().iter().enumerate().map(field).collect();
    let schema = Schema::new(fields).with_metadata(schema.metadata().clone());
    RecordBatch::try_new(Arc::new(schema), rows.columns().to_vec()).map_err(|error| error.to_string())
}

fn same_but_names(first: &RecordBatch, second: &RecordBatch) -> bool {
    let renamed = |batch: &RecordBatch| compare::canonical_rows(batch);
    match (renamed(first), renamed(second)) {
        (Ok(first), Ok(second)) => matches!(super::agree::disagreement(&first, &second), Ok(None)),
        _ => false,
    }
}
