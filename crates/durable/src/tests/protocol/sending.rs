//! The sink of a process.

use millstream_delta::Epoch;

use super::rules::SinkRules;
use super::world::Target;
use crate::protocol::{Ledger, Outside};

/// Publishes the epochs of a process to the target, each once if the target stores its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sending {
    outside: Outside,
    /// The epoch up to which everything is published or skipped.
    passed: Epoch,
    /// The content of the target, as far as known.
    known: Option<(Epoch, u8)>,
    /// The epoch up to which rows are being published; true if the transaction has committed.
    sending: Option<(Epoch, bool)>,
    /// The epoch before the first one that the sink buffers, if any.
    gathered: Option<Epoch>,
    /// True if the sink has stopped because another process published.
    stopped: bool,
    /// The position not yet recorded in the journal.
    news: Option<Epoch>,
}

impl Sending {
    pub fn new(outside: Outside, passed: Epoch) -> Sending {
        Sending { outside, passed, known: None, sending: None, gathered: None, stopped: false, news: None }
    }

    /// Returns true if another process published.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Returns true if the target has reported its epoch.
    pub fn has_asked(&self) -> bool {
        self.known.is_some()
    }

    /// Returns the epoch up to which rows are being published; true if the transaction has committed.
    pub fn sending(&self) -> Option<(Epoch, bool)> {
        self.sending
    }

    /// Returns the epoch up to which everything is published, as the process knows.
    pub fn passed(&self, rules: &SinkRules) -> Epoch {
        self.passed.max((rules.published)(&self.outside))
    }

    /// Returns the position that a checkpoint saves.
    pub fn delivered(&self) -> Epoch {
        self.passed.max(self.outside.delivered())
    }

    /// Takes the position not yet recorded in the journal.
    pub fn take_news(&mut self) -> Option<Epoch> {
        self.news.take()
    }

    /// Returns true if it may publish further epochs.
    pub fn may_send(&self) -> bool {
        self.outside.may_send() && !self.stopped && self.sending.is_none()
    }

    /// Asks the target for its epoch.
    pub fn ask(&mut self, target: &Target) {
        self.known = Some(target.known);
        self.outside.holds(target.known.0);
        self.stopped |= self.outside.too_much().is_some();
    }

    /// Begins to publish the epochs that it may.
    pub fn send(&mut self, rules: &SinkRules, ledger: &Ledger, newest: Epoch) {
        self.passed = self.passed(rules);
        let mut through = self.passed;
        while through < newest && (rules.may_deliver)(ledger, through.next()) {
            through = through.next();
        }
        self.sending = Some((through, false));
    }

    /// Buffers the rows it was sent, and reports the epoch that the target holds.
    pub fn gather(&mut self, rules: &SinkRules) {
        let Some((through, _)) = self.sending.take() else { return };
        self.gathered.get_or_insert(self.passed);
        let passed = (rules.named)(through, self.passed);
        if passed > self.passed {
            (self.passed, self.news) = (passed, Some(passed));
        }
    }

    /// Commits the rows and the epoch in one transaction, which fails if another process has published since. `tells`:
    /// the target stores its epoch and the process `id`.
    pub fn commit(&mut self, target: &mut Target, tells: bool, history: &[u8], id: u8) {
        let Some((through, _)) = self.sending else { return };
        if tells && self.known != Some(target.known) {
            (self.stopped, self.sending) = (true, None);
            return;
        }
        for epoch in self.gathered.take().unwrap_or(self.passed).0 + 1..=through.0 {
            target.epochs.push((Epoch(epoch), history[epoch as usize - 1]));
        }
        if tells {
            target.known = (through, id);
        }
        self.sending = Some((through, true));
    }

    /// Takes the answer to the transaction.
    pub fn answer(&mut self, id: u8) {
        if let Some((through, _)) = self.sending.take() {
            (self.passed, self.known, self.news) = (through, Some((through, id)), Some(through));
        }
    }
}
