//! The sink: gathers epochs, and publishes them together with their number in one transaction.

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use millstream_connect::{ByKey, Delivery, Error, Paired, Result, Sink, SinkSpec};
use millstream_delta::{Cut, Delta, Epoch, consolidate};
use tokio_postgres::types::{ToSql, Type};

use crate::columns::Kind;
use crate::connection::{Connection, Parameter};
use crate::options::Settings;
use crate::progress::{Held, Progress};
use crate::statements::{Statements, parts};
use crate::table;
use crate::text::{Unfit, texts};

/// Maximum rows of a statement.
const ROWS_MAX: usize = 8192;

/// Approximate maximum bytes of a statement.
const BYTES_MAX: usize = 4 << 20;

/// Maximum characters of a row in messages.
const ROW_CHARACTERS_MAX: usize = 300;

/// Delivers to a table of PostgreSQL.
#[derive(Debug)]
pub(crate) struct PostgresSink {
    settings: Settings,
    columns: SchemaRef,
    kinds: Vec<Kind>,
    /// The key for upserts and deletes; `None` if the sink only inserts rows.
    by_key: Option<ByKey>,
    /// The identifier of this run in the progress row.
    writer: String,
    /// True if the engine survives a crash, and so has called `recover`.
    is_durable: bool,
    staged: Vec<(Epoch, Delta)>,
    connection: Option<Connection>,
    target: Option<Target>,
    /// The last known content of the progress row.
    known: Option<Held>,
    /// The progress of a transaction whose answer may be lost.
    tried: Option<Held>,
    /// The newest published epoch.
    published: Option<Epoch>,
}

/// The table, once it was checked.
#[derive(Clone, Debug)]
struct Target {
    name: String,
    /// True if its key may contain NULL.
    takes_nulls: bool,
    statements: Statements,
    progress: Progress,
}

impl PostgresSink {
    pub(crate) fn new(spec: &SinkSpec) -> Result<PostgresSink> {
        let settings = Settings::of(spec)?;
        let kinds = spec.columns.fields().iter().map(|field| Kind::of(field)).collect::<Result<Vec<_>>>()?;
        let inserts = spec.append_only && spec.options.get("primary_key").is_none();
        let by_key = match inserts {
            true => None,
            false => Some(ByKey::new(spec, "connector 'postgres'", "")?),
        };
        Ok(PostgresSink {
            settings,
            columns: spec.columns.clone(),
            kinds,
            by_key,
            writer: format!("{:032x}", rand::random::<u128>()),
            is_durable: false,
            staged: Vec::new(),
            connection: None,
            target: None,
            known: None,
            tried: None,
            published: None,
        })
    }

    fn key(&self) -> &[usize] {
        self.by_key.as_ref().map_or(&[], ByKey::key)
    }

    fn names(&self, places: impl IntoIterator<Item = usize>) -> Vec<&str> {
        places.into_iter().map(|place| self.columns.field(place).name().as_str()).collect()
    }

    /// Connects if there is no connection, and reads the published epoch.
    async fn connect(&mut self) -> Result<()> {
        if self.connection.as_ref().is_some_and(|connection| !connection.is_closed()) {
            return Ok(());
        }
        self.connection = None;
        let connection = Connection::open(&self.settings).await?;
        let target = match &self.target {
            Some(target) => target.clone(),
            None => self.open(&connection).await?,
        };
        let found = target.progress.read(&connection).await;
        // The table may have been dropped, or its row deleted. The next call looks for both again.
        self.target = found.is_ok().then(|| target.clone());
        let Some(found) = found? else {
            self.target = None;
            return Err(Error::External(format!(
                "sink '{}': its row is missing from table {}: it is recreated",
                self.settings.sink, target.progress.table
            )));
        };
        self.learn(found, &target.progress)?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Finds or creates the tables, and builds the statements that change them.
    async fn open(&self, connection: &Connection) -> Result<Target> {
        let key = self.names(self.key().iter().copied());
        let (table, takes_nulls) = table::open(connection, &self.settings, &self.columns, &key).await?;
        let progress = Progress::open(connection, &self.settings, &table.name).await?;
        let statements = Statements::new(&table, &self.names(0..self.columns.fields().len()), &key);
        Ok(Target { name: table.name, takes_nulls, statements, progress })
    }

    /// Updates the state of the sink from the progress row.
    fn learn(&mut self, found: Held, progress: &Progress) -> Result<()> {
        match &self.known {
            None if self.is_durable => {
                // The epochs published by a run without a data directory have no relation to this engine's
                // epochs.
                self.published = Some(if found.is_durable { found.epoch } else { Epoch::default() });
            }
            None if found.is_durable => return Err(progress.is_of_a_directory(&found)),
            None => {}
            Some(known) if *known == found => {}
            Some(_) if self.tried.as_ref() == Some(&found) => {
                self.published = Some(found.epoch);
                self.staged.retain(|(epoch, _)| *epoch > found.epoch);
            }
            Some(_) => return Err(progress.is_of_another()),
        }
        self.known = Some(found);
        Ok(())
    }

    /// Publishes the staged epochs up to `through`, in one transaction.
    async fn publish(&mut self, through: Epoch) -> Result<()> {
        self.connect().await?;
        // A transaction whose answer was lost may have published it.
        if self.published >= Some(through) {
            return Ok(());
        }
        let (Some(connection), Some(target), Some(known)) = (&self.connection, &self.target, &self.known)
        else {
            return Err(Error::Bug(format!("sink '{}' has no connection", self.settings.sink)));
        };
        let next = Held { epoch: through, writer: self.writer.clone(), is_durable: self.is_durable };
        let deltas: Vec<&Delta> =
            self.staged.iter().filter(|(epoch, _)| *epoch <= through).map(|(_, delta)| delta).collect();
        // Slow work without the database is done before the transaction, which holds locks.
        let changes = match &self.by_key {
            None => None,
            Some(by_key) => {
                let sums = in_sum(&deltas);
                Some(sums.iter().map(|delta| by_key.pair(delta)).collect::<Result<Vec<_>>>()?)
            }
        };
        connection.begin().await?;
        target.progress.advance(connection, known, &next).await?;
        match changes {
            None => self.insert(connection, target, &deltas).await?,
            Some(changes) => {
                for paired in changes {
                    self.change(connection, target, paired).await?;
                }
            }
        }
        self.tried = Some(next.clone());
        connection.commit().await?;
        self.known = Some(next);
        self.published = Some(through);
        self.staged.retain(|(epoch, _)| *epoch > through);
        Ok(())
    }

    async fn insert(&self, connection: &Connection, target: &Target, deltas: &[&Delta]) -> Result<()> {
        for chunk in deltas.iter().flat_map(|delta| &delta.chunks) {
            let rows = chunk.expand().map_err(|error| self.is_wrong(&error))?;
            self.run(connection, target, &target.statements.put, rows, &self.all()).await?;
        }
        Ok(())
    }

    /// Applies the changes. Deletes come first, so that unique columns outside of the key stay unique.
    async fn change(&self, connection: &Connection, target: &Target, paired: Paired) -> Result<()> {
        let take = |rows: &RecordBatch, places: Vec<u32>| {
            take_record_batch(rows, &UInt32Array::from(places)).map_err(|error| self.is_wrong(&error))
        };
        let put = paired.places.put();
        let has_nulls =
            |row: &u32| self.key().iter().any(|place| paired.old.column(*place).is_null(*row as usize));
        let (with_nulls, without): (Vec<u32>, Vec<u32>) =
            paired.places.deleted.iter().partition(|row| has_nulls(row));
        let statements = &target.statements;
        for (delete, places) in [(&statements.delete, without), (&statements.delete_with_nulls, with_nulls)] {
            if let Some(delete) = delete {
                self.run(connection, target, delete, take(&paired.old, places)?, self.key()).await?;
            }
        }
        let new = take(&paired.new, put)?;
        self.run(connection, target, &target.statements.put, new, &self.all()).await
    }

    fn all(&self) -> Vec<usize> {
        (0..self.columns.fields().len()).collect()
    }

    /// Runs a statement over rows, with their columns at `places` as its parameters.
    async fn run(
        &self,
        connection: &Connection,
        target: &Target,
        sql: &str,
        rows: RecordBatch,
        places: &[usize],
    ) -> Result<()> {
        let doing = format!("change table {}", target.name);
        for begin in (0..rows.num_rows()).step_by(ROWS_MAX) {
            let rows = rows.slice(begin, ROWS_MAX.min(rows.num_rows() - begin));
            let columns =
                places.iter().map(|place| self.texts(target, &rows, *place)).collect::<Result<Vec<_>>>()?;
            let mut from = 0;
            for to in parts(&columns, BYTES_MAX) {
                let arrays: Vec<Vec<Option<&str>>> = columns
                    .iter()
                    .map(|column| {
                        (from..to).map(|row| column.is_valid(row).then(|| column.value(row))).collect()
                    })
                    .collect();
                let parameters: Vec<Parameter<'_>> =
                    arrays.iter().map(|array| (array as &(dyn ToSql + Sync), Type::TEXT_ARRAY)).collect();
                connection.change(&doing, sql, &parameters).await?;
                from = to;
            }
        }
        Ok(())
    }

    /// Returns the values of a column as text.
    fn texts(&self, target: &Target, rows: &RecordBatch, place: usize) -> Result<StringArray> {
        let (field, column): (_, &ArrayRef) = (self.columns.field(place), rows.column(place));
        let refused = |row: usize, reason: &str| {
            Error::Invalid(format!(
                "sink '{}' can't deliver the row {}: its column '{}' {reason}",
                self.settings.sink,
                shown(rows, row),
                field.name()
            ))
        };
        if !target.takes_nulls
            && self.key().contains(&place)
            && let Some(nulls) = column.logical_nulls()
            && let Some(row) = (0..column.len()).find(|row| nulls.is_null(*row))
        {
            return Err(refused(
                row,
                "is NULL, but it is part of the key, and no key of the table is: make it UNIQUE NULLS NOT \
                 DISTINCT there (from PostgreSQL 15 on), deliver coalesce(…) of it, or leave such rows out",
            ));
        }
        texts(&self.kinds[place], field, column).map_err(|unfit| match unfit {
            Unfit::Row(row, reason) => refused(row, &reason),
            Unfit::Column(error) => refused(0, &format!("can't be written as text: {error}")),
        })
    }

    fn is_wrong(&self, error: &ArrowError) -> Error {
        Error::Bug(format!("sink '{}' got rows of another schema: {error}", self.settings.sink))
    }
}

/// Returns the net changes of several epochs. If a type can't be compared, the epochs stay separate.
fn in_sum(deltas: &[&Delta]) -> Vec<Delta> {
    let each = || deltas.iter().map(|delta| (*delta).clone()).collect();
    let Some(schema) = deltas.iter().flat_map(|delta| &delta.chunks).map(|chunk| chunk.rows.schema()).next()
    else {
        return Vec::new();
    };
    let mut all = Delta::default();
    deltas.iter().for_each(|delta| all.append((*delta).clone()));
    consolidate(all, &schema).map_or_else(|_| each(), |sum| vec![sum])
}

/// Formats a row for a message.
fn shown(rows: &RecordBatch, row: usize) -> String {
    let schema = rows.schema();
    let values = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
        let value = match column.is_null(row) {
            true => "NULL".to_string(),
            false => array_value_to_string(column, row).unwrap_or_default().escape_debug().to_string(),
        };
        format!("{} = {value}", field.name())
    });
    let text = values.collect::<Vec<_>>().join(", ");
    match text.char_indices().nth(ROW_CHARACTERS_MAX) {
        Some((end, _)) => format!("({}…)", &text[..end]),
        None => format!("({text})"),
    }
}

#[async_trait]
impl Sink for PostgresSink {
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        // An epoch that is sent again may be published already.
        if self.published >= Some(cut.epoch) {
            return Ok(());
        }
        self.staged.retain(|(epoch, _)| *epoch != cut.epoch);
        self.staged.push((cut.epoch, delta.clone()));
        Ok(())
    }

    async fn commit(&mut self, through: Epoch) -> Result<Epoch> {
        if !self.staged.iter().any(|(epoch, _)| *epoch <= through) {
            return Ok(through);
        }
        let published = self.publish(through).await;
        if published.is_err() {
            // Dropping the connection rolls back its transaction.
            self.connection = None;
        }
        published.map(|()| through)
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    async fn recover(&mut self) -> Result<Epoch> {
        self.is_durable = true;
        self.staged.clear();
        self.connect().await?;
        Ok(self.published.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use millstream_connect::Options;
    use millstream_delta::Chunk;

    use super::*;

    fn rows(rows: &[(i64, &str)]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.1))),
        ];
        let fields = vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8View, true)];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn delta(gone: &[(i64, &str)], come: &[(i64, &str)]) -> Delta {
        let mut delta = Delta::insert(rows(come));
        delta.push(Chunk::delete(rows(gone)));
        delta
    }

    fn spec(append_only: bool, key: Option<Vec<usize>>) -> SinkSpec {
        let options = [("url", "postgres://ann@h/d"), ("table", "t")];
        SinkSpec {
            name: "s".into(),
            columns: rows(&[]).schema(),
            append_only,
            key,
            auto_pace: false,
            options: Options(options.map(|(name, value)| (name.into(), value.into())).into()),
        }
    }

    #[test]
    fn what_comes_and_goes_between_two_commits_is_not_sent() {
        let epochs = [
            delta(&[], &[(1, "a"), (2, "b")]),
            delta(&[(1, "a")], &[(1, "aa"), (3, "c")]),
            delta(&[(3, "c"), (2, "b")], &[(4, "d")]),
        ];
        let sums = in_sum(&epochs.iter().collect::<Vec<_>>());
        assert_eq!(sums.len(), 1);
        let by_key = ByKey::new(&spec(false, Some(vec![0])), "", "").unwrap();
        let paired = by_key.pair(&sums[0]).unwrap();
        assert_eq!(paired.old.num_rows(), 0);
        assert_eq!(paired.new, rows(&[(1, "aa"), (4, "d")]));
    }

    #[test]
    fn rows_that_change_need_a_key() {
        let error = |spec: &SinkSpec| PostgresSink::new(spec).map(drop).unwrap_err().to_string();
        assert!(PostgresSink::new(&spec(true, None)).is_ok());
        assert!(PostgresSink::new(&spec(false, Some(vec![0]))).is_ok());
        assert!(error(&spec(false, None)).contains("no key is known for the rows of sink 's'"));
        assert!(error(&spec(false, Some(Vec::new()))).contains("delivers one row without a key"));
    }

    #[test]
    fn a_long_row_is_shown_in_part() {
        assert_eq!(shown(&rows(&[(7, "a\0b")]), 0), "(k = 7, v = a\\0b)");
        let shown = shown(&rows(&[(7, &"é".repeat(1000))]), 0);
        assert!(shown.ends_with("é…)") && shown.chars().count() == ROW_CHARACTERS_MAX + 3, "{shown}");
    }
}
