//! The parser of `.proto` files, as far as the encoding of messages depends on them.

use std::collections::HashMap;

use super::schema::{EnumType, FieldType, Label, MessageType, Named, Scalar, TypeId, ValueType};

/// Most levels of messages within messages.
pub(super) const DEPTH_MAX: usize = 64;

/// The types of all files so far.
#[derive(Default)]
pub(super) struct Parsed {
    pub messages: Vec<MessageType>,
    pub enums: Vec<EnumType>,
    pub names: HashMap<String, Named>,
    /// The messages of the last files, in their order.
    pub roots: Vec<TypeId>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Symbol(char),
}

/// Parses a file.
pub(super) fn parse(text: &str, to: &mut Parsed) -> Result<(), String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, is_implicit: false, to };
    parser.file()
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").ok_or("the schema has a comment without an end")?.1;
        } else if first == '"' || first == '\'' {
            let length = text_length(&rest[1..], first).ok_or("the schema has a text without an end")?;
            tokens.push(Token::Text(rest[1..1 + length].to_string()));
            rest = &rest[length + 2..];
        } else if is_of_word(first) {
            let length = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..length].to_string()));
            rest = &rest[length..];
        } else {
            tokens.push(Token::Symbol(first));
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

/// Returns true for characters of names with dots, and of numbers.
fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}

fn text_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (place, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(place),
            _ => {}
        }
    }
    None
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    /// True in proto3: an absent field without a label is the zero of its type.
    is_implicit: bool,
    to: &'a mut Parsed,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn symbol(&mut self, symbol: char) -> bool {
        let found = self.tokens.get(self.at) == Some(&Token::Symbol(symbol));
        self.at += usize::from(found);
        found
    }

    fn keyword(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Word(found)) if found == word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: char) -> Result<(), String> {
        match self.symbol(symbol) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("'{symbol}'"))),
        }
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.tokens.get(self.at) {
            None => format!("the schema ends where {expected} was expected"),
            Some(Token::Word(word)) => format!("the schema has '{word}' where {expected} was expected"),
            Some(Token::Text(text)) => format!("the schema has \"{text}\" where {expected} was expected"),
            Some(Token::Symbol(symbol)) => format!("the schema has '{symbol}' where {expected} was expected"),
        }
    }

    fn word(&mut self, expected: &str) -> Result<String, String> {
        match self.tokens.get(self.at) {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word.clone())
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    /// Skips a statement: to its semicolon, or to the end of its block.
    fn skip(&mut self) -> Result<(), String> {
        let (mut braces, mut brackets) = (0_usize, 0_usize);
        while let Some(token) = self.next() {
            match token {
                Token::Symbol('[') => brackets += 1,
                Token::Symbol(']') => brackets = brackets.saturating_sub(1),
                Token::Symbol('{') => braces += 1,
                // Within brackets, a block is the value of an option of a field.
                Token::Symbol('}') if braces <= 1 && brackets == 0 => {
                    // An option may have a block before its semicolon.
                    self.symbol(';');
                    return Ok(());
                }
                Token::Symbol('}') => braces = braces.saturating_sub(1),
                Token::Symbol(';') if braces == 0 && brackets == 0 => return Ok(()),
                _ => {}
            }
        }
        Err(self.unexpected("';' or '}'"))
    }

    fn file(&mut self) -> Result<(), String> {
        let mut package = String::new();
        while self.at < self.tokens.len() {
            if self.symbol(';') {
            } else if self.keyword("syntax") {
                self.is_implicit = self.tokens.get(self.at + 1) == Some(&Token::Text("proto3".into()));
                self.skip()?;
            } else if self.keyword("package") {
                package = self.word("a package's name")?;
                self.expect(';')?;
            } else if self.keyword("message") {
                let id = self.message(&package, 0)?;
                self.to.roots.push(id);
            } else if self.keyword("enum") {
                self.enumeration(&package)?;
            } else {
                self.word("a statement such as message or enum")?;
                self.skip()?;
            }
        }
        Ok(())
    }

    fn message(&mut self, scope: &str, depth: usize) -> Result<TypeId, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the schema has more than {DEPTH_MAX} levels of messages within messages"));
        }
        let name = within(scope, &self.word("a message's name")?);
        self.to.messages.push(MessageType { name: name.clone(), ..MessageType::default() });
        let id = self.to.messages.len() - 1;
        self.to.names.insert(name.clone(), Named::Message(id));
        self.expect('{')?;
        let (mut fields, mut nested) = (Vec::new(), Vec::new());
        while !self.symbol('}') {
            if self.symbol(';') {
            } else if self.keyword("message") {
                nested.push(Some(self.message(&name, depth + 1)?));
            } else if self.keyword("enum") {
                self.enumeration(&name)?;
            } else if self.keyword("oneof") {
                self.word("a oneof's name")?;
                self.expect('{')?;
                while !self.symbol('}') {
                    match self.keyword("option") {
                        true => self.skip()?,
                        false => fields.push(self.field(&name, Label::Optional)?),
                    }
                }
            } else if self.is_map_entry() {
                self.to.messages[id].is_map_entry = true;
                self.skip()?;
            } else if self.is_skipped_statement() {
                self.skip()?;
            } else if self.keyword("map") {
                nested.push(None);
                fields.push(self.map(&name)?);
            } else {
                let label = self.label();
                fields.push(self.field(&name, label)?);
            }
        }
        let message = &mut self.to.messages[id];
        (message.fields, message.nested) = (fields, nested);
        Ok(id)
    }

    /// Returns true if `option map_entry = true` comes next, which registries write for the entries of a map.
    fn is_map_entry(&self) -> bool {
        let word = |text: &str| Token::Word(text.to_string());
        let option = [word("option"), word("map_entry"), Token::Symbol('='), word("true")];
        self.tokens.get(self.at..self.at + option.len()).is_some_and(|tokens| tokens == option)
    }

    fn is_skipped_statement(&mut self) -> bool {
        ["option", "reserved", "extensions", "extend"].into_iter().any(|word| self.keyword(word))
    }

    fn label(&mut self) -> Label {
        if self.keyword("repeated") {
            Label::Repeated
        } else if self.keyword("optional") || self.keyword("required") || !self.is_implicit {
            Label::Optional
        } else {
            Label::Implicit
        }
    }

    fn field(&mut self, scope: &str, label: Label) -> Result<FieldType, String> {
        let of = self.value_type(scope)?;
        self.rest_of_field(of, label)
    }

    fn map(&mut self, scope: &str) -> Result<FieldType, String> {
        self.expect('<')?;
        let key = self.word("a map's key type")?;
        let key =
            Scalar::named(&key).ok_or_else(|| format!("the schema has a map with keys of type '{key}'"))?;
        self.expect(',')?;
        let of = self.value_type(scope)?;
        self.expect('>')?;
        self.rest_of_field(of, Label::Map(key))
    }

    fn value_type(&mut self, scope: &str) -> Result<ValueType, String> {
        let name = self.word("a field's type")?;
        match name.as_str() {
            "group" => Err("the schema has a group, which is not supported".to_string()),
            _ => Ok(match Scalar::named(&name) {
                Some(scalar) => ValueType::Scalar(scalar),
                None => ValueType::Name(name, scope.to_string()),
            }),
        }
    }

    fn rest_of_field(&mut self, of: ValueType, label: Label) -> Result<FieldType, String> {
        let name = self.word("a field's name")?;
        self.expect('=')?;
        let number = self.word("a field's number")?;
        let parsed = match number.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => number.parse(),
        };
        let number = parsed.map_err(|_| format!("field '{name}' of the schema has the number '{number}'"))?;
        self.skip()?;
        Ok(FieldType { name, number, of, label })
    }

    fn enumeration(&mut self, scope: &str) -> Result<(), String> {
        let name = within(scope, &self.word("an enum's name")?);
        self.expect('{')?;
        let mut values = Vec::new();
        while !self.symbol('}') {
            if self.symbol(';') {
                continue;
            }
            if self.keyword("option") || self.keyword("reserved") {
                self.skip()?;
                continue;
            }
            let value = self.word("a value's name")?;
            self.expect('=')?;
            let sign = if self.symbol('-') { "-" } else { "" };
            let number = format!("{sign}{}", self.word("a value's number")?);
            let parsed = number.parse().map_err(|_| format!("enum '{name}' has the number '{number}'"))?;
            values.push((value, parsed));
            self.skip()?;
        }
        self.to.enums.push(EnumType { values });
        self.to.names.insert(name, Named::Enum(self.to.enums.len() - 1));
        Ok(())
    }
}

/// Returns a name within a scope.
pub(super) fn within(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") }
}
