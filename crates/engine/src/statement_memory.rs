//! The memory of statements: each up to `query_memory_limit`, all together up to `memory_limit`.
//!
//! DataFusion's operators request the memory that they keep. If there is no more, operators that can spill
//! write rows to files. Otherwise only the requesting statement fails, with SQLSTATE 53200.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayData, RecordBatch};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::session_state::SessionState;

use crate::jobs;
use crate::settings::Settings;

/// The minimum limit for all statements together, even if `memory_limit` is lower.
const ALL_BYTES_MIN: usize = 256 << 20;

/// The bytes taken by all running statements.
pub(crate) type AllStatements = Arc<AtomicUsize>;

/// The memory of one statement.
#[derive(Debug)]
pub(crate) struct StatementMemory {
    used: AtomicUsize,
    limit: usize,
    all: AllStatements,
    all_limit: usize,
}

impl StatementMemory {
    /// Creates the memory pool of a statement that begins under these settings.
    pub(crate) fn begin(all: &AllStatements, settings: &Settings) -> Arc<dyn MemoryPool> {
        let all_limit = settings.memory.limit.unwrap_or(usize::MAX).max(ALL_BYTES_MIN);
        let limit = settings.memory.query_limit.unwrap_or((all_limit / 2).max(ALL_BYTES_MIN));
        let memory = StatementMemory { used: AtomicUsize::new(0), limit, all: all.clone(), all_limit };
        let memory: Arc<dyn MemoryPool> = Arc::new(memory);
        jobs::counts_memory(&memory);
        memory
    }

    fn take(used: &AtomicUsize, bytes: usize, limit: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn refusal(&self, bytes: usize, whose: &str, used: usize, limit: usize) -> DataFusionError {
        DataFusionError::ResourcesExhausted(format!(
            "the statement needs {bytes} more bytes of memory, but {whose} already {used} of {limit}"
        ))
    }
}

impl fmt::Display for StatementMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statement(used: {}, limit: {})", self.reserved(), self.limit)
    }
}

impl MemoryPool for StatementMemory {
    fn name(&self) -> &str {
        "statement"
    }

    fn grow(&self, _: &MemoryReservation, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn try_grow(&self, _: &MemoryReservation, bytes: usize) -> Result<()> {
        if !StatementMemory::take(&self.used, bytes, self.limit) {
            return Err(self.refusal(bytes, "it has", self.reserved(), self.limit));
        }
        if !StatementMemory::take(&self.all, bytes, self.all_limit) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            let used = self.all.load(Ordering::Relaxed);
            return Err(self.refusal(bytes, "all statements together have", used, self.all_limit));
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

/// Returns the context in which DataFusion runs a statement's plan. It has no functions: a plan's expressions hold theirs, and
/// copies of the maps take longer than short statements.
pub(crate) fn task(state: &SessionState, memory: Arc<dyn MemoryPool>) -> Arc<TaskContext> {
    let mut runtime = state.runtime_env().as_ref().clone();
    runtime.memory_pool = memory;
    let (id, config, runtime) = (state.session_id().to_string(), state.config().clone(), Arc::new(runtime));
    let (scalar, lambda, aggregate, window) = Default::default();
    Arc::new(TaskContext::new(None, id, config, scalar, lambda, aggregate, window, runtime))
}

/// Creates a reservation for memory outside DataFusion's operators. Dropping it returns the memory.
pub(crate) fn reservation(memory: &Arc<dyn MemoryPool>, name: &str) -> MemoryReservation {
    MemoryConsumer::new(name).register(memory)
}

/// Creates the memory pool of a statement that creates a query, and a reservation for the query's state.
pub(crate) fn of_new_query(
    all: &AllStatements,
    settings: &Settings,
) -> (Arc<dyn MemoryPool>, MemoryReservation) {
    let pool = StatementMemory::begin(all, settings);
    let state = reservation(&pool, "the state of the new query");
    (pool, state)
}

/// The buffers counted so far, each once: batches are often slices of the same buffers.
#[derive(Debug, Default)]
pub(crate) struct Buffers(HashSet<usize>);

impl Buffers {
    /// Returns the size of a batch's buffers that weren't counted before.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> usize {
        batch.columns().iter().map(|column| self.add_data(&column.to_data())).sum()
    }

    fn add_data(&mut self, data: &ArrayData) -> usize {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        let new = data.buffers().iter().chain(nulls).filter(|buffer| {
            let address = buffer.data_ptr().as_ptr().addr();
            self.0.insert(address)
        });
        let own: usize = new.map(|buffer| buffer.capacity()).sum();
        own + data.child_data().iter().map(|child| self.add_data(child)).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::settings::MemorySettings;

    fn memory(all: &AllStatements, limit: usize, all_limit: usize) -> Arc<dyn MemoryPool> {
        Arc::new(StatementMemory { used: AtomicUsize::new(0), limit, all: all.clone(), all_limit })
    }

    #[test]
    fn a_statement_has_its_own_limit_and_gives_all_back() {
        let all = AllStatements::default();
        let (one, other) = (memory(&all, 100, 150), memory(&all, 100, 150));
        let first = reservation(&one, "rows");
        first.try_grow(80).unwrap();
        assert!(first.try_grow(21).unwrap_err().to_string().contains("it has already 80 of 100"));
        let second = reservation(&other, "rows");
        let refused = second.try_grow(71).unwrap_err().to_string();
        assert!(refused.contains("all statements together have already 80 of 150"), "{refused}");
        assert_eq!(other.reserved(), 0);
        second.try_grow(70).unwrap();
        drop((first, second));
        assert_eq!((one.reserved(), other.reserved(), all.load(Ordering::Relaxed)), (0, 0, 0));
    }

    #[test]
    fn slices_of_a_batch_count_once() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
        let batch = RecordBatch::try_from_iter([("a", column.clone()), ("b", column)]).unwrap();
        let mut buffers = Buffers::default();
        let bytes: usize = (0..100).map(|part| buffers.add(&batch.slice(part * 100, 100))).sum();
        assert!((80_000..90_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn state_that_may_take_nothing_leaves_statements_their_least() {
        let all = AllStatements::default();
        let of = |memory_limit, query_memory_limit| {
            let memory = MemorySettings { limit: memory_limit, query_limit: query_memory_limit };
            let settings = Settings { memory, ..Settings::default() };
            StatementMemory::begin(&all, &settings).memory_limit()
        };
        assert!(matches!(of(Some(1), None), MemoryLimit::Finite(ALL_BYTES_MIN)));
        assert!(matches!(of(Some(4 << 30), None), MemoryLimit::Finite(bytes) if bytes == 2 << 30));
        assert!(matches!(of(Some(1), Some(100)), MemoryLimit::Finite(100)));
    }
}
