//! The state of a query between its creation and its end.

use super::Status;
use crate::run::backfill::Beginning;
use crate::run::lagging::Lag;
use crate::run::rename::Names;

impl Status {
    /// Renames relations that its backfill still reads.
    pub(in crate::run) fn rename_read(&mut self, names: &Names) {
        if let Status::CatchingUp(catch_up) = self {
            catch_up.rename_read(names);
        }
    }

    /// Sets the way in which the query begins, if it hasn't begun.
    pub(in crate::run) fn begin_by(&mut self, beginning: Beginning) {
        if let Status::Waiting(way) = self {
            *way = beginning;
        }
    }

    /// Takes the way in which a waiting query begins.
    pub(in crate::run) fn take_beginning(&mut self) -> Beginning {
        if let Status::Waiting(beginning) = self { std::mem::take(beginning) } else { Beginning::default() }
    }

    /// Returns true if its result is not available yet.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self, Status::Waiting(_) | Status::CatchingUp(_))
    }

    /// Returns true if it takes in each epoch.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Status::Running)
    }

    /// Returns the state of a lagging query.
    pub(crate) fn lag(&self) -> Option<&Lag> {
        if let Status::Lagging(lag) = self { Some(lag) } else { None }
    }

    /// Returns the state of a lagging query for changes.
    pub(crate) fn lag_mut(&mut self) -> Option<&mut Lag> {
        if let Status::Lagging(lag) = self { Some(lag) } else { None }
    }

    /// Returns true if it is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self, Status::Suspended { .. })
    }
}
