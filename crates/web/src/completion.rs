//! `POST /api/complete`: the words that may continue a statement at the cursor.

use std::fmt;
use std::sync::OnceLock;

use millstream_engine::{Engine, Names};
use serde_json::{Value, json};

/// Maximum number of words returned.
const WORDS_MAX: usize = 200;

/// Returns the words that may replace the text from a byte up to the cursor, and that byte.
type Complete = dyn Fn(&str, usize, &Names) -> (usize, Vec<String>) + Send + Sync;

/// The completion of the program that serves the page, if it has one.
#[derive(Default)]
pub(crate) struct Completion(OnceLock<Box<Complete>>);

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Completion").field(&self.0.get().is_some()).finish()
    }
}

impl Completion {
    /// Sets the completion. Later calls have no effect.
    pub(crate) fn set(&self, complete: Box<Complete>) {
        let _ = self.0.set(complete);
    }

    /// Completes `text` at `cursor`. Positions are in UTF-16 code units, as browsers count.
    pub(crate) fn words(&self, engine: &Engine, text: &str, cursor: usize) -> Value {
        let cursor = byte_of(text, cursor);
        let (from, mut words) = match self.0.get() {
            Some(complete) => complete(text, cursor, &engine.session().names()),
            None => (cursor, Vec::new()),
        };
        words.truncate(WORDS_MAX);
        json!({ "from": text.get(..from).map_or(0, |before| before.encode_utf16().count()), "words": words })
    }
}

/// Returns the byte at which a UTF-16 code unit begins; the end of the text if there is none.
fn byte_of(text: &str, unit: usize) -> usize {
    let mut units = 0;
    for (byte, character) in text.char_indices() {
        if units >= unit {
            return byte;
        }
        units += character.len_utf16();
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_in_units_of_utf_16() {
        let text = "é𝄞a";
        assert_eq!([0, 1, 2, 3, 4, 9].map(|unit| byte_of(text, unit)), [0, 2, 6, 6, 7, 7]);
    }

    #[test]
    fn words_come_from_the_program() {
        let engine = Engine::start().unwrap();
        let completion = Completion::default();
        assert_eq!(completion.words(&engine, "SEL", 3), json!({ "from": 3, "words": [] }));
        completion.set(Box::new(|text, cursor, _| (text[..cursor].len() - 1, vec!["<b>".into()])));
        assert_eq!(completion.words(&engine, "'𝄞' a", 6), json!({ "from": 5, "words": ["<b>"] }));
    }
}
