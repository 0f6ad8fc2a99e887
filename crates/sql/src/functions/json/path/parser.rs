//! Reads the text of a path.

use regex::RegexBuilder;

use super::syntax::{Accessor, Comparison, Method, Node, Operator, Path, Predicate, Sign};
use super::tokens::{Token, tokens};
use crate::error::{Error, Result};
use crate::functions::json::value::Value;
use crate::sqlstate;

/// The most levels of parentheses, signs and filters within each other, and the most accessors in a row.
const DEPTH_MAX: usize = 64;

/// An expression or a predicate: parentheses may hold either.
enum Item {
    Node(Node),
    Predicate(Predicate),
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    accesses: usize,
}

/// Reads a path.
pub(super) fn parse(text: &str) -> Result<Path> {
    let mut parser = Parser { text, tokens: tokens(text)?, at: 0, depth: 0, accesses: 0 };
    let strict = parser.word("strict");
    if !strict {
        parser.word("lax");
    }
    let item = parser.or()?;
    if parser.at < parser.tokens.len() {
        return Err(parser.wrong());
    }
    let root = match item {
        Item::Node(node) => node,
        Item::Predicate(predicate) => Node::Predicate(Box::new(predicate)),
    };
    Ok(Path { strict, root })
}

impl Parser<'_> {
    fn wrong(&self) -> Error {
        let near = self.tokens.get(self.at).map_or_else(|| "end of jsonpath input".to_string(), Token::shown);
        Error::invalid(format!("syntax error at or near {near} of jsonpath input '{}'", self.text))
            .code(sqlstate::SYNTAX_ERROR)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(found)) if *found == symbol);
        self.at += usize::from(found);
        found
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.tokens.get(self.at + ahead), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(0, word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<()> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.wrong()) }
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(
                Error::invalid("the jsonpath is too deeply nested").code(sqlstate::STATEMENT_TOO_COMPLEX)
            );
        }
        let found = read(self);
        self.depth -= 1;
        found
    }

    fn node(&self, item: Item) -> Result<Node> {
        match item {
            Item::Node(node) => Ok(node),
            Item::Predicate(_) => Err(self.wrong()),
        }
    }

    fn predicate(&self, item: Item) -> Result<Predicate> {
        match item {
            Item::Predicate(predicate) => Ok(predicate),
            Item::Node(_) => Err(self.wrong()),
        }
    }

    fn or(&mut self) -> Result<Item> {
        let mut left = self.and()?;
        while self.symbol("||") {
            let one = self.predicate(left)?;
            let other = self.and()?;
            left = Item::Predicate(Predicate::Or(Box::new(one), Box::new(self.predicate(other)?)));
            self.count()?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Item> {
        let mut left = self.not()?;
        while self.symbol("&&") {
            let one = self.predicate(left)?;
            let other = self.not()?;
            left = Item::Predicate(Predicate::And(Box::new(one), Box::new(self.predicate(other)?)));
            self.count()?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Item> {
        if !self.symbol("!") {
            return self.comparison();
        }
        let inner = self.deeper(|parser| {
            let item = parser.comparison()?;
            parser.predicate(item)
        })?;
        Ok(Item::Predicate(Predicate::Not(Box::new(inner))))
    }

    fn comparison(&mut self) -> Result<Item> {
        let left = self.sum()?;
        const COMPARISONS: [(&str, Comparison); 7] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        if let Some((_, comparison)) = COMPARISONS.iter().find(|(symbol, _)| self.symbol(symbol)) {
            let left = self.node(left)?;
            let right = self.sum()?;
            return Ok(Item::Predicate(Predicate::Compare(*comparison, left, self.node(right)?)));
        }
        if self.is_word(0, "starts") && self.is_word(1, "with") {
            self.at += 2;
            let left = self.node(left)?;
            let initial = match self.peek().cloned() {
                Some(Token::Text(text)) => Node::Literal(Value::String(text)),
                Some(Token::Variable(name)) => Node::Variable(name),
                _ => return Err(self.wrong()),
            };
            self.at += 1;
            return Ok(Item::Predicate(Predicate::StartsWith(left, initial)));
        }
        if self.word("like_regex") {
            return self.pattern(left);
        }
        Ok(left)
    }

    fn pattern(&mut self, left: Item) -> Result<Item> {
        let left = self.node(left)?;
        let pattern = self.string()?;
        let flags = if self.word("flag") { self.string()? } else { String::new() };
        let invalid = |message: String| Error::invalid(message).code(sqlstate::INVALID_REGULAR_EXPRESSION);
        let pattern = if flags.contains('q') { regex::escape(&pattern) } else { pattern };
        let mut builder = RegexBuilder::new(&pattern);
        for flag in flags.chars() {
            match flag {
                'i' => builder.case_insensitive(true),
                's' => builder.dot_matches_new_line(true),
                'm' => builder.multi_line(true),
                'q' => &mut builder,
                other => {
                    let message = format!("unrecognized flag character \"{other}\" in LIKE_REGEX predicate");
                    return Err(Error::invalid(message).code(sqlstate::SYNTAX_ERROR));
                }
            };
        }
        let regex =
            builder.build().map_err(|error| invalid(format!("invalid regular expression: {error}")))?;
        Ok(Item::Predicate(Predicate::Matches(left, regex)))
    }

    fn string(&mut self) -> Result<String> {
        match self.peek().cloned() {
            Some(Token::Text(text)) => {
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.wrong()),
        }
    }

    fn sum(&mut self) -> Result<Item> {
        self.operators(&[("+", Operator::Add), ("-", Operator::Subtract)], Parser::product)
    }

    fn product(&mut self) -> Result<Item> {
        let operators = [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)];
        self.operators(&operators, Parser::sign)
    }

    fn operators(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Self) -> Result<Item>,
    ) -> Result<Item> {
        let mut left = operand(self)?;
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.symbol(symbol)) {
            let one = self.node(left)?;
            let other = operand(self)?;
            let other = self.node(other)?;
            left = Item::Node(Node::Arithmetic(*operator, Box::new(one), Box::new(other)));
            self.count()?;
        }
        Ok(left)
    }

    /// Bounds the depth of a tree that grows to the left.
    fn count(&mut self) -> Result<()> {
        self.accesses += 1;
        match self.accesses > 3 * DEPTH_MAX {
            true => Err(Error::invalid("the jsonpath is too long").code(sqlstate::STATEMENT_TOO_COMPLEX)),
            false => Ok(()),
        }
    }

    fn sign(&mut self) -> Result<Item> {
        let sign = match () {
            () if self.symbol("-") => Sign::Minus,
            () if self.symbol("+") => Sign::Plus,
            () => return self.accessors(),
        };
        let operand = self.deeper(|parser| {
            let item = parser.sign()?;
            parser.node(item)
        })?;
        Ok(Item::Node(Node::Sign(sign, Box::new(operand))))
    }

    fn accessors(&mut self) -> Result<Item> {
        let mut item = self.primary()?;
        while let Some(accessor) = self.accessor()? {
            let base = match item {
                Item::Node(node) => node,
                Item::Predicate(predicate) => Node::Predicate(Box::new(predicate)),
            };
            item = Item::Node(Node::Access(Box::new(base), accessor));
            self.count()?;
        }
        Ok(item)
    }

    fn primary(&mut self) -> Result<Item> {
        if self.symbol("(") {
            let item = self.deeper(Parser::or)?;
            self.expect(")")?;
            if self.is_word(0, "is") && self.is_word(1, "unknown") {
                let predicate = self.predicate(item)?;
                self.at += 2;
                return Ok(Item::Predicate(Predicate::IsUnknown(Box::new(predicate))));
            }
            return Ok(item);
        }
        let node = match self.peek().cloned() {
            Some(Token::Symbol("$")) => Node::Root,
            Some(Token::Symbol("@")) => Node::Current,
            Some(Token::Variable(name)) => Node::Variable(name),
            Some(Token::Text(text)) => Node::Literal(Value::String(text)),
            Some(Token::Number(digits)) => Node::Literal(Value::parse(&digits)?),
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Node::Literal(Value::Bool(true)),
                "false" => Node::Literal(Value::Bool(false)),
                "null" => Node::Literal(Value::Null),
                word if word.eq_ignore_ascii_case("last") => Node::Last,
                word if word.eq_ignore_ascii_case("exists") => {
                    self.at += 1;
                    self.expect("(")?;
                    let item = self.deeper(Parser::or)?;
                    let node = self.node(item)?;
                    self.expect(")")?;
                    return Ok(Item::Predicate(Predicate::Exists(node)));
                }
                _ => return Err(self.wrong()),
            },
            _ => return Err(self.wrong()),
        };
        self.at += 1;
        Ok(Item::Node(node))
    }

    fn accessor(&mut self) -> Result<Option<Accessor>> {
        if self.symbol("?") {
            self.expect("(")?;
            let item = self.deeper(Parser::or)?;
            let predicate = self.predicate(item)?;
            self.expect(")")?;
            return Ok(Some(Accessor::Filter(Box::new(predicate))));
        }
        if self.symbol("[") {
            return self.subscripts().map(Some);
        }
        if !self.symbol(".") {
            return Ok(None);
        }
        if self.symbol("*") {
            return Ok(Some(Accessor::AnyMember));
        }
        if self.symbol("**") {
            return self.levels().map(Some);
        }
        let name = match self.peek().cloned() {
            Some(Token::Text(name)) => {
                self.at += 1;
                return Ok(Some(Accessor::Member(name)));
            }
            Some(Token::Word(name)) => name,
            _ => return Err(self.wrong()),
        };
        self.at += 1;
        if !self.symbol("(") {
            return Ok(Some(Accessor::Member(name)));
        }
        let method = match name.as_str() {
            "type" => Method::Type,
            "size" => Method::Size,
            "double" => Method::Double,
            "ceiling" => Method::Ceiling,
            "floor" => Method::Floor,
            "abs" => Method::Abs,
            "keyvalue" => Method::KeyValue,
            "datetime" => Method::DateTime(match self.peek() {
                Some(Token::Text(_)) => Some(self.string()?),
                _ => None,
            }),
            _ => {
                self.at -= 1;
                return Err(self.wrong());
            }
        };
        self.expect(")")?;
        Ok(Some(Accessor::Method(method)))
    }

    fn subscripts(&mut self) -> Result<Accessor> {
        if self.symbol("*") {
            self.expect("]")?;
            return Ok(Accessor::AnyElement);
        }
        let mut all = Vec::new();
        loop {
            let first = self.subscript()?;
            let last = if self.word("to") { Some(self.subscript()?) } else { None };
            all.push((first, last));
            if self.symbol(",") {
                continue;
            }
            self.expect("]")?;
            return Ok(Accessor::Elements(all));
        }
    }

    fn subscript(&mut self) -> Result<Node> {
        let item = self.deeper(Parser::sum)?;
        self.node(item)
    }

    /// Reads the levels behind `.**`.
    fn levels(&mut self) -> Result<Accessor> {
        if !self.symbol("{") {
            return Ok(Accessor::Descendants(0, None));
        }
        let first = self.level()?;
        let last = if self.word("to") { self.level()? } else { first };
        self.expect("}")?;
        Ok(Accessor::Descendants(first.unwrap_or(u32::MAX), last))
    }

    /// Reads a level; none for `last`.
    fn level(&mut self) -> Result<Option<u32>> {
        if self.word("last") {
            return Ok(None);
        }
        let level = match self.peek() {
            Some(Token::Number(digits)) => digits.parse().ok(),
            _ => None,
        };
        let Some(level) = level else { return Err(self.wrong()) };
        self.at += 1;
        Ok(Some(level))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn paths_are_read() {
        for path in [
            "$",
            "strict $.a",
            "lax $.\"a b\"[*].c",
            "$[0, 2 to last - 1]",
            "$.**{1 to 3}.a",
            "$.a ? (@ > 1 && !(@ == 2))",
            "$.a.type()",
            "-$.a + 2 * 3",
            "($.a > 1) || exists($.b ? (@.c starts with \"x\"))",
            "($ == 1) is unknown",
            "$ ? (@ like_regex \"^a.*\" flag \"i\")",
            "$x + $\"y z\"",
            "$.datetime(\"HH24:MI\")",
            "1.5e3 % .5",
            "$.last.to",
        ] {
            assert!(parse(path).is_ok(), "{path}");
        }
        for path in [
            "",
            "$.",
            "$[",
            "$[]",
            "$ ? 1",
            "$ ? (1)",
            "$.a()",
            "a",
            "$ $",
            "1 == 1 == 1",
            "\"a",
            "$.a == ",
            "@@",
            "$ ? (@ like_regex \"(\")",
        ] {
            assert!(parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        for (open, close) in [("(", ")"), ("-", ""), ("$ ? (exists(", "))"), ("$[", "]"), ("!(", ")")] {
            let path = format!("{}$ == 1{}", open.repeat(5_000), close.repeat(5_000));
            assert!(parse(&path).is_err(), "{open}");
        }
        assert!(parse(&format!("${}", ".a".repeat(5_000))).is_err());
        assert!(parse(&format!("1{}", " + 1".repeat(5_000))).is_err());
    }
}
