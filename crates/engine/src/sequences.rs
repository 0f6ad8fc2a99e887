//! The sequences of identity columns: each gives every number once.
//!
//! A sequence belongs to its table, which keeps it in checkpoints. The numbers of the rows that a table takes in move it on,
//! also those of a replayed journal. So after a crash it gives no number that a row has or had.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millstream_delta::Delta;
use millstream_sql::{Error, Identity, sqlstate};

/// The numbers of one identity column.
#[derive(Debug)]
pub(crate) struct Sequence {
    next: AtomicI64,
    increment: i64,
}

impl Sequence {
    /// Takes the next number; `None` if there is none left.
    fn next(&self) -> Option<i64> {
        self.next
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |next| next.checked_add(self.increment))
            .ok()
    }

    /// Moves on past a number that a row has.
    fn pass(&self, number: i64) {
        let after = number.saturating_add(self.increment);
        match self.increment > 0 {
            true => self.next.fetch_max(after, Ordering::AcqRel),
            false => self.next.fetch_min(after, Ordering::AcqRel),
        };
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
            let last = match sequence.increment > 0 {
                true => arrow::compute::max(numbers),
                false => arrow::compute::min(numbers),
            };
            last.into_iter().for_each(|number| sequence.pass(number));
        }
    }

    /// The same for the rows of a change.
    pub(crate) fn pass_all(&self, delta: &Delta) {
        if !self.columns.is_empty() {
            delta.chunks.iter().for_each(|chunk| self.pass(&chunk.rows));
        }
    }

    /// Returns the next numbers, for a checkpoint.
    pub(crate) fn saved(&self) -> impl Iterator<Item = (String, i64)> {
        self.columns
            .iter()
            .map(|(place, sequence)| (saved_name(*place), sequence.next.load(Ordering::Acquire)))
    }

    /// Restores the numbers that a checkpoint has.
    pub(crate) fn restore(&self, mut saved: impl FnMut(&str) -> Option<i64>) {
        for (place, sequence) in &self.columns {
            if let Some(next) = saved(&saved_name(*place)) {
                sequence.next.store(next, Ordering::Release);
            }
        }
    }
}

fn saved_name(place: usize) -> String {
    format!("sequence.{place}")
}

/// All sequences by name. They exist as long as their tables do.
#[derive(Default)]
pub(crate) struct Sequences {
    all: Mutex<BTreeMap<String, Weak<Sequence>>>,
}

impl fmt::Debug for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequences").finish_non_exhaustive()
    }
}

impl Sequences {
    /// Creates the sequences of a table's columns.
    pub(crate) fn create(&self, schema: &SchemaRef) -> TableSequences {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, sequence| sequence.strong_count() > 0);
        let mut columns = Vec::new();
        for (place, field) in schema.fields().iter().enumerate() {
            if let Some(Identity { start, increment, sequence: name, .. }) = Identity::of(field) {
                let sequence = Arc::new(Sequence { next: AtomicI64::new(start), increment });
                all.insert(name, Arc::downgrade(&sequence));
                columns.push((place, sequence));
            }
        }
        TableSequences { columns }
    }

    fn find(&self, name: &str) -> Option<Arc<Sequence>> {
        let name = name.strip_prefix("public.").unwrap_or(name);
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.upgrade()
    }

    /// Returns the function `nextval('sequence')`.
    pub(crate) fn function(self: &Arc<Self>) -> ScalarUDF {
        let signature = Signature::exact(vec![DataType::Utf8View], Volatility::Volatile);
        ScalarUDF::from(NextValue { sequences: self.clone(), signature })
    }
}

/// `nextval('sequence')`: another number in each row.
#[derive(Debug)]
struct NextValue {
    sequences: Arc<Sequences>,
    signature: Signature,
}

impl PartialEq for NextValue {
    fn eq(&self, other: &NextValue) -> bool {
        Arc::ptr_eq(&self.sequences, &other.sequences)
    }
}

impl Eq for NextValue {}

impl std::hash::Hash for NextValue {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for NextValue {
    fn name(&self) -> &str {
        "nextval"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let rows = arguments.number_rows;
        let Some(name) = arguments.args.into_iter().next() else {
            return Err(Error::bug("nextval was called without an argument").into());
        };
        let names = name.into_array(rows)?;
        let names = names.as_string_view();
        let mut last: Option<(&str, Arc<Sequence>)> = None;
        let mut numbers = Vec::with_capacity(rows);
        for name in names {
            let Some(name) = name else {
                numbers.push(None);
                continue;
            };
            let sequence = match &last {
                Some((known, sequence)) if *known == name => sequence.clone(),
                _ => self.sequences.find(name).ok_or_else(|| {
                    Error::invalid(format!("sequence \"{name}\" not found"))
                        .hint("An identity column has a sequence: id BIGINT GENERATED ALWAYS AS IDENTITY.")
                        .code(sqlstate::UNDEFINED_TABLE)
                })?,
            };
            let number = sequence.next().ok_or_else(|| {
                Error::invalid(format!("sequence \"{name}\" has no number left"))
                    .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
            })?;
            last = Some((name, sequence));
            numbers.push(Some(number));
        }
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers));
        Ok(ColumnarValue::Array(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_gives_each_number_once_and_passes_those_of_rows() {
        let up = Sequence { next: AtomicI64::new(1), increment: 2 };
        assert_eq!([up.next(), up.next()], [Some(1), Some(3)]);
        up.pass(10);
        up.pass(4);
        assert_eq!(up.next(), Some(12));
        let down = Sequence { next: AtomicI64::new(-1), increment: -1 };
        down.pass(-5);
        assert_eq!(down.next(), Some(-6));
        let full = Sequence { next: AtomicI64::new(i64::MAX), increment: 1 };
        assert_eq!(full.next(), None);
    }
}
