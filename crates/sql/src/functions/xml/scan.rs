//! Reads XML as XML 1.0 demands: in one pass, without recursion, and with bounds for levels and entities.
//!
//! The problems have the words of libxml2, which PostgreSQL shows.

use super::entities::{Entities, Reference, reference_at};
use super::names::at_start;
use super::tree::{Document, NODES_MAX};

/// A problem, with its place in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) problem: String,
    pub(super) at: usize,
}

impl Fault {
    /// Returns the problem with the line that has it.
    pub(super) fn in_line(&self, text: &str) -> String {
        format!("line {}: {}", line_of(text, self.at), self.problem)
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// The forms of XML that a text may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One element, and comments and instructions beside it.
    Document,
    /// Elements and text.
    Content,
}

/// The uses of a text, which decide what is checked and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The texts and attributes of Spark's functions. A document type is refused, namespaces are attributes.
    Values,
    /// PostgreSQL's check of a value. No nodes are kept.
    Check(Form),
    /// PostgreSQL's XPath: all nodes, with their namespaces.
    Nodes,
}

impl Purpose {
    fn form(self) -> Form {
        match self {
            Purpose::Check(form) => form,
            Purpose::Values | Purpose::Nodes => Form::Document,
        }
    }

    /// Returns the most levels of elements. PostgreSQL's is that of libxml2.
    fn levels(self) -> usize {
        if self == Purpose::Values { 1_000 } else { 256 }
    }
}

/// The declaration with which a document may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declaration<'a> {
    pub(super) version: &'a str,
    pub(super) encoding: Option<&'a str>,
    pub(super) standalone: Option<bool>,
    /// The place behind it.
    pub(super) end: usize,
}

/// Reads the declaration of a text, if it has one. The error says what is wrong with it.
pub(super) fn declaration(text: &str) -> Result<Option<Declaration<'_>>, &'static str> {
    let is_declaration = text.strip_prefix("<?xml").is_some_and(|rest| {
        let name = at_start(&text[2..]);
        name == "xml" || rest.is_empty()
    });
    if !is_declaration {
        return Ok(None);
    }
    let inner = text.split_once("?>").map_or(text, |(inner, _)| inner);
    if !inner.is_ascii() {
        return Err("Invalid character value.");
    }
    let mut rest = &text["<?xml".len()..];
    if !rest.starts_with(is_space) {
        return Err("Space required.");
    }
    let mut quoted = |name: &str| -> Option<Option<&str>> {
        let Some(behind) = rest.trim_start_matches(is_space).strip_prefix(name) else { return Some(None) };
        let behind = behind.trim_start_matches(is_space).strip_prefix('=')?.trim_start_matches(is_space);
        let quote = behind.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, behind) = behind[1..].split_once(quote)?;
        rest = behind;
        Some(Some(value))
    };
    let version = quoted("version").flatten().ok_or("Malformed declaration: missing version.")?;
    let encoding = quoted("encoding").ok_or("Missing encoding in text declaration.")?;
    let standalone = match quoted("standalone") {
        Some(None) => None,
        Some(Some("yes")) => Some(true),
        Some(Some("no")) => Some(false),
        _ => return Err("standalone accepts only 'yes' or 'no'."),
    };
    let behind = rest.trim_start_matches(is_space).strip_prefix("?>");
    let behind = behind.ok_or("Parsing XML declaration: '?>' expected.")?;
    Ok(Some(Declaration { version, encoding, standalone, end: text.len() - behind.len() }))
}

pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// True for a character that XML may hold.
pub(super) fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Returns true if content has a document type, so that it must be a document.
pub(super) fn has_doctype(text: &str) -> bool {
    let mut rest = text.trim_start_matches(is_space);
    loop {
        let end = match () {
            () if rest.starts_with("<!DOCTYPE") => return true,
            () if rest.starts_with("<!--") => rest[4..].find("-->").map(|at| at + 7),
            () if rest.starts_with("<?") => rest.find("?>").map(|at| at + 2),
            () => return false,
        };
        let Some(end) = end else { return false };
        rest = rest[end..].trim_start_matches(is_space);
    }
}

/// An element that isn't closed yet.
struct Open<'a> {
    name: &'a str,
    at: usize,
}

/// Reads a text. The document of a check has no nodes.
pub(super) fn read(text: &str, purpose: Purpose) -> Result<Document, Fault> {
    let mut scanner = Scanner {
        text,
        at: 0,
        purpose,
        document: Document::new(),
        open: Vec::new(),
        has_root: false,
        has_doctype: false,
        entities: Entities::default(),
    };
    scanner.run()?;
    Ok(scanner.document)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    purpose: Purpose,
    document: Document,
    open: Vec<Open<'a>>,
    has_root: bool,
    has_doctype: bool,
    entities: Entities<'a>,
}

impl<'a> Scanner<'a> {
    fn fault(&self, problem: impl Into<String>) -> Fault {
        Fault { problem: problem.into(), at: self.at }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_spaces(&mut self) -> bool {
        let rest = self.rest();
        let found = rest.len() - rest.trim_start_matches(is_space).len();
        self.at += found;
        found > 0
    }

    fn takes(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn run(&mut self) -> Result<(), Fault> {
        self.takes("\u{feff}");
        let behind = self.rest();
        match declaration(behind).map_err(|problem| self.fault(problem))? {
            Some(found) => {
                let is_checked = self.purpose == Purpose::Check(Form::Document);
                if is_checked && !found.version.starts_with("1.") {
                    return Err(self.fault(format!("Unsupported version '{}'", found.version)));
                }
                self.at += found.end;
            }
            None if behind.is_empty() && self.purpose.form() == Form::Document => {
                return Err(self.fault("Document is empty"));
            }
            None => {}
        }
        while self.at < self.text.len() {
            self.read_next()?;
            if self.document.nodes.len() > NODES_MAX {
                return Err(self.fault(format!("the document has more than {NODES_MAX} nodes")));
            }
        }
        match self.open.last() {
            Some(open) => {
                let (name, line) = (open.name, line_of(self.text, open.at));
                Err(self.fault(format!("Premature end of data in tag {name} line {line}")))
            }
            None if self.purpose.form() == Form::Document && !self.has_root => {
                Err(self.fault("Start tag expected, '<' not found"))
            }
            None => Ok(()),
        }
    }

    fn read_next(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        if rest.starts_with("<!--") {
            return self.comment();
        }
        if rest.starts_with("<?") {
            return self.instruction();
        }
        if self.open.is_empty() && self.purpose.form() == Form::Document {
            return self.beside_root();
        }
        match rest.as_bytes().first() {
            _ if rest.starts_with("<![CDATA[") => self.cdata(),
            _ if rest.starts_with("</") => self.end(),
            Some(b'<') => self.start(),
            Some(b'&') => {
                let mut text = String::new();
                self.reference(&mut text)?;
                self.document.add_text(&text, self.purpose);
                Ok(())
            }
            _ => self.characters(),
        }
    }

    /// Reads what is before or after the element of a document.
    fn beside_root(&mut self) -> Result<(), Fault> {
        if self.skip_spaces() {
            return Ok(());
        }
        let is_doctype = self.rest().starts_with("<!DOCTYPE") && !self.has_root && !self.has_doctype;
        if is_doctype && self.purpose == Purpose::Values {
            return Err(self.fault("a document type is not supported"));
        }
        if is_doctype {
            self.has_doctype = true;
            self.at += self
                .entities
                .read_doctype(self.rest())
                .map_err(|fault| Fault { at: self.at + fault.at, ..fault })?;
            return Ok(());
        }
        if self.has_root {
            return Err(self.fault("Extra content at the end of the document"));
        }
        match self.rest().starts_with('<') {
            true => self.start(),
            false => Err(self.fault("Start tag expected, '<' not found")),
        }
    }

    /// Fails if a text has characters that XML can't hold.
    fn check_characters(&self, text: &str, what: &str) -> Result<(), Fault> {
        match text.char_indices().find(|(_, c)| !is_char(*c)) {
            None => Ok(()),
            Some((at, c)) => Err(Fault {
                problem: format!("{what} invalid Char value {}", u32::from(c)),
                at: self.at + at,
            }),
        }
    }

    fn characters(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        let text = &rest[..rest.find(['<', '&']).unwrap_or(rest.len())];
        if let Some(found) = text.find("]]>") {
            self.at += found;
            return Err(self.fault("Sequence ']]>' not allowed in content"));
        }
        self.check_characters(text, "PCDATA")?;
        self.document.add_text(&unix_lines(text), self.purpose);
        self.at += text.len();
        Ok(())
    }

    fn comment(&mut self) -> Result<(), Fault> {
        let inner = &self.rest()[4..];
        let Some(end) = inner.find("--") else { return Err(self.fault("Comment not terminated")) };
        if !inner[end + 2..].starts_with('>') {
            let begin: String = inner[..end].chars().take(50).collect();
            return Err(self.fault(format!("Double hyphen within comment: <!--{begin}")));
        }
        self.check_characters(&inner[..end], "xmlParseComment:")?;
        self.document.add_remark(None, &unix_lines(&inner[..end]), self.purpose);
        self.at += end + 7;
        Ok(())
    }

    fn instruction(&mut self) -> Result<(), Fault> {
        let inner = &self.rest()[2..];
        let target = at_start(inner);
        if target.is_empty() {
            return Err(self.fault("xmlParsePI : no target name"));
        }
        if target == "xml" {
            return Err(self.fault("XML declaration allowed only at the start of the document"));
        }
        if target.eq_ignore_ascii_case("xml") {
            return Err(self.fault("Invalid PI name"));
        }
        let behind = &inner[target.len()..];
        let Some(end) = behind.find("?>") else {
            return Err(self.fault(format!("ParsePI: PI {target} never end ...")));
        };
        let content = &behind[..end];
        if !content.is_empty() && !content.starts_with(is_space) {
            return Err(self.fault(format!("ParsePI: PI {target} space expected")));
        }
        self.check_characters(content, "xmlParsePI:")?;
        let content = unix_lines(content.trim_start_matches(is_space));
        self.document.add_remark(Some(target), &content, self.purpose);
        self.at += 4 + target.len() + end;
        Ok(())
    }

    fn cdata(&mut self) -> Result<(), Fault> {
        let inner = &self.rest()["<![CDATA[".len()..];
        let Some(end) = inner.find("]]>") else { return Err(self.fault("CData section not finished")) };
        self.check_characters(&inner[..end], "CData section:")?;
        self.document.add_cdata(&unix_lines(&inner[..end]), self.purpose);
        self.at += "<![CDATA[]]>".len() + end;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let name = at_start(&self.rest()[2..]);
        let Some(open) = self.open.last() else { return Err(self.fault("chunk is not well balanced")) };
        if open.name != name {
            let line = line_of(self.text, open.at);
            let problem = format!("Opening and ending tag mismatch: {} line {line} and {name}", open.name);
            return Err(self.fault(problem));
        }
        self.at += 2 + name.len();
        self.skip_spaces();
        if !self.takes(">") {
            return Err(self.fault("expected '>'"));
        }
        self.open.pop();
        self.document.close(self.purpose);
        Ok(())
    }

    fn start(&mut self) -> Result<(), Fault> {
        let at = self.at;
        self.at += 1;
        let name = at_start(self.rest());
        if name.is_empty() {
            return Err(self.fault("StartTag: invalid element name"));
        }
        if self.open.len() >= self.purpose.levels() {
            let levels = self.purpose.levels();
            return Err(self.fault(format!("Excessive depth in document: it has more than {levels} levels")));
        }
        self.at += name.len();
        let mut attributes = Vec::new();
        let is_empty = loop {
            let is_apart = self.skip_spaces();
            if self.takes("/>") {
                break true;
            }
            if self.takes(">") {
                break false;
            }
            if self.rest().is_empty() {
                let line = line_of(self.text, at);
                return Err(self.fault(format!("Couldn't find end of Start Tag {name} line {line}")));
            }
            if !is_apart {
                return Err(self.fault("attributes construct error"));
            }
            attributes.push(self.attribute()?);
        };
        let mut names: Vec<&str> = attributes.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.fault(format!("Attribute {} redefined", twice[0])));
        }
        self.has_root = true;
        self.open.push(Open { name, at });
        self.document.open(name, attributes, self.purpose).map_err(|problem| self.fault(problem))?;
        if is_empty {
            self.open.pop();
            self.document.close(self.purpose);
        }
        Ok(())
    }

    /// Reads an attribute. As XML demands, each blank in its value becomes a space.
    fn attribute(&mut self) -> Result<(&'a str, String), Fault> {
        let name = at_start(self.rest());
        if name.is_empty() {
            return Err(self.fault("error parsing attribute name"));
        }
        self.at += name.len();
        self.skip_spaces();
        if !self.takes("=") {
            return Err(self.fault(format!("Specification mandates value for attribute {name}")));
        }
        self.skip_spaces();
        let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Err(self.fault("AttValue: \" or ' expected"));
        };
        self.at += 1;
        let mut value = String::new();
        loop {
            let rest = self.rest();
            let end = rest.find([quote, '<', '&']);
            let Some(end) = end else { return Err(self.fault("AttValue: ' expected")) };
            let text = &rest[..end];
            self.check_characters(text, "AttValue:")?;
            value.extend(unix_lines(text).chars().map(|c| if is_space(c) { ' ' } else { c }));
            self.at += end;
            match rest.as_bytes()[end] {
                b'<' => return Err(self.fault("Unescaped '<' not allowed in attributes values")),
                b'&' => self.reference(&mut value)?,
                _ => break,
            }
        }
        self.at += 1;
        Ok((name, value))
    }

    /// Appends the characters that a reference stands for.
    fn reference(&mut self, out: &mut String) -> Result<(), Fault> {
        let (reference, length) = reference_at(self.rest()).map_err(|problem| self.fault(problem))?;
        match reference {
            Reference::Char(c) => out.push(c),
            Reference::Entity(name) => {
                self.entities.expand(name, out).map_err(|problem| self.fault(problem))?;
            }
        }
        self.at += length;
        Ok(())
    }
}

/// Returns a text whose lines end as XML's do.
fn unix_lines(text: &str) -> std::borrow::Cow<'_, str> {
    match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n").into(),
        false => text.into(),
    }
}
