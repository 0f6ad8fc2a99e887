//! Splits a text into tokens and statements, each with its byte range.
//!
//! ```
//! let pieces = millstream_sql::statements("SELECT ';' ; -- done\n SELECT 2;").unwrap();
//! let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
//! assert_eq!(texts, ["SELECT ';'", "SELECT 2"]);
//! ```

mod numbers;

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, TokenizerError};

use crate::error::{Error, Result};
use crate::grammar::{Grammar, is_word};

/// The dialect of every text.
pub(crate) static DIALECT: Grammar = Grammar { tries: None, versions: false };

/// The dialect of a text with `FOR SYSTEM_TIME AS OF`.
pub(crate) static DIALECT_OF_VERSIONS: Grammar = Grammar { tries: None, versions: true };

/// A token that is not whitespace or a comment, with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Lexeme {
    /// The token, with the line and column that the parser reports.
    pub token: TokenWithSpan,
    /// The byte range in the text.
    pub range: Range<usize>,
}

/// One statement of a text, without the `;` that ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The byte range in the whole text.
    pub range: Range<usize>,
    /// The statement's text, from the first token to the last.
    pub text: String,
}

/// Returns the tokens of a text without whitespace and comments.
pub fn tokenise(sql: &str) -> Result<Vec<Lexeme>> {
    let tokens =
        Tokenizer::new(&DIALECT, sql).tokenize_with_location().map_err(|error| unreadable(sql, error))?;
    let mut cursor = Cursor::new(sql);
    let mut lexemes = Vec::with_capacity(tokens.len());
    for token in tokens {
        let start = cursor.seek(token.span.start.line, token.span.start.column);
        let end = cursor.seek(token.span.end.line, token.span.end.column);
        if !matches!(token.token, Token::Whitespace(_)) {
            lexemes.push(Lexeme { token, range: start..end });
        }
    }
    numbers::join(sql, lexemes)
}

/// Follows `BEGIN ATOMIC … END`, where a `;` ends no statement of the text.
#[derive(Debug, Default)]
pub struct AtomicBlocks {
    /// The number of open blocks and CASEs.
    depth: usize,
    /// True after BEGIN.
    begins: bool,
}

impl AtomicBlocks {
    /// Reads the next token. Returns true if it ends a statement.
    pub fn ends_statement(&mut self, token: &Token) -> bool {
        let begins = std::mem::replace(&mut self.begins, is_word(token, "BEGIN"));
        match self.depth {
            0 if begins && is_word(token, "ATOMIC") => self.depth = 1,
            0 => return *token == Token::SemiColon,
            _ if is_word(token, "CASE") => self.depth += 1,
            _ if is_word(token, "END") => self.depth -= 1,
            _ => {}
        }
        false
    }

    /// Returns true within a block.
    pub fn is_open(&self) -> bool {
        self.depth > 0
    }
}

/// Splits a text at each `;` between statements, but not within `BEGIN ATOMIC … END`. Drops parts that contain only
/// comments. Flink's statement set is one statement: `EXECUTE STATEMENT SET BEGIN …; …; END`.
pub fn statements(sql: &str) -> Result<Vec<Piece>> {
    let lexemes = tokenise(sql)?;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let (mut is_in_set, mut blocks) = (false, AtomicBlocks::default());
    for part in lexemes.split(|lexeme| blocks.ends_statement(&lexeme.token.token)) {
        let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
        match ranges.last_mut().filter(|_| is_in_set) {
            Some(set) => set.end = last.range.end,
            None => ranges.push(first.range.start..last.range.end),
        }
        is_in_set = continues_set(part.iter().map(|lexeme| &lexeme.token.token), is_in_set);
    }
    Ok(ranges.into_iter().map(|range| Piece { text: sql[range.clone()].to_string(), range }).collect())
}

/// Returns a text with XOR, `#`, in place of the operator `^`, and all else at the same place.
pub fn with_xor_for_caret(sql: &str) -> Result<String> {
    let (mut text, lexemes) = (sql.to_string(), tokenise(sql)?);
    let mut before: Option<&Lexeme> = None;
    for lexeme in &lexemes {
        // `<^` and `>^` compare points.
        let is_alone = |before: &Lexeme| {
            before.range.end < lexeme.range.start || !matches!(before.token.token, Token::Lt | Token::Gt)
        };
        if lexeme.token.token == Token::Caret && before.is_none_or(is_alone) {
            text.replace_range(lexeme.range.clone(), "#");
        }
        before = Some(lexeme);
    }
    Ok(text)
}

/// True if a text that is being typed ends with a whole statement: its last token is a `;`. A text of
/// comments alone is complete. A text that ends within a string, a quoted name, a comment or a statement set
/// isn't.
pub fn is_complete(sql: &str) -> bool {
    let Ok(mut tokens) = Tokenizer::new(&DIALECT, sql).tokenize() else { return false };
    tokens.retain(|token| !matches!(token, Token::Whitespace(_)));
    let (mut is_in_set, mut blocks) = (false, AtomicBlocks::default());
    for part in tokens.split(|token| blocks.ends_statement(token)).filter(|part| !part.is_empty()) {
        is_in_set = continues_set(part.iter(), is_in_set);
    }
    !is_in_set && !blocks.is_open() && tokens.last().is_none_or(|token| *token == Token::SemiColon)
}

/// The statements of Flink that may contain a statement set.
const BEFORE_SETS: [&str; 3] = ["EXECUTE", "EXPLAIN", "COMPILE"];

/// The words that begin a statement set.
const SET_BEGINS: [&str; 3] = ["STATEMENT", "SET", "BEGIN"];

/// The maximum number of tokens up to the beginning of a statement set.
const BEFORE_SET_MAX: usize = 16;

/// Returns true if the text after a part, which ended with a `;`, belongs to a statement set of Flink. `is_in_set`: true
/// if the part does.
fn continues_set<'a>(part: impl Iterator<Item = &'a Token>, is_in_set: bool) -> bool {
    let tokens: Vec<&Token> = part.take(BEFORE_SET_MAX).collect();
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| is_word(token, word));
    if is_in_set {
        return !is(0, "END");
    }
    if !BEFORE_SETS.iter().any(|word| is(0, word)) {
        return false;
    }
    let begins = |at: &usize| SET_BEGINS.iter().enumerate().all(|(next, word)| is(at + next, word));
    (1..tokens.len()).find(begins).is_some_and(|at| !is(at + SET_BEGINS.len(), "END"))
}

fn unreadable(sql: &str, error: TokenizerError) -> Error {
    let at = offset(sql, error.location.line, error.location.column).unwrap_or(sql.len());
    let message = error.message.to_lowercase();
    let hint = message.contains("unterminated").then(|| "Close it.".to_string());
    Error::invalid(format!("syntax error: {message}")).at(at..sql.len().min(at + 1)).maybe_hint(hint)
}

/// Walks once through a text and converts lines and columns, which count characters, into byte offsets.
struct Cursor<'a> {
    chars: std::str::CharIndices<'a>,
    line: u64,
    column: u64,
}

impl<'a> Cursor<'a> {
    fn new(sql: &'a str) -> Cursor<'a> {
        Cursor { chars: sql.char_indices(), line: 1, column: 1 }
    }

    /// Returns the byte offset of this position, which must not lie before that of the last call.
    fn seek(&mut self, line: u64, column: u64) -> usize {
        while (self.line, self.column) < (line, column) {
            match self.chars.next() {
                Some((_, '\n')) => (self.line, self.column) = (self.line + 1, 1),
                Some(_) => self.column += 1,
                None => break,
            }
        }
        self.chars.offset()
    }
}

/// Returns the byte offset of a line and column, both from 1; none for the empty position 0, 0.
pub(crate) fn offset(sql: &str, line: u64, column: u64) -> Option<usize> {
    (line > 0 && column > 0).then(|| Cursor::new(sql).seek(line, column))
}

/// Returns the range of the token that starts at a line and column.
pub(crate) fn token_at(sql: &str, line: u64, column: u64) -> Range<usize> {
    let Some(start) = offset(sql, line, column) else { return sql.len()..sql.len() };
    let lexemes = tokenise(sql).unwrap_or_default();
    match lexemes.into_iter().find(|lexeme| lexeme.range.contains(&start)) {
        Some(lexeme) => lexeme.range,
        None => start..start,
    }
}

/// Returns the only place where a name occurs in a text; none if there are several.
pub(crate) fn only_place_of(sql: &str, name: &str) -> Option<Range<usize>> {
    let lexemes = tokenise(sql).ok()?;
    let mut places = lexemes.into_iter().filter(|lexeme| match &lexeme.token.token {
        Token::Word(word) => word.value == name || word.value.to_lowercase() == name,
        _ => false,
    });
    let first = places.next()?;
    places.next().is_none().then_some(first.range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sql: &str) -> Vec<String> {
        statements(sql).unwrap().into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn a_semicolon_splits_only_between_statements() {
        assert_eq!(split("a;b ; c"), ["a", "b", "c"]);
        assert_eq!(split("SELECT ';''; ';x"), ["SELECT ';''; '", "x"]);
        assert_eq!(split("SELECT \"a;b\" -- ; no\n;/* ; /* ; */ */ y"), ["SELECT \"a;b\"", "y"]);
        assert_eq!(split("SELECT $$a;b$$; SELECT $x$ ; $$ $x$"), ["SELECT $$a;b$$", "SELECT $x$ ; $$ $x$"]);
        assert_eq!(split("SELECT E'\\';' ; y"), ["SELECT E'\\';'", "y"]);
        assert_eq!(split(";; -- nothing\n ;"), Vec::<String>::new());
        let block = "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END";
        assert_eq!(split(&format!("BEGIN; {block}; x")), ["BEGIN", block, "x"]);
    }

    #[test]
    fn a_statement_set_is_one_statement() {
        let set = "EXECUTE STATEMENT SET BEGIN SELECT CASE WHEN a THEN b END; ; x; END";
        assert_eq!(split(&format!("SELECT 1; {set}; SELECT 2")), ["SELECT 1", set, "SELECT 2"]);
        let plan = "COMPILE PLAN 'p' FOR statement set begin INSERT INTO a VALUES (1); end";
        assert_eq!(split(&format!("{plan};")), [plan]);
        assert_eq!(split("EXECUTE STATEMENT SET BEGIN END; x"), ["EXECUTE STATEMENT SET BEGIN END", "x"]);
        assert_eq!(split("EXECUTE STATEMENT SET BEGIN a; b;"), ["EXECUTE STATEMENT SET BEGIN a; b"]);
        assert_eq!(split("BEGIN STATEMENT SET; a; END"), ["BEGIN STATEMENT SET", "a", "END"]);
        assert_eq!(split("EXECUTE p; b"), ["EXECUTE p", "b"]);
        assert!(is_complete(&format!("{set};")) && !is_complete("EXECUTE STATEMENT SET BEGIN a;"));
    }

    #[test]
    fn ranges_count_bytes_of_the_whole_text() {
        let sql = "SELECT 'ä€';\r\n  SELECT ü ;";
        for piece in statements(sql).unwrap() {
            assert_eq!(&sql[piece.range.clone()], piece.text);
        }
        let lexemes = tokenise(sql).unwrap();
        assert_eq!(&sql[lexemes[1].range.clone()], "'ä€'");
        assert_eq!(&sql[lexemes[4].range.clone()], "ü");
    }

    #[test]
    fn what_cannot_be_read_is_shown() {
        let error = statements("SELECT 1;\nSELECT 'abc").unwrap_err();
        assert_eq!(
            error.render("SELECT 1;\nSELECT 'abc"),
            "syntax error: unterminated string literal\nLINE 2: SELECT 'abc\n               ^\nHINT: Close it."
        );
    }

    #[test]
    fn a_typed_text_is_complete_at_its_semicolon() {
        for sql in ["SELECT 1;", "SELECT 1; -- x", "", "-- only\n"] {
            assert!(is_complete(sql), "{sql}");
        }
        for sql in
            ["SELECT 1", "SELECT ';", "SELECT 1; SELECT", "SELECT $$;", "/* ;", "BEGIN ATOMIC SELECT 1;"]
        {
            assert!(!is_complete(sql), "{sql}");
        }
    }
}
