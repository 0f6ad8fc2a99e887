//! The pulls of a source: which of them its task has answered, and what the next one asks for.

use millstream_connect::{Limit, More};
use millstream_delta::Span;
use tokio::sync::mpsc::UnboundedSender;

use super::wanted::Wanted;
use crate::run::receive::Command;

/// The loop's end of the conversation with a source's task: keeps one pull ahead, and knows the answers that don't count.
pub(super) struct Pulls {
    commands: UnboundedSender<Command>,
    more: More,
    /// The numbers of the newest pull and of the newest answer.
    asked: u64,
    answered: u64,
    /// The first pull whose answer must not wait for rows, since someone waits for the news that there are none now.
    hurry: Option<u64>,
    /// Answers up to this pull are read again, since they lack columns or exceed a limit.
    stale: u64,
    /// The columns that the task was told to read.
    wanted: Wanted,
}

impl Pulls {
    pub(super) fn new(commands: UnboundedSender<Command>, wanted: Wanted) -> Pulls {
        Pulls { commands, more: More::Now, asked: 0, answered: 0, hurry: None, stale: 0, wanted }
    }

    /// Sends a command that has no answer among the pulls.
    pub(super) fn send(&self, command: Command) {
        // A task that ended has reported its failure.
        let _ = self.commands.send(command);
    }

    /// Returns a sender of commands, for those sent from another thread.
    pub(super) fn sender(&self) -> UnboundedSender<Command> {
        self.commands.clone()
    }

    /// Returns the availability of rows, by the newest answer.
    pub(super) fn more(&self) -> More {
        self.more
    }

    /// Records the availability of rows.
    pub(super) fn set_more(&mut self, more: More) {
        self.more = more;
    }

    /// Returns true if no pull is on its way.
    pub(super) fn are_answered(&self) -> bool {
        self.answered == self.asked
    }

    /// Returns true if an answer that says that there are no rows now is still awaited.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurry.is_some()
    }

    /// Lets no further answer wait for rows, until an answer says that there are none now.
    pub(super) fn ask_at_once(&mut self) {
        self.hurry = Some(self.asked + 1);
    }

    /// Asks for rows that are there; the answer doesn't wait for any.
    pub(super) fn ask(&mut self, limit: Limit) {
        self.pull(limit, false, true);
    }

    fn pull(&mut self, limit: Limit, wait: bool, hurry: bool) {
        self.asked += 1;
        self.send(Command::Pull { ticket: self.asked, limit, wait, hurry });
    }

    /// Keeps one pull ahead of the epochs, within the `room` for rows. `may_wait`: the answer may wait for rows.
    pub(super) fn keep_ahead(&mut self, room: Option<Limit>, limit: Limit, may_wait: bool) {
        // If someone waits for an answer, a pull that doesn't wait for rows overtakes one that does.
        let overtake = self.hurry.is_some_and(|ticket| ticket > self.asked) && !self.awaits_stale();
        if overtake {
            self.ask(room.unwrap_or(Limit { rows: 1, ..limit }));
        } else if let (true, Some(room)) = (self.asked <= self.answered, room) {
            self.pull(room, self.hurry.is_none() && may_wait, self.hurry.is_some());
        }
    }

    /// Records the answer to a pull. Returns true if its rows count, false if they are to be read again.
    pub(super) fn answer(&mut self, ticket: u64) -> bool {
        self.answered = ticket.min(self.asked).max(self.answered);
        ticket > self.stale
    }

    /// Ends the wait for an answer without rows if this is one; called after its rows were received.
    pub(super) fn settle(&mut self, ticket: u64) {
        if self.more != More::Now && self.hurry.is_some_and(|first| ticket >= first) {
            self.hurry = None;
        }
    }

    /// Makes the answers on their way stale.
    pub(super) fn expire(&mut self) {
        self.stale = self.asked;
    }

    /// Returns true if a stale answer is on its way.
    fn awaits_stale(&self) -> bool {
        self.answered < self.stale
    }

    /// Reads these spans again, before any new rows.
    pub(super) fn read_again(&mut self, spans: Vec<Span>) {
        // The awaited answer may be one that waits for rows: any command wakes it.
        if !spans.is_empty() || self.awaits_stale() {
            self.more = More::Now;
            self.ask_at_once();
            self.send(Command::Again(spans));
        }
    }

    /// Returns the columns that the task was told to read.
    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Tells the task to read these columns from now on. Returns true if answers up to now lack some of them.
    pub(super) fn want(&mut self, columns: Vec<bool>) -> bool {
        let Some(lacks) = self.wanted.change(&columns) else { return false };
        self.send(Command::Want(columns));
        lacks
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    const LIMIT: Limit = Limit { rows: 10, bytes: 1000 };

    fn pulls() -> (Pulls, UnboundedReceiver<Command>) {
        let (commands, inbox) = unbounded_channel();
        (Pulls::new(commands, Wanted::new(true, 2)), inbox)
    }

    /// Returns what the next command asks for: the ticket, the rows, and if it waits for rows.
    fn next(inbox: &mut UnboundedReceiver<Command>) -> Option<(u64, usize, bool)> {
        match inbox.try_recv() {
            Ok(Command::Pull { ticket, limit, wait, .. }) => Some((ticket, limit.rows, wait)),
            _ => None,
        }
    }

    #[test]
    fn one_pull_is_ahead_and_a_hurried_one_overtakes() {
        let (mut pulls, mut inbox) = pulls();
        pulls.keep_ahead(Some(LIMIT), LIMIT, true);
        pulls.keep_ahead(Some(LIMIT), LIMIT, true);
        assert_eq!((next(&mut inbox), next(&mut inbox)), (Some((1, 10, true)), None));
        pulls.ask_at_once();
        pulls.keep_ahead(None, LIMIT, true);
        pulls.keep_ahead(None, LIMIT, true);
        assert_eq!((next(&mut inbox), next(&mut inbox)), (Some((2, 1, false)), None));
        pulls.set_more(More::Later);
        assert!(pulls.answer(1));
        pulls.settle(1);
        assert!(pulls.is_hurried() && !pulls.are_answered());
        assert!(pulls.answer(2));
        pulls.settle(2);
        assert!(!pulls.is_hurried() && pulls.are_answered());
    }

    #[test]
    fn answers_without_new_columns_are_stale() {
        let (mut pulls, mut inbox) = pulls();
        assert!(!pulls.want(vec![true, true]) && !pulls.want(vec![true, false]));
        pulls.ask(LIMIT);
        assert!(pulls.want(vec![true, true]));
        pulls.expire();
        pulls.read_again(Vec::new());
        assert!(!pulls.answer(1));
        // The pull after them counts.
        pulls.ask(LIMIT);
        assert!(pulls.answer(2));
        let commands: Vec<_> = std::iter::from_fn(|| inbox.try_recv().ok()).collect();
        assert!(matches!(
            &commands[..],
            [
                Command::Want(_),
                Command::Pull { .. },
                Command::Want(_),
                Command::Again(_),
                Command::Pull { .. }
            ]
        ));
    }
}
