//! What a query keeps rows in, and what is kept of its result beside its operators.

use millstream_flow::{Explained, Growth, Meter};
use millstream_state::Store;

use super::{Kept, RunningQuery};
use crate::settings::interval_text;

impl RunningQuery {
    /// Shows what its rows lie in that may be read from files; nothing of a flow that a thread steps.
    pub(crate) fn each_store(&mut self, show: &mut dyn FnMut(&mut Store)) {
        if let Some(flow) = self.flow.here_mut() {
            flow.each_store(show);
        }
        if let Kept::Beside(rows) = &mut self.kept {
            show(rows.store_mut());
        }
        if let Some(batches) = &mut self.batches {
            batches.each_store(show);
        }
    }

    /// How many bytes of its rows are in files.
    pub(crate) fn spilled_bytes(&self) -> usize {
        let kept = if let Kept::Beside(rows) = &self.kept { rows.spilled_bytes() } else { 0 };
        self.flow.spilled_bytes() + kept
    }
}

impl Kept {
    /// What is kept beside the operators' state, for EXPLAIN; `closed` is what these keep of closed windows.
    pub(super) fn explained(&self, closed: Option<(usize, usize)>) -> Option<Explained> {
        let mut meter = Meter::default();
        let (state, growth, state_rows, state_bytes) = match self {
            Kept::Nothing => return None,
            Kept::Operators => {
                let (rows, bytes) = closed?;
                ("the rows of closed windows".to_string(), Growth::With("the result".into()), rows, bytes)
            }
            Kept::Beside(rows) => {
                meter.spilled_bytes = rows.spilled_bytes();
                let growth = Growth::With("the result".into());
                ("its rows".to_string(), growth, rows.num_rows(), rows.memory_bytes())
            }
            Kept::Newest(rows) => {
                let state = format!("the rows of the last {}", interval_text(rows.length()));
                let growth = Growth::BoundedBy("its retention".into());
                (state, growth, rows.num_rows(), rows.memory_bytes())
            }
        };
        Some(Explained {
            state,
            growth,
            state_rows,
            state_bytes,
            meter,
            ..Explained::above(0, "Result".into(), false)
        })
    }
}
