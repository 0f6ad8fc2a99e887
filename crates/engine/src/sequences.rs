//! Sequences: each gives every number once.
//!
//! | kind | created by | saved |
//! | --- | --- | --- |
//! | of an identity column | CREATE TABLE | with its table; the numbers of new rows, also those of a replayed journal, move it on |
//! | an object | CREATE SEQUENCE | in checkpoints, and in an entry of the journal before a number leaves the engine |
//!
//! So after a crash a sequence gives no number that a row or a client has. `setval`, and `nextval` of an identity column's
//! sequence in a statement, are journalled, too.

mod functions;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use millstream_delta::Delta;
use millstream_durable::SequenceValue;
use millstream_sql::{Error, Identity, Result, SequenceOptions, sqlstate};
use millstream_state::Tables;

use crate::catalog::{Definition, Object};
use crate::error;
use crate::event::{Event, Reply};
pub(crate) use functions::{SessionSequences, bind, moves, register};
pub(crate) use names::{is_sequence, owner_of, read_by_defaults, with_full_names, with_renamed_sequence};

/// A sequence.
#[derive(Debug)]
pub(crate) struct Sequence(Mutex<Numbers>);

#[derive(Clone, Debug)]
struct Numbers {
    options: SequenceOptions,
    last: i64,
    /// False if `last` is the next number.
    is_called: bool,
    /// True if a number was given that no row of the sequence's table has to keep.
    is_unsaved: bool,
}

impl Sequence {
    fn new(options: SequenceOptions) -> Sequence {
        let last = options.start;
        Sequence(Mutex::new(Numbers { options, last, is_called: false, is_unsaved: false }))
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    /// Takes the next number.
    fn next(&mut self, name: &str) -> Result<i64> {
        let SequenceOptions { increment, min, max, cycle, .. } = self.options;
        let next = match self.is_called {
            false => self.last,
            true => match self.last.checked_add(increment).filter(|next| (min..=max).contains(next)) {
                Some(next) => next,
                None if cycle => {
                    if increment > 0 {
                        min
                    } else {
                        max
                    }
                }
                None => {
                    let (bound, number) = if increment > 0 { ("maximum", max) } else { ("minimum", min) };
                    let error = format!("nextval: reached {bound} value of sequence \"{name}\" ({number})");
                    return Err(Error::invalid(error)
                        .code(sqlstate::SEQUENCE_GENERATOR_LIMIT_EXCEEDED)
                        .hint(
                            "ALTER SEQUENCE … RESTART begins again; CYCLE lets it begin again by itself.",
                        ));
                }
            },
        };
        (self.last, self.is_called) = (next, true);
        Ok(next)
    }

    /// Moves on past a number that a row has.
    fn pass(&mut self, number: i64) {
        let is_up = self.options.increment > 0;
        let is_ahead = match self.is_called {
            true if is_up => self.last >= number,
            true => self.last <= number,
            false if is_up => self.last > number,
            false => self.last < number,
        };
        if !is_ahead {
            (self.last, self.is_called) = (number, true);
        }
    }

    fn set(&mut self, name: &str, number: i64, is_called: bool) -> Result<()> {
        let SequenceOptions { min, max, .. } = self.options;
        if !(min..=max).contains(&number) {
            let error =
                format!("setval: value {number} is out of bounds for sequence \"{name}\" ({min}..{max})");
            return Err(Error::invalid(error).code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE));
        }
        (self.last, self.is_called, self.is_unsaved) = (number, is_called, true);
        Ok(())
    }
}

/// The sequences of a table, each with the number of its column.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableSequences {
    columns: Vec<(usize, Arc<Sequence>)>,
}

impl TableSequences {
    /// Moves the sequences on past the numbers of new rows.
    pub(crate) fn pass(&self, rows: &RecordBatch) {
        for (place, sequence) in &self.columns {
            let Some(column) = rows.columns().get(*place) else { continue };
            let Ok(numbers) = cast(column, &DataType::Int64) else { continue };
            let numbers = numbers.as_primitive::<Int64Type>();
            let mut known = sequence.lock();
            let last = match known.options.increment > 0 {
                true => arrow::compute::max(numbers),
                false => arrow::compute::min(numbers),
            };
            last.into_iter().for_each(|number| known.pass(number));
        }
    }

    /// The same for the rows of a change.
    pub(crate) fn pass_all(&self, delta: &Delta) {
        if !self.columns.is_empty() {
            delta.chunks.iter().for_each(|chunk| self.pass(&chunk.rows));
        }
    }

    /// Follows the columns, which have these former places, and may have other types. Sequences of dropped columns go.
    pub(crate) fn move_columns(&mut self, former: &[Option<usize>], schema: &Schema) {
        let now = |before: usize| former.iter().position(|source| *source == Some(before));
        let columns = std::mem::take(&mut self.columns).into_iter();
        self.columns = columns.filter_map(|(place, sequence)| Some((now(place)?, sequence))).collect();
        for (place, sequence) in &self.columns {
            let field = schema.field(*place);
            if let Some(Identity { start, increment, .. }) = Identity::of(field) {
                sequence.lock().options = SequenceOptions::of_identity(field.data_type(), start, increment);
            }
        }
    }

    /// Saves the numbers for a checkpoint.
    pub(crate) fn save(&self, all: &mut Tables) {
        for (place, sequence) in &self.columns {
            let known = sequence.lock();
            all.put_number(&format!("sequence.{place}"), known.last);
            all.put_number(&format!("sequence.{place}.called"), i64::from(known.is_called));
        }
    }

    /// Restores the numbers that a checkpoint has. Older checkpoints have the next number alone.
    pub(crate) fn load(&self, all: &mut Tables) {
        for (place, sequence) in &self.columns {
            if let Some(last) = all.take_number_if(&format!("sequence.{place}")) {
                let mut known = sequence.lock();
                known.last = last;
                known.is_called = all.take_number_if(&format!("sequence.{place}.called")) == Some(1);
            }
        }
    }
}

/// A sequence by its name.
enum Held {
    /// One of an identity column, which exists as long as its table does.
    OfColumn(Weak<Sequence>),
    /// An object.
    Object(Arc<Sequence>),
}

impl Held {
    fn sequence(&self) -> Option<Arc<Sequence>> {
        match self {
            Held::OfColumn(sequence) => sequence.upgrade(),
            Held::Object(sequence) => Some(sequence.clone()),
        }
    }
}

/// All sequences by name. The loop creates and removes them; statements take numbers of them.
#[derive(Default)]
pub(crate) struct Sequences {
    all: Mutex<BTreeMap<String, Held>>,
    /// True if a sequence may have to be journalled.
    is_unsaved: AtomicBool,
}

impl fmt::Debug for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequences").finish_non_exhaustive()
    }
}

impl Sequences {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the sequences of a table's columns.
    pub(crate) fn create(&self, schema: &SchemaRef) -> TableSequences {
        let mut created = TableSequences::default();
        self.follow(schema, &mut created);
        created
    }

    /// Creates the sequences of columns that have become identities, and removes those of columns that are none any more.
    pub(crate) fn follow(&self, schema: &SchemaRef, table: &mut TableSequences) {
        let identity = |place: usize| schema.fields().get(place).and_then(|field| Identity::of(field));
        let is_left = |(place, _): &mut (usize, Arc<Sequence>)| identity(*place).is_none();
        let left: Vec<Arc<Sequence>> = table.columns.extract_if(.., is_left).map(|(_, left)| left).collect();
        let mut all = self.lock();
        // A statement may still hold a sequence that is left.
        let is_there = |sequence: Arc<Sequence>| !left.iter().any(|other| Arc::ptr_eq(other, &sequence));
        all.retain(|_, held| held.sequence().is_some_and(is_there));
        for (place, field) in schema.fields().iter().enumerate() {
            let Some(Identity { start, increment, sequence: name, .. }) = identity(place) else { continue };
            if table.columns.iter().any(|(known, _)| *known == place) {
                continue;
            }
            let options = SequenceOptions::of_identity(field.data_type(), start, increment);
            let sequence = Arc::new(Sequence::new(options));
            all.insert(name, Held::OfColumn(Arc::downgrade(&sequence)));
            table.columns.push((place, sequence));
        }
    }

    /// Adds the sequence of a new object, or replaces the options of one that is there. It continues after its last number.
    pub(crate) fn define(&self, object: &Object) {
        let Definition::Sequence(options) = &object.definition else { return };
        match self.find(&object.name) {
            Some(sequence) => sequence.lock().options = options.clone(),
            None => self.add(&object.name, options),
        }
    }

    fn add(&self, name: &str, options: &SequenceOptions) {
        self.lock().insert(name.into(), Held::Object(Arc::new(Sequence::new(options.clone()))));
    }

    /// Removes the sequence of a dropped object.
    pub(crate) fn remove(&self, name: &str) {
        let mut all = self.lock();
        if matches!(all.get(name), Some(Held::Object(_))) {
            all.remove(name);
        }
    }

    /// Renames the sequence of an object.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        let mut all = self.lock();
        if matches!(all.get(from), Some(Held::Object(_)))
            && let Some(held) = all.remove(from)
        {
            all.insert(to.into(), held);
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Sequence>> {
        self.lock().get(name)?.sequence()
    }

    /// Notes that a sequence has to be journalled.
    fn note_unsaved(&self, is_unsaved: bool) {
        if is_unsaved {
            self.is_unsaved.store(true, Ordering::Release);
        }
    }

    /// Returns the sequences that moved on since the last call, for the journal.
    pub(crate) fn take_unsaved(&self) -> Vec<SequenceValue> {
        if !self.is_unsaved.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut moved = Vec::new();
        for (name, held) in self.lock().iter() {
            let Some(sequence) = held.sequence() else { continue };
            let mut numbers = sequence.lock();
            if std::mem::take(&mut numbers.is_unsaved) {
                moved.push(SequenceValue {
                    sequence: name.clone(),
                    last: numbers.last,
                    is_called: numbers.is_called,
                });
            }
        }
        moved
    }

    /// Restores the value that an entry of the journal has.
    pub(crate) fn restore(&self, value: &SequenceValue) {
        if let Some(sequence) = self.find(&value.sequence) {
            let mut numbers = sequence.lock();
            (numbers.last, numbers.is_called) = (value.last, value.is_called);
        }
    }

    /// Sets a sequence to the number of RESTART, which is the next one.
    pub(crate) fn restart(&self, name: &str, number: i64) -> Result<()> {
        let sequence = self.find(name).ok_or_else(|| missing(name))?;
        sequence.lock().set(name, number, false)?;
        self.note_unsaved(true);
        Ok(())
    }

    /// Saves the sequences of objects for a checkpoint.
    pub(crate) fn save(&self) -> Tables {
        let mut all = Tables::default();
        for (name, held) in self.lock().iter() {
            if let Held::Object(sequence) = held {
                let numbers = sequence.lock();
                all.put_number(&format!("last.{name}"), numbers.last);
                all.put_number(&format!("called.{name}"), i64::from(numbers.is_called));
            }
        }
        all
    }

    /// Restores them. The same objects exist already.
    pub(crate) fn load(&self, all: &mut Tables) {
        for (name, held) in self.lock().iter() {
            if let Held::Object(sequence) = held
                && let Some(last) = all.take_number_if(&format!("last.{name}"))
            {
                let mut numbers = sequence.lock();
                numbers.last = last;
                numbers.is_called = all.take_number_if(&format!("called.{name}")) == Some(1);
            }
        }
    }

    /// Returns the row of an object's sequence, as `SELECT * FROM s` reads it.
    pub(crate) fn row(&self, name: &str) -> Result<Option<RecordBatch>> {
        let Some(sequence) = self.find(name) else { return Ok(None) };
        let Numbers { last, is_called, .. } = *sequence.lock();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![last])),
            Arc::new(Int64Array::from(vec![0])),
            Arc::new(BooleanArray::from(vec![is_called])),
        ];
        RecordBatch::try_new(SEQUENCE_COLUMNS.clone(), columns).map(Some).map_err(error::arrow)
    }

    /// Returns the last number of a sequence, or the first one, if it gave none yet.
    pub(crate) fn position(&self, name: &str) -> Option<i64> {
        Some(self.find(name)?.lock().last)
    }

    /// Returns the last number that a sequence gave; none before the first one.
    pub(crate) fn last(&self, name: &str) -> Option<i64> {
        let sequence = self.find(name)?;
        let numbers = sequence.lock();
        numbers.is_called.then_some(numbers.last)
    }
}

/// The columns of a sequence as a relation: those of PostgreSQL.
pub(crate) static SEQUENCE_COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("last_value", DataType::Int64, false),
        Field::new("log_cnt", DataType::Int64, false),
        Field::new("is_called", DataType::Boolean, false),
    ]))
});

/// Journals the sequences that moved on. Returns when their numbers survive a crash.
pub(crate) async fn save(events: &Sender<Event>) -> Result<()> {
    let (reply, answer) = Reply::new();
    events.send(Event::SaveSequences { reply }).map_err(|_| error::stopped())?;
    answer.await.map_err(|_| error::stopped())?
}

fn missing(name: &str) -> Error {
    Error::invalid(format!("sequence \"{name}\" not found"))
        .hint(
            "CREATE SEQUENCE makes one; an identity column has one: id BIGINT GENERATED ALWAYS AS IDENTITY.",
        )
        .code(sqlstate::UNDEFINED_TABLE)
}

#[cfg(test)]
mod tests {
    use millstream_sql::TokenReader;

    use super::*;

    fn numbers(text: &str) -> Numbers {
        let options = SequenceOptions::read(&mut TokenReader::new(text).unwrap(), None).unwrap().options;
        Sequence::new(options).lock().clone()
    }

    #[test]
    fn a_sequence_gives_each_number_once_and_passes_those_of_rows() {
        let mut up = numbers("INCREMENT 2");
        assert_eq!([up.next("s").unwrap(), up.next("s").unwrap()], [1, 3]);
        up.pass(10);
        up.pass(4);
        assert_eq!(up.next("s").unwrap(), 12);
        let mut down = numbers("INCREMENT -1");
        down.pass(-5);
        assert_eq!(down.next("s").unwrap(), -6);
    }

    #[test]
    fn a_sequence_ends_or_starts_again_at_its_limit() {
        let mut ends = numbers("MAXVALUE 2");
        assert_eq!([ends.next("s").unwrap(), ends.next("s").unwrap()], [1, 2]);
        let error = ends.next("s").unwrap_err();
        assert_eq!(error.message, "nextval: reached maximum value of sequence \"s\" (2)");
        assert_eq!(error.sqlstate(), "2200H");
        let mut again = numbers("INCREMENT -1 MINVALUE -2 CYCLE");
        let given: Vec<i64> = (0..4).map(|_| again.next("s").unwrap()).collect();
        assert_eq!(given, [-1, -2, -1, -2]);
        let mut full = numbers("");
        full.pass(i64::MAX);
        assert!(full.next("s").is_err());
    }

    #[test]
    fn setval_gives_the_last_or_the_next_number_within_the_limits() {
        let mut of = numbers("MAXVALUE 9");
        of.set("s", 5, true).unwrap();
        assert_eq!(of.next("s").unwrap(), 6);
        of.set("s", 5, false).unwrap();
        assert_eq!(of.next("s").unwrap(), 5);
        let error = of.set("s", 10, true).unwrap_err();
        assert_eq!(error.message, "setval: value 10 is out of bounds for sequence \"s\" (1..9)");
    }

    #[test]
    fn moved_sequences_are_journalled_once_and_restored() {
        let all = Sequences::default();
        let options = numbers("").options;
        all.add("s", &options);
        all.restart("s", 7).unwrap();
        let moved = all.take_unsaved();
        assert_eq!(moved, [SequenceValue { sequence: "s".into(), last: 7, is_called: false }]);
        assert!(all.take_unsaved().is_empty());
        let other = Sequences::default();
        other.add("s", &options);
        other.restore(&moved[0]);
        assert_eq!(other.find("s").unwrap().lock().next("s").unwrap(), 7);
        let mut saved = other.save();
        all.load(&mut saved);
        assert_eq!((all.last("s"), saved.left()), (Some(7), None));
    }
}
