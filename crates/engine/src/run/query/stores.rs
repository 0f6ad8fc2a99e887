//! The stores of a query's rows, and the rows that it keeps of its result beside its operators.

use millstream_flow::{Explained, ExplainedState, Growth, Meter};
use millstream_state::{Rows, Spillable};

use super::beside::Beside;
use super::{ResultRows, RunningQuery};
use crate::run::batches::Batches;
use crate::settings::interval_text;

impl RunningQuery {
    /// Shows each store that can spill; a lent flow shows none.
    pub(crate) fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        if let Some(flow) = self.flow.here_mut() {
            flow.each_store(show);
        }
        if let ResultRows::Beside(Beside::Here(rows)) = &mut self.result.rows {
            show(rows);
        }
        if let Some(batches) = &mut self.batches {
            batches.each_store(show);
        }
    }

    /// Returns the bytes of spilled state.
    pub(crate) fn spilled_bytes(&self) -> usize {
        let kept = self.result.rows.spilled_bytes();
        let batches = self.batches.as_ref().map_or(0, Batches::spilled_bytes);
        self.flow.spilled_bytes() + kept + batches
    }
}

impl ResultRows {
    /// Returns the bytes of rows in files, beside the operators.
    pub(super) fn spilled_bytes(&self) -> usize {
        if let ResultRows::Beside(rows) = self { rows.spilled_bytes() } else { 0 }
    }

    /// Lends the rows that are kept beside the operators, if there are some.
    pub(in crate::run) fn lend(&mut self) -> Option<Rows> {
        if let ResultRows::Beside(rows) = self { rows.lend() } else { None }
    }

    /// Takes rows back that are kept beside the operators.
    pub(in crate::run) fn take_back(&mut self, rows: Rows) {
        *self = ResultRows::Beside(Beside::Here(rows));
    }

    /// Returns the number of rows that the next delete must index first.
    pub(in crate::run) fn num_unindexed(&self) -> usize {
        if let ResultRows::Beside(rows) = self { rows.num_unindexed() } else { 0 }
    }

    /// Describes the result's rows beside the operators' state; `closed` is the operators' share of closed windows.
    pub(super) fn explained(&self, closed: Option<(usize, usize)>) -> Option<Explained> {
        let mut meter = Meter::default();
        let (state, growth, state_rows, state_bytes) = match self {
            ResultRows::Nothing | ResultRows::Part(_) => return None,
            ResultRows::Operators => {
                let (rows, bytes) = closed?;
                ("the rows of closed windows".to_string(), Growth::With("the result".into()), rows, bytes)
            }
            ResultRows::Beside(rows) => {
                meter.spilled_bytes = rows.spilled_bytes();
                let growth = Growth::With("the result".into());
                ("its rows".to_string(), growth, rows.num_rows(), rows.memory_bytes())
            }
            ResultRows::Newest(rows) => {
                let state = format!("the rows of the last {}", interval_text(rows.length()));
                let growth = Growth::BoundedBy("its retention".into());
                (state, growth, rows.num_rows(), rows.memory_bytes())
            }
        };
        Some(Explained {
            state: ExplainedState::of(state, growth).with_size((state_rows, state_bytes)),
            meter,
            ..Explained::above(0, "Result".into(), false)
        })
    }
}
