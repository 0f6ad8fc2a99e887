//! References of XML, and the entities that a document type declares. Their texts are expanded up to a bound; entities with elements,
//! and those of other files, are not read.

use std::collections::HashMap;

use super::names::at_start;
use super::scan::{Fault, is_char, is_space};

/// The most bytes that the references of a document expand to, and the most entities within others.
const EXPANSION_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 40;

/// A reference in a text: to a character by its number, or to an entity by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    Char(char),
    Entity(&'a str),
}

/// Reads the reference with which a text begins, and returns its length.
pub(super) fn reference_at(text: &str) -> Result<(Reference<'_>, usize), String> {
    if let Some(digits) = text.strip_prefix("&#") {
        let hex = digits.strip_prefix('x');
        let (digits, radix) = (hex.unwrap_or(digits), if hex.is_some() { 16 } else { 10 });
        let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        if !digits[end..].starts_with(';') {
            let kind = if radix == 16 { "hexadecimal" } else { "decimal" };
            return Err(format!("xmlParseCharRef: invalid {kind} value"));
        }
        let code = match &digits[..end] {
            "" => 0,
            digits => u32::from_str_radix(digits, radix)
                .map_err(|_| "xmlParseCharRef: character reference out of bounds".to_string())?,
        };
        let c = char::from_u32(code).filter(|c| is_char(*c));
        let c = c.ok_or_else(|| format!("xmlParseCharRef: invalid xmlChar value {code}"))?;
        return Ok((Reference::Char(c), text.len() - digits.len() + end + 1));
    }
    let name = at_start(text.get(1..).unwrap_or_default());
    if name.is_empty() {
        return Err("xmlParseEntityRef: no name".into());
    }
    if !text[1 + name.len()..].starts_with(';') {
        return Err("EntityRef: expecting ';'".into());
    }
    let predefined = match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => None,
    };
    Ok((predefined.map_or(Reference::Entity(name), Reference::Char), name.len() + 2))
}

#[derive(Debug)]
enum Entity {
    Text(String),
    /// Another file, which isn't read.
    External,
}

/// The entities of a document.
#[derive(Debug)]
pub(super) struct Entities<'a> {
    declared: HashMap<&'a str, Entity>,
    /// True if there may be declarations elsewhere, so that an unknown entity is no error.
    is_partial: bool,
    /// The bytes to which references may still expand.
    left: usize,
}

impl Default for Entities<'_> {
    fn default() -> Self {
        Entities { declared: HashMap::new(), is_partial: false, left: EXPANSION_MAX }
    }
}

impl<'a> Entities<'a> {
    /// Appends the text of an entity.
    pub(super) fn expand(&mut self, name: &str, out: &mut String) -> Result<(), String> {
        let mut left = self.left;
        let expanded = self.expand_within(name, out, &mut left, 0);
        self.left = left;
        expanded
    }

    fn expand_within(
        &self,
        name: &str,
        out: &mut String,
        left: &mut usize,
        depth: usize,
    ) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err("Detected an entity reference loop".into());
        }
        let text = match self.declared.get(name) {
            Some(Entity::Text(text)) => text,
            Some(Entity::External) => return Ok(()),
            None if self.is_partial => return Ok(()),
            None => return Err(format!("Entity '{name}' not defined")),
        };
        if text.contains('<') {
            return Err(format!("entity '{name}' has elements, which is not supported"));
        }
        *left = left.checked_sub(text.len() + 1).ok_or_else(|| {
            format!("Detected an entity reference loop: entities expand to more than {EXPANSION_MAX} bytes")
        })?;
        let mut rest = text.as_str();
        while let Some(at) = rest.find('&') {
            out.push_str(&rest[..at]);
            let (reference, length) = reference_at(&rest[at..])?;
            match reference {
                Reference::Char(c) => out.push(c),
                Reference::Entity(name) => self.expand_within(name, out, left, depth + 1)?,
            }
            rest = &rest[at + length..];
        }
        out.push_str(rest);
        Ok(())
    }

    /// Reads a document type and returns its length. Declarations other than those of entities are skipped.
    pub(super) fn read_doctype(&mut self, text: &'a str) -> Result<usize, Fault> {
        let mut reader = Declarations { text, at: "<!DOCTYPE".len() };
        reader.skip_spaces();
        if reader.name().is_empty() {
            return Err(reader.fault("xmlParseDocTypeDecl : no DOCTYPE name !"));
        }
        reader.skip_spaces();
        self.is_partial |= reader.external_id()?;
        reader.skip_spaces();
        if reader.takes("[") {
            loop {
                reader.skip_spaces();
                if reader.takes("]") {
                    break;
                }
                self.read_declaration(&mut reader)?;
            }
            reader.skip_spaces();
        }
        match reader.takes(">") {
            true => Ok(reader.at),
            false => Err(reader.fault("DOCTYPE improperly terminated")),
        }
    }

    fn read_declaration(&mut self, reader: &mut Declarations<'a>) -> Result<(), Fault> {
        if reader.takes("%") {
            self.is_partial = true;
            reader.name();
            return reader.expect(";");
        }
        if reader.takes("<!--") {
            return reader.skip_behind("-->");
        }
        if reader.takes("<?") {
            return reader.skip_behind("?>");
        }
        if reader.takes("<!ENTITY") {
            return self.read_entity(reader);
        }
        if !["<!ELEMENT", "<!ATTLIST", "<!NOTATION"].iter().any(|known| reader.takes(known)) {
            return Err(reader.fault("xmlParseInternalSubset: error detected in Markup declaration"));
        }
        loop {
            let rest = reader.rest();
            let Some(at) = rest.find(['>', '"', '\'', '<']) else {
                return Err(reader.fault("DOCTYPE improperly terminated"));
            };
            reader.at += at;
            match rest.as_bytes()[at] {
                b'>' => return reader.expect(">"),
                b'<' => return Err(reader.fault("a declaration isn't closed")),
                _ => {
                    reader.literal()?;
                }
            }
        }
    }

    fn read_entity(&mut self, reader: &mut Declarations<'a>) -> Result<(), Fault> {
        reader.skip_spaces();
        let is_parameter = reader.takes("%");
        reader.skip_spaces();
        let name = reader.name();
        if name.is_empty() {
            return Err(reader.fault("xmlParseEntityDecl: no name"));
        }
        reader.skip_spaces();
        let entity = if reader.external_id()? {
            reader.skip_spaces();
            if reader.takes("NDATA") {
                reader.skip_spaces();
                reader.name();
            }
            Entity::External
        } else {
            let at = reader.at;
            let literal = reader.literal()?;
            Entity::Text(with_characters(literal).map_err(|problem| Fault { problem, at })?)
        };
        reader.skip_spaces();
        reader.expect(">")?;
        if !is_parameter {
            // The first declaration counts.
            self.declared.entry(name).or_insert(entity);
        }
        Ok(())
    }
}

/// Replaces the references to characters in the literal of an entity.
fn with_characters(literal: &str) -> Result<String, String> {
    let mut out = String::with_capacity(literal.len());
    let mut rest = literal;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let (_, length) = reference_at(&rest[at..])?;
        let written = &rest[at..at + length];
        match reference_at(written)? {
            (Reference::Char(c), _) if written.starts_with("&#") => out.push(c),
            _ => out.push_str(written),
        }
        rest = &rest[at + length..];
    }
    if rest.contains('%') {
        return Err("PEReference forbidden in internal subset".into());
    }
    out.push_str(rest);
    match out.chars().all(is_char) {
        true => Ok(out),
        false => Err("xmlParseEntityValue: invalid Char value".into()),
    }
}

/// Reads the parts of a document type.
struct Declarations<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Declarations<'a> {
    fn fault(&self, problem: &str) -> Fault {
        Fault { problem: problem.into(), at: self.at }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_space).len();
    }

    fn takes(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), Fault> {
        if self.takes(token) { Ok(()) } else { Err(self.fault(&format!("'{token}' expected"))) }
    }

    fn skip_behind(&mut self, token: &str) -> Result<(), Fault> {
        let Some(at) = self.rest().find(token) else {
            return Err(self.fault("DOCTYPE improperly terminated"));
        };
        self.at += at + token.len();
        Ok(())
    }

    fn name(&mut self) -> &'a str {
        let name = at_start(self.rest());
        self.at += name.len();
        name
    }

    /// Reads a text in quotes.
    fn literal(&mut self) -> Result<&'a str, Fault> {
        let rest = self.rest();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else { return Err(self.fault("\" or ' expected")) };
        let Some(end) = rest[1..].find(quote) else { return Err(self.fault("a literal isn't closed")) };
        self.at += end + 2;
        Ok(&rest[1..=end])
    }

    /// Reads `SYSTEM "…"` or `PUBLIC "…" "…"`. Returns true if there is one.
    fn external_id(&mut self) -> Result<bool, Fault> {
        let literals = match () {
            () if self.takes("SYSTEM") => 1,
            () if self.takes("PUBLIC") => 2,
            () => return Ok(false),
        };
        for _ in 0..literals {
            self.skip_spaces();
            self.literal()?;
        }
        Ok(true)
    }
}
