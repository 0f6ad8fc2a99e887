//! Reads queries: TSQUERY, and the texts of `to_tsquery` and its relatives.

use super::characters::{is_alpha, is_space};
use super::dictionary::Config;
use super::query::{DISTANCE_MAX, Node, Operand, Query};
use super::value_reader::{ValueReader, too_long};
use super::vector::{LEXEME_BYTES_MAX, Words, weight_of};
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most brackets and negations within each other.
pub(super) const DEPTH_MAX: usize = 200;

/// How words of a text are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    And,
    Phrase,
}

impl Join {
    fn join(self, left: Option<Node>, right: Node) -> Node {
        match (left, self) {
            (None, _) => right,
            (Some(left), Join::And) => left.and(right),
            (Some(left), Join::Phrase) => left.then(1, right),
        }
    }
}

/// Returns the query of a text in TSQUERY's form. With a configuration, its words become lexemes as those of documents.
pub(super) fn read(text: &str, config: Option<Config>) -> Result<Query> {
    let mut reader = Reader { values: ValueReader::of_query(text), config, depth: 0 };
    reader.values.skip_spaces();
    if reader.values.peek().is_none() {
        return Ok(Query::default());
    }
    let node = reader.or()?;
    reader.values.skip_spaces();
    match reader.values.peek() {
        None => Ok(Query::of(Some(node))),
        Some(_) => Err(reader.values.wrong("syntax error")),
    }
}

/// Returns the query that has all words of a text: `plainto_tsquery` and `phraseto_tsquery`.
pub(super) fn of_words(text: &str, config: Config, join: Join) -> Query {
    Query::of(Some(words(config, text, join, 0, false)))
}

/// Returns the words of a text as a part of a query.
fn words(config: Config, text: &str, join: Join, weights: u8, is_prefix: bool) -> Node {
    let mut node: Option<Node> = None;
    let mut last = 0;
    for word in Words::of(config, text).found {
        if last > 0 {
            for _ in last + 1..word.at {
                node = Some(join.join(node, Node::Stop));
            }
        }
        last = word.at;
        let operand = Operand { text: word.lexeme, weights, is_prefix, id: 0 };
        node = Some(join.join(node, Node::Operand(operand)));
    }
    node.unwrap_or(Node::Stop)
}

struct Reader<'t> {
    values: ValueReader<'t>,
    config: Option<Config>,
    depth: usize,
}

impl Reader<'_> {
    fn or(&mut self) -> Result<Node> {
        let mut node = self.and()?;
        while self.operator('|') {
            node = node.or(self.and()?);
        }
        Ok(node)
    }

    fn and(&mut self) -> Result<Node> {
        let mut node = self.phrase()?;
        while self.operator('&') {
            node = node.and(self.phrase()?);
        }
        Ok(node)
    }

    fn phrase(&mut self) -> Result<Node> {
        let mut node = self.not()?;
        while let Some(distance) = self.distance()? {
            node = node.then(distance, self.not()?);
        }
        Ok(node)
    }

    /// Reads an operand, brackets or a negation.
    fn not(&mut self) -> Result<Node> {
        self.values.skip_spaces();
        let opening = self.values.peek().filter(|c| matches!(c, '!' | '('));
        let Some(opening) = opening else { return self.operand() };
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::invalid(format!(
                "a tsquery has more than {DEPTH_MAX} brackets and negations within each other"
            ))
            .hint("Write the query with fewer brackets.")
            .code(sqlstate::PROGRAM_LIMIT_EXCEEDED));
        }
        self.values.next();
        let node = if opening == '!' {
            Node::Not(Box::new(self.not()?))
        } else {
            let node = self.or()?;
            self.values.skip_spaces();
            if !self.values.take(')') {
                return Err(self.values.wrong("syntax error"));
            }
            node
        };
        self.depth -= 1;
        Ok(node)
    }

    fn operator(&mut self, symbol: char) -> bool {
        self.values.skip_spaces();
        self.values.take(symbol)
    }

    /// Reads `<->` or `<2>`.
    fn distance(&mut self) -> Result<Option<u16>> {
        if !self.operator('<') {
            return Ok(None);
        }
        let distance = match self.values.take('-') {
            true => 1,
            false => {
                let digits = self.values.digits();
                if digits.is_empty() {
                    return Err(self.values.wrong("syntax error"));
                }
                distance(digits.parse().unwrap_or(i64::MAX))?
            }
        };
        match self.values.take('>') {
            true => Ok(Some(distance)),
            false => Err(self.values.wrong("syntax error")),
        }
    }

    fn operand(&mut self) -> Result<Node> {
        if self.values.peek() == Some(':') {
            return Err(self.values.wrong("syntax error"));
        }
        let text = self.values.word()?.ok_or_else(|| self.values.wrong("no operand"))?;
        let (mut weights, mut is_prefix) = (0, false);
        if self.values.take(':') {
            while let Some(c) = self.values.peek() {
                match weight_of(c) {
                    Some(weight) => weights |= 1 << weight,
                    None if c == '*' => is_prefix = true,
                    None => break,
                }
                self.values.next();
            }
        }
        if text.len() > LEXEME_BYTES_MAX {
            return Err(too_long(text.len(), "word is too long in tsquery"));
        }
        Ok(match self.config {
            Some(config) => words(config, &text, Join::Phrase, weights, is_prefix),
            None => Node::Operand(Operand { text, weights, is_prefix, id: 0 }),
        })
    }
}

/// Checks the distance of a phrase.
pub(super) fn distance(found: i64) -> Result<u16> {
    match u16::try_from(found) {
        Ok(found) if found <= DISTANCE_MAX => Ok(found),
        _ => Err(Error::invalid(format!(
            "distance in phrase operator must be an integer value between zero and {DISTANCE_MAX} inclusive, not {found}"
        ))
        .code(sqlstate::INVALID_PARAMETER_VALUE)),
    }
}

/// Returns the query of a web search: words, phrases in quotes, `or`, and `-` before what must not occur.
pub(super) fn of_web_search(text: &str, config: Config) -> Result<Query> {
    let mut values = ValueReader::of_web(text);
    let (mut any, mut all): (Option<Node>, Option<Node>) = (None, None);
    while let Some(part) = web_operand(&mut values, config)? {
        all = Some(match all {
            None => part,
            Some(all) => all.and(part),
        });
        while values.peek().is_some_and(|c| is_space(c) || is_symbol(c)) {
            values.next();
        }
        if take_or(&mut values) {
            any = either(any, all.take());
        } else if values.peek().is_none() {
            break;
        }
    }
    Ok(Query::of(either(any, all)))
}

fn either(any: Option<Node>, all: Option<Node>) -> Option<Node> {
    match (any, all) {
        (Some(any), Some(all)) => Some(any.or(all)),
        (any, all) => any.or(all),
    }
}

/// Reads a word or a phrase with the negations before it.
fn web_operand(values: &mut ValueReader<'_>, config: Config) -> Result<Option<Node>> {
    let mut negations = 0;
    loop {
        values.skip_spaces();
        let Some(c) = values.peek() else { return Ok(None) };
        match c {
            '-' => negations += 1,
            c if is_symbol(c) => {}
            _ => break,
        }
        values.next();
    }
    let node = if values.take('"') {
        let rest = values.rest();
        let (phrase, read) = match rest.split_once('"') {
            Some((phrase, _)) => (phrase, phrase.len() + 1),
            None => (rest, rest.len()),
        };
        values.at += read;
        words(config, phrase, Join::Phrase, 0, false)
    } else {
        let word = values.word()?.unwrap_or_default();
        words(config, &word, Join::Phrase, 0, false)
    };
    // More negations than these would nest too deeply.
    let negations = if negations > DEPTH_MAX { negations % 2 } else { negations };
    Ok(Some((0..negations).fold(node, |node, _| Node::Not(Box::new(node)))))
}

/// True for the operators of TSQUERY, which mean nothing in a web search.
fn is_symbol(c: char) -> bool {
    matches!(c, '!' | '&' | '|' | '(' | ')' | '<')
}

/// Reads `or` if an operand follows.
fn take_or(values: &mut ValueReader<'_>) -> bool {
    let rest = values.rest();
    let Some((word, after)) = rest.split_at_checked(2) else { return false };
    let continues = |c: char| matches!(c, '-' | '_') || is_alpha(c) || c.is_ascii_digit();
    let mut following = after.chars();
    let is_or = word.eq_ignore_ascii_case("or")
        && following.next().is_some_and(|c| !continues(c))
        && following.any(|c| !is_space(c));
    if is_or {
        values.at += word.len();
    }
    is_or
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_written_as_postgresql_does() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read(text, None).unwrap().to_string(), expected);
            assert_eq!(read(expected, None).unwrap().to_string(), expected);
        };
        check("a&b|!c", "'a' & 'b' | !'c'");
        check("(a|b)&(c&d)", "( 'a' | 'b' ) & 'c' & 'd'");
        check("a <-> (b <2> c) <-> d:*BA", "'a' <-> ( 'b' <2> 'c' ) <-> 'd':*AB");
        check("!(a & 'it''s')", "!( 'a' & 'it''s' )");
        check("  ", "");
        for wrong in ["a b", "a &", "(a", "a)", ":a", "a <x> b", "a <20000> b", "''", "'a", "a\\"] {
            assert!(read(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_queries_are_read_and_deep_ones_refused() {
        for operator in [" & ", " | ", " <-> "] {
            let text = vec!["a"; 50_000].join(operator);
            let query = read(&text, None).unwrap();
            assert_eq!(query.0.map(|node| node.count()), Some(99_999));
        }
        for (open, close) in [("(", ")"), ("!", ""), ("!(", ")")] {
            let text = format!("{}a{}", open.repeat(100_000), close.repeat(100_000));
            assert_eq!(read(&text, None).unwrap_err().sqlstate(), "54000");
        }
        let query = of_web_search(&format!("{}a", "-".repeat(100_001)), Config::Simple).unwrap();
        assert_eq!(query.to_string(), "!'a'");
    }
}
