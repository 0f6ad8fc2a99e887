//! Problems and warnings of which a user has been notified.

use std::sync::PoisonError;

use crate::session::Session;

/// The texts of which a user has been notified, for as long as they hold.
#[derive(Clone, Debug, Default)]
pub struct Announced(Vec<String>);

impl Announced {
    /// Returns those of all current texts that are new since the last call. A text with other numbers is not new.
    pub fn news(&mut self, all: Vec<String>) -> Vec<String> {
        let last = std::mem::replace(&mut self.0, all.iter().map(|text| without_numbers(text)).collect());
        all.into_iter().zip(&self.0).filter(|(_, kind)| !last.contains(kind)).map(|(text, _)| text).collect()
    }
}

impl Announced {
    /// Returns the notices for a user after a statement: its own, and warnings of the engine that are new to the user.
    /// There are none if `client_min_messages` leaves notices out.
    pub fn notices(&mut self, session: &Session, own: Vec<String>) -> Vec<String> {
        let warnings =
            session.shared.progress.lock().unwrap_or_else(PoisonError::into_inner).warnings.clone();
        let is_silent =
            || matches!(session.variable("client_min_messages").as_deref(), Some("warning" | "error"));
        if (!own.is_empty() || !warnings.is_empty()) && is_silent() {
            return Vec::new();
        }
        // Warnings that are over are new once they come back.
        own.into_iter().chain(self.news(warnings)).collect()
    }
}

/// Returns a text without its numbers, so that another number of attempts isn't another problem.
fn without_numbers(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_new_once_until_it_is_over() {
        let mut announced = Announced::default();
        let mut news = |all: &[&str]| announced.news(all.iter().map(ToString::to_string).collect());
        assert_eq!(news(&["a 1"]), ["a 1"]);
        assert_eq!(news(&["b", "a 2"]), ["b"]);
        assert_eq!(news(&["b"]), Vec::<String>::new());
        assert_eq!(news(&["a 3", "b"]), ["a 3"]);
    }
}
