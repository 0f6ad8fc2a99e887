//! Backfill of a new query on a worker of the query pool, in pieces between which it can be cancelled.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::LogicalPlan;
use futures::future::try_join_all;
use millstream_delta::Delta;
use millstream_sql::Result;

use crate::catalog::{Catalog, Definition, Object, Runs};
use crate::content::Content;
use crate::engine::Shared;
use crate::event::{Apart, Change, Event, Question};
use crate::jobs;
use crate::query_pool;
use crate::run::{
    BACKFILL_EPOCHS_MAX, Backfill, Handover, PartRows, REST_ROWS_MAX, ROUNDS_MAX, Since, together,
};
use crate::statement_memory;

/// A completed backfill with its query and inputs. It can be reused while these stay the same.
pub(crate) struct Prefilled {
    handover: Handover,
    object: Arc<Object>,
    reads: Vec<Arc<Object>>,
}

impl Prefilled {
    /// True if it belongs to this object and the inputs of its query are unchanged.
    fn is_for(&self, object: &Object, catalog: &Catalog) -> bool {
        let same_plan = match (&self.object.definition, &object.definition) {
            (
                Definition::MaterializedView { plan, on_close, on_error, .. },
                Definition::MaterializedView { plan: new, on_close: closes, on_error: errs, .. },
            ) => plan == new && on_close == closes && on_error == errs,
            (
                Definition::Sink { query: Some(Runs::Maintained { plan, .. }), .. },
                Definition::Sink { query: Some(Runs::Maintained { plan: new, .. }), .. },
            ) => plan == new,
            _ => false,
        };
        let same_reads = self
            .reads
            .iter()
            .all(|read| catalog.find(&read.name).is_some_and(|found| Arc::ptr_eq(found, read)));
        same_plan && same_reads && self.object.name == object.name && self.object.reads == object.reads
    }
}

/// Backfills the only object of a group of changes, if that takes long. If the catalog has changed in
/// other places meanwhile, reuses the earlier backfill.
pub(crate) async fn prefill(
    shared: &Shared,
    catalog: &Catalog,
    changes: &mut [Change],
    before: Option<Prefilled>,
) -> Result<Option<Prefilled>> {
    let [Change::Create { object, backfill, .. }] = changes else { return Ok(None) };
    if !is_steady(object)? {
        return Ok(None);
    }
    let prefilled = match before.filter(|before| before.is_for(object, catalog)) {
        Some(before) => before,
        None => {
            let (base, asked) = (catalog.version, object.clone());
            let begun =
                shared.ask(|reply| Event::Apart(Apart::Backfill { base, object: asked, reply })).await?;
            let Some(begun) = begun else { return Ok(None) };
            let (settings, _) = shared.ask(|reply| Event::Ask(Question::Settings { reply })).await?;
            let (_, memory) = statement_memory::of_new_query(&shared.statements.memory, &settings);
            let begun = BackfillWorker { shared, memory }.take_in(begun).await?;
            let reads = object.reads.iter().filter_map(|name| catalog.find(name).cloned()).collect();
            Prefilled { handover: Arc::new(Mutex::new(Some(begun))), object: object.clone(), reads }
        }
    };
    *backfill = Some(prefilled.handover.clone());
    Ok(Some(prefilled))
}

/// Takes the rows of a new query's inputs into its operators, then the changes since. It owns the memory of the
/// statement, which grows with them.
struct BackfillWorker<'a> {
    shared: &'a Shared,
    memory: MemoryReservation,
}

impl BackfillWorker<'_> {
    async fn take_in(&self, mut backfill: Box<Backfill>) -> Result<Box<Backfill>> {
        let inputs: Vec<Content> = std::mem::take(&mut backfill.inputs);
        let inputs = try_join_all(inputs.into_iter().map(Content::batches)).await?;
        let rows = inputs.iter().flatten().map(|batch| batch.num_rows() as u64).sum();
        if let Some(job) = jobs::current() {
            job.rows_total.store(rows, Ordering::Relaxed);
        }
        backfill = match backfill.costs_the_whole() {
            true => self.take_piece(backfill, inputs.into_iter().map(Delta::from_iter).collect()).await?,
            false => self.take_pieces(backfill, inputs).await?,
        };
        for _ in 0..ROUNDS_MAX {
            let (number, places) = (backfill.pin.guard.number, backfill.pin.places.clone());
            let names = backfill.reads();
            let event = |reply| Event::Apart(Apart::BackfillSince { number, names, places, reply });
            let Since { epochs, places } = self.shared.ask(event).await?;
            backfill.pin.places = places;
            let rows: usize = epochs.iter().flat_map(|(_, inputs)| inputs).map(Delta::num_rows).sum();
            let is_all = epochs.len() < BACKFILL_EPOCHS_MAX;
            if let Some((_, inputs)) = together(epochs.into_iter()) {
                backfill = self.take_piece(backfill, inputs).await?;
            }
            if is_all && rows <= REST_ROWS_MAX {
                break;
            }
        }
        Ok(backfill)
    }

    /// Takes in the rows of the inputs, one input after the other.
    async fn take_pieces(
        &self,
        mut backfill: Box<Backfill>,
        inputs: Vec<Vec<RecordBatch>>,
    ) -> Result<Box<Backfill>> {
        let count = inputs.len();
        // Operators begin with a step, also over inputs without rows.
        backfill = self.take_piece(backfill, vec![Delta::default(); count]).await?;
        let mut size = PartRows::default();
        for (input, batches) in inputs.into_iter().enumerate() {
            for batch in batches {
                let mut offset = 0;
                while offset < batch.num_rows() {
                    let begun = Instant::now();
                    let length = size.get().min(batch.num_rows() - offset);
                    let mut deltas = vec![Delta::default(); count];
                    deltas[input] = Delta::insert(batch.slice(offset, length));
                    backfill = self.take_piece(backfill, deltas).await?;
                    offset += length;
                    size.took(begun.elapsed());
                    if let Some(job) = jobs::current() {
                        job.rows_done.fetch_add(length as u64, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(backfill)
    }

    /// Takes in some rows, on a thread where operators may block on their plans. A cancelled statement ends
    /// after this.
    async fn take_piece(&self, mut backfill: Box<Backfill>, inputs: Vec<Delta>) -> Result<Box<Backfill>> {
        let step = move || {
            backfill.step(&inputs.iter().collect::<Vec<_>>());
            backfill
        };
        let backfill = query_pool::blocking(&self.shared.handle, step).await?;
        self.memory.try_resize(backfill.memory_bytes())?;
        Ok(backfill)
    }
}

/// True if the object's query gives the same answer whenever it is evaluated.
fn is_steady(object: &Object) -> Result<bool> {
    let plan: &LogicalPlan = match &object.definition {
        Definition::MaterializedView { plan, .. } => plan,
        Definition::Sink { query: Some(Runs::Maintained { plan, .. }), .. } => plan,
        _ => return Ok(false),
    };
    let mut steady = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            steady &= !expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(steady)
}
